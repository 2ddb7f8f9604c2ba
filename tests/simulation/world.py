"""One world from its beginning to its end: workers, a Kafka, parties, and the faults of a plan.

The world ends well when every order that was taken has ended and nobody owes anybody an answer; then it is judged by
what the parties and the topics say (``judge``). Everything in it follows from the plan: the same one again is the same
world, step for step, which ``Result.trace`` shows.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import msgspec

import oracle.reading
import streams.engine.engine
import streams.engine.restore
import streams.engine.store
from streams.app import catalogue, engine, parameters
from streams.engine import core, runtime, task, transactions
from streams.engine.settings import EngineSettings
from tests.simulation import clients, judge
from tests.simulation.broker import Broker
from tests.simulation.clients import SimulatedTime
from tests.simulation.disk import Disk, SimulatedStore
from tests.simulation.loop import Endless, Stuck, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.parties import RESTAURANT, Driver, Outside, PaymentProvider, Performer, PointOfSale, Provider
from tests.simulation.plan import Faults, Plan
from tests.simulation.views import Front
from tests.simulation.worker import SESSION_S, Worker

EPOCH_S = 1_800_000_000.0
MOST_STEPS = 400_000
MOST_S = 4 * 3600.0
"""A sound world has ended by then."""
LOOK_S = 5.0
SETTLE_S = 60.0
"""What has ended stays as it is."""
MOST_WORKED_S = 0.003


DECIDING = [sys.modules[f"streams.{name}"] for name in ("workflow", "agents.dispatch", "agents.drivers")]
"""The modules that know the parameters; as attributes of their package, the agents' names are the agents."""


class Result(NamedTuple):
    """``wrong``: what must not be; empty for a sound world."""

    plan: Plan
    wrong: tuple[str, ...]
    trace: str
    """A hash of all that happened."""
    log: list[str]
    """What happened, if asked for."""
    steps: int
    seconds: float
    passages: dict[str, int]


