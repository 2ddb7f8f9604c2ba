"""Judgement of a world: the oracle's, and checks that need a view of its inside.

``snapshot`` describes a world that still runs; ``judge`` checks one that is over.
"""

from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec
from aiokafka import TopicPartition

from exactly_once.task.clock_check import CLOCK
from exactly_once.task.transaction import Position
from oracle.facts import Period
from oracle.ledgers import AnswerLine, Line, PaymentLine, TicketLine, TripLine
from oracle.loading import Loader
from oracle.log import LATEST, Batch, Log, Positions, Take
from oracle.report import report_of
from simulators.ledger import Entry
from topics import families
from topics.families import topic_name
from topics.identity import owner_of
from topics.order_history import READER as HISTORY_READER
from topics.order_updates import READER, OrderStatus, OrderUpdated
from verification.simulation.broker import Broker, StoredRecord, Transaction

if TYPE_CHECKING:
    from verification.simulation.world import World

L = TypeVar("L", bound=Line)
ORDER_TABLES = ("orders", "bodies", "payments", "tickets", "deliveries", "journal")
MAX_WAIT_S = {
    OrderStatus.CREATED: 30.0,
    OrderStatus.SCHEDULED: float("inf"),  # an order for later
    OrderStatus.IN_PREPARATION: 660.0,
    OrderStatus.SCHEDULING_DELIVERY: 300.0,
    OrderStatus.WAITING_FOR_DRIVER: 900.0,
    OrderStatus.IN_DELIVERY: 3600.0,
}
"""Status -> longest wait until the order needs attention."""
MAX_DOWN_S = 120.0
"""Longest time that workers are down, with the time until other workers have opened their tasks."""


class Snapshot(NamedTuple):
    """Progress of a world."""

    newest: dict[str, OrderUpdated]
    """Order -> its newest update."""
    accepted: set[str]
    """Orders that a worker has accepted."""
    calls: list[str]
    """Calls without an answer."""
    open: bool
    """True if every partition is open in the worker that it is assigned to, and only there."""

    @property
    def ended(self) -> bool:
        """True if every accepted order has ended, its refund included."""
        return not self.calls and all(o in self.newest and self.newest[o].status.ended for o in self.accepted)

    def __str__(self) -> str:
        orders = {o: self.newest[o].status.value if o in self.newest else "unknown" for o in sorted(self.accepted)}
        return f"orders {orders}, calls {self.calls}, all open: {self.open}"


def snapshot(world: "World") -> Snapshot:
    """Return the progress of a world."""
    newest = {update.order: update for update in _updates(world.broker)}
    accepted = {e.order for e in world.shared.answers if e.event == "answer" and e.outcome == "accepted"}
    calls = [key.decode() for rows in _rows_by_partition(world, "calls").values() for key in rows]
    return Snapshot(newest, accepted, calls, all_open(world))


def all_open(world: "World") -> bool:
    """Return whether every partition is open in the worker that it is assigned to, and only there."""
    owners, workers = world.broker.owners, world.front.workers
    if any(owner not in workers for owner in owners.values()) or len(owners) < world.plan.partitions:
        return False
    return all(
        worker.engine.open_partitions() == sorted(p for p, owner in owners.items() if owner == name)
        for name, worker in workers.items()
    )


def caught_up(world: "World") -> bool:
    """Return whether every partition is open, and all its committed input has been applied and committed."""
    tasks = [task for worker in world.front.workers.values() for task in worker.engine.tasks.values()]
    return all_open(world) and not any(
        task.pending or task.committing or world.broker.logs[topic, task.partition].read(offset, 1)[0]
        for task in tasks
        for topic, offset in task.next_offsets.items()
    )


def judge(world: "World") -> list[str]:
    """Return the violations of a world that is over."""
    checks = (_broken_promises, _failed_handlers, _missing_attention, _lost_positions, _store_differences, _retirements)
    return [wrong for check in checks for wrong in check(world)]


# -- the oracle -------------------------------------------------------------------------------------------------------


class SimulatedLog:
    """Stand-in for ``oracle.log.Log`` that reads the topics of a world's broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def topics(self) -> dict[str, int]:
        return self._broker.topics

    async def follow(self, topics: Iterable[str]) -> None:
        """Do nothing: a simulated log needs no leaders."""

    async def offsets(self, partitions: Collection[TopicPartition], moment: int) -> Positions:
        return {tp: self._broker.logs[tp].stable_end if moment == LATEST else 0 for tp in partitions}

    async def read(self, positions: Positions, take: Take, _undecoded: Any, _show: Any) -> None:
        for tp, position in positions.items():
            for batch in self._batches(tp):
                if batch.next_offset > position:
                    take(batch, position)
            positions[tp] = self._broker.logs[tp].stable_end

    def _batches(self, tp: TopicPartition) -> Iterator[Batch]:
        log = self._broker.logs[tp]
        committed = [entry for entry in log.entries if entry.record is None or log.is_committed(entry)]
        stable = (entry for entry in committed if entry.offset < log.stable_end)
        for (transaction, mark), group in groupby(stable, lambda entry: (entry.transaction, entry.record is None)):
            entries = list(group)
            records = [entry.record for entry in entries if entry.record is not None]
            yield self._batch(tp, transaction, entries[0].offset, entries[-1].offset + 1, records, mark=mark)

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


def _broken_promises(world: "World") -> list[str]:
    period = Period(now_ms=0, final=True)
    log = cast(Log, SimulatedLog(world.broker))
    loader = Loader(log, world.product.topic_prefix, world.product.application, None, period, None, "", lambda _: None)
    _run_at_once(loader.open())
    _run_at_once(loader.go_on())
    facts = loader.facts
    facts.payments = _lines(world.shared.payments, PaymentLine)
    facts.tickets = _lines(world.shared.tickets, TicketLine)
    facts.trips = _lines(world.shared.trips, TripLine)
    facts.answers = _lines(world.shared.answers, AnswerLine)
    facts.stuck = set(loader.lagging())
    report = report_of(facts)
    return [
        f"promise {promise.number}: {wrong.sentence}" for promise in report.promises for wrong in promise.violations
    ]


def _lines(entries: Sequence[Entry], kind: type[L]) -> list[L]:
    """Convert a ledger's entries to lines, as the oracle reads them from a file."""
    return [
        msgspec.convert({**msgspec.to_builtins(entry), "(file)": kind.__name__, "(number)": number}, kind)
        for number, entry in enumerate(entries, 1)
    ]


