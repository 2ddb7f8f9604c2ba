"""The public feed of a worker, shared by all clients that listen to it.

One consumer follows the head of `order-updates` and fills a ring per partition with the newest updates. A listener is a
set of positions: the offset of the next record to look at, for each partition it listens to. Its source depends on its
position:

before the ring   it reads batches from Kafka with a separate consumer, until the ring has its next record
within the ring   it takes the matching updates from the ring
at the ring's end it waits; the first matching update wakes it, at that update's offset

The feed buffers nothing per listener, so a slow listener costs nothing: its positions fall behind the ring, and it
reads from Kafka when it continues. No update is lost or repeated at a change of source: no other task runs between the
look at a ring and the wait at its end.

The head is followed only while there are listeners, and `LINGER_S` longer. Reading an update takes about 15 us, which
is a fifth of a worker's time at 1,500 orders a second. The rings hold `MAX_UPDATES` updates, about 10 MB; or
`MAX_RING_BYTES` of them, if a foreign producer has written large ones.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from types import TracebackType
from typing import Any, Self

from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.access.turns import Turns
from streams.feed.update_log import Update, UpdateLog, UpdateReader
from topics.order_updates import OrderUpdated
from topics.records import epoch_ms, write

log = logging.getLogger(__name__)

MAX_UPDATES = 10_000
"""Updates in all rings together."""
MAX_RING_BYTES = 16 << 20
"""Bytes of the updates in all rings, as on the topic. Decoded, they take about as much memory again."""
MAX_BATCH = 200
"""Updates that a listener gets at once."""
MAX_RECORDS_READ = 5_000
"""Records that one read for a listener may take before another listener reads."""
MAX_RECORDS_SEARCHED = 20_000
"""Records among which the feed searches an order's newest update, from the time of that update on."""
CLOCK_SLACK_MS = 500
"""Time by which the clock that wrote the order's row may be ahead of the one that wrote its update."""
MAX_READERS = 4
"""Listeners that read from Kafka at the same time. A thousand that reconnect at once open no thousand connections."""
LINGER_S = 60.0
"""Time that the head is followed after the last listener has left, so that one that reconnects finds the ring."""
RETRY_S = 1.0
"""Pause after Kafka could not be read."""
GRACE_S = 0.5
"""Time for listeners to end when the worker stops. One that hangs in a full connection is then cancelled."""

Matches = Callable[[OrderUpdated], bool]
"""Filter of a listener: returns whether it wants an update."""
Positions = dict[int, int]
"""Partition -> offset of the next record to look at."""


class Gap(Exception):
    """The next records of a listener are no longer kept, or the topic was deleted and created again.

    ``lost`` maps a partition to the wanted offset and the oldest one that exists. The listener continues from the
    oldest one. A listener of one order that has a snapshot continues with the order's newest update.
    """

    def __init__(self, lost: Mapping[int, tuple[int, int]]) -> None:
        super().__init__(f"partition -> (wanted, oldest): {dict(lost)}")
        self.lost = lost


async def _read_or_back_off(reading: Coroutine[Any, Any, list[Update]]) -> list[Update]:
    """Return what the coroutine reads. If Kafka cannot be read, wait for `RETRY_S` and return nothing."""
    try:
        return await reading
    except KafkaError as error:
        log.warning("order-updates cannot be read for a listener; next attempt in a second: %r", error)
        await asyncio.sleep(RETRY_S)
        return []


class Ring:
    """The newest updates of a partition: all that exist from offset ``first`` up to, not including, ``end``.

    It holds at most ``max_updates`` updates and ``max_bytes`` bytes. It always holds the newest update, of any size.
    """

    def __init__(self, start: int, max_updates: int, max_bytes: int) -> None:
        self.first = start
        self.end = start
        self._max_updates = max_updates
        self._max_bytes = max_bytes
        self._bytes = 0
        self._updates: deque[Update] = deque()

    def append(self, update: Update) -> None:
        """Add the next update; discard the oldest ones if there is no room."""
        self._bytes += len(update.value)
        while self._updates and (len(self._updates) == self._max_updates or self._bytes > self._max_bytes):
            oldest = self._updates.popleft()
            self.first = oldest.offset + 1
            self._bytes -= len(oldest.value)
        self._updates.append(update)
        self.end = update.offset + 1

    def since(self, position: int) -> Iterator[Update]:
        """Return an iterator of the updates from this offset on."""
        return islice(self._updates, bisect_left(self._updates, position, key=lambda update: update.offset), None)

    def newest(self, order: str) -> Update | None:
        """Return the last update of an order that the ring holds, or None."""
        return next((update for update in reversed(self._updates) if update.record.order == order), None)


