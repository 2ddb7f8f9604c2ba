"""`make demo`: Kafka, a worker and the simulated world around it, on one screen, until Ctrl-C or so many orders.

Everything is a process of its own, as it would be elsewhere; the screen knows only what `order-updates` says.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.catalogue_file import WrongCatalogue, read_catalogue
from streams.embedded.errors import SetUpError
from streams.embedded.kafka import EmbeddedKafka
from streams.embedded.ports import is_free
from streams.embedded.processes import Child, Supervisor
from streams.embedded.screen import Orders, Screen
from streams.settings import CATALOGUE, Settings, WrongSetting
from topics.families import ORDER_UPDATES, topic_name
from topics.order_updates import READER, OrderStatus
from topics.records import Undecodable

SPEED = 30.0
RATE = 1.0
"""Orders a second."""
STUCK_S = 180.0
"""Nothing has moved for so long: something is wrong, and the demo says so."""
CHECK_S = 0.25
FIRST_PAYMENT_PORT = 5060
FIRST_POS_PORT = 5050


class Stuck(SetUpError):
    """The orders do not end as they should."""


class Demo:
    """One run of the demo."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, screen: Screen) -> None:
        self.goal: int | None = arguments.orders
        self._speed, self._seed, self._rate = arguments.speed, arguments.seed, arguments.rate
        self._settings, self._screen = settings, screen
        self._directory = settings.directory
        self._run = f"demo-{int(time.time()):x}"
        self._orders = Orders()
        self._moved_at = time.monotonic()
        self._world: dict[str, str] = {}
        """What every process is told in its environment."""

    def start(self, stack: ExitStack) -> "tuple[Supervisor, str]":
        """Start every process, in the order in which they need each other; returns Kafka's address too."""
        supervisor = stack.enter_context(Supervisor(self._directory / "logs"))
        bootstrap = self._settings.bootstrap_servers or self._start_kafka(supervisor, stack)
        payment, pos = _free_port(FIRST_PAYMENT_PORT), _free_port(FIRST_POS_PORT)
        self._world = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "DABBAWALA_DIR": str(self._directory),
            "DABBAWALA_SPEED_UP": str(self._speed),
            "DABBAWALA_CATALOGUE": str(self._catalogue(pos)),
            "DABBAWALA_PAYMENT_URL": f"http://127.0.0.1:{payment}",
            "DABBAWALA_REPLICATION_FACTOR": str(self._settings.replication_factor),
            "DABBAWALA_COMMIT_GAP_MS": str(self._settings.commit_gap_ms),
        }
        self._screen.say("Starting the payment provider, the restaurants and a worker")
        self._simulator(supervisor, "payment", "--port", str(payment))
        self._simulator(supervisor, "pos", "--port", str(pos))
        url = self._world["DABBAWALA_URL"] = self._start_worker(supervisor)
        self._screen.say(f"The worker is ready: {url}/table/ shows what it keeps. Starting drivers and the provider")
        self._simulator(supervisor, "drivers")
        self._screen.footer = f"{url}/table/   logs in {self._directory / 'logs'}   Ctrl-C ends everything"
        return supervisor, bootstrap

    def start_orders(self, supervisor: Supervisor) -> Child:
        """Let the provider place orders; called when somebody listens to what becomes of them."""
        how_many = ["--orders", str(self.goal)] if self.goal else []
        return self._simulator(supervisor, "provider", "--run", self._run, "--rate", str(self._rate), *how_many)

    def _simulator(self, supervisor: Supervisor, name: str, *options: str) -> Child:
        """Start one; those that listen on a port are ready when they do."""
        command = [sys.executable, "-m", f"simulators.{name}", "--seed", self._seed, *options]
        return supervisor.start(name, command, environment=self._world, ready=_listens(options))

    async def watch(self, supervisor: Supervisor, bootstrap: str) -> None:
        """Show the orders until enough are delivered; `SetUpError` says why that is not to be."""
        async with _order_updates(self._settings, bootstrap) as consumer:
            provider = self.start_orders(supervisor)
            self._screen.open(self._orders, self.goal)
            try:
                while not self._done():
                    self._take(await consumer.getmany(timeout_ms=int(CHECK_S * 1000)))
                    self._check(supervisor, provider)
            finally:
                self._screen.close()

    def _take(self, fetched: "dict[TopicPartition, Sequence[object]]") -> None:
        for records in fetched.values():
            for record in records:
                try:
                    update = READER.read(record.value)  # type: ignore[attr-defined]
                except Undecodable:
                    continue
                self._moved_at = time.monotonic()
                if self._orders.take(update):
                    self._screen.tell(self._orders.seen[update.order])

    def _own(self) -> list[str]:
        return [order for order in self._orders.seen if self._run in order]

    def _done(self) -> bool:
        if self.goal is None:
            return False
        own = self._own()
        if rejected := self._orders.count(OrderStatus.REJECTED, own):
            raise Stuck(f"{rejected} of {self.goal} orders were rejected; the journal of one says why.")
        return self._orders.count(OrderStatus.DELIVERED, own) >= self.goal

    def _check(self, supervisor: Supervisor, provider: Child) -> None:
        """Something ended that should not have, or nothing moves."""
        for child in supervisor.children:
            if child is not provider or child.status not in (None, 0):
                child.check()
        if time.monotonic() - self._moved_at > STUCK_S:
            ended = self._orders.count(OrderStatus.DELIVERED, self._own())
            raise Stuck(
                f"Nothing has moved for {STUCK_S:.0f} s and {ended} of {self.goal or 'all'} orders are delivered; "
                f"the logs in {self._directory / 'logs'} say more."
            )

    def _start_kafka(self, supervisor: Supervisor, stack: ExitStack) -> str:
        broker = EmbeddedKafka(self._directory, self._screen.say)
        bootstrap = broker.start()
        if broker.started:
            stack.callback(broker.stop)
            if process := broker.process():
                supervisor.adopt(process.pid)
        return bootstrap

    def _catalogue(self, pos_port: int) -> Path:
        """The city's restaurants, whose points of sale listen on the port that was free."""
        found = read_catalogue(self._settings.catalogue or CATALOGUE)
        moved = [
            msgspec.structs.replace(r, pos_url=f"http://127.0.0.1:{pos_port}/restaurants/{r.restaurant}") for r in found
        ]
        self._screen.names = {restaurant.restaurant: restaurant.name for restaurant in found}
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "catalogue.json"
        file.write_bytes(msgspec.json.encode(moved))
        return file

    def _start_worker(self, supervisor: Supervisor) -> str:
        faust = Path(sys.executable).parent / "faust"
        worker = supervisor.start(
            "worker", [str(faust), "-A", "streams.app", "worker", "-l", "info"], environment=self._world, wait=False
        )
        worker.ready = lambda: _answers(self._url_of(worker.pid) + "/readyz")
        worker.wait_until_ready()
        return self._url_of(worker.pid)

    def _url_of(self, pid: int) -> str:
        """Where the worker of this process id listens, once it has written that down."""
        for home in self._directory.glob("worker-*"):
            if (home / "pid").exists() and (home / "pid").read_text().strip() == str(pid):
                return (home / "url").read_text().strip()
        raise FileNotFoundError


