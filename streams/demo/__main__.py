"""`make demo`: Kafka, a worker and the simulated parties on one screen, until Ctrl-C or N orders.

Each part is a separate process, as in production. The screen reads only `order-updates`.
"""

import argparse
import asyncio
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.access.local_keys import make_party_secrets
from streams.catalogue.file import WrongCatalogue, read_catalogue
from streams.cli.output import counted, duration
from streams.demo.processes import Child, Supervisor
from streams.demo.screen import Orders, Screen, faults_text, reason_text
from streams.local.errors import SetUpError
from streams.local.file_lock import FileLock
from streams.local.kafka.broker import EmbeddedKafka
from streams.local.ports import is_free
from streams.local.private_directory import make_private
from streams.settings import CATALOGUE, Settings, WrongSetting
from topics.families import ORDER_UPDATES, topic_name
from topics.order_updates import READER, OrderStatus
from topics.records import Undecodable
from topics.text import plain_lines

SPEED = 30.0
FAULTY_SPEED = 120.0
"""Speed with faults. The longest wait, an hour for the driver to deliver, then takes half a minute."""
RATE = 0.7
"""Orders per second."""
DRIVERS = 30
"""A delivery takes a driver 17 s at the usual speed. With 30 drivers hardly any order waits for one."""
LATER = 0.1
"""Share of a day's orders that are for later."""
MAX_IDLE_S = 180.0
"""Longest time without an update before the demo fails."""
MAX_IDLE_WITH_FAULTS_S = 90.0
"""The same limit with faults and a number of orders. It exceeds the pauses between a worker's attempts."""
MAX_IDLE_OF_DAY_S = 6 * 3600.0
"""The same limit for a day of orders, in simulated seconds: a night, or the time before an order for later, is idle."""
FAULTS_POLL_S = 1.0
"""Pause between two requests for the faults that are switched on."""
MAX_STUCK_SHOWN = 5
"""Stuck orders that the error names."""
CHECK_S = 0.25
DIRECT = build_opener(ProxyHandler({}))
"""HTTP client for the processes of this demo. A proxy of the environment does not reach them."""
NEXT = """\
Next: make worker                            start Kafka and a worker again, in another terminal; then
      .venv/bin/dabbawala orders list        list the orders of this demo (needs the worker)
      .venv/bin/dabbawala trace ID           show what happened to one of them, step by step
      .venv/bin/dabbawala reconcile          judge whether every promise is kept (needs Kafka)
      make help                              list every target"""
FIRST_PAYMENT_PORT = 5060
FIRST_POS_PORT = 5050


class Stuck(SetUpError):
    """The orders do not end, or are rejected."""


