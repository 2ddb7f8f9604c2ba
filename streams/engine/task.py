"""One task: partition N of every source topic and of every table, owned by one worker at a time.

Records, timers and results of calls are applied here, in memory; what they caused is committed in one Kafka
transaction, and only then do RocksDB, the indexes, the timers, the calls and the views hear of it:

    apply   records, timers, results -> rows, outputs, positions, answers, all in ``pending``
    commit  1. produce the outputs, and one changelog record a changed row
            2. EndTxn: from here it happened
            3. one RocksDB write of the rows and of how far each changelog has been followed
            4. indexes, timers, calls, views

How far each source topic has been applied, its position, is a row too, of the table ``positions``: it is committed,
restored and lost together with the state it led to, or not at all.

Whatever goes wrong at any step breaks the task: nobody guesses what was committed. The task is dropped with everything
in memory and opened again from what Kafka has (see ``core``). Nothing here knows Faust or aiokafka.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from streams.engine.calls import CALLS, GROWTH_BYTES, Again, Answered, Call, decode_call, encode_call
from streams.engine.changes import MISSING, Appended, Changes, Header, Outgoing, Position
from streams.engine.digest import Rows, digest_of
from streams.engine.indexes import Index
from streams.engine.timers import DUE_BYTES, TimerHead, due_of, timer_key

if TYPE_CHECKING:
    from streams.engine.core import Core

TIMERS = "timers"
POSITIONS = "positions"
"""Source topic -> ``Position``. Written by commits alone."""
MAX_RECORD_BYTES = 1_000_000
"""Key, value and headers of one record or row; the broker's limit for a batch is 1,048,588 bytes."""
MAX_STACK_CHARS = 8_000
REQUEST = "origin.request"
"""Header of a dead letter that is the answer to a call: what was asked."""
NOTES = ("origin.", "dead-letter.", "exception.")
"""How the headers begin that a dead letter has from here."""
SINCE_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)
"""The clock that goes on while the machine is suspended, where the system has one."""
RESERVED_PREFIX = b"\xff\xff"
"""Row keys cannot start so: the store keeps its own notes there."""


class Record(Protocol):
    """One record of a source topic, as aiokafka hands it over. ``timestamp`` is in milliseconds since the epoch."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


class Transactions(Protocol):
    """The transactions of this task. Every method may raise anything; that breaks the task."""

    @property
    def in_doubt(self) -> bool:
        """Whether what has been committed last may not be seen everywhere; the next transaction finds out."""
        ...

    async def produce(self, outputs: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], Appended]:
        """Append to the log."""
        ...

    async def end(self) -> None:
        """Commit. If it raises, it may have been committed all the same."""
        ...

    async def close(self) -> None: ...
    def cut(self) -> None: ...


class Store(Protocol):
    """The committed rows of this task, on disk."""

    def get(self, table: str, key: bytes) -> bytes | None: ...
    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In key order."""
        ...

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
    ) -> None:
        """Rows, how far each table's changelog has been followed, and when its last record was appended; all or
        nothing."""
        ...

    def snapshot(self) -> "Snapshot":
        """All rows as they are now."""
        ...

    def close(self) -> None: ...


class Snapshot(Rows, Protocol):
    """Rows as they were at one moment; until it is released it holds the store open."""

    def release(self) -> None: ...


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the epoch; never runs backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...


class WallClock:
    """The wall clock when this was made, carried on by the monotonic one: a clock that is set fires nothing early."""

    def __init__(self) -> None:
        self._began = time.time() - self.monotonic()

    def now_ms(self) -> int:
        return int((self._began + self.monotonic()) * 1000)

    def monotonic(self) -> float:
        """Where the system can tell, the time that the machine was suspended counts: others went on meanwhile."""
        return time.monotonic() if SINCE_BOOT is None else time.clock_gettime(SINCE_BOOT)