def _run_at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("reading the log of a world must not wait")


# -- the inside -------------------------------------------------------------------------------------------------------


def _updates(broker: Broker) -> list[OrderUpdated]:
    return [READER.read(record.value) for record in broker.committed(topic_name(families.ORDER_UPDATES.name))]


def _rows_by_partition(world: "World", table: str) -> dict[int, dict[bytes, bytes]]:
    """Return partition -> rows of a table, according to its changelog."""
    rows: dict[int, dict[bytes, bytes]] = {partition: {} for partition in range(world.plan.partitions)}
    for record in world.broker.committed(world.declared.engine.changelogs[table]):
        assert record.key is not None
        if record.key == CLOCK:
            continue
        if record.value is None:
            rows[record.partition].pop(record.key, None)
        else:
            rows[record.partition][record.key] = record.value
    return rows


def _failed_handlers(world: "World") -> list[str]:
    """Check that no record of a world makes a handler raise."""
    letters = [dict(letter.headers) for letter in world.broker.committed(world.declared.engine.dead_letters)]
    reasons = [headers["dead-letter.reason"].decode() for headers in letters if "exception.class" in headers]
    return [f"a handler failed: {reason}" for reason in reasons]


def _missing_attention(world: "World") -> list[str]:
    """Check that every order that waited too long has raised attention."""
    wrong: list[str] = []
    newest: dict[str, tuple[float, OrderUpdated]] = {}
    for update in _updates(world.broker):
        assert update.at is not None
        at_s = update.at.timestamp()
        if update.order in newest:
            since_s, before = newest[update.order]
            waited_s = at_s - since_s
            is_waiting = not before.status.ended and before.attention is None
            if is_waiting and waited_s > MAX_WAIT_S[before.status] + MAX_DOWN_S:
                wrong.append(f"{update.order} was {before.status.value} for {waited_s:.0f} s without attention")
        newest[update.order] = (at_s, update)
    return wrong


def _lost_positions(world: "World") -> list[str]:
    """Check that positions never decrease."""
    wrong: list[str] = []
    reached: dict[tuple[int, bytes], int] = {}
    for record in world.broker.committed(world.declared.engine.changelogs["positions"]):
        if record.key is None or record.value is None:
            continue  # probe record of the clock check
        at, position = (record.partition, record.key), Position.of(record.value).offset
        if position < reached.get(at, 0):
            wrong.append(f"task {at[0]} went back in {at[1].decode()}: from {reached[at]} to {position}")
        reached[at] = position
    return wrong


def _store_differences(world: "World") -> list[str]:
    """Check that the owner's disk equals the changelogs, row for row (promise 8)."""
    wrong: list[str] = []
    for table in world.declared.engine.changelogs:
        for partition, rows in _rows_by_partition(world, table).items():
            worker = world.front.workers.get(world.broker.owners.get(partition, ""))
            task = worker.engine.tasks.get(partition) if worker else None
            if task is not None and task.alive and dict(task._store.rows(table)) != rows:
                wrong.append(f"promise 8: task {partition}: the table {table} differs from its changelog")
    return wrong


def _retirements(world: "World") -> list[str]:
    """Check that exactly the ended orders without attention were retired, each with all its rows, and once."""
    if world.retires_after_s is None:
        return []
    keys = {
        key.decode() for table in ORDER_TABLES for rows in _rows_by_partition(world, table).values() for key in rows
    }
    kept = {owner_of(key) for key in keys}
    records = world.broker.committed(topic_name(families.ORDER_HISTORY.name))
    history = Counter(HISTORY_READER.read(record.value).order for record in records)
    wrong: list[str] = []
    for order, newest in sorted(snapshot(world).newest.items()):
        retires = newest.status.ended and newest.attention is None
        if retires and (order in kept or history[order] != 1):
            wrong.append(
                f"{order} should be retired: in the tables {order in kept}, in the history {history[order]} times"
            )
        if not retires and history[order]:
            wrong.append(f"{order} is {newest.status.value} and has left the tables")
    return wrong