class Listener:
    """A client's place in the feed; use it in a ``with`` block. ``positions`` is empty until the place is known."""

    def __init__(
        self,
        feed: "Feed",
        order: str | None,
        matches: Matches,
        positions: Positions,
        *,
        resumes: bool = True,
        snapshot: OrderUpdated | None = None,
        holder: str = "",
    ) -> None:
        self.order = order
        self.holder = holder
        """Name of the client's key. Holders take turns to read older updates."""
        self.positions = positions
        self.closed = False
        """True once the feed has ended here for good."""
        self.task: asyncio.Task[Any] | None = None
        self.matches = matches
        self._feed = feed
        self._snapshot = snapshot
        """State of the order, for a listener that cannot resume from its position."""
        self._pending_snapshot = None if resumes else snapshot
        """Snapshot to deliver before anything else."""
        self._unverified = resumes
        """True while no one has checked that a record exists at the positions, which came from a client."""
        self._next: asyncio.Future[list[Update]] | None = None

    def __enter__(self) -> Self:
        self.task = asyncio.current_task()
        self._feed.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._feed.remove(self)
        if self._next is not None:
            self._next.cancel()

    async def next(self, within_s: float) -> list[Update] | None:
        """Return the next updates, at most `MAX_BATCH`; None once the feed ends here for good.

        The list is empty as soon as ``positions`` are known, and after ``within_s`` seconds without an update. Raises
        `Gap` if records are lost.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + within_s
        while not self.closed:
            if self._next is None:
                known = bool(self.positions)
                if (found := self._take_buffered()) or (self.positions and not known):
                    return found
                self._next = self._wait()
            done, _ = await asyncio.wait([self._next], timeout=max(0.0, deadline - clock()))
            if not done:
                if self._feed.is_waiting(self):
                    self.advance()
                return []
            ready, self._next = self._next, None
            if found := ready.result():
                return found
        return None

    def advance(self) -> None:
        """Move the positions of a waiting listener to the ends of the rings; no update before them matches."""
        for partition, position in self.positions.items():
            self.positions[partition] = max(position, self._feed.rings[partition].end)

    def _take_buffered(self) -> list[Update]:
        """Return the next updates from the rings; nothing if the rings lack the next record."""
        rings = self._feed.rings
        found: list[Update] = []
        if not rings or self._pending_snapshot is not None or self._positions_outside_rings():
            return found
        if not self.positions:
            self.positions = {partition: ring.end for partition, ring in rings.items()}
        for partition, position in self.positions.items():
            ring = rings[partition]
            for update in ring.since(position):
                self.positions[partition] = update.offset + 1
                if self.matches(update.record):
                    found.append(update)
                if len(found) == MAX_BATCH:
                    return found
            self.positions[partition] = max(position, ring.end)
        return found

    def _wait(self) -> asyncio.Future[list[Update]]:
        """Return a future of updates that are read from Kafka, or of none once the rings have something."""
        if not self._feed.rings:
            return self._feed.wait_for_update(self)
        if self._pending_snapshot is not None:
            return asyncio.create_task(_read_or_back_off(self._start_from_snapshot(self._pending_snapshot)))
        if self._positions_outside_rings():
            return asyncio.create_task(_read_or_back_off(self._read_older()))
        return self._feed.wait_for_update(self)

    def _positions_outside_rings(self) -> Positions:
        """Return the positions before the rings, and the unverified ones behind the ends of the rings."""
        rings = self._feed.rings
        if not rings:
            return {}
        return {
            partition: position
            for partition, position in self.positions.items()
            if position < rings[partition].first or (self._unverified and position > rings[partition].end)
        }

    async def _start_from_snapshot(self, snapshot: OrderUpdated) -> list[Update]:
        """Return the order's newest update, and continue behind it."""
        (partition,) = self.positions
        update = await self._feed.find_snapshot(partition, snapshot, self.holder)
        version, matches = update.record.version, self.matches
        self.matches = lambda record: record.version > version and matches(record)
        self.positions = {partition: update.offset + 1}
        self._pending_snapshot = None
        self._unverified = False
        return [update]

    async def _read_older(self) -> list[Update]:
        """Return a batch of matching updates that the rings no longer hold."""
        found: list[Update] = []
        count = 0
        async with self._feed.reader(behind := self._positions_outside_rings(), self.holder) as reader:
            await self._verify_positions(reader, behind)
            reader.seek(behind)
            while len(found) < MAX_BATCH and count < MAX_RECORDS_READ and self._positions_outside_rings():
                updates = await reader.read(MAX_BATCH - len(found))
                found += [update for update in updates if self.matches(update.record)]
                count += len(updates)
                for partition in behind:
                    self.positions[partition] = await reader.position(partition)
                if not updates:
                    break
        return found

    async def _verify_positions(self, reader: UpdateReader, behind: Positions) -> None:
        """Raise `Gap` unless the topic still has the records at these positions."""
        begins, ends = await reader.begins(), await reader.ends()
        self._unverified = False
        lost = {
            partition: (position, begins[partition])
            for partition, position in behind.items()
            if not begins[partition] <= position <= ends[partition]
        }
        if lost:
            self.positions |= {partition: oldest for partition, (_, oldest) in lost.items()}
            self._pending_snapshot = self._snapshot
            raise Gap(lost)


