"""Reads what the topics and the ledgers say into `Facts`; again and again, as both go on.

The topics first and the ledgers after them: what a party outside has done, it has written down before it said so, so
nothing that is on a topic is missing from a ledger.
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
from oracle.facts import Facts, Letter, Move, Order, Period, Placing, Reached, TimerRow, Told, Unreadable, Where
from oracle.log import EARLIEST, LATEST, Batch, CannotRead, Committed, Log, NotDecodable, Positions
from oracle.writers import Writers
from topics import dead_letters, deliveries, dispatch, families, order_history, order_updates, orders
from topics.families import Family, topic_name
from topics.identity import external_id_of
from topics.records import Reader, Undecodable, epoch_ms

REQUEST = "dabbawala-request"
"""Header of a record that a view has produced and waits for."""
IDEMPOTENCY_KEY = "idempotency-key"
DUE_BYTES = 8
"""A timer's row begins with when it is due: milliseconds since 1970, big endian."""

Progress = Callable[[str], None]

T = TypeVar("T")


class Reading:
    """What is read of one installation. ``only``: the orders that have this in their ids."""

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
        self._log, self._prefix, self._application, self._directory = log, prefix, application, directory
        self._since, self._only, self._progress = since, only, progress
        self._positions: Positions = {}
        self._last: dict[tuple[str, int], int] = {}
        """(source topic, partition) -> offset of its last committed record."""
        self._applied: dict[tuple[str, int], int] = {}
        """(source topic, partition) -> offset of the next record to apply."""
        self._cut: set[int] = set()
        """The partitions of `order-updates` whose beginning is gone, as long as nothing has been read of them."""
        self._not_readable: set[Unreadable] = set()
        self._writers = Writers()
        self._takes = self._handlers()
        self._sources = frozenset(self._topic(family) for family in families.SOURCES)
        self._compacted = self._changelog("timers"), self._changelog("positions")
        """Whose rows count, however old."""
        self._updates = self._topic(families.ORDER_UPDATES)
        self._of_orders = self._updates, self._topic(families.ORDER_HISTORY)
        """What only the orders' own task writes to."""

    async def open(self) -> None:
        """Find the topics, and where to begin in them. `CannotRead` where there are none of this installation."""
        found = await self._log.topics()
        if self._topic(families.ORDERS) not in found:
            raise CannotRead(
                f"There is no topic {self._topic(families.ORDERS)}: name the prefix of an installation that is there."
            )
        tables = [name for name in found if self._is_changelog(name)]
        said = [name for family in families.FAMILIES if (name := self._topic(family)) in found]
        await self._log.follow([*said, *tables])
        partitions = {
            name: [TopicPartition(name, number) for number in range(found[name])] for name in (*said, *tables)
        }
        for name in (*said, *tables):
            await self._begin(name, partitions[name])

    async def go_on(self) -> None:
        """Read on, to the end of what is committed by now, then the ledgers."""
        self.facts.period = self.facts.period._replace(now_ms=_now_ms())
        await self._log.read(self._positions, self._take, self._undecoded, self._tell)
        for (topic, partition), last in self._last.items():
            self.facts.reached[topic, partition] = Reached(self._applied.get((topic, partition), 0), last)
        await self._look_into_the_history()
        self._read_ledgers()

    def lagging(self) -> dict[tuple[str, int], int]:
        """Where something is left to apply, and how far each of these has come."""
        return {where: reached.position for where, reached in self.facts.reached.items() if reached.behind}

    # -- where to begin ----------------------------------------------------------------------------------------------

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
            if any(0 < earliest[tp] == ends[tp] for tp in partitions):  # nothing tells when its last order was
                self._judge_from(_now_ms())
            if self._since is not None:
                self._judge_from(epoch_ms(self._since))

    def _judge_from(self, moment_ms: int) -> None:
        period = self.facts.period
        self.facts.period = period._replace(since_ms=max(period.since_ms, moment_ms))

    # -- what is taken of a topic ------------------------------------------------------------------------------------

    def _handlers(self) -> dict[str, Callable[[Committed], None]]:
        return {
            self._topic(families.ORDER_UPDATES): self._take_update,
            self._topic(families.ORDERS): self._take_order,
            self._topic(families.DEAD_LETTERS): self._take_letter,
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
        if batch.mark:
            return
        if self._is_changelog(batch.topic):
            self.facts.alive_ms = max(self.facts.alive_ms, batch.timestamp_ms)
        elif batch.topic in self._sources:
            self._last[batch.topic, batch.partition] = batch.next_offset - 1
        if handle := self._takes.get(batch.topic):
            for record in batch.records(first):
                handle(record)

    def _note_writer(self, batch: Batch) -> None:
        self.facts.written += 1
        alone = self._is_changelog(batch.topic) or batch.topic in self._of_orders
        if overtaken := self._writers.note(batch, alone=alone):
            self.facts.overtaken.append(overtaken)

    def _take_update(self, record: Committed) -> None:
        update = self._readable(order_updates.READER, record)
        if update is None:
            return
        if record.partition in self._cut:
            self._cut.remove(record.partition)
            self._judge_from(record.timestamp_ms)
        if self._only not in update.order:
            return
        told = Told.of(update, record.timestamp_ms, _where(record))
        order = self.facts.orders.get(update.order)
        if order is None:
            if told.version > 1 and not self.facts.whole:
                self.facts.older.add(update.order)
            if update.order in self.facts.older:
                return
            order = self.facts.orders[update.order] = Order(update.order)
        order.add(told)

    def _take_order(self, record: Committed) -> None:
        placed = self._read(families.ORDERS, record)
        if not isinstance(placed, orders.Placed):
            return
        headers = dict(record.headers)
        name = placed.key
        if placed.external_id is None:
            key = next((value for header, value in record.headers if header.lower() == IDEMPOTENCY_KEY), None)
            if key is None:
                self.facts.malformed.append(_where(record))
                return
            name = f"{placed.provider}:{external_id_of(key.decode(errors='replace'))}"
        if self._only in name:
            wished = None if placed.deliver_at is None else epoch_ms(placed.deliver_at)
            self.facts.placings[name].append(
                Placing(
                    name, record.timestamp_ms, _where(record), placed.total, placed.currency, wished, REQUEST in headers
                )
            )

    def _take_letter(self, record: Committed) -> None:
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        if dead_letters.REASON not in headers:
            return  # what is to become of a letter, or anything else that somebody has put here
        origin = None  # a timer has none, nor has the answer to a call
        with suppress(KeyError, ValueError):
            origin = Where(headers[dead_letters.TOPIC], int(headers["origin.partition"]), int(headers["origin.offset"]))
        self.facts.letters.append(Letter(_where(record), origin, record.key or b"", record.value or b""))

    def _take_delivery(self, record: Committed) -> None:
        said = self._read(families.DELIVERIES, record)
        if isinstance(said, deliveries.DriverAssigned):
            self.facts.moves.append(Move(said.driver, record.timestamp_ms, _where(record), said.order))
        elif isinstance(said, deliveries.Delivered):
            self.facts.moves.append(Move(said.driver, record.timestamp_ms, _where(record), None))

    def _take_dispatch(self, record: Committed) -> None:
        said = self._read(families.DISPATCH, record)
        if isinstance(said, dispatch.DriverAvailable):
            self.facts.moves.append(Move(said.driver, record.timestamp_ms, _where(record), None))

    def _decoder(self, family: Family) -> Callable[[Committed], None]:
        def take(record: Committed) -> None:
            self._read(family, record)

        return take

    def _take_timer(self, record: Committed) -> None:
        row = record.key or b""
        if record.value is None:
            self.facts.timers.pop((record.partition, row), None)
            return
        name, due_ms = row[DUE_BYTES:].decode(errors="replace"), int.from_bytes(row[:DUE_BYTES], "big")
        self.facts.timers[record.partition, row] = TimerRow(name, due_ms, _where(record))

    def _take_position(self, record: Committed) -> None:
        noted = msgspec.json.decode(record.value or b"0")
        offset = noted["offset"] if isinstance(noted, dict) else noted  # once it was the offset alone
        self._applied[(record.key or b"").decode(errors="replace"), record.partition] = offset

    def _read(self, family: Family, record: Committed) -> object:
        """The record; None where it is none of the family's."""
        assert family.reader is not None
        try:
            found: object = family.reader.read(record.value)
        except Undecodable:
            self.facts.malformed.append(_where(record))
            return None
        return found

    # -- the rest ----------------------------------------------------------------------------------------------------

    async def _look_into_the_history(self) -> None:
        """When orders whose ids were used again had left: only their records, and only from their first update on."""
        reused = {order.name: order.lives[0][0].at_ms for order in self.facts.orders.values() if order.reused}
        if not reused:
            return
        topic = self._topic(families.ORDER_HISTORY)
        partitions = [tp for tp in self._positions if tp.topic == topic]
        positions = await self._log.offsets(partitions, min(reused.values()))
        self.facts.retired.clear()

        def take(batch: Batch, first: int) -> None:
            for record in () if batch.mark else batch.records(first):
                if (record.key or b"").decode(errors="replace") in reused:
                    retired = self._readable(order_history.READER, record)
                    if retired is not None:
                        self.facts.retired[retired.order].append(record.timestamp_ms)

        await self._log.read(positions, take, self._undecoded, self._tell)

    def _readable(self, reader: Reader[T], record: Committed) -> T | None:
        """What the record says; None, and that is noted, where it cannot be read."""
        try:
            return reader.read(record.value)
        except Undecodable as wrong:
            self._unreadable(_where(record), str(wrong), foreign=not record.transactional)
            return None

    def _read_ledgers(self) -> None:
        if self._directory is None:
            return
        wrong: list[tuple[str, str]] = []
        facts = self.facts
        facts.payments = ledgers.read(self._directory, "payment", ledgers.PaymentLine, wrong)
        facts.tickets = ledgers.read(self._directory, "pos", ledgers.TicketLine, wrong)
        facts.trips = ledgers.read(self._directory, "trips", ledgers.TripLine, wrong)
        facts.answers = ledgers.read(self._directory, "answers", ledgers.AnswerLine, wrong)
        facts.observers = ledgers.read(self._directory, "observers", ledgers.ObserverLine, wrong)
        facts.poison = ledgers.read(self._directory, "poison", ledgers.PoisonLine, wrong)
        if self._only:
            facts.payments = _of(self._only, facts.payments)
            facts.tickets = _of(self._only, facts.tickets)
            facts.answers = _of(self._only, facts.answers)
            facts.observers = _of(self._only, facts.observers)
        for where, why in wrong:
            self._note_unreadable(Unreadable(where, why))

    def _undecoded(self, batch: Batch, error: NotDecodable) -> None:
        where = Where(batch.topic, batch.partition, batch.offset)
        self._unreadable(where, str(error), foreign=not batch.transactional)

    def _unreadable(self, where: Where, why: str, *, foreign: bool) -> None:
        self._note_unreadable(Unreadable(str(where), why, foreign))

    def _note_unreadable(self, found: Unreadable) -> None:
        """Once: the ledgers and the history are read again with each look."""
        if found not in self._not_readable:
            self._not_readable.add(found)
            self.facts.unreadable.append(found)

    def _tell(self, left: int) -> None:
        self._progress(f"reading the topics: {left:,} offsets to go" if left else "")

    def _topic(self, family: Family) -> str:
        return topic_name(family.name, self._prefix)

    def _changelog(self, table: str) -> str:
        return f"{self._application}-{table}-changelog"

    def _is_changelog(self, topic: str) -> bool:
        return topic.startswith(f"{self._application}-") and topic.endswith("-changelog")


def _of(only: str, lines: Iterable[ledgers.L] | None) -> list[ledgers.L] | None:
    return None if lines is None else [line for line in lines if only in getattr(line, "order", "")]


def _where(record: Committed) -> Where:
    return Where(record.topic, record.partition, record.offset)


def _now_ms() -> int:
    return int(time.time() * 1000)
