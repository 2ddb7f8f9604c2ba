"""`make demo`: Kafka, a worker and the simulated world around it, on one screen, until Ctrl-C or so many orders.

Everything is a process of its own, as it would be elsewhere; the screen knows only what `order-updates` says.
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
from urllib.request import urlopen

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.catalogue_file import WrongCatalogue, read_catalogue
from streams.embedded.errors import SetUpError
from streams.embedded.kafka import EmbeddedKafka
from streams.embedded.ports import is_free
from streams.embedded.processes import Child, Supervisor
from streams.embedded.screen import Orders, Screen, told_faults, waits
from streams.settings import CATALOGUE, SPEED_UP_FILE, Settings, WrongSetting
from topics.families import ORDER_UPDATES, topic_name
from topics.order_updates import READER, OrderStatus
from topics.records import Undecodable

SPEED = 30.0
FAULTY_SPEED = 120.0
"""With faults: the longest wait, an hour for the driver to deliver, is then over in half a minute."""
RATE = 0.7
"""Orders a second."""
DRIVERS = 30
"""Each has an order for 17 s at the usual speed: so many that hardly any order waits for one, in every region."""
LATER = 0.1
"""Of the orders of a day, the share that is for later."""
STUCK_S = 180.0
"""Nothing has moved for so long: something is wrong, and the demo says so."""
STUCK_WITH_FAULTS_S = 90.0
"""The same with faults and a number of orders that are to end: above the pauses between the worker's calls."""
QUIET_S = 6 * 3600.0
"""Simulated: for so long, nothing may move on a day of orders, at night or before an order for later."""
FAULTS_S = 1.0
"""Between two looks at which faults are switched on."""
NAMED = 5
"""Orders that are named where they are stuck."""
CHECK_S = 0.25
FIRST_PAYMENT_PORT = 5060
FIRST_POS_PORT = 5050


class Stuck(SetUpError):
    """The orders do not end as they should."""