class World:
    """Built from a plan, run once."""

    def __init__(self, plan: Plan, *, keep_log: bool = False) -> None:
        self.plan, self.wrong = plan, list[str]()
        self._hash, self._log = blake2b(digest_size=16), list[str]()
        self._keep_log = keep_log
        self.faults = Faults(plan.faults)
        seed = str(plan.seed)
        self.loop = VirtualLoop(Random(f"order/{seed}"), MOST_STEPS)
        self.network = Network(self.loop, seed, self._strikes)
        topics = dict.fromkeys([*engine.outputs, *engine.changelogs.values()], plan.partitions)
        self.broker = Broker(
            self.loop,
            Random(f"broker/{seed}"),
            topics,
            lambda: int(self.time() * 1000),
            SESSION_S,
            self.note,
            self._strikes,
        )
        self.front = Front(self.loop, self.network, seed)
        self.outside = Outside(self.loop, self.network, self.broker, self.front, self.time, self._strikes, self.note)
        self.payment, self.pos = PaymentProvider(self.outside), PointOfSale(self.outside)
        self.provider = Provider(self.outside)
        self.drivers = [Driver(number + 1, self.outside) for number in range(plan.drivers)]
        self.disks: dict[str, Disk] = {}
        self._commits_seen = -1
        self.troubles = 0
        """Faults whose end is still to come."""
        chance = Random(f"settings/{seed}")
        self._settings = EngineSettings(
            slice_s=0.005,
            backlog_records=chance.choice((3, 20_000)),
            buffer_bytes=chance.choice((2_000, 4 << 20)),
            timer_head=chance.choice((2, 1024)),
            calls_at_once=chance.choice((1, 64)),
            call_timeout_s=10.0,
        )
        self.retires_after_s = next(iter(self.faults.of("retirement")), None)
        """How long an order that has ended stays in the tables; None: longer than any world."""
        self._parameters = parameters
        if self.retires_after_s is not None:
            self._parameters = msgspec.structs.replace(parameters, retention_s=self.retires_after_s)
        work = Random(f"work/{seed}")
        self._clock = SimulatedTime(EPOCH_S, self.loop.time, lambda: work.random() * MOST_WORKED_S)

    def time(self) -> float:
        """Seconds since 1970, in this world."""
        return EPOCH_S + self.loop.time()

    def note(self, *what: Any) -> None:
        """Something happened."""
        line = f"{self.loop.time():.6f} {self.loop.steps} {what!r}"
        self._hash.update(line.encode())
        if self._keep_log:
            self._log.append(line)

    def _strikes(self, place: str) -> str:
        fault = self.faults.strikes(place)
        if fault:
            self.note("fault", place, fault)
        return fault

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """From the beginning to the end."""
        with self._simulated():
            try:
                self._run()
                self.wrong += self.loop.crashes
                self.wrong += judge.judge(self)
                self.note("wrong", self.wrong)
                steps, seconds = self.loop.steps, self.loop.time()
            finally:
                self.loop.dismantle()
        passages = dict(self.faults.passages)
        return Result(self.plan, tuple(self.wrong), self._hash.hexdigest(), self._log, steps, seconds, passages)

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self._live())
        except (Stuck, Endless) as exc:
            self.wrong.append(f"the world does not end: {exc}")

    @contextlib.contextmanager
    def _simulated(self) -> Iterator[None]:
        """The engine's modules find a simulated time, client, consumer and store."""
        before = dict(catalogue._table.data)
        with contextlib.ExitStack() as stack:
            for module in (task, core, transactions, runtime, oracle.reading):
                stack.enter_context(mock.patch.object(module, "time", self._clock))
            for module, name, simulated in (
                (streams.engine.engine, "AIOKafkaClient", clients.Client),
                (streams.engine.restore, "AIOKafkaConsumer", clients.Reader),
                (streams.engine.store, "PartitionStore", SimulatedStore),
            ):
                stack.enter_context(mock.patch.object(module, name, simulated))
            for handling in DECIDING:
                stack.enter_context(mock.patch.object(handling, "parameters", self._parameters))
            catalogue._table.data[RESTAURANT.restaurant] = RESTAURANT
            disabled = logging.root.manager.disable
            logging.disable(logging.CRITICAL)
            try:
                yield
            finally:
                logging.disable(disabled)
                catalogue._table.data.clear()
                catalogue._table.data.update(before)

    async def _live(self) -> None:
        for number in range(1, self.plan.workers + 1):
            self._start(f"worker-{number}")
        for number, what in self.faults.of("arrival").items():
            self.troubles += 1
            self.loop.later(float(what.partition(":")[2]), self.loop.world, self._arrive, f"worker-{number}")
        for second in self.faults.of("compaction"):
            self.loop.later(float(second), self.loop.world, self._compact)
        orders = self.faults.of("order")
        self.provider.place_all(self.plan.orders, lambda number: {orders.get(number, "")})
        for driver in self.drivers:
            self.loop.spawn(driver.actor, driver.work())
        while not self._over():
            if self.loop.time() > MOST_S:
                owed = f"{self.provider.left} not answered, {self.outside.owed} callbacks owed"
                self.wrong.append(f"the world does not end: {judge.look(self)}, {owed}, {self.troubles} troubles")
                return
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(SETTLE_S + (self.retires_after_s or 0))
        for _ in range(round(MOST_S / LOOK_S)):  # a fault may strike when all seems over
            if judge.caught_up(self):
                break
            await asyncio.sleep(LOOK_S)

    def _over(self) -> bool:
        if self.provider.left or self.outside.owed or self.troubles or not judge.all_open(self):
            return False
        if self._commits_seen == len(self.broker.commits):
            return False
        self._commits_seen = len(self.broker.commits)
        return judge.look(self).ended

    # -- what befalls workers -----------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        worker = Worker(
            name,
            self.loop,
            self.network,
            self.broker,
            self.disks.setdefault(name, Disk()),
            partitions=self.plan.partitions,
            settings=self._settings,
            performer=lambda worker: Performer(worker, self.payment, self.pos),
            time=self.time,
            ended=self._ended,
            wrong=self.wrong.append,
        )
        worker.actor.before_step = self._befall(worker)
        self.front.workers[name] = worker
        self.broker.heard(name)
        self.note("starts", name)
        worker.start()

    def _arrive(self, name: str) -> None:
        self.troubles -= 1
        self._start(name)

    def _befall(self, worker: Worker) -> Any:
        """Its faults by the number of its step; steps go on counting from one start to the next."""
        faults, passages, name = self.faults.of(worker.name), self.faults.passages, worker.name

        def before_step(_: int) -> None:
            passages[name] += 1
            if passages[name] in faults:
                self._strike(worker, faults[passages[name]])

        return before_step if faults else None

    def _strike(self, worker: Worker, what: str) -> None:
        kind, *arguments = what.split(":")
        self.note("fault", worker.name, what, worker.actor.steps)
        seconds = float(arguments[0])
        match kind:
            case "kill" | "wipe" | "behind":
                self._kill(worker, seconds)
                if kind == "wipe":
                    self.disks[worker.name] = Disk()
                if kind == "behind":
                    self.disks[worker.name].lose(int(arguments[1]))
            case "freeze":
                self.loop.freeze(worker.actor)
                self.broker.silent(worker.name)
                self._later(seconds, self._thaw, worker)
            case "cut":
                self.network.cut.add(worker.actor)
                self.broker.silent(worker.name)
                self._later(seconds, self._heal, worker)
            case "stop" | "leave":
                if not worker.stopping:
                    self.troubles += 1
                    worker.starts_again_after_s = seconds
                    worker.stop(leave=kind == "leave")

    def _kill(self, worker: Worker, down_s: float) -> None:
        self.note("dies", worker.name)
        self.troubles -= worker.stopping
        self.loop.kill(worker.actor)
        self.network.cut.discard(worker.actor)
        worker.break_connections()
        if self.front.workers.get(worker.name) is worker:
            del self.front.workers[worker.name]
        self.broker.silent(worker.name)
        self._later(down_s, self._start, worker.name)

    def _ended(self, worker: Worker) -> None:
        """It was told to stop and has, or is cut off."""
        if not worker.actor.dead:
            self._kill(worker, worker.starts_again_after_s)

    def _thaw(self, worker: Worker) -> None:
        self.loop.thaw(worker.actor)
        if not worker.actor.dead:
            self.broker.heard(worker.name)

    def _heal(self, worker: Worker) -> None:
        self.network.cut.discard(worker.actor)
        if not worker.actor.dead:
            self.broker.heard(worker.name)
            self.loop.later(0, worker.actor, worker.consumer.news.set)

    def _later(self, seconds: float, what: Any, *arguments: Any) -> None:
        self.troubles += 1

        def happen() -> None:
            self.troubles -= 1
            what(*arguments)

        self.loop.later(seconds, self.loop.world, happen)

    def _compact(self) -> None:
        for (topic, _), log in self.broker.logs.items():
            if topic.endswith("-changelog"):
                log.compact(0)
        self.note("compacted")


def run(plan: Plan, *, keep_log: bool = False) -> Result:
    """Run a plan's world."""
    return World(plan, keep_log=keep_log).run()
