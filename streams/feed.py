"""The public feed as it goes on, for everybody who listens at this worker.

One consumer follows the head of `order-updates` into a ring a partition, which holds the newest updates. A listener is
its positions: of each partition it listens to, the offset of the next record to look at. Where those are decides:

before the ring   it reads from Kafka, by a consumer of its own and a batch at a time, until the ring has what follows
within the ring   it takes from there what it wants
at the ring's end it waits, and the first update that it wants wakes it, at that update's offset

Nothing is kept for a listener, so one that does not take what is there costs nothing: its positions fall behind the
ring, and it reads from Kafka again when it goes on. Nothing is lost or told twice between the three, because between
looking at a ring and waiting at its end nothing else runs.

The head is followed only while somebody listens, and `LINGER_S` longer: reading an update takes about 15 us, which is
a fifth of a worker's time at 1,500 orders a second. Memory: `HELD` updates, about 10 MB; `HELD_BYTES` of them, where
a stranger has written large ones.
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

from streams.update_log import Reading, Update, UpdateLog
from topics.order_updates import OrderUpdated
from topics.records import epoch_ms, write

log = logging.getLogger(__name__)

HELD = 10_000
"""Updates in the rings, all together."""
HELD_BYTES = 16 << 20
"""Bytes of these updates, as on the topic; decoded, they take about as many again."""
BATCH = 200
"""Updates that a listener is given at once."""
LOOKED_AT = 5_000
"""Records that are read for a listener before it is the turn of another one."""
SEARCHED = 20_000
"""Records among which an order's newest update is looked for, from the time on at which it was written."""
SLACK_MS = 500
"""So far may the clock that wrote the order's row be ahead of the one that wrote its update."""
TURNS = 4
"""Listeners that read from Kafka at the same time: a thousand that come back at once make no thousand connections."""
LINGER_S = 60.0
"""The head is followed so long after the last listener has left: one that comes back finds the ring."""
RETRY_S = 1.0
"""After Kafka could not be read."""
GRACE_S = 0.5
"""For listeners to end by themselves when the worker stops; one that hangs in a full connection is cut off."""

Wants = Callable[[OrderUpdated], bool]
Positions = dict[int, int]


class Gap(Exception):
    """What comes next for a listener is no longer kept, or the topic was created anew. ``lost``: partition -> the
    offset that was to come next, and the oldest one there is. The listener goes on from there; that of an order, where
    it knows how that stands, from its newest update."""

    def __init__(self, lost: Mapping[int, tuple[int, int]]) -> None:
        super().__init__(f"partition -> (wanted, oldest): {dict(lost)}")
        self.lost = lost


async def _patiently(reading: Coroutine[Any, Any, list[Update]]) -> list[Update]:
    """What was read; nothing, after a while, if Kafka cannot be read now."""
    try:
        return await reading
    except KafkaError as error:
        log.warning("order-updates cannot be read for a listener, again in a second: %r", error)
        await asyncio.sleep(RETRY_S)
        return []


class Ring:
    """The newest updates of a partition: all there are from offset ``first`` up to ``end``. At most ``size``, and so
    many bytes; of which one that is larger than that takes all."""

    def __init__(self, start: int, size: int, size_bytes: int) -> None:
        self.first = self.end = start
        self._size, self._size_bytes, self._bytes = size, size_bytes, 0
        self._updates: deque[Update] = deque()

    def append(self, update: Update) -> None:
        """Add the next one; the oldest ones go if there is no room."""
        self._bytes += len(update.value)
        while self._updates and (len(self._updates) == self._size or self._bytes > self._size_bytes):
            oldest = self._updates.popleft()
            self.first = oldest.offset + 1
            self._bytes -= len(oldest.value)
        self._updates.append(update)
        self.end = update.offset + 1

    def since(self, position: int) -> Iterator[Update]:
        """The updates from this offset on."""
        return islice(self._updates, bisect_left(self._updates, position, key=lambda update: update.offset), None)

    def newest(self, order: str) -> Update | None:
        """The last one of an order."""
        return next((update for update in reversed(self._updates) if update.said.order == order), None)