class Demo:
    """One run of the demo."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings, screen: Screen) -> None:
        self.goal: int | None = arguments.orders
        self._seed, self._rate, self._day = arguments.seed, arguments.rate, arguments.day
        self._faults: dict[str, dict[str, float]] = arguments.faults
        self.speed: float = (FAULTY_SPEED if self._faults else SPEED) if arguments.speed is None else arguments.speed
        self._listening: dict[str, str] = {}
        """Party -> its address, of the simulators that are called."""
        self._settings, self._screen = settings, screen
        self._directory = settings.directory
        self._run = f"demo-{int(time.time()):x}"
        self._orders = Orders()
        self._moved_at = time.monotonic()
        self._world: dict[str, str] = {}
        """What every process is told in its environment."""

    def start(self, stack: ExitStack) -> "tuple[Supervisor, str]":
        """Start every process, in the order in which they need each other; returns Kafka's address too."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / SPEED_UP_FILE).write_text(f"{self.speed:g}\n")  # for whoever judges it afterwards
        supervisor = stack.enter_context(Supervisor(self._directory / "logs"))
        bootstrap = self._settings.bootstrap_servers or self._start_kafka(supervisor, stack)
        payment, pos = _free_port(FIRST_PAYMENT_PORT), _free_port(FIRST_POS_PORT)
        self._listening = {"payment": f"http://127.0.0.1:{payment}", "pos": f"http://127.0.0.1:{pos}"}
        self._world = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "DABBAWALA_DIR": str(self._directory),
            "DABBAWALA_SPEED_UP": str(self.speed),
            "DABBAWALA_CATALOGUE": str(self._catalogue(pos)),
            "DABBAWALA_PAYMENT_URL": self._listening["payment"],
            "DABBAWALA_REPLICATION_FACTOR": str(self._settings.replication_factor),
            "DABBAWALA_COMMIT_GAP_MS": str(self._settings.commit_gap_ms),
        }
        self._screen.say("Starting the payment provider, the restaurants and a worker")
        self._simulator(supervisor, "payment", "--port", str(payment))
        self._simulator(supervisor, "pos", "--port", str(pos))
        url = self._world["DABBAWALA_URL"] = self._start_worker(supervisor)
        self._screen.say(f"The worker is ready: {url}/table/ shows what it keeps. Starting drivers and the provider")
        self._simulator(supervisor, "drivers", "--drivers", str(DRIVERS))
        ids = f"… stands for {self._run}-"
        self._screen.footer = f"{url}/table/   {ids}   logs in {self._directory / 'logs'}   Ctrl-C ends everything"
        self._screen.faults = dict(self._faults)
        if faults := told_faults(self._faults):
            self._screen.say(f"{faults}. {self._switches()}")
        return supervisor, bootstrap

    def start_orders(self, supervisor: Supervisor) -> Child:
        """Let the provider place orders; called when somebody listens to what becomes of them."""
        how_many = ["--orders", str(self.goal)] if self.goal else []
        when = ["--day", "--from", self._day, "--later", str(LATER)] if self._day else ["--rate", str(self._rate)]
        return self._simulator(supervisor, "provider", "--run", self._run, *when, *how_many)

    def _simulator(self, supervisor: Supervisor, name: str, *options: str) -> Child:
        """Start one; those that listen on a port are ready when they do."""
        faults = ",".join(f"{kind}:{rate}" for kind, rate in self._faults.get(name, {}).items())
        command = [sys.executable, "-m", f"simulators.{name}", "--seed", self._seed, "--faults", faults, *options]
        return supervisor.start(name, command, environment=self._world, ready=_listens(options))

    async def watch(self, supervisor: Supervisor, bootstrap: str) -> None:
        """Show the orders until enough are delivered; `SetUpError` says why that is not to be."""
        async with _order_updates(self._settings, bootstrap) as consumer:
            provider = self.start_orders(supervisor)
            self._screen.open(self._orders, self._run, self.goal)
            following = asyncio.create_task(self._follow_faults())
            try:
                while not self._done():
                    self._take(await consumer.getmany(timeout_ms=int(CHECK_S * 1000)))
                    self._check(supervisor, provider)
                    self._screen.refresh()
            finally:
                following.cancel()
                self._screen.close()

    async def _follow_faults(self) -> None:
        """Keep the screen up to date with faults that are switched on and off meanwhile."""
        while True:
            for party, url in self._listening.items():
                with suppress(OSError):  # one that has just ended is somebody else's business
                    self._screen.faults[party] = await asyncio.to_thread(_faults_of, url)
            await asyncio.sleep(FAULTS_S)

    def _switches(self) -> str:
        """How faults are switched off while the demo runs."""
        listening = [f"curl -X DELETE {url}/faults" for party, url in self._listening.items() if party in self._faults]
        return f"Switch off with {' and '.join(listening)}" if listening else ""

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
        if self._faults:
            return sum(self._orders.seen[order].update.status.ended for order in own) >= self.goal
        if rejected := self._orders.count(OrderStatus.REJECTED, own):
            raise Stuck(f"{rejected} of {self.goal} orders were rejected; the journal of one says why.")
        return self._orders.count(OrderStatus.DELIVERED, own) >= self.goal

    def _check(self, supervisor: Supervisor, provider: Child) -> None:
        """Something ended that should not have, or nothing moves."""
        for child in supervisor.children:
            if child is not provider or child.status not in (None, 0):
                child.check()
        limit_s = STUCK_WITH_FAULTS_S if self._faults and self.goal else STUCK_S
        if self._day:
            limit_s = max(limit_s, QUIET_S / self.speed) if self.speed else limit_s
        if time.monotonic() - self._moved_at > limit_s:
            ended = self._orders.count(OrderStatus.DELIVERED, self._own())
            raise Stuck(
                f"Nothing has moved for {limit_s:.0f} s and {ended} of {self.goal or 'all'} orders are delivered; "
                f"the logs in {self._directory / 'logs'} say more.{self._named_stuck()}"
            )

    def _named_stuck(self) -> str:
        """Which orders are stuck, and what each waits for; no more than a few of them."""
        stuck = [seen.update for seen in self._orders.stuck() if not seen.update.status.ended]
        lines = [f"\n  {o.order} is {o.status.value} and {waits(o.attention)}" for o in stuck[:NAMED] if o.attention]
        more = len(stuck) - NAMED
        return "".join([*lines, f"\n  and {more} more"] if more > 0 else lines)

    def ends(self) -> str:
        """How the orders of the run ended."""
        if not self._faults:
            return f"{self.goal} orders delivered"
        counts = Counter(self._orders.seen[order].update.status.value for order in self._own())
        return f"{self.goal} orders have ended: {', '.join(f'{n} {status}' for status, n in counts.items())}"

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