def _listens(options: Sequence[str]) -> Callable[[], bool]:
    if "--port" not in options:
        return lambda: True
    port = int(options[options.index("--port") + 1])
    return lambda: not is_free(port)


@asynccontextmanager
async def _order_updates(settings: Settings, bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A reader of the feed, from now on."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    try:
        topic = topic_name(ORDER_UPDATES.name, settings.topic_prefix)
        partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        yield consumer
    finally:
        await consumer.stop()


def _answers(url: str) -> bool:
    with urlopen(url, timeout=2) as answer:  # ours, on this machine
        return bool(answer.status == 200)


def _free_port(first: int) -> int:
    return next(port for port in range(first, first + 1000) if is_free(port))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description="Orders, restaurants and drivers, live on one screen."
    )
    parser.add_argument("--orders", type=int, metavar="N", help="end when so many are delivered (ORDERS=N)")
    parser.add_argument("--speed", type=float, default=SPEED, help="how much faster than real time (SPEED=)")
    parser.add_argument("--seed", default="1", help="decides what is ordered by whom (SEED=)")
    parser.add_argument("--rate", type=float, default=RATE, help="orders a second")
    arguments = parser.parse_args()
    if arguments.orders is not None and arguments.orders < 1:
        parser.error(f"ORDERS={arguments.orders}: it must be at least 1")
    return arguments


def main() -> int:
    """Run the demo; the exit status."""
    screen = Screen({})
    try:
        settings = Settings.from_environment()
        demo = Demo(_arguments(), settings, screen)
        with ExitStack() as stack:
            supervisor, bootstrap = demo.start(stack)
            asyncio.run(demo.watch(supervisor, bootstrap))
            screen.say(f"{demo.goal} orders delivered. Stopping everything")
        return os.EX_OK
    except KeyboardInterrupt:
        screen.say("Everything has been stopped.")
        return 128 + signal.SIGINT if "--orders" in sys.argv else os.EX_OK
    except (SetUpError, WrongSetting, WrongCatalogue, KafkaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