class Feed:
    """The head of the topic, and all listeners of this worker."""

    def __init__(
        self, updates: UpdateLog, partitions: int, max_updates: int = MAX_UPDATES, max_bytes: int = MAX_RING_BYTES
    ) -> None:
        self.rings: dict[int, Ring] = {}
        """By partition; empty while the head is not followed."""
        self.stopped = False
        self._log = updates
        self._partitions = partitions
        self._max_updates = max(1, max_updates // partitions)
        self._max_bytes = max_bytes // partitions
        self._listeners: set[Listener] = set()
        self._waiting: dict[str | None, dict[Listener, asyncio.Future[list[Update]]]] = {}
        """Waiting listeners by their order; under None, those of all orders."""
        self._head_task: asyncio.Task[None] | None = None
        self._left_at = 0.0
        """Time at which the last listener left, by the event loop's clock."""
        self._reader_turns = Turns(MAX_READERS)
        self._all_left = asyncio.Event()

    def of_order(
        self,
        order: str,
        partition: int,
        *,
        after: int | None = None,
        snapshot: OrderUpdated | None = None,
        holder: str = "",
    ) -> Listener:
        """Return a listener of the order's updates after this offset.

        Without ``after``, or if the next records are lost, it starts with the order's newest update: that of
        ``snapshot`` or a later one.
        """
        resumes = after is not None
        positions = {partition: 0 if after is None else after + 1}
        return Listener(
            self,
            order,
            lambda record: record.order == order,
            positions,
            resumes=resumes,
            snapshot=snapshot,
            holder=holder,
        )

    def of_all(self, matches: Matches, positions: Mapping[int, int] | None = None, *, holder: str = "") -> Listener:
        """Return a listener of the matching updates of all orders.

        It starts from ``positions``, which name every partition; without them, from now on.
        """
        return Listener(self, None, matches, dict(positions or {}), resumes=positions is not None, holder=holder)

    async def stop(self) -> None:
        """End the feed for all listeners, for good. Cancel those that have not left after `GRACE_S`."""
        self.stopped = True
        self._disconnect_all()
        if self._head_task is not None:
            self._head_task.cancel()
            await asyncio.gather(self._head_task, return_exceptions=True)
        if self._listeners:
            self._all_left.clear()
            leaving = asyncio.create_task(self._all_left.wait())
            await asyncio.wait([leaving], timeout=GRACE_S)
            leaving.cancel()
        for task in (listener.task for listener in self._listeners):
            if task is not None:
                task.cancel()

    # -- for listeners ------------------------------------------------------------------------------------------------

    @property
    def listener_count(self) -> int:
        """Number of listeners."""
        return len(self._listeners)

    def add(self, listener: Listener) -> None:
        """Add a listener, and follow the head from now on."""
        self._listeners.add(listener)
        listener.closed = self.stopped
        if self._head_task is None and not self.stopped:
            self._head_task = asyncio.create_task(self._follow(), name="feed")

    def remove(self, listener: Listener) -> None:
        """Remove a listener that has left."""
        self._listeners.discard(listener)
        self._pop_waiting(listener)
        self._left_at = asyncio.get_running_loop().time()
        if not self._listeners:
            self._all_left.set()

    def wait_for_update(self, listener: Listener) -> asyncio.Future[list[Update]]:
        """Return a future that is done, with no updates, when the listener should look at the rings again."""
        woken: asyncio.Future[list[Update]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(listener.order, {})[listener] = woken
        return woken

    def is_waiting(self, listener: Listener) -> bool:
        """Return whether a listener has seen all updates in the rings and waits for the next."""
        return bool(self.rings) and listener in self._waiting.get(listener.order, {})

    @asynccontextmanager
    async def reader(self, partitions: Collection[int], holder: str) -> AsyncIterator[UpdateReader]:
        """Open a reader of these partitions when it is the holder's turn: `MAX_READERS` are open at a time.

        Raises `KafkaError`.
        """
        async with self._reader_turns.take(holder), self._log.open(partitions) as reader:
            yield reader

    async def find_snapshot(self, partition: int, snapshot: OrderUpdated, holder: str) -> Update:
        """Return the update of the snapshot's order with its version or a newer one.

        If it is no longer kept, return the snapshot itself. Its offset then lies before every newer update.
        """
        ring = self.rings.get(partition)
        newest = None if ring is None else ring.newest(snapshot.order)
        if newest is not None and newest.record.version >= snapshot.version:
            return newest
        assert snapshot.at is not None
        async with self.reader([partition], holder) as reader:
            # first the end, then the position: a record written between the two calls lies behind the end
            end = (await reader.ends())[partition]
            position = await reader.since(partition, epoch_ms(snapshot.at) - CLOCK_SLACK_MS)
            if position is None:
                position = end
            reader.seek({partition: position})
            searched = 0
            while position < end and searched < MAX_RECORDS_SEARCHED:
                updates = await reader.read()
                for update in updates:
                    if update.record.order == snapshot.order and update.record.version >= snapshot.version:
                        return update
                searched += max(1, len(updates))
                position = await reader.position(partition)
        return Update(partition, position - 1, write(snapshot), snapshot)

    # -- the head -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while self._is_needed():
            try:
                async with self._log.open(range(self._partitions)) as reader:
                    await self._read_head(reader)
            except OffsetOutOfRangeError as error:
                log.warning("the feed starts again, because its next records are no longer kept: %r", error)
                self._disconnect_all()
                await asyncio.sleep(RETRY_S)
            except KafkaError as error:
                log.warning("order-updates cannot be read; next attempt in a second: %r", error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("order-updates cannot be read; all listeners are disconnected")
                self._disconnect_all()
                await asyncio.sleep(RETRY_S)
        self.rings = {}
        self._head_task = None

    async def _read_head(self, reader: UpdateReader) -> None:
        if self.rings:
            reader.seek({partition: ring.end for partition, ring in self.rings.items()})
        else:
            await self._fill(reader)
        while self._is_needed():
            for update in await reader.read():
                self._publish(update)

    async def _fill(self, reader: UpdateReader) -> None:
        """Fill the rings with the newest updates up to the present ends; listeners can wait from then on."""
        begins, ends = await reader.begins(), await reader.ends()
        starts = {partition: max(begins[partition], end - self._max_updates) for partition, end in ends.items()}
        rings = {partition: Ring(start, self._max_updates, self._max_bytes) for partition, start in starts.items()}
        reader.seek(starts)
        while any([await reader.position(partition) < end for partition, end in ends.items()]):
            for update in await reader.read():
                rings[update.partition].append(update)
        self.rings = rings
        self._wake_all()

    def _publish(self, update: Update) -> None:
        """Wake the waiting listeners that match a new update, and append it to its ring."""
        for waiting in (self._waiting.get(update.record.order), self._waiting.get(None)):
            for listener in [one for one in waiting or () if one.matches(update.record)]:
                listener.advance()  # the ring's end is at or before this update's offset
                self._wake(listener)
        self.rings[update.partition].append(update)

    def _is_needed(self) -> bool:
        return bool(self._listeners) or asyncio.get_running_loop().time() < self._left_at + LINGER_S

    def _disconnect_all(self) -> None:
        """End the feed for all present listeners. Their clients reconnect, and resume from their last position."""
        self.rings = {}
        for listener in self._listeners:
            listener.closed = True
        self._wake_all()

    def _wake_all(self) -> None:
        for listener in [listener for waiting in self._waiting.values() for listener in waiting]:
            self._wake(listener)

    def _wake(self, listener: Listener) -> None:
        woken = self._pop_waiting(listener)
        if woken is not None and not woken.done():
            woken.set_result([])

    def _pop_waiting(self, listener: Listener) -> asyncio.Future[list[Update]] | None:
        waiting = self._waiting.get(listener.order, {})
        woken = waiting.pop(listener, None)
        if not waiting:
            self._waiting.pop(listener.order, None)
        return woken