class Demo:
    """One run of the demo."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, screen: Screen) -> None:
        self.goal: int | None = arguments.orders
        self._seed = arguments.seed
        self._rate = arguments.rate
        self._day = arguments.day
        self._faults: dict[str, dict[str, float]] = arguments.faults
        self.speed: float = (FAULTY_SPEED if self._faults else SPEED) if arguments.speed is None else arguments.speed
        self._urls: dict[str, str] = {}
        """Party -> URL of its simulator, for those that have a server."""
        self._settings = settings
        self._screen = screen
        self._directory = settings.directory
        self._secrets = self._directory / "demo-secrets.json"
        """Secrets of the simulated parties. The demo never uses those of `DABBAWALA_PARTY_SECRETS`."""
        self._run = f"demo-{int(time.time()):x}"
        self._orders = Orders()
        self._began = time.monotonic()
        self._moved_at = self._began
        self._broker: EmbeddedKafka | None = None
        """The broker that this demo started."""
        self._environment: dict[str, str] = {}
        """Variables for every process."""

    def start(self, stack: ExitStack) -> "tuple[Supervisor, str]":
        """Start every process but the provider, in the order of their dependencies; return also Kafka's address."""
        self._hold_directory(stack)
        stack.callback(self._stop_kafka)  # stopped last, because a worker commits before it ends
        supervisor = stack.enter_context(Supervisor(self._directory / "logs"))
        bootstrap = self._settings.bootstrap_servers or self._start_kafka(supervisor)
        payment, pos = _free_port(FIRST_PAYMENT_PORT), _free_port(FIRST_POS_PORT)
        self._urls = {"payment": f"http://127.0.0.1:{payment}", "pos": f"http://127.0.0.1:{pos}"}
        self._environment = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "DABBAWALA_DIR": str(self._directory),
            "DABBAWALA_SPEED_UP": str(self.speed),
            "DABBAWALA_CATALOGUE": str(self._catalogue(pos)),
            "DABBAWALA_PARTY_SECRETS": str(self._secrets),
            "DABBAWALA_PAYMENT_URL": self._urls["payment"],
            "DABBAWALA_REPLICATION_FACTOR": str(self._settings.replication_factor),
            "DABBAWALA_COMMIT_GAP_MS": str(self._settings.commit_gap_ms),
            "OTEL_TRACES_SAMPLER": os.environ.get("OTEL_TRACES_SAMPLER", "always_on"),  # a demo has few orders
            "DABBAWALA_LOG_FORMAT": "console",  # a person reads the files
        }
        self._screen.say("Starting the payment provider, the restaurants and a worker")
        for name, port in (("payment", payment), ("pos", pos)):
            self._simulator(supervisor, name, "--port", str(port), "--secrets", str(self._secrets))
        url = self._environment["DABBAWALA_URL"] = self._start_worker(supervisor)
        self._screen.say(f"The worker is ready at {url}. Starting drivers and the provider")
        self._simulator(supervisor, "drivers", "--drivers", str(DRIVERS))
        places = f"tables {url}/table/   Kafka {bootstrap}   logs {self._directory / 'logs'}"
        self._screen.footer = f"{places}\n{self._pace()}   Ctrl-C ends everything"
        self._screen.say(f"{places}\n{self._pace()}.")
        self._screen.faults = dict(self._faults)
        if faults := faults_text(self._faults):
            self._screen.say(f"{faults}. {self._switches()}")
        return supervisor, bootstrap

    def _hold_directory(self, stack: ExitStack) -> None:
        """Lock the directory for this demo; `SetUpError` if another demo runs in it."""
        make_private(self._directory)
        lock = FileLock.try_acquire(self._directory / "demo.lock")
        if lock is None:
            raise SetUpError(
                f"A demo runs in {self._directory} already: end it, or set DABBAWALA_DIR to another directory."
            )
        stack.callback(lock.release)

    def _pace(self) -> str:
        return f"time runs {self.speed:g} times as fast" if self.speed else "time has no delays"

    def start_orders(self, supervisor: Supervisor) -> Child:
        """Start the provider, once the demo follows the updates of its orders."""
        count = ["--orders", str(self.goal)] if self.goal else []
        moments = ["--day", "--from", self._day, "--later", str(LATER)] if self._day else ["--rate", str(self._rate)]
        return self._simulator(supervisor, "provider", "--run", self._run, *moments, *count)

    def _simulator(self, supervisor: Supervisor, name: str, *options: str) -> Child:
        """Start a simulator. One with a port is ready when it listens."""
        faults = ",".join(f"{kind}:{rate}" for kind, rate in self._faults.get(name, {}).items())
        command = [sys.executable, "-m", f"simulators.{name}", "--seed", self._seed, "--faults", faults, *options]
        return supervisor.start(name, command, environment=self._environment, ready=_is_listening(options))

    async def watch(self, supervisor: Supervisor, bootstrap: str) -> None:
        """Show the orders until enough are delivered. Raises `SetUpError` if that fails."""
        async with _order_updates(self._settings, bootstrap) as consumer:
            provider = self.start_orders(supervisor)
            self._screen.open(self._orders, self._run, self.goal)
            faults_task = asyncio.create_task(self._follow_faults())
            try:
                while not self._done():
                    self._take(await consumer.getmany(timeout_ms=int(CHECK_S * 1000)))
                    self._check(supervisor, provider)
                    self._screen.refresh()
            finally:
                faults_task.cancel()
                self._screen.close()

    async def _follow_faults(self) -> None:
        """Show the faults that users switch on and off meanwhile."""
        while True:
            for party, url in self._urls.items():
                with suppress(OSError):  # `_check` reports a simulator that has ended
                    self._screen.faults[party] = await asyncio.to_thread(_faults_of, url)
            await asyncio.sleep(FAULTS_POLL_S)

    def _switches(self) -> str:
        """Return the command that switches faults off."""
        commands = [f"curl -X DELETE {url}/faults" for party, url in self._urls.items() if party in self._faults]
        return f"Switch off with {' and '.join(commands)}" if commands else ""

    def _take(self, fetched: "dict[TopicPartition, Sequence[object]]") -> None:
        for records in fetched.values():
            for record in records:
                try:
                    update = READER.read(record.value)  # type: ignore[attr-defined]
                except Undecodable:
                    continue
                self._moved_at = time.monotonic()
                if self._orders.take(update):
                    self._screen.print_update(self._orders.seen[update.order])

    def _own(self) -> list[str]:
        """Return the ids of this run's orders."""
        return [order for order in self._orders.seen if self._run in order]

    def _done(self) -> bool:
        if self.goal is None:
            return False
        own = self._own()
        if self._faults:
            return sum(self._orders.seen[order].update.status.ended for order in own) >= self.goal
        if rejected := [order for order in own if self._orders.seen[order].update.status is OrderStatus.REJECTED]:
            raise Stuck(f"Rejected: {len(rejected)} of {self.goal}. Next: dabbawala orders journal {rejected[0]}")
        return self._orders.count(OrderStatus.DELIVERED, own) >= self.goal

    def _check(self, supervisor: Supervisor, provider: Child) -> None:
        """Raise `SetUpError` if a process ended that should run, or if no order has an update for too long."""
        for child in supervisor.children:
            if child is not provider or child.status not in (None, 0):
                child.check()
        limit_s = MAX_IDLE_WITH_FAULTS_S if self._faults and self.goal else MAX_IDLE_S
        if self._day:
            limit_s = max(limit_s, MAX_IDLE_OF_DAY_S / self.speed) if self.speed else limit_s
        if time.monotonic() - self._moved_at > limit_s:
            delivered = self._orders.count(OrderStatus.DELIVERED, self._own())
            of_goal = f" of {self.goal}" if self.goal else ""
            raise Stuck(
                f"No order has had an update for {limit_s:.0f} s. Delivered: {delivered}{of_goal}. "
                f"See the logs in {self._directory / 'logs'}.{self._named_stuck()}"
            )

    def _named_stuck(self) -> str:
        """Return some of the stuck orders, each with the reason."""
        stuck = [seen.update for seen in self._orders.stuck() if not seen.update.status.ended]
        lines = [
            f"\n  {o.order} is {o.status.value}: {reason_text(o.attention)}"
            for o in stuck[:MAX_STUCK_SHOWN]
            if o.attention
        ]
        others = len(stuck) - MAX_STUCK_SHOWN
        return "".join([*lines, f"\n  and {others} more"] if others > 0 else lines)

    def ends(self) -> str:
        """Return the number of orders by their last status, and the duration of the run."""
        took = duration(time.monotonic() - self._began)
        if not self._faults:
            return f"{counted(len(self._own()), 'order')} delivered in {took}"
        counts = Counter(self._orders.seen[order].update.status.value for order in self._own())
        by_status = ", ".join(f"{number} {status}" for status, number in counts.items())
        return f"{counted(sum(counts.values()), 'order')} ended in {took}: {by_status}"

    def _start_kafka(self, supervisor: Supervisor) -> str:
        broker = EmbeddedKafka(self._directory, self._screen.say)
        bootstrap = broker.start()
        if broker.started:
            self._broker = broker
            if process := broker.process():
                supervisor.adopt(process.pid)
        return bootstrap

    def _stop_kafka(self) -> None:
        if self._broker:
            self._broker.stop()

    def _catalogue(self, pos_port: int) -> Path:
        """Write the catalogue of the demo, with the port of the points of sale, and the restaurants' secrets."""
        found = read_catalogue(self._settings.catalogue or CATALOGUE, allow_http=True)  # the demo replaces them
        moved = [
            msgspec.structs.replace(r, pos_url=f"http://127.0.0.1:{pos_port}/restaurants/{r.restaurant}") for r in found
        ]
        self._screen.names = {restaurant.restaurant: restaurant.name for restaurant in found}
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "catalogue.json"
        file.write_bytes(msgspec.json.encode(moved))
        make_party_secrets(self._secrets, self._screen.names)
        return file

    def _start_worker(self, supervisor: Supervisor) -> str:
        faust = Path(sys.executable).parent / "faust"
        worker = supervisor.start(
            "worker",
            [str(faust), "-A", "streams.app", "worker", "-l", "info"],
            environment=self._environment,
            wait=False,
        )
        worker.ready = lambda: _answers(self._url_of(worker.pid) + "/readyz")
        worker.wait_until_ready()
        return self._url_of(worker.pid)

    def _url_of(self, pid: int) -> str:
        """Return the URL of the worker with this process id. Raises `FileNotFoundError` until it has written it."""
        for home in self._directory.glob("worker-*"):
            if (home / "pid").exists() and (home / "pid").read_text().strip() == str(pid):
                return (home / "url").read_text().strip()
        raise FileNotFoundError


