"""Loading of the topics and the ledgers into `Facts`, and repeated loading of what was added since.

Each look reads the topics first, and the ledgers after them. A party writes to its ledger before it reports to a
worker, so the ledgers contain everything that the topics show.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from aiokafka import TopicPartition

from oracle import ledgers
from oracle.facts import (
    DeadLetter,
    DriverMove,
    Facts,
    Location,
    Order,
    Period,
    Placing,
    SourceProgress,
    TimerRow,
    Unreadable,
    Update,
)
from oracle.log import EARLIEST, LATEST, Batch, CannotRead, Committed, Log, NotDecodable, Positions
from oracle.speeds import Speeds
from oracle.writers import Writers
from topics import dead_letters, deliveries, dispatch, families, order_history, order_updates, orders
from topics.families import Family, topic_name
from topics.headers import IDEMPOTENCY_KEY, REQUEST_ID
from topics.identity import MAX_IDEMPOTENCY_KEY_BYTES, external_id_of
from topics.records import Reader, Undecodable, epoch_ms
from topics.timer_rows import parse_timer_key

Progress = Callable[[str], None]

T = TypeVar("T")


class Loader:
    """Loader of one installation. ``only`` selects the orders with this text in their ids."""

    def __init__(
        self,
        log: Log,
        prefix: str,
        application: str,
        directory: Path | None,
        period: Period,
        since: datetime | None,
        only: str,
        progress: Progress,
    ) -> None:
        self.facts = Facts(period)
        self._log = log
        self._prefix = prefix
        self._application = application
        self._directory = directory
        self._since = since
        self._only = only
        self._progress = progress
        self._positions: Positions = {}
        self._last: dict[tuple[str, int], int] = {}
        """(source topic, partition) -> offset of its last committed record."""
        self._applied: dict[tuple[str, int], int] = {}
        """(source topic, partition) -> offset of the next record to apply."""
        self._cut: set[int] = set()
        """Partitions of `order-updates` whose beginning has expired, until their first record is read."""
        self._reported: set[Unreadable] = set()
        self._writers = Writers()
        self._unrecorded_speed = 1.0
        self._uses_record = True
        self._handler_of = self._handlers()
        self._sources = frozenset(self._topic(family) for family in families.SOURCES)
        self._compacted = self._changelog("timers"), self._changelog("positions")
        """Changelogs that are read from their beginning, because old rows count, too."""
        self._updates = self._topic(families.ORDER_UPDATES)
        self._order_outputs = self._updates, self._topic(families.ORDER_HISTORY)
        """Topics that only the task of the order writes to."""

    def assume_speed(self, unrecorded: float, always: float | None) -> None:
        """Set the speed of runs without a record. ``always`` is used even if there is a record, unless it is None."""
        self._unrecorded_speed = unrecorded if always is None else always
        self._uses_record = always is None
        self.facts.speeds = Speeds((), self._unrecorded_speed)

    async def open(self) -> None:
        """Find the topics and their start positions. Raises `CannotRead` if the installation has no topics."""
        found = await self._log.topics()
        if self._topic(families.ORDERS) not in found:
            raise CannotRead(
                f"There is no topic {self._topic(families.ORDERS)}: name the prefix of an existing installation."
            )
        tables = [name for name in found if self._is_changelog(name)]
        topics = [name for family in families.FAMILIES if (name := self._topic(family)) in found]
        await self._log.follow([*topics, *tables])
        for name in (*topics, *tables):
            await self._begin(name, [TopicPartition(name, number) for number in range(found[name])])

    async def go_on(self) -> None:
        """Read the records that were committed since the last look, then the ledgers."""
        self.facts.period = self.facts.period._replace(now_ms=_now_ms())
        await self._log.read(self._positions, self._take, self._undecoded, self._report_progress)
        for (topic, partition), last in self._last.items():
            self.facts.reached[topic, partition] = SourceProgress(self._applied.get((topic, partition), 0), last)
        await self._read_history()
        self._read_ledgers()

    def lagging(self) -> dict[tuple[str, int], int]:
        """Return the positions of the partitions that have records left to apply."""
        return {where: reached.position for where, reached in self.facts.reached.items() if reached.behind}

    # -- start positions ---------------------------------------------------------------------------------------------

    async def _begin(self, topic: str, partitions: list[TopicPartition]) -> None:
        earliest = await self._log.offsets(partitions, EARLIEST)
        starts = earliest
        if self._since is not None and topic not in self._compacted:
            starts = await self._log.offsets(partitions, epoch_ms(self._since))
        self._positions.update(starts)
        if topic == self._updates:
            self.facts.whole = not any(starts.values())
            ends = await self._log.offsets(partitions, LATEST)
            self._cut = {tp.partition for tp in partitions if 0 < starts[tp] == earliest[tp] < ends[tp]}
            if any(0 < earliest[tp] == ends[tp] for tp in partitions):  # all its orders have expired
                self._judge_from(_now_ms())
            if self._since is not None:
                self._judge_from(epoch_ms(self._since))

    def _judge_from(self, moment_ms: int) -> None:
        period = self.facts.period
        self.facts.period = period._replace(since_ms=max(period.since_ms, moment_ms))

    # -- handlers of records -----------------------------------------------------------------------------------------

    def _handlers(self) -> dict[str, Callable[[Committed], None]]:
        return {
            self._topic(families.ORDER_UPDATES): self._take_update,
            self._topic(families.ORDERS): self._take_order,
            self._topic(families.DEAD_LETTERS): self._take_dead_letter,
            self._topic(families.DELIVERIES): self._take_delivery,
            self._topic(families.DISPATCH): self._take_dispatch,
            self._topic(families.PAYMENTS): self._decoder(families.PAYMENTS),
            self._topic(families.POS): self._decoder(families.POS),
            self._topic(families.DRIVERS): self._decoder(families.DRIVERS),
            self._changelog("timers"): self._take_timer,
            self._changelog("positions"): self._take_position,
        }

    def _take(self, batch: Batch, first: int) -> None:
        if batch.transactional:
            self._note_writer(batch)
        if batch.is_marker:
            return
        if self._is_changelog(batch.topic):
            self.facts.alive_ms = max(self.facts.alive_ms, batch.timestamp_ms)
        elif batch.topic in self._sources:
            self._last[batch.topic, batch.partition] = batch.next_offset - 1
        if handle := self._handler_of.get(batch.topic):
            for record in batch.records(first):
                handle(record)

    def _note_writer(self, batch: Batch) -> None:
        self.facts.written += 1
        single_writer = self._is_changelog(batch.topic) or batch.topic in self._order_outputs
        if stale := self._writers.note(batch, single_writer=single_writer):
            self.facts.stale_writes.append(stale)

    def _take_update(self, record: Committed) -> None:
        update = self._readable(order_updates.READER, record)
        if update is None:
            return
        if record.partition in self._cut:
            self._cut.remove(record.partition)
            self._judge_from(record.timestamp_ms)
        if self._only in update.order:
            self._add_update(update.order, Update.of(update, record.timestamp_ms, _location(record)))

    def _add_update(self, name: str, update: Update) -> None:
        order = self.facts.orders.get(name)
        if order is None:
            if update.version > 1 and not self.facts.whole:
                self.facts.older.add(name)
            if name in self.facts.older:
                return
            order = self.facts.orders[name] = Order(name)
        order.add(update)

    def _take_order(self, record: Committed) -> None:
        placed = self._read(families.ORDERS, record)
        if not isinstance(placed, orders.Placed):
            return
        name = placed.key
        if placed.external_id is None:
            header = IDEMPOTENCY_KEY.lower()
            key = next((value for each, value in record.headers if each.lower() == header), None)
            if not key or len(key) > MAX_IDEMPOTENCY_KEY_BYTES:
                self.facts.malformed.append(_location(record))
                return
            name = f"{placed.provider}:{external_id_of(key)}"
        if self._only in name:
            deliver_at_ms = None if placed.deliver_at is None else epoch_ms(placed.deliver_at)
            self.facts.placings[name].append(
                Placing(
                    name,
                    record.timestamp_ms,
                    _location(record),
                    placed.total,
                    placed.currency,
                    deliver_at_ms,
                    REQUEST_ID in dict(record.headers),
                )
            )

    def _take_dead_letter(self, record: Committed) -> None:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        if dead_letters.REASON not in headers:
            return  # a command about a letter, or a record of a stranger
        origin = None  # a timer and the answer to a call have no location
        with suppress(KeyError, ValueError):
            origin = Location(
                headers[dead_letters.TOPIC], int(headers[dead_letters.PARTITION]), int(headers[dead_letters.OFFSET])
            )
        self.facts.dead_letters.append(DeadLetter(_location(record), origin, record.key or b"", record.value or b""))

    def _take_delivery(self, record: Committed) -> None:
        event = self._read(families.DELIVERIES, record)
        if isinstance(event, deliveries.DriverAssigned):
            self.facts.moves.append(DriverMove(event.driver, record.timestamp_ms, _location(record), event.order))
        elif isinstance(event, deliveries.Delivered):
            self.facts.moves.append(DriverMove(event.driver, record.timestamp_ms, _location(record), None))

    def _take_dispatch(self, record: Committed) -> None:
        event = self._read(families.DISPATCH, record)
        if isinstance(event, dispatch.DriverAvailable):
            self.facts.moves.append(DriverMove(event.driver, record.timestamp_ms, _location(record), None))

    def _decoder(self, family: Family) -> Callable[[Committed], None]:
        def take(record: Committed) -> None:
            self._read(family, record)

        return take

    def _take_timer(self, record: Committed) -> None:
        row = record.key or b""
        if record.value is None:
            self.facts.timers.pop((record.partition, row), None)
            return
        key = parse_timer_key(row)
        self.facts.timers[record.partition, row] = TimerRow(key.name, key.due_ms, _location(record))

    def _take_position(self, record: Committed) -> None:
        position = msgspec.json.decode(record.value or b"0")
        offset = position["offset"] if isinstance(position, dict) else position  # rows of earlier versions: the offset
        self._applied[(record.key or b"").decode(errors="replace"), record.partition] = offset

    def _read(self, family: Family, record: Committed) -> object:
        """Return the record; None, and note it as malformed, if it is no record of the family."""
        assert family.reader is not None
        try:
            found: object = family.reader.read(record.value)
        except Undecodable:
            self.facts.malformed.append(_location(record))
            return None
        return found

    # -- history and ledgers -----------------------------------------------------------------------------------------

    async def _read_history(self) -> None:
        """Read the times at which orders with reused ids retired, from the earliest first update on."""
        reused = {order.name: order.lives[0][0].at_ms for order in self.facts.orders.values() if order.reused}
        if not reused:
            return
        topic = self._topic(families.ORDER_HISTORY)
        partitions = [tp for tp in self._positions if tp.topic == topic]
        positions = await self._log.offsets(partitions, min(reused.values()))
        self.facts.retired.clear()

        def take(batch: Batch, first: int) -> None:
            for record in () if batch.is_marker else batch.records(first):
                if (record.key or b"").decode(errors="replace") in reused:
                    retired = self._readable(order_history.READER, record)
                    if retired is not None:
                        self.facts.retired[retired.order].append(record.timestamp_ms)

        await self._log.read(positions, take, self._undecoded, self._report_progress)

    def _readable(self, reader: Reader[T], record: Committed) -> T | None:
        """Return the record; None, and note it as unreadable, if it cannot be read."""
        try:
            return reader.read(record.value)
        except Undecodable as error:
            self._unreadable(_location(record), str(error), foreign=not record.transactional)
            return None

    def _read_ledgers(self) -> None:
        if self._directory is None:
            return
        errors: list[tuple[str, str]] = []
        facts = self.facts
        facts.payments = ledgers.read(self._directory, "payment", ledgers.PaymentLine, errors)
        facts.tickets = ledgers.read(self._directory, "pos", ledgers.TicketLine, errors)
        facts.trips = ledgers.read(self._directory, "trips", ledgers.TripLine, errors)
        facts.answers = ledgers.read(self._directory, "answers", ledgers.AnswerLine, errors)
        facts.observers = ledgers.read(self._directory, "observers", ledgers.ObserverLine, errors)
        facts.intrusions = ledgers.read(self._directory, "intrusions", ledgers.IntrusionLine, errors)
        facts.poison = ledgers.read(self._directory, "poison", ledgers.PoisonLine, errors)
        if self._uses_record:
            runs = ledgers.read(self._directory, "runs", ledgers.RunLine, errors)
            facts.speeds = Speeds(runs or (), self._unrecorded_speed)
        if self._only:
            facts.payments = _matching(self._only, facts.payments)
            facts.tickets = _matching(self._only, facts.tickets)
            facts.answers = _matching(self._only, facts.answers)
            facts.observers = _matching(self._only, facts.observers)
        for where, why in errors:
            self._note_unreadable(Unreadable(where, why))

    def _undecoded(self, batch: Batch, error: NotDecodable) -> None:
        where = Location(batch.topic, batch.partition, batch.offset)
        self._unreadable(where, str(error), foreign=not batch.transactional)

    def _unreadable(self, where: Location, why: str, *, foreign: bool) -> None:
        self._note_unreadable(Unreadable(str(where), why, foreign))

    def _note_unreadable(self, found: Unreadable) -> None:
        """Add to the facts, once only: each look reads the ledgers and the history again."""
        if found not in self._reported:
            self._reported.add(found)
            self.facts.unreadable.append(found)

    def _report_progress(self, left: int) -> None:
        self._progress(f"reading the topics: {left:,} offsets to go" if left else "")

    def _topic(self, family: Family) -> str:
        return topic_name(family.name, self._prefix)

    def _changelog(self, table: str) -> str:
        return f"{self._application}-{table}-changelog"

    def _is_changelog(self, topic: str) -> bool:
        return topic.startswith(f"{self._application}-") and topic.endswith("-changelog")


def _matching(only: str, lines: Iterable[ledgers.L] | None) -> list[ledgers.L] | None:
    return None if lines is None else [line for line in lines if only in getattr(line, "order", "")]


def _location(record: Committed) -> Location:
    return Location(record.topic, record.partition, record.offset)


def _now_ms() -> int:
    return int(time.time() * 1000)