class Refuse(Exception):
    """Raised by a handler that will not have this record, timer or result: undone, and a dead letter with the reason.

    Unlike any other exception it is no bug: the dead letter carries no stack.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StoreError(Exception):
    """The disk failed, not the handler that wanted to read: breaks the task instead of setting a record aside."""


class TaskBroken(Exception):
    """The task was broken or closed before what was waited for was committed."""


class Task:
    """What handlers work with. Reads see the task's own uncommitted changes; everything else waits for the commit."""

    def __init__(
        self,
        core: "Core",
        partition: int,
        transactions: Transactions,
        store: Store,
        starts: Mapping[str, Position],
        clock: Clock,
        owned_since: float,
    ) -> None:
        self.partition = partition
        self.pending = Changes(core.tables)
        self.committing: Changes | None = None
        self.next_offsets = {topic: start.offset for topic, start in starts.items()}
        """By source topic: the offset of the next record to apply."""
        self.fetched_to = dict(self.next_offsets)
        """By source topic: the offset after the last record handed to the agents."""
        self.committed_positions: dict[str, int] = {}
        """By source topic, of those read from since the task opened: what ``next_offsets`` was at the last commit."""
        self.backlog: dict[int, int] = {}
        """Batches fetched and not applied yet: id -> number of records."""
        self.alive, self.closing, self.commits = True, False, 0
        self.owned_since = owned_since
        """When the last thing was begun that proves, by its success, that nobody had taken over by then."""
        self.timers = TimerHead(lambda start: (key for key, _ in store.rows(TIMERS, start)), core.settings.timer_head)
        self.calls = {call_id: decode_call(row).due_ms for call_id, row in store.rows(CALLS)}
        """The committed calls: id -> when the next attempt is due."""
        self.running_calls: dict[bytes, asyncio.Task[None]] = {}
        self._indexes = {table: core.index_factories[table]() for table in core.index_factories}
        for table, index in self._indexes.items():
            index.load(store.rows(table))
        self._core, self._transactions, self._store, self._clock = core, transactions, store, clock
        self._source_ids = {topic: start.topic_id for topic, start in starts.items()}
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._loop_task: asyncio.Task[None] | None = None
        self._timer_handle: asyncio.Handle | None = None
        self._progress_handle: asyncio.TimerHandle | None = None
        self._if_undone: list[tuple[str, Callable[[str], object]]] = []
        self._number = 0  # of the transaction that ``pending`` will be
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    # -- for handlers: reading ------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch: the wall clock when the task opened, carried on by the monotonic clock."""
        return self._clock.now_ms()

    def get(self, table: str, key: bytes) -> bytes | None:
        value = self.pending.rows[table].get(key, MISSING)
        if value is MISSING and self.committing is not None:
            value = self.committing.rows[table].get(key, MISSING)
        return self._store.get(table, key) if value is MISSING else value

    def index(self, table: str) -> Index:
        """The index over this table, see ``indexes``. Register it with ``Engine.index``."""
        return self._indexes[table]

    def belongs(self, key: bytes) -> bool:
        """Whether this key's rows live in this task."""
        return self._core.partition_of(key) == self.partition

    # -- for handlers: changing -----------------------------------------------------------------------------------

    def put(self, table: str, key: bytes, value: bytes | None) -> None:
        """Write a row; ``value`` None deletes it. ``ValueError`` for a row that no changelog record can hold."""
        if key.startswith(RESERVED_PREFIX):
            raise ValueError(f"{table}: a row's key must not start with {RESERVED_PREFIX!r}")
        size = len(key) + len(value or b"")
        if size > MAX_RECORD_BYTES:
            raise _oversize(f"a row of {table}", size)
        self.pending.put(table, key, value, size)

    def emit(self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()) -> None:
        """Produce a record with the commit. ``ValueError`` for a topic that was not declared, or too large a record."""
        partitions = self._core.outputs.get(topic)
        if partitions is None:
            raise ValueError(f"nothing is known of the topic {topic!r}: declare it with engine.sink({topic!r})")
        self._emit(topic, self._core.partitioner(key or b"", partitions), key, value, headers)

    def _emit(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[Header]
    ) -> None:
        size = len(key or b"") + len(value or b"")
        for name, content in headers:
            size += len(name) + len(content or b"")
        if size > MAX_RECORD_BYTES:
            raise _oversize(f"a record for {topic}", size)
        self.pending.emit(topic, partition, (key, value, headers), size)

    def set_timer(self, due_ms: int, timer_id: bytes, payload: bytes) -> None:
        """Have ``on_timer`` called at ``due_ms``, once. (due_ms, timer_id) names it: a timer set again is replaced."""
        self.put(TIMERS, timer_key(due_ms, timer_id), payload)

    def cancel_timer(self, due_ms: int, timer_id: bytes) -> None:
        self.put(TIMERS, timer_key(due_ms, timer_id), None)

    def call(self, call_id: bytes, request: bytes) -> None:
        """Have the performer make this call after the commit, until answered. ``call_id`` is its idempotency key."""
        if self._core.performer is None:
            raise ValueError("nobody performs calls: set engine.performer")
        row = encode_call(Call(request, due_ms=self.now_ms))
        size = len(call_id) + len(row) + GROWTH_BYTES
        if size > MAX_RECORD_BYTES:
            raise _oversize("a call, with room for what its attempts come to,", size)
        self.put(CALLS, call_id, row)

    def has_call(self, call_id: bytes) -> bool:
        """Whether this call was asked for and has no answer yet."""
        return self.get(CALLS, call_id) is not None

    def cancel_call(self, call_id: bytes) -> None:
        """No further attempt; the answer to one under way is ignored."""
        if self.has_call(call_id):
            self.put(CALLS, call_id, None)

    def answer(self, event_id: str, answer: object) -> None:
        """Tell whoever waits for this event (``Watch.answer``), after the commit."""
        self.pending.answer(event_id, answer)

    def answer_if_undone(self, event_id: str, answer: Callable[[str], object]) -> None:
        """Should the handler raise, its answers are undone with the rest: who waits is told ``answer(reason)`` instead.

        The reason is the dead letter's, and both are committed together. To be said before anything that may raise;
        ``answer`` itself must not raise.
        """
        self._if_undone.append((event_id, answer))

    def dead_letter(self, record: Record, reason: str, exc: BaseException | None = None) -> None:
        """Set a record aside, with its own headers, its origin and the reason in headers, in this task's partition.

        Own headers that look like ours are left out: a sender could tell a lie about where it came from.
        A value that would not fit beside them is cut off; the header ``dead-letter.cut`` then says how long it was.
        """
        origin = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        own = [header for header in record.headers if not header[0].startswith(NOTES)]
        self._dead_letter(origin, record.key, record.value, own, reason, exc)

    def forward(self, record: Record, key: bytes) -> None:
        """Send a record that lies in the wrong partition to where its key belongs, on the same topic."""
        if self.belongs(key):
            raise ValueError(f"the key {key!r} belongs to this task: forwarding it would go round in circles")
        self.emit(record.topic, key, record.value, record.headers)
        self.pending.count("forwarded")

    def waited_for(self, event_id: str) -> bool:
        """Whether a view of this worker waits for this event's answer."""
        return self._core.watch.waited_for(event_id)

    def count(self, name: str) -> None:
        """Count something in ``engine.counters``, if and when this commits."""
        self.pending.count(name)

    # -- applying -------------------------------------------------------------------------------------------------

    def apply(self, record: Record, handler: Callable[["Task", Record], None]) -> None:
        """One record. What a raising handler did is undone and its record set aside; the offset moves on either way."""
        pending = self.pending
        self._mark()
        try:
            handler(self, record)
        except StoreError:
            raise
        except Exception as exc:
            reason = self._undo(exc)
            if record.topic == self._core.dead_letters:  # set aside once more, it would go round in circles
                pending.count("dead_letters_passed_over")
            else:
                self.dead_letter(record, reason, exc)
        pending.positions[record.topic] = self.next_offsets[record.topic] = record.offset + 1

    def finish_call(self, call_id: bytes, row: bytes, answer: Answered | Again) -> None:
        """The answer to the attempt that began with this row; ignored where the row has been changed meanwhile."""
        if self.get(CALLS, call_id) != row:
            return
        call = decode_call(row)
        if isinstance(answer, Again):
            self.put(CALLS, call_id, encode_call(self._core.calls.next_attempt(call_id, call, answer, self.now_ms)))
            self.pending.count("calls_again")
        else:
            result = answer.result
            self.put(CALLS, call_id, None)
            self.pending.count("calls")
            self._guard(
                {"call": call_id.decode(errors="replace")},
                (call_id, result),
                [(REQUEST, call.request)],
                lambda: self._core.result_handler(self, call_id, call.request, result),
            )
        self.touch()

    def _fire(self, key: bytes, payload: bytes) -> None:
        timer_id = key[DUE_BYTES:]
        self.put(TIMERS, key, None)
        self.pending.count("timers_fired")
        self._guard(
            {"timer": timer_id.decode(errors="replace")},
            (timer_id, payload),
            (),
            lambda: self._core.timer_handler(self, timer_id, payload),
        )

    def _guard(
        self,
        origin: Mapping[str, object],
        letter: tuple[bytes, bytes],
        headers: Sequence[Header],
        handle: Callable[[], None],
    ) -> None:
        """What ``apply`` does, for what is not a record: what was put before this call stays.

        The letter has all that the handler was given: it can be given it again, by hand.
        """
        self._mark()
        try:
            handle()
        except StoreError:
            raise
        except Exception as exc:
            self._dead_letter(origin, *letter, headers, self._undo(exc), exc)

    def _mark(self) -> None:
        self.pending.mark()
        self._if_undone.clear()

    def _undo(self, exc: Exception) -> str:
        """Take back what was done since the mark, answer whom that leaves without an answer, return the reason."""
        reason = exc.reason if isinstance(exc, Refuse) else f"{type(exc).__name__}: {exc}"
        self.pending.undo()
        for event_id, answer in self._if_undone:
            self.pending.answer(event_id, answer(reason))
        return reason

    def _dead_letter(
        self,
        origin: Mapping[str, object],
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        reason: str,
        exc: BaseException | None,
    ) -> None:
        notes = {f"origin.{name}": str(content) for name, content in origin.items()}
        notes["dead-letter.reason"] = reason[:MAX_STACK_CHARS]
        if exc is not None and not isinstance(exc, Refuse):
            notes["exception.class"] = f"{type(exc).__module__}.{type(exc).__qualname__}"
            notes["exception.message"] = str(exc)[:MAX_STACK_CHARS]
            notes["exception.stack"] = "".join(traceback.format_exception(exc))[-MAX_STACK_CHARS:]
        written = [(name, note.encode(errors="replace")) for name, note in notes.items()]
        room = MAX_RECORD_BYTES - 100 - sum(len(name) + len(note) for name, note in written)
        kept = list(headers) if sum(len(name) + len(content or b"") for name, content in headers) < room // 2 else []
        room -= sum(len(name) + len(content or b"") for name, content in kept) + len(key or b"")
        if room < 0:
            key, room = None, room + len(key or b"")
        if value is not None and len(value) > room:
            written.append(("dead-letter.cut", str(len(value)).encode()))
            value = value[:room]
        self._emit(self._core.dead_letters, self.partition, key, value, [*kept, *written])
        self.pending.count("dead_letters")

    # -- timers ---------------------------------------------------------------------------------------------------

    def _schedule_timers(self) -> None:
        """Wake up when the first committed timer is due that is not fired or cancelled already."""
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None
        if not self.alive or self.closing or self.full:  # the commit under way schedules again
            return
        first = next((key for key in self.timers if self.get(TIMERS, key) is not None), None)
        if first is not None:
            delay_s = min((due_of(first) - self.now_ms) / 1000, self._core.settings.look_again_s)
            self._timer_handle = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._fire_timers)

    def _fire_timers(self) -> None:
        if self.closing:
            return
        try:
            now_ms, slice_end = self.now_ms, time.perf_counter() + self._core.settings.slice_s
            for key in self.timers:
                if due_of(key) > now_ms or self.full or time.perf_counter() > slice_end:
                    break
                payload = self.get(TIMERS, key)
                if payload is not None:
                    self._fire(key, payload)
            self.touch()
            self._schedule_timers()
        except Exception as exc:
            self._core.break_task(self, exc)

    # -- committing -----------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the next transaction holds all it may."""
        return self.pending.bytes > self._core.settings.buffer_bytes

    async def room(self) -> None:
        """Wait until the next transaction has room, or the task is no more."""
        while self.alive and self.full:
            self._room.clear()
            await self._room.wait()

    def touch(self) -> None:
        """Something has been applied: have it committed."""
        if self.pending and self.alive:
            self._changed.set()

    async def committed(self) -> None:
        """Wait until all that was applied so far is committed. ``TaskBroken`` if it will not be."""
        if not self.alive:
            raise TaskBroken(f"task {self.partition} is closed")
        if not self.pending and self.committing is None:
            return
        self.touch()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._number if self.pending else self._number - 1, done))
        await done

    async def prove_ownership(self, call_id: bytes, row: bytes) -> bool:
        """True once it is certain that nobody had taken over half a session ago; False if the row is another by then.

        A worker that was frozen and resumes must not make calls: its successor makes them. A commit shows that nobody
        had taken over when it was begun; so if the last one is old, the call's own row is committed again first.
        """
        while self.get(CALLS, call_id) == row:
            if not self._may_be_anothers:
                return True
            self.put(CALLS, call_id, row)
            await self.committed()
        return False

    async def prove(self) -> None:
        """The same before a committed row is shown: what its successor has changed since would be told as if it were
        still so. ``TaskBroken`` if there is one."""
        while self._may_be_anothers:
            self._commit_positions()
            await self.committed()

    @property
    def _may_be_anothers(self) -> bool:
        return self._clock.monotonic() - self.owned_since > self._core.session_timeout_s / 2

    def start(self) -> None:
        """Begin to commit, to fire timers and to make calls; again after ``suspend``."""
        if not self.alive:
            return
        self.closing = False
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._commit_loop(), name=f"commits of task {self.partition}")
            self._schedule_progress()
        self._schedule_timers()
        self._core.calls.forget(self)
        self._core.calls.add(self, self.calls)

    @property
    def goes(self) -> bool:
        """Whether it was started and does not stand still."""
        return self._loop_task is not None and not self.closing

    async def _commit_loop(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._commit()
                if self._core.pace.pause_s:
                    await asyncio.sleep(self._core.pace.pause_s)
                self.touch()
        except Exception as exc:
            self._core.break_task(self, exc)
        except asyncio.CancelledError as exc:  # by whomever: a task that is alive must not be without this loop
            self._core.break_task(self, exc)
            raise

    async def _commit(self) -> None:
        core, transactions, failpoint = self._core, self._transactions, self._core.failpoint
        changes, self.pending = self.pending, Changes(core.tables)
        self.committing = changes
        self._number += 1
        self._room.set()
        begun = self._clock.monotonic()
        changes.note_positions(POSITIONS, self._source_ids)
        changelogs = {(core.changelogs[table], self.partition): table for table, rows in changes.rows.items() if rows}
        rows: dict[tuple[str, int], list[Outgoing]] = {
            tp: [(key, value, ()) for key, value in changes.rows[table].items()] for tp, table in changelogs.items()
        }
        async with asyncio.timeout(core.settings.commit_deadline_s):
            appended = await transactions.produce({**changes.outputs, **rows})
            failpoint("produced", transactions.cut)
            if not self.alive:
                raise TaskBroken(f"task {self.partition} broke while it committed")
            await transactions.end()
        now = self._clock.monotonic()
        core.pace.committed(now - begun, now)
        failpoint("committed", transactions.cut)
        self._store.write(
            changes.rows,
            {table: appended[tp].next_offset for tp, table in changelogs.items()},
            {table: appended[tp].broker_ms for tp, table in changelogs.items()},
        )
        self.committing, self.owned_since = None, begun
        self.commits += 1
        self.committed_positions.update(changes.positions)
        failpoint("stored", transactions.cut)
        self._publish(changes)

    def _publish(self, changes: Changes) -> None:
        """What is committed and on disk becomes known to everybody else."""
        for table, index in self._indexes.items():
            for key, value in changes.rows[table].items():
                index.apply(key, value)
        if changes.rows[TIMERS]:
            self.timers.committed(changes.rows[TIMERS])
        self._calls_committed(changes.rows[CALLS])
        self._schedule_timers()
        self._core.counters.update(changes.counts)
        self._core.counters["commits"] += 1
        self._core.watch.committed(changes.answers, changes.rows)
        self._wake(lambda number: number < self._number)

    def _calls_committed(self, rows: Mapping[bytes, bytes | None]) -> None:
        for call_id, row in rows.items():
            if row is None:
                self.calls.pop(call_id, None)
            else:
                self.calls[call_id] = decode_call(row).due_ms
        if asked := [call_id for call_id, row in rows.items() if row is not None]:
            self._core.calls.add(self, asked)

    def _wake(self, whom: Callable[[int], bool], exc: Exception | None = None) -> None:
        for number, done in self._waiting:
            if whom(number) and not done.done():
                done.set_exception(exc) if exc else done.set_result(None)
        self._waiting = [(number, done) for number, done in self._waiting if not done.done()]

    def look_back(self) -> None:
        """See that what was committed last is seen everywhere, where that is in doubt: nobody else would for as long as
        there is nothing to do here."""
        if self.goes and self.alive and self._transactions.in_doubt:
            self._commit_positions()

    def _schedule_progress(self) -> None:
        self._progress_handle = asyncio.get_running_loop().call_later(
            self._core.settings.progress_every_s, self._commit_progress
        )

    def _commit_progress(self) -> None:
        """An idle task commits its positions again: the store then notes that it was up to date at this time."""
        if self.alive:
            self._commit_positions()
            self._schedule_progress()

    def _commit_positions(self) -> None:
        self.pending.positions = dict(self.next_offsets)
        self.touch()

    # -- for views: committed rows ----------------------------------------------------------------------------------

    def read(self, table: str, key: bytes) -> bytes | None:
        """``TaskBroken`` where the disk fails: for the handlers it has failed too."""
        try:
            return self._store.get(table, key)
        except StoreError as exc:
            raise self._break(exc) from exc

    def scan(self, table: str, prefix: bytes = b"", after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows with the prefix whose keys come after ``after``, in key order."""
        rows = takewhile(lambda row: row[0].startswith(prefix), self._store.rows(table, max(prefix, after)))
        try:
            yield from (row for row in rows if row[0] > after)
        except StoreError as exc:
            raise self._break(exc) from exc

    async def digest(self) -> str:
        """Of all rows as they are now, between two commits (see ``digest``). ``TaskBroken`` if it closes meanwhile."""
        snapshot = self._store.snapshot()
        try:
            return await digest_of(snapshot, self._core.tables)
        except StoreError as exc:
            raise self._break(exc) from exc
        finally:
            snapshot.release()

    def _break(self, exc: StoreError) -> TaskBroken:
        self._core.break_task(self, exc)
        return TaskBroken(f"task {self.partition} broke: {exc}")

    # -- the end --------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Cut the connection to the coordinators (a failpoint)."""
        self._transactions.cut()

    def drop(self) -> None:
        """Nothing more is applied, fired, called or begun to be committed. ``close`` releases what is held."""
        self.alive = False
        self._room.set()
        for handle in (self._timer_handle, self._progress_handle):
            if handle is not None:
                handle.cancel()
        self._core.calls.forget(self)
        self._wake(lambda _: True, TaskBroken(f"task {self.partition} broke"))

    async def suspend(self) -> None:
        """Stand still until ``start``: running calls may end, and what was applied is committed, in time. Nothing else
        is applied, fired or called."""
        self.closing = True
        if not self.alive:
            return
        self._core.calls.forget(self)
        try:
            await self._core.calls.drain(self, self._core.settings.close_calls_s)
            for cut_off in self.running_calls.values():
                cut_off.cancel()  # its row is there: whoever has the task next makes it again
            async with asyncio.timeout(self._core.settings.close_commit_s):
                await self.committed()
        except (TimeoutError, TaskBroken):
            pass  # the next owner does it again, from what was committed

    async def close(self, *, commit: bool = True) -> None:
        """Give the task up; with ``commit`` in an orderly way."""
        self.closing = True
        try:
            if commit:
                await self.suspend()
        finally:
            self.drop()
            running = [task for task in (self._loop_task, *self.running_calls.values()) if task is not None]
            for each in running:
                each.cancel()
            self._store.close()  # before anything is awaited: it holds a lock that the next opening needs
            try:
                await asyncio.gather(*running, return_exceptions=True)
            finally:
                await self._transactions.close()


def _oversize(what: str, size: int) -> ValueError:
    return ValueError(f"{what} would have {size:,} bytes; at most {MAX_RECORD_BYTES:,} fit")