def _faults_of(url: str) -> dict[str, float]:
    with urlopen(f"{url}/faults", timeout=2) as answer:  # ours, on this machine
        return msgspec.json.decode(answer.read(), type=dict[str, float])


def _free_port(first: int) -> int:
    return next(port for port in range(first, first + 1000) if is_free(port))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description="Orders, restaurants and drivers, live on one screen."
    )
    parser.add_argument("--orders", type=int, metavar="N", help="end when so many are delivered (ORDERS=N)")
    parser.add_argument(
        "--speed", type=float, help=f"how much faster than real time (SPEED=): {SPEED:g}, {FAULTY_SPEED:g} with faults"
    )
    parser.add_argument("--seed", default="1", help="decides what is ordered by whom (SEED=)")
    parser.add_argument("--rate", type=float, default=RATE, help="orders a second")
    parser.add_argument("--day", metavar="HH:MM", help="follow a day of orders from this time on, instead (DAY=)")
    parser.add_argument(
        "--faults",
        default="",
        metavar="PARTY:KIND[@RESTAURANT][:RATE][,...]",
        help="what is wrong with the parties outside (FAULTS=); `python -m simulators.faults` tells which there are",
    )
    arguments = parser.parse_args()
    if arguments.orders is not None and arguments.orders < 1:
        parser.error(f"ORDERS={arguments.orders}: it must be at least 1")
    if arguments.speed is not None and not 0 <= arguments.speed < math.inf:
        parser.error(f"SPEED={arguments.speed:g}: it must be 0 (nothing takes any time) or more")
    if not 0 < arguments.rate < math.inf:
        parser.error(f"--rate {arguments.rate:g}: it must be above 0")
    if arguments.day is not None and not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", arguments.day):
        parser.error(f"DAY={arguments.day}: it must be a time of day, as in DAY=11:00")
    arguments.faults = _read_faults(parser, arguments.faults)
    return arguments


def _read_faults(parser: argparse.ArgumentParser, text: str) -> dict[str, dict[str, float]]:
    """Party -> kind -> rate, as the simulators themselves read it."""
    read = subprocess.run(
        [sys.executable, "-m", "simulators.faults", text], capture_output=True, text=True, check=False
    )
    if read.returncode:
        parser.error(f"FAULTS={text}: {read.stderr.strip()}")
    return msgspec.json.decode(read.stdout, type=dict[str, dict[str, float]])


def main() -> int:
    """Run the demo; the exit status."""
    screen = Screen({})
    try:
        settings = Settings.from_environment()
        demo = Demo(_arguments(), settings, screen)
        with ExitStack() as stack:
            supervisor, bootstrap = demo.start(stack)
            asyncio.run(demo.watch(supervisor, bootstrap))
            screen.say(f"{demo.ends()}. Stopping everything")
        return os.EX_OK
    except KeyboardInterrupt:
        screen.say("Everything has been stopped.")
        return 128 + signal.SIGINT if "--orders" in sys.argv else os.EX_OK
    except (SetUpError, WrongSetting, WrongCatalogue, KafkaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