class Listener:
    """One who listens, within a `with` block. ``positions``: where it goes on; empty until that is known."""

    def __init__(
        self,
        feed: "Feed",
        order: str | None,
        wants: Wants,
        positions: Positions,
        *,
        resumes: bool = True,
        stands: OrderUpdated | None = None,
    ) -> None:
        self.order, self.positions, self.over = order, positions, False
        self.task: asyncio.Task[Any] | None = None
        self.wants = wants
        self._feed = feed
        self._stands = stands
        """How its order stands, where nothing that was told before can be gone on from."""
        self._begins = None if resumes else stands
        self._doubted = resumes  # the positions came from outside: was there ever such a record?
        self._coming: asyncio.Future[list[Update]] | None = None

    def __enter__(self) -> Self:
        self.task = asyncio.current_task()
        self._feed.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._feed.leave(self)
        if self._coming is not None:
            self._coming.cancel()

    async def next(self, within_s: float) -> list[Update] | None:
        """The next updates, at most `BATCH`. None of them as soon as ``positions`` are known, and whenever nothing has
        come within so many seconds; None when the feed ends here, for good. :class:`Gap` where some are lost."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + within_s
        while not self.over:
            if self._coming is None:
                known = bool(self.positions)
                if (found := self._at_hand()) or (self.positions and not known):
                    return found
                self._coming = self._to_come()
            done, _ = await asyncio.wait([self._coming], timeout=max(0.0, deadline - clock()))
            if not done:
                if self._feed.waits(self):
                    self.advance()
                return []
            coming, self._coming = self._coming, None
            if found := coming.result():
                return found
        return None

    def advance(self) -> None:
        """To the ends of the rings, where it waits: there is nothing before them that it wants."""
        for partition, position in self.positions.items():
            self.positions[partition] = max(position, self._feed.rings[partition].end)

    def _at_hand(self) -> list[Update]:
        """What the rings have for it, if they have what comes next."""
        rings, found = self._feed.rings, list[Update]()
        if not rings or self._begins is not None or self._out_of_reach():
            return found
        if not self.positions:
            self.positions = {partition: ring.end for partition, ring in rings.items()}
        for partition, position in self.positions.items():
            ring = rings[partition]
            for update in ring.since(position):
                self.positions[partition] = update.offset + 1
                if self.wants(update.said):
                    found.append(update)
                if len(found) == BATCH:
                    return found
            self.positions[partition] = max(position, ring.end)
        return found

    def _to_come(self) -> asyncio.Future[list[Update]]:
        if not self._feed.rings:
            return self._feed.wait(self)
        if self._begins is not None:
            return asyncio.create_task(_patiently(self._begin(self._begins)))
        if self._out_of_reach():
            return asyncio.create_task(_patiently(self._read_past()))
        return self._feed.wait(self)

    def _out_of_reach(self) -> Positions:
        """The positions from which the rings have not everything; or which are behind their ends, if nobody knows
        whether there ever was a record."""
        rings = self._feed.rings
        if not rings:
            return {}
        return {
            partition: position
            for partition, position in self.positions.items()
            if position < rings[partition].first or (self._doubted and position > rings[partition].end)
        }

    async def _begin(self, stands: OrderUpdated) -> list[Update]:
        """How the order stands, and from there on."""
        (partition,) = self.positions
        update = await self._feed.standing(partition, stands)
        version, wants = update.said.version, self.wants
        self.wants = lambda said: said.version > version and wants(said)
        self.positions, self._begins, self._doubted = {partition: update.offset + 1}, None, False
        return [update]

    async def _read_past(self) -> list[Update]:
        """A batch of what the rings do not have any more."""
        found, looked_at = list[Update](), 0
        async with self._feed.reading(behind := self._out_of_reach()) as reading:
            await self._check(reading, behind)
            reading.seek(behind)
            while len(found) < BATCH and looked_at < LOOKED_AT and self._out_of_reach():
                updates = await reading.read(BATCH - len(found))
                found += [update for update in updates if self.wants(update.said)]
                looked_at += len(updates)
                for partition in behind:
                    self.positions[partition] = await reading.position(partition)
                if not updates:
                    break
        return found

    async def _check(self, reading: Reading, behind: Positions) -> None:
        """Whether there is what comes next."""
        begins, ends = await reading.begins(), await reading.ends()
        self._doubted = False
        lost = {
            partition: (position, begins[partition])
            for partition, position in behind.items()
            if not begins[partition] <= position <= ends[partition]
        }
        if lost:
            self.positions |= {partition: oldest for partition, (_, oldest) in lost.items()}
            self._begins = self._stands
            raise Gap(lost)


class Feed:
    """The head of the topic, and everybody who listens to it here."""

    def __init__(self, updates: UpdateLog, partitions: int, held: int = HELD, held_bytes: int = HELD_BYTES) -> None:
        self.rings: dict[int, Ring] = {}
        """By partition; empty while the head is not followed."""
        self.stopped = False
        self._log, self._partitions = updates, partitions
        self._held, self._held_bytes = max(1, held // partitions), held_bytes // partitions
        self._listeners: set[Listener] = set()
        self._waiting: dict[str | None, dict[Listener, asyncio.Future[list[Update]]]] = {}
        """By the order they wait for; None: who waits for updates of any order."""
        self._following: asyncio.Task[None] | None = None
        self._left_at = 0.0
        self._turns = asyncio.Semaphore(TURNS)
        self._all_left = asyncio.Event()

    def of_order(
        self, order: str, partition: int, *, after: int | None = None, stands: OrderUpdated | None = None
    ) -> Listener:
        """The updates of an order after that offset. Without one, or where it is lost what came then: the newest one,
        which is ``stands`` or comes after it, and what follows."""
        resumes = after is not None
        positions = {partition: 0 if after is None else after + 1}
        return Listener(self, order, lambda said: said.order == order, positions, resumes=resumes, stands=stands)

    def of_all(self, wants: Wants, positions: Mapping[int, int] | None = None) -> Listener:
        """The updates of all orders that are wanted, from these positions (of every partition) or from now on."""
        return Listener(self, None, wants, dict(positions or {}), resumes=positions is not None)

    async def stop(self) -> None:
        """End for everybody, for good."""
        self.stopped = True
        self._break_off()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._listeners:
            self._all_left.clear()
            leaving = asyncio.create_task(self._all_left.wait())
            await asyncio.wait([leaving], timeout=GRACE_S)
            leaving.cancel()
        for task in (listener.task for listener in self._listeners):
            if task is not None:
                task.cancel()

    # -- for listeners ------------------------------------------------------------------------------------------------

    def enter(self, listener: Listener) -> None:
        """Somebody listens: the head is followed from now on."""
        self._listeners.add(listener)
        listener.over = self.stopped
        if self._following is None and not self.stopped:
            self._following = asyncio.create_task(self._follow(), name="feed")

    def leave(self, listener: Listener) -> None:
        """Not any more."""
        self._listeners.discard(listener)
        self._no_longer_waits(listener)
        self._left_at = asyncio.get_running_loop().time()
        if not self._listeners:
            self._all_left.set()

    def wait(self, listener: Listener) -> asyncio.Future[list[Update]]:
        """Done when there is something to look at, or nothing to wait for."""
        woken: asyncio.Future[list[Update]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(listener.order, {})[listener] = woken
        return woken

    def waits(self, listener: Listener) -> bool:
        """Whether it has looked at everything that there is here."""
        return bool(self.rings) and listener in self._waiting.get(listener.order, {})

    @asynccontextmanager
    async def reading(self, partitions: Collection[int]) -> AsyncIterator[Reading]:
        """Read these partitions from Kafka, when it is one's turn."""
        async with self._turns, self._log.open(partitions) as reading:
            yield reading

    async def standing(self, partition: int, stands: OrderUpdated) -> Update:
        """The update of that version of an order, or a newer one. Where it is no longer kept: ``stands`` itself, at an
        offset behind which every newer one lies."""
        ring = self.rings.get(partition)
        newest = None if ring is None else ring.newest(stands.order)
        if newest is not None and newest.said.version >= stands.version:
            return newest
        assert stands.at is not None
        async with self.reading([partition]) as reading:
            # in this order: what is written between the two calls lies behind the end
            end = (await reading.ends())[partition]
            position = await reading.since(partition, epoch_ms(stands.at) - SLACK_MS)
            if position is None:
                position = end
            reading.seek({partition: position})
            searched = 0
            while position < end and searched < SEARCHED:
                updates = await reading.read()
                for update in updates:
                    if update.said.order == stands.order and update.said.version >= stands.version:
                        return update
                searched += max(1, len(updates))
                position = await reading.position(partition)
        return Update(partition, position - 1, write(stands), stands)

    # -- the head -----------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while self._is_wanted():
            try:
                async with self._log.open(range(self._partitions)) as reading:
                    await self._read_head(reading)
            except OffsetOutOfRangeError as error:
                log.warning("the feed starts anew, for what comes next is no longer kept: %r", error)
                self._break_off()
                await asyncio.sleep(RETRY_S)
            except KafkaError as error:
                log.warning("order-updates cannot be read now, again in a second: %r", error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("order-updates cannot be read; whoever listens is sent away")
                self._break_off()
                await asyncio.sleep(RETRY_S)
        self.rings, self._following = {}, None

    async def _read_head(self, reading: Reading) -> None:
        if self.rings:
            reading.seek({partition: ring.end for partition, ring in self.rings.items()})
        else:
            await self._fill(reading)
        while self._is_wanted():
            for update in await reading.read():
                self._arrived(update)

    async def _fill(self, reading: Reading) -> None:
        """The rings, as full as they can be; from then on there is a place to wait."""
        begins, ends = await reading.begins(), await reading.ends()
        starts = {partition: max(begins[partition], end - self._held) for partition, end in ends.items()}
        rings = {partition: Ring(start, self._held, self._held_bytes) for partition, start in starts.items()}
        reading.seek(starts)
        while any([await reading.position(partition) < end for partition, end in ends.items()]):
            for update in await reading.read():
                rings[update.partition].append(update)
        self.rings = rings
        self._wake_all()

    def _arrived(self, update: Update) -> None:
        for waiting in (self._waiting.get(update.said.order), self._waiting.get(None)):
            for listener in [one for one in waiting or () if one.wants(update.said)]:
                listener.advance()  # the end is this update's offset, or before it
                self._wake(listener)
        self.rings[update.partition].append(update)

    def _is_wanted(self) -> bool:
        return bool(self._listeners) or asyncio.get_running_loop().time() < self._left_at + LINGER_S

    def _break_off(self) -> None:
        """Nobody here can be told what comes next; their clients come back, and are told what they have missed."""
        self.rings = {}
        for listener in self._listeners:
            listener.over = True
        self._wake_all()

    def _wake_all(self) -> None:
        for listener in [listener for waiting in self._waiting.values() for listener in waiting]:
            self._wake(listener)

    def _wake(self, listener: Listener) -> None:
        woken = self._no_longer_waits(listener)
        if woken is not None and not woken.done():
            woken.set_result([])

    def _no_longer_waits(self, listener: Listener) -> asyncio.Future[list[Update]] | None:
        waiting = self._waiting.get(listener.order, {})
        woken = waiting.pop(listener, None)
        if not waiting:
            self._waiting.pop(listener.order, None)
        return woken
