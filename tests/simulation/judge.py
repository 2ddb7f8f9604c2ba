"""Whether a world was sound: by the oracle, and by what only the inside of a world can tell.

``look`` is for a world that still runs; ``judge`` for one that is over.
"""

from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec
from aiokafka import TopicPartition

from oracle.facts import Period
from oracle.ledgers import AnswerLine, Line, PaymentLine, TicketLine, TripLine
from oracle.log import LATEST, Batch, Log, Positions, Take
from oracle.reading import Reading
from oracle.report import report_of
from simulators.ledger import Entry
from streams.app import engine, order_updates, settings, topic_of
from streams.engine.changes import Position
from streams.engine.clock import CLOCK
from tests.simulation.broker import Broker, StoredRecord, Transaction
from topics import families
from topics.identity import owner_of
from topics.order_history import READER as RETIRED
from topics.order_updates import READER, OrderStatus, OrderUpdated

if TYPE_CHECKING:
    from tests.simulation.world import World

L = TypeVar("L", bound=Line)
EVERYTHING = 1 << 60
OF_AN_ORDER = ("orders", "bodies", "payments", "tickets", "deliveries", "journal")
WAITS_S = {
    OrderStatus.CREATED: 30.0,
    OrderStatus.IN_PREPARATION: 660.0,
    OrderStatus.SCHEDULING_DELIVERY: 300.0,
    OrderStatus.WAITING_FOR_DRIVER: 900.0,
    OrderStatus.IN_DELIVERY: 3600.0,
}
"""After which a person is to look."""
DOWN_S = 120.0
"""What workers may be down, and what it takes until their tasks are elsewhere."""


class Look(NamedTuple):
    """How far a world is."""

    told: dict[str, OrderUpdated]
    """Order -> its newest update."""
    accepted: set[str]
    calls: list[str]
    """Those without an answer."""
    open: bool
    """Whether every partition is open in the worker that it was assigned to, and there alone."""

    @property
    def ended(self) -> bool:
        """Whether every order that was taken has ended, its refund included."""
        return not self.calls and all(o in self.told and self.told[o].status.ended for o in self.accepted)

    def __str__(self) -> str:
        orders = {o: self.told[o].status.value if o in self.told else "unknown" for o in sorted(self.accepted)}
        return f"orders {orders}, calls {self.calls}, all open: {self.open}"


def look(world: "World") -> Look:
    """How far it is."""
    told = {update.order: update for update in _updates(world.broker)}
    accepted = {e.order for e in world.outside.answers if e.event == "answer" and e.outcome == "accepted"}
    calls = [key.decode() for rows in _folded(world, "calls").values() for key in rows]
    return Look(told, accepted, calls, all_open(world))


def all_open(world: "World") -> bool:
    """Whether every partition is open in the worker that it was assigned to, and there alone."""
    owners, workers = world.broker.owners, world.front.workers
    if any(owner not in workers for owner in owners.values()) or len(owners) < world.plan.partitions:
        return False
    return all(
        worker.engine.open_partitions() == sorted(p for p, owner in owners.items() if owner == name)
        for name, worker in workers.items()
    )


def caught_up(world: "World") -> bool:
    """Whether every partition is open, and everything in it that is committed has been applied and committed."""
    tasks = [task for worker in world.front.workers.values() for task in worker.engine.tasks.values()]
    return all_open(world) and not any(
        task.pending or task.committing or world.broker.logs[topic, task.partition].read(offset, 1)[0]
        for task in tasks
        for topic, offset in task.next_offsets.items()
    )


def judge(world: "World") -> list[str]:
    """What is wrong with a world that is over."""
    checks = (_by_the_oracle, _broken_down, _waits, _positions, _stores, _retired)
    return [wrong for check in checks for wrong in check(world)]


# -- from outside -----------------------------------------------------------------------------------------------------