def _is_listening(options: Sequence[str]) -> Callable[[], bool]:
    if "--port" not in options:
        return lambda: True
    port = int(options[options.index("--port") + 1])
    return lambda: not is_free(port)


@asynccontextmanager
async def _order_updates(settings: Settings, bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a consumer of the updates, from now on."""
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
    with DIRECT.open(url, timeout=2) as answer:  # a process of this demo
        return bool(answer.status == 200)


def _faults_of(url: str) -> dict[str, float]:
    with DIRECT.open(f"{url}/faults", timeout=2) as answer:  # a process of this demo
        return msgspec.json.decode(answer.read(), type=dict[str, float])


def _free_port(first: int) -> int:
    return next(port for port in range(first, first + 1000) if is_free(port))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description="Orders, restaurants and drivers, live on one screen."
    )
    parser.add_argument("--orders", type=int, metavar="N", help="end after N delivered orders (ORDERS=N)")
    parser.add_argument(
        "--speed",
        type=float,
        help=f"how many times faster than real time (SPEED=); default: {SPEED:g}, {FAULTY_SPEED:g} with faults",
    )
    parser.add_argument("--seed", default="1", help="seed of the customers, orders and faults (SEED=)")
    parser.add_argument("--rate", type=float, default=RATE, help="orders per second")
    parser.add_argument(
        "--day", metavar="HH:MM", help="follow a day of orders from this time on, instead of --rate (DAY=)"
    )
    parser.add_argument(
        "--faults",
        default="",
        metavar="PARTY:KIND[@RESTAURANT][:RATE][,...]",
        help="faults of the outside parties (FAULTS=); `python -m simulators.faults` lists them",
    )
    arguments = parser.parse_args()
    if arguments.orders is not None and arguments.orders < 1:
        parser.error(f"ORDERS={arguments.orders}: it must be at least 1")
    if arguments.speed is not None and not 0 <= arguments.speed < math.inf:
        parser.error(f"SPEED={arguments.speed:g}: it must be 0 (no delays) or more")
    if not 0 < arguments.rate < math.inf:
        parser.error(f"--rate {arguments.rate:g}: it must be above 0")
    if arguments.day is not None and not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", arguments.day):
        parser.error(f"DAY={arguments.day}: it must be a time of day, as in DAY=11:00")
    arguments.faults = _read_faults(parser, arguments.faults)
    return arguments


def _read_faults(parser: argparse.ArgumentParser, text: str) -> dict[str, dict[str, float]]:
    """Parse faults with the simulators' parser into party -> kind -> rate."""
    read = subprocess.run(
        [sys.executable, "-m", "simulators.faults", text], capture_output=True, text=True, check=False
    )
    if read.returncode:
        parser.error(f"FAULTS={text}: {read.stderr.strip()}")
    return msgspec.json.decode(read.stdout, type=dict[str, dict[str, float]])


def main() -> int:
    """Run the demo; return the exit status."""
    screen = Screen({})
    try:
        settings = Settings.from_environment()
        demo = Demo(_arguments(), settings, screen)
        with ExitStack() as stack:
            supervisor, bootstrap = demo.start(stack)
            asyncio.run(demo.watch(supervisor, bootstrap))
            screen.say(f"{demo.ends()}. Stopping everything")
        screen.say(NEXT)
        return os.EX_OK
    except KeyboardInterrupt:
        screen.say(f"Everything has stopped.\n{NEXT}")
        return 128 + signal.SIGINT if "--orders" in sys.argv else os.EX_OK
    except (SetUpError, WrongSetting, WrongCatalogue, KafkaError, OSError) as error:
        print(plain_lines(str(error)), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
