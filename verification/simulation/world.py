"""One simulated world: workers, a Kafka, parties, and the faults of a plan.

A world ends when every accepted order has ended and no call or callback is open. ``judge`` then checks the ledgers of
the parties and the topics. Everything follows from the plan: a plan repeats its world step for step, and
``Result.trace`` proves it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import msgspec

import exactly_once.kafka.consumers
import exactly_once.state.rocksdb
import oracle.loading
from exactly_once.faust import recovery
from exactly_once.kafka import producer
from exactly_once.settings import EngineSettings
from exactly_once.task import manager, task
from streams.build import build
from streams.services import Services
from streams.settings import DAY_S, Settings
from verification.simulation import clients, judge
from verification.simulation.broker import Broker
from verification.simulation.clients import SimulatedTime
from verification.simulation.disk import Disk, SimulatedStore
from verification.simulation.front import Front
from verification.simulation.loop import Endless, Stuck, VirtualLoop
from verification.simulation.network import Network
from verification.simulation.parties import (
    RESTAURANT,
    Driver,
    PaymentProvider,
    Performer,
    PointOfSale,
    Provider,
    SharedContext,
)
from verification.simulation.plan import Faults, Plan
from verification.simulation.worker import SESSION_S, Worker

EPOCH_S = 1_800_000_000.0
MAX_STEPS = 400_000
MAX_WORLD_S = 4 * 3600.0
"""Time by which a sound world has ended."""
CHECK_INTERVAL_S = 5.0
SETTLE_S = 60.0
"""Time for which a world goes on after its end: ended orders must stay as they are."""
MAX_WORK_S = 0.003
"""Longest processor time that a worker uses between two readings of ``perf_counter``."""


@cache
def product_settings(partitions: int) -> Settings:
    """Return the settings of the product in every world with this number of partitions."""
    settings = Settings.from_environment({"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", "DABBAWALA_CATALOGUE": ""})
    return msgspec.structs.replace(settings, partitions=partitions)


@cache
def declared(partitions: int) -> Services:
    """Build a worker that never runs. It declares the topics."""
    return build(product_settings(partitions))


class Result(NamedTuple):
    """Outcome of a world."""

    plan: Plan
    wrong: tuple[str, ...]
    """Violations; empty for a sound world."""
    trace: str
    """Hash of all events."""
    log: list[str]
    """Events, if requested."""
    steps: int
    seconds: float
    """Duration of the world on its own clock."""
    passages: dict[str, int]
    """Place -> number of its passages."""


class World:
    """A world that is built from a plan and runs once."""

    def __init__(self, plan: Plan, *, keep_log: bool = False) -> None:
        self.plan = plan
        self.wrong: list[str] = []
        """Violations found so far."""
        self._hash = blake2b(digest_size=16)
        self._log: list[str] = []
        self._keep_log = keep_log
        self.faults = Faults(plan.faults)
        seed = str(plan.seed)
        self.loop = VirtualLoop(Random(f"order/{seed}"), MAX_STEPS)
        self.network = Network(self.loop, seed, self._fault_at)
        self.retires_after_s = next(iter(self.faults.by_number("retirement")), None)
        """Time that an ended order stays in the tables; None: longer than any world."""
        self.product = product_settings(plan.partitions)
        self.declared = declared(plan.partitions)
        if self.retires_after_s is not None:
            self.product = msgspec.structs.replace(self.product, retention_days=self.retires_after_s / DAY_S)
        engine = self.declared.engine
        topics = dict.fromkeys([*engine.outputs, *engine.changelogs.values()], plan.partitions)
        self.broker = Broker(
            self.loop,
            Random(f"broker/{seed}"),
            topics,
            lambda: int(self.time() * 1000),
            SESSION_S,
            self.note,
            self._fault_at,
        )
        self.front = Front(self.loop, self.network)
        self.shared = SharedContext(
            self.loop, self.network, self.broker, self.front, self.time, self._fault_at, self.note
        )
        self.payment = PaymentProvider(self.shared)
        self.pos = PointOfSale(self.shared)
        self.provider = Provider(self.shared)
        self.drivers = [Driver(number + 1, self.shared) for number in range(plan.drivers)]
        self.disks: dict[str, Disk] = {}
        self._commits_seen = -1
        self.lasting_faults = 0
        """Number of faults that have not ended yet."""
        chance = Random(f"settings/{seed}")
        self._settings = EngineSettings(
            slice_s=0.005,
            backlog_records=chance.choice((3, 20_000)),
            buffer_bytes=chance.choice((2_000, 4 << 20)),
            timer_head=chance.choice((2, 1024)),
            calls_at_once=chance.choice((1, 64)),
            call_timeout_s=10.0,
        )
        work = Random(f"work/{seed}")
        self._clock = SimulatedTime(EPOCH_S, self.loop.time, lambda: work.random() * MAX_WORK_S)

    def time(self) -> float:
        """Return the seconds since 1970 on this world's clock."""
        return EPOCH_S + self.loop.time()

    def note(self, *what: Any) -> None:
        """Record an event in the trace and, if requested, in the log."""
        line = f"{self.loop.time():.6f} {self.loop.steps} {what!r}"
        self._hash.update(line.encode())
        if self._keep_log:
            self._log.append(line)

    def _fault_at(self, place: str) -> str:
        fault = self.faults.fault_at(place)
        if fault:
            self.note("fault", place, fault)
        return fault

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self) -> Result:
        """Run the world to its end and judge it."""
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
        """Give the engine's modules a simulated time, client, consumer and store within the block."""
        with contextlib.ExitStack() as stack:
            for module in (task, manager, producer, recovery, oracle.loading):
                stack.enter_context(mock.patch.object(module, "time", self._clock))
            for module, name, simulated in (
                (producer, "AIOKafkaClient", clients.Client),
                (exactly_once.kafka.consumers, "AIOKafkaConsumer", clients.Reader),
                (exactly_once.state.rocksdb, "PartitionStore", SimulatedStore),
            ):
                stack.enter_context(mock.patch.object(module, name, simulated))
            disabled = logging.root.manager.disable
            logging.disable(logging.CRITICAL)
            try:
                yield
            finally:
                logging.disable(disabled)

    async def _live(self) -> None:
        for number in range(1, self.plan.workers + 1):
            self._start(f"worker-{number}")
        for number, what in self.faults.by_number("arrival").items():
            self.lasting_faults += 1
            self.loop.later(float(what.partition(":")[2]), self.loop.world, self._arrive, f"worker-{number}")
        for second in self.faults.by_number("compaction"):
            self.loop.later(float(second), self.loop.world, self._compact)
        orders = self.faults.by_number("order")
        self.provider.place_all(self.plan.orders, lambda number: {orders.get(number, "")})
        for driver in self.drivers:
            self.loop.spawn(driver.actor, driver.work())
        while not self._over():
            if self.loop.time() > MAX_WORLD_S:
                owed = f"{self.provider.left} orders without an answer, {self.shared.owed} callbacks owed"
                faults = f"{self.lasting_faults} faults not over"
                self.wrong.append(f"the world does not end: {judge.snapshot(self)}, {owed}, {faults}")
                return
            await asyncio.sleep(CHECK_INTERVAL_S)
        await asyncio.sleep(SETTLE_S + (self.retires_after_s or 0))
        for _ in range(round(MAX_WORLD_S / CHECK_INTERVAL_S)):  # a fault may strike after the end
            if judge.caught_up(self):
                break
            await asyncio.sleep(CHECK_INTERVAL_S)

    def _over(self) -> bool:
        if self.provider.left or self.shared.owed or self.lasting_faults or not judge.all_open(self):
            return False
        if self._commits_seen == len(self.broker.commits):
            return False
        self._commits_seen = len(self.broker.commits)
        return judge.snapshot(self).ended

    # -- faults of workers --------------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        worker = Worker(
            name,
            self.loop,
            self.network,
            self.broker,
            self.disks.setdefault(name, Disk()),
            product=self.product,
            settings=self._settings,
            performer=lambda worker: Performer(worker, self.payment, self.pos),
            http_client=self.front.client_of,
            time=self.time,
            on_end=self._ended,
            report_violation=self.wrong.append,
        )
        worker.app.declared_tables["restaurants"].data[RESTAURANT.restaurant] = RESTAURANT
        worker.actor.before_step = self._faults_by_step(worker)
        self.front.workers[name] = worker
        self.broker.heard(name)
        self.note("starts", name)
        worker.start()

    def _arrive(self, name: str) -> None:
        self.lasting_faults -= 1
        self._start(name)

    def _faults_by_step(self, worker: Worker) -> Callable[[int], None] | None:
        """Return the function that injects faults at the worker's steps; the count of steps survives a restart."""
        faults = self.faults.by_number(worker.name)
        passages = self.faults.passages
        name = worker.name

        def before_step(_: int) -> None:
            passages[name] += 1
            if passages[name] in faults:
                self._inject(worker, faults[passages[name]])

        return before_step if faults else None

    def _inject(self, worker: Worker, what: str) -> None:
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
                self._schedule(seconds, self._thaw, worker)
            case "cut":
                self.network.cut.add(worker.actor)
                self.broker.silent(worker.name)
                self._schedule(seconds, self._heal, worker)
            case "stop" | "leave":
                if not worker.stopping:
                    self.lasting_faults += 1
                    worker.starts_again_after_s = seconds
                    worker.stop(leave=kind == "leave")

    def _kill(self, worker: Worker, down_s: float) -> None:
        self.note("dies", worker.name)
        self.lasting_faults -= worker.stopping
        self.loop.kill(worker.actor)
        self.network.cut.discard(worker.actor)
        worker.break_connections()
        if self.front.workers.get(worker.name) is worker:
            del self.front.workers[worker.name]
        self.broker.silent(worker.name)
        self._schedule(down_s, self._start, worker.name)

    def _ended(self, worker: Worker) -> None:
        """End the process of a worker that has stopped or whose time to stop is over."""
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
            self.loop.later(0, worker.actor, worker.consumer.may_fetch.set)

    def _schedule(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> None:
        self.lasting_faults += 1

        def end_fault() -> None:
            self.lasting_faults -= 1
            callback(*arguments)

        self.loop.later(seconds, self.loop.world, end_fault)

    def _compact(self) -> None:
        for (topic, _), log in self.broker.logs.items():
            if topic.endswith("-changelog"):
                log.compact(0)
        self.note("compacted")


def run(plan: Plan, *, keep_log: bool = False) -> Result:
    """Run a plan's world."""
    return World(plan, keep_log=keep_log).run()