class SimulatedLog:
    """What the oracle reads, ``oracle.log.Log``, of the broker of a world."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def topics(self) -> dict[str, int]:
        return self._broker.topics

    async def follow(self, topics: Iterable[str]) -> None:
        """There is nothing to find out."""

    async def offsets(self, partitions: Collection[TopicPartition], moment: int) -> Positions:
        return {tp: self._broker.logs[tp].stable_end if moment == LATEST else 0 for tp in partitions}

    async def read(self, positions: Positions, take: Take, _undecoded: Any, _tell: Any) -> None:
        for tp, position in positions.items():
            for batch in self._batches(tp):
                if batch.next_offset > position:
                    take(batch, position)
            positions[tp] = self._broker.logs[tp].stable_end

    def _batches(self, tp: TopicPartition) -> Iterator[Batch]:
        log = self._broker.logs[tp]
        committed = [entry for entry in log.entries if entry.record is None or log.shows(entry)]
        stable = (entry for entry in committed if entry.offset < log.stable_end)
        for (transaction, mark), entries in groupby(stable, lambda entry: (entry.transaction, entry.record is None)):
            found = list(entries)
            records = [entry.record for entry in found if entry.record is not None]
            yield self._batch(tp, transaction, found[0].offset, found[-1].offset + 1, records, mark=mark)

    @staticmethod
    def _batch(
        tp: TopicPartition,
        transaction: Transaction | None,
        offset: int,
        next_offset: int,
        records: Sequence[StoredRecord],
        *,
        mark: bool,
    ) -> Batch:
        producer, epoch = (-1, -1) if transaction is None else (transaction.producer_id, transaction.epoch)
        newest = max((record.timestamp for record in records), default=0)
        return Batch(
            tp.topic, tp.partition, offset, next_offset, newest, producer, epoch, transaction is not None, mark, records
        )


def _by_the_oracle(world: "World") -> list[str]:
    period = Period(now_ms=0, final=True)
    log = cast(Log, SimulatedLog(world.broker))
    reading = Reading(log, settings.topic_prefix, settings.application, None, period, None, "", lambda _: None)
    _at_once(reading.open())
    _at_once(reading.go_on())
    facts, outside = reading.facts, world.outside
    facts.payments = _lines(outside.payments, PaymentLine)
    facts.tickets = _lines(outside.tickets, TicketLine)
    facts.trips = _lines(outside.trips, TripLine)
    facts.answers = _lines(outside.answers, AnswerLine)
    facts.stuck = set(reading.lagging())
    report = report_of(facts)
    return [
        f"promise {promise.number}: {wrong.sentence}" for promise in report.promises for wrong in promise.violations
    ]


def _lines(entries: Sequence[Entry], kind: type[L]) -> list[L]:
    """A ledger, as the oracle reads it."""
    return [
        msgspec.convert({**msgspec.to_builtins(entry), "(file)": kind.__name__, "(number)": number}, kind)
        for number, entry in enumerate(entries, 1)
    ]


def _at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the log of a world has everything at once")


# -- from inside ------------------------------------------------------------------------------------------------------


def _updates(broker: Broker) -> list[OrderUpdated]:
    return [READER.read(record.value) for record in broker.committed(order_updates)]


def _folded(world: "World", table: str) -> dict[int, dict[bytes, bytes]]:
    """Partition -> the rows of a table, by its changelog."""
    rows: dict[int, dict[bytes, bytes]] = {partition: {} for partition in range(world.plan.partitions)}
    for record in world.broker.committed(engine.changelogs[table]):
        assert record.key is not None
        if record.key == CLOCK:
            continue
        if record.value is None:
            rows[record.partition].pop(record.key, None)
        else:
            rows[record.partition][record.key] = record.value
    return rows


def _broken_down(world: "World") -> list[str]:
    """Nothing that is said in a world breaks a handler."""
    letters = [dict(letter.headers) for letter in world.broker.committed(engine.dead_letters)]
    broken = [headers["dead-letter.reason"].decode() for headers in letters if "exception.class" in headers]
    return [f"applying broke down: {reason}" for reason in broken]


def _waits(world: "World") -> list[str]:
    """An order that has waited too long has said so."""
    wrong: list[str] = []
    newest: dict[str, tuple[float, OrderUpdated]] = {}
    for update in _updates(world.broker):
        assert update.at is not None
        at_s = update.at.timestamp()
        if update.order in newest:
            since_s, before = newest[update.order]
            waited_s = at_s - since_s
            if before.attention is None and waited_s > WAITS_S.get(before.status, float("inf")) + DOWN_S:
                wrong.append(f"{update.order} was {before.status.value} for {waited_s:.0f} s, and nobody was told")
        newest[update.order] = (at_s, update)
    return wrong


def _positions(world: "World") -> list[str]:
    """Positions only ever grow."""
    wrong: list[str] = []
    reached: dict[tuple[int, bytes], int] = {}
    for record in world.broker.committed(engine.changelogs["positions"]):
        if record.key is None or record.value is None:
            continue  # the broker was asked for the time
        at, position = (record.partition, record.key), Position.of(record.value).offset
        if position < reached.get(at, 0):
            wrong.append(f"task {at[0]} went back in {at[1].decode()}: from {reached[at]} to {position}")
        reached[at] = position
    return wrong


def _stores(world: "World") -> list[str]:
    """What lies on the owner's disk is what the changelogs say, row for row: promise 8."""
    wrong: list[str] = []
    for table in engine.changelogs:
        for partition, rows in _folded(world, table).items():
            worker = world.front.workers.get(world.broker.owners.get(partition, ""))
            task = worker.engine.tasks.get(partition) if worker else None
            if task is not None and task.alive and dict(task._store.rows(table)) != rows:
                wrong.append(f"promise 8: task {partition}: the table {table} is not what its changelog says")
    return wrong


def _retired(world: "World") -> list[str]:
    """Where orders leave the tables, those that nobody has to look at have left them: whole, and once."""
    if world.retires_after_s is None:
        return []
    kept = {key.decode() for table in OF_AN_ORDER for rows in _folded(world, table).values() for key in rows}
    kept = {owner_of(key) for key in kept}
    records = world.broker.committed(topic_of(families.ORDER_HISTORY))
    history = Counter(RETIRED.read(record.value).order for record in records)
    wrong: list[str] = []
    for order, newest in sorted(look(world).told.items()):
        leaves = newest.status.ended and newest.attention is None
        if leaves and (order in kept or history[order] != 1):
            wrong.append(
                f"{order} should have left: in the tables {order in kept}, in the history {history[order]} times"
            )
        if not leaves and history[order]:
            wrong.append(f"{order} is {newest.status.value} and has left the tables")
    return wrong
