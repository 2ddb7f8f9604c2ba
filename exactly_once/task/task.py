"""One task: partition N of every source topic and of every table, owned by one worker at a time.

The task applies records, timers and results of calls in memory, and commits their effects in one Kafka
transaction. Only then do RocksDB, the indexes, the timers, the calls and the views get it:

    apply   records, timers, results -> rows, outputs, positions, answers, all in ``pending``
    commit  1. produce the outputs, and one changelog record a changed row
            2. EndTxn: from here it happened
            3. one RocksDB write of the rows and of each changelog's checkpoint
            4. indexes, timers, calls, views

The position in each source topic is a row too, of the table ``positions``. It is committed, restored and lost together
with the state that it led to, or not at all.

An error at any step breaks the task: no code guesses what was committed. The worker drops the task with everything in
memory and opens it again from what Kafka has (see ``manager``; ``state`` has the states of a task). This module knows
neither Faust nor aiokafka.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

from exactly_once.calls.interfaces import CallOutcome, Completed, Retry
from exactly_once.calls.rows import CALLS, GROWTH_BYTES, Call, decode_call, encode_call
from exactly_once.task.context import TaskContext
from exactly_once.task.digest import digest_of
from exactly_once.task.indexes import Index
from exactly_once.task.interfaces import (
    RESERVED_PREFIX,
    Clock,
    Record,
    RejectRecord,
    Store,
    StoreError,
    TaskBroken,
    Transactions,
)
from exactly_once.task.observer import Commit, tell
from exactly_once.task.state import ACCEPTS_WORK, ALIVE, TRANSITIONS, TaskState
from exactly_once.task.timers import DUE_BYTES, TimerHead, due_of, timer_key
from exactly_once.task.transaction import UNSET, Header, PendingTransaction, Position, ProducerRecord

TIMERS = "timers"
POSITIONS = "positions"
"""Source topic -> ``Position``. Written by commits alone."""
MAX_RECORD_BYTES = 1_000_000
"""Key, value and headers of one record or row; the broker's limit for a batch is 1,048,588 bytes."""
MAX_STACK_CHARS = 8_000
REQUEST = "origin.request"
"""Header with the request, in a dead letter that is the answer to a call."""
NOTES = ("origin.", "dead-letter.", "exception.")
"""Prefixes of the headers that the task adds to a dead letter."""
SINCE_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)
"""Id of the clock that runs on while the machine is suspended; None if the system has none."""


class WallClock:
    """The wall clock at construction, carried on by the monotonic one: setting the clock fires no timer early."""

    def __init__(self) -> None:
        self._began = time.time() - self.monotonic()

    def now_ms(self) -> int:
        return int((self._began + self.monotonic()) * 1000)

    def monotonic(self) -> float:
        """Seconds since some moment; includes time in which the machine was suspended, if the system counts it."""
        return time.monotonic() if SINCE_BOOT is None else time.clock_gettime(SINCE_BOOT)


class Task:
    """A task, as handlers use it. Reads see its uncommitted changes; everything else waits for the commit."""

    def __init__(
        self,
        context: TaskContext["Task"],
        partition: int,
        transactions: Transactions,
        store: Store,
        starts: Mapping[str, Position],
        clock: Clock,
        owned_since: float,
    ) -> None:
        self.partition = partition
        self.pending = PendingTransaction(context.tables)
        self.committing: PendingTransaction | None = None
        self.next_offsets = {topic: start.offset for topic, start in starts.items()}
        """Source topic -> offset of the next record to apply."""
        self.fetched_to = dict(self.next_offsets)
        """Source topic -> offset after the last record handed to the agents."""
        self.committed_positions: dict[str, int] = {}
        """Source topic -> ``next_offsets`` at the last commit, for topics read since the task opened."""
        self.backlog: dict[int, int] = {}
        """Batches fetched and not applied yet: id -> number of records."""
        self.state = TaskState.CREATED
        self.commits = 0
        """Transactions committed since the task was opened."""
        self.owned_since = owned_since
        """Begin of the last commit (or opening) that succeeded: no other worker had taken over by then."""
        self.timers = TimerHead(
            lambda start: (key for key, _ in store.rows(TIMERS, start)), context.settings.timer_head
        )
        self.calls = {call_id: decode_call(row).due_ms for call_id, row in store.rows(CALLS)}
        """The committed calls: id -> due time of the next attempt, in milliseconds since the epoch."""
        self.running_calls: dict[bytes, asyncio.Task[None]] = {}
        self._woken: set[bytes] = set()
        """Calls under way that were woken since their attempt began."""
        self._indexes = {table: context.index_factories[table]() for table in context.index_factories}
        for table, index in self._indexes.items():
            index.load(store.rows(table))
        self._context = context
        self._transactions = transactions
        self._store = store
        self._purging = asyncio.Lock()
        self._clock = clock
        self._source_ids = {topic: start.topic_id for topic, start in starts.items()}
        self._changed = asyncio.Event()
        self._has_capacity = asyncio.Event()
        self._has_capacity.set()
        self._loop_task: asyncio.Task[None] | None = None
        self._timer_handle: asyncio.Handle | None = None
        self._progress_handle: asyncio.TimerHandle | None = None
        self._on_failure: list[tuple[str, Callable[[str], object]]] = []
        self._number = 0  # of the transaction that ``pending`` will be
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    # -- its state ------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True if the task is neither broken nor closed."""
        return self.state in ALIVE

    @property
    def accepts_work(self) -> bool:
        """True if the task applies records and starts calls: it is alive and not suspended."""
        return self.state in ACCEPTS_WORK

    @property
    def is_running(self) -> bool:
        """True if the task commits, fires timers and makes calls."""
        return self.state is TaskState.RUNNING

    def _move_to(self, state: TaskState) -> None:
        assert state in TRANSITIONS[self.state], f"task {self.partition}: {self.state.name} -> {state.name} is illegal"
        self.state = state

    # -- for handlers: reading ------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch: the wall clock when the task opened, carried on by the monotonic clock."""
        return self._clock.now_ms()

    def get(self, table: str, key: bytes) -> bytes | None:
        value = self.pending.rows[table].get(key, UNSET)
        if value is UNSET and self.committing is not None:
            value = self.committing.rows[table].get(key, UNSET)
        return self._store.get(table, key) if value is UNSET else value

    def index(self, table: str) -> Index:
        """The index over this table, see ``indexes``. Register it with ``Engine.index``."""
        return self._indexes[table]

    def owns_key(self, key: bytes) -> bool:
        """Return whether this task owns the key's rows."""
        return self._context.partition_of(key) == self.partition

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
        partitions = self._context.outputs.get(topic)
        if partitions is None:
            raise ValueError(f"the topic {topic!r} is not declared: declare it with engine.sink({topic!r})")
        self._emit(topic, self._context.partitioner(key or b"", partitions), key, value, headers)

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
        if self._context.performer is None:
            raise ValueError("there is no performer of calls: set engine.performer")
        row = encode_call(Call(request, due_ms=self.now_ms))
        size = len(call_id) + len(row) + GROWTH_BYTES
        if size > MAX_RECORD_BYTES:
            raise _oversize("a call, with room for what its attempts come to,", size)
        self.put(CALLS, call_id, row)

    def has_call(self, call_id: bytes) -> bool:
        """Return whether this call is requested and has no answer yet."""
        return self.get(CALLS, call_id) is not None

    def wake_call(self, call_id: bytes) -> None:
        """Have an open call made again at once, with its request; do nothing for a call that is not open.

        An attempt under way may end first, so that repeated wakes do not hold up its answer. If it does not settle the
        call, the next one follows at once.
        """
        row = self.get(CALLS, call_id)
        if row is None:
            return
        if (call := decode_call(row)).due_ms > self.now_ms:
            self.put(CALLS, call_id, encode_call(replace(call, due_ms=self.now_ms)))
        elif call_id in self.running_calls:
            self._woken.add(call_id)

    def cancel_call(self, call_id: bytes) -> None:
        """Cancel a call: no further attempt, and the answer to one under way is ignored."""
        if self.has_call(call_id):
            self.put(CALLS, call_id, None)

    def answer(self, event_id: str, answer: object) -> None:
        """Answer the view that waits for this event (``CommitWaiters.answer``), after the commit."""
        self.pending.answer(event_id, answer)

    def answer_on_failure(self, event_id: str, answer: Callable[[str], object]) -> None:
        """Answer with ``answer(reason)`` if the handler raises, because its own answers are rolled back.

        The reason is the dead letter's, and both are committed together. Call this before anything that may raise;
        ``answer`` itself must not raise.
        """
        self._on_failure.append((event_id, answer))

    def dead_letter(self, record: Record, reason: str, exc: BaseException | None = None) -> None:
        """Set a record aside, with its own headers, its origin and the reason in headers, in this task's partition.

        The record's own headers with our prefixes are left out: a sender could forge its origin. A value that does not
        fit beside the headers is cut off; the header ``dead-letter.cut`` then has its full length.
        """
        origin = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        own = [header for header in record.headers if not header[0].startswith(NOTES)]
        self._dead_letter(origin, record.key, record.value, own, reason, exc)

    def forward(self, record: Record, key: bytes) -> None:
        """Send a record that lies in the wrong partition to where its key belongs, on the same topic."""
        if self.owns_key(key):
            raise ValueError(f"the key {key!r} belongs to this task: forwarding it would loop")
        self.emit(record.topic, key, record.value, record.headers)
        self.pending.count("forwarded")

    def is_awaited(self, event_id: str) -> bool:
        """Return whether a view of this worker waits for this event's answer."""
        return self._context.watch.is_awaited(event_id)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call this once the changes are committed, never if they are rolled back. It must not raise.

        A crash after the commit may lose the call.
        """
        self.pending.after_commit(callback)

    def count(self, name: str) -> None:
        """Count something in ``engine.counters``, once this commits."""
        self.pending.count(name)

    # -- applying -------------------------------------------------------------------------------------------------

    def apply(self, record: Record, handler: Callable[["Task", Record], None]) -> None:
        """Apply one record. If the handler raises, roll back and write a dead letter; the offset moves on."""
        pending = self.pending
        self._savepoint()
        try:
            handler(self, record)
        except StoreError:
            raise
        except Exception as exc:
            reason = self._rollback(exc)
            if record.topic == self._context.dead_letters:  # a dead letter of a dead letter would loop
                pending.count("dead_letters_passed_over")
            else:
                self.dead_letter(record, reason, exc)
        if record.topic not in pending.first_ms:
            pending.first_ms[record.topic] = record.timestamp
        pending.positions[record.topic] = self.next_offsets[record.topic] = record.offset + 1

    def finish_call(self, call_id: bytes, row: bytes, answer: CallOutcome) -> None:
        """Store the outcome of the attempt that began with this row. Ignored if the row has changed meanwhile."""
        was_woken = call_id in self._woken
        self._woken.discard(call_id)
        if answer.after_commit is not None:  # also of a call that was cancelled meanwhile: the attempt was made
            self.after_commit(answer.after_commit)
        if self.get(CALLS, call_id) != row:
            return
        call = decode_call(row)
        if isinstance(answer, Completed):
            self.put(CALLS, call_id, None)
            self.pending.count("calls")
        else:
            following = self._context.calls.next_attempt(call_id, call, answer, self.now_ms)
            if was_woken:
                following = replace(following, due_ms=max(self.now_ms, call.due_ms + 1))
            self.put(CALLS, call_id, encode_call(following))
            self.pending.count("calls_again")
        if not isinstance(answer, Retry):
            result = answer.result
            self._guard(
                {"call": call_id.decode(errors="replace")},
                (call_id, result),
                [(REQUEST, call.request)],
                lambda: self._context.result_handler(self, call_id, call.request, result),
            )
        self.request_commit()

    def _fire(self, key: bytes, payload: bytes) -> None:
        timer_id = key[DUE_BYTES:]
        self._context.observer.timer_fired(self.now_ms - due_of(key))
        self.put(TIMERS, key, None)
        self.pending.count("timers_fired")
        self._guard(
            {"timer": timer_id.decode(errors="replace")},
            (timer_id, payload),
            (),
            lambda: self._context.timer_handler(self, timer_id, payload),
        )

    def _guard(
        self,
        origin: Mapping[str, object],
        letter: tuple[bytes, bytes],
        headers: Sequence[Header],
        handle: Callable[[], None],
    ) -> None:
        """Call a handler for a timer or result, as ``apply`` does for a record: changes before this call stay.

        The dead letter has everything that the handler got, so an operator can replay it.
        """
        self._savepoint()
        try:
            handle()
        except StoreError:
            raise
        except Exception as exc:
            self._dead_letter(origin, *letter, headers, self._rollback(exc), exc)

    def _savepoint(self) -> None:
        self.pending.savepoint()
        self._on_failure.clear()

    def _rollback(self, exc: Exception) -> str:
        """Roll back to the savepoint, answer the views that this leaves without an answer, and return the reason."""
        reason = exc.reason if isinstance(exc, RejectRecord) else f"{type(exc).__name__}: {exc}"
        self.pending.rollback()
        for event_id, answer in self._on_failure:
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
        if exc is not None and not isinstance(exc, RejectRecord):
            notes["exception.class"] = f"{type(exc).__module__}.{type(exc).__qualname__}"
            notes["exception.message"] = str(exc)[:MAX_STACK_CHARS]
            notes["exception.stack"] = "".join(traceback.format_exception(exc))[-MAX_STACK_CHARS:]
        written = [(name, note.encode(errors="replace")) for name, note in notes.items()]
        space = MAX_RECORD_BYTES - 200 - sum(len(name) + len(note) for name, note in written)
        kept = list(headers) if sum(len(name) + len(content or b"") for name, content in headers) < space // 2 else []
        space -= sum(len(name) + len(content or b"") for name, content in kept) + len(key or b"")
        if space < 0:
            key, space = None, space + len(key or b"")
        if value is not None and len(value) > space:
            written.append(("dead-letter.cut", str(len(value)).encode()))
            value = value[:space]
        if (sign := self._context.letter_signer) is not None:
            signature = sign(self.partition, key, value, [*kept, *written])
            written.append(("dead-letter.signature", signature))
        self._emit(self._context.dead_letters, self.partition, key, value, [*kept, *written])
        self.pending.count("dead_letters")

    # -- timers ---------------------------------------------------------------------------------------------------

    def _schedule_timers(self) -> None:
        """Wake up for the first committed timer that is neither fired nor cancelled."""
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None
        if not self.accepts_work or self.is_full:  # the commit under way schedules again
            return
        first = next((key for key in self.timers if self.get(TIMERS, key) is not None), None)
        if first is not None:
            delay_s = min((due_of(first) - self.now_ms) / 1000, self._context.settings.look_again_s)
            self._timer_handle = asyncio.get_running_loop().call_later(max(0.0, delay_s), self._fire_timers)

    def _fire_timers(self) -> None:
        if self.state is TaskState.SUSPENDED:
            return
        try:
            now_ms, slice_end = self.now_ms, time.perf_counter() + self._context.settings.slice_s
            for key in self.timers:
                if due_of(key) > now_ms or self.is_full or time.perf_counter() > slice_end:
                    break
                payload = self.get(TIMERS, key)
                if payload is not None:
                    self._fire(key, payload)
            self.request_commit()
            self._schedule_timers()
        except Exception as exc:
            self._context.break_task(self, exc)

    # -- committing -----------------------------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """True if the next transaction has reached ``buffer_bytes``."""
        return self.pending.bytes > self._context.settings.buffer_bytes

    async def wait_for_capacity(self) -> None:
        """Wait until the next transaction has room, or the task ends."""
        while self.alive and self.is_full:
            self._has_capacity.clear()
            await self._has_capacity.wait()

    def request_commit(self) -> None:
        """Have the changes committed, if there are any."""
        if self.pending and self.alive:
            self._changed.set()

    async def committed(self) -> None:
        """Wait until everything applied so far is committed. ``TaskBroken`` if the task ends before."""
        if not self.alive:
            raise TaskBroken(f"task {self.partition} is closed")
        if not self.pending and self.committing is None:
            return
        self.request_commit()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._number if self.pending else self._number - 1, done))
        await done

    async def verify_ownership_for_call(self, call_id: bytes, row: bytes) -> bool:
        """Return True once this worker certainly owned the task half a session ago; False if the row has changed.

        A worker that was frozen and resumes must not make calls: its successor makes them. A commit proves that no
        other worker had taken over when it began. If the last commit is old, the call's row is committed again first.
        """
        while self.get(CALLS, call_id) == row:
            if not self._ownership_is_stale:
                return True
            self.put(CALLS, call_id, row)
            await self.committed()
        return False

    async def verify_ownership(self) -> None:
        """Verify ownership before a view shows a committed row. ``TaskBroken`` if another worker has taken over.

        Its successor may have changed the row, and the view would show the old one.
        """
        while self._ownership_is_stale:
            self._commit_positions()
            await self.committed()

    @property
    def _ownership_is_stale(self) -> bool:
        return self._clock.monotonic() - self.owned_since > self._context.session_timeout_s / 2

    def start(self) -> None:
        """Begin, or continue after ``suspend``, to commit, fire timers and make calls. A broken task stays broken."""
        if not self.alive:
            return
        self._move_to(TaskState.RUNNING)
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._commit_loop(), name=f"commits of task {self.partition}")
            self._schedule_checkpoint()
        self._schedule_timers()
        self._context.calls.forget(self)
        self._context.calls.add(self, self.calls)

    async def _commit_loop(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._commit()
                if self._context.pace.pause_s:
                    await asyncio.sleep(self._context.pace.pause_s)
                self.request_commit()
        except Exception as exc:
            self._context.break_task(self, exc)
        except asyncio.CancelledError as exc:  # a task must not live on without this loop
            self._context.break_task(self, exc)
            raise

    async def _commit(self) -> None:
        context, transactions, failpoint = self._context, self._transactions, self._context.failpoint
        changes, self.pending = self.pending, PendingTransaction(context.tables)
        self.committing = changes
        self._number += 1
        self._has_capacity.set()
        begun = self._clock.monotonic()
        changes.note_positions(POSITIONS, self._source_ids)
        changelogs = {
            (context.changelogs[table], self.partition): table for table, rows in changes.rows.items() if rows
        }
        rows: dict[tuple[str, int], list[ProducerRecord]] = {
            tp: [(key, value, ()) for key, value in changes.rows[table].items()] for tp, table in changelogs.items()
        }
        async with asyncio.timeout(context.settings.commit_deadline_s):
            appended = await transactions.produce({**changes.outputs, **rows})
            ahead_ms = self.now_ms - appended[next(iter(changelogs))].broker_ms if changelogs else None
            failpoint("produced", transactions.disconnect)
            if not self.alive:
                raise TaskBroken(f"task {self.partition} broke while it committed")
            await transactions.end()
        now = self._clock.monotonic()
        context.pace.committed(now - begun, now)
        failpoint("committed", transactions.disconnect)
        self._store.write(
            changes.rows,
            {table: appended[tp].next_offset for tp, table in changelogs.items()},
            {table: appended[tp].broker_ms for tp, table in changelogs.items()},
        )
        self.committing, self.owned_since = None, begun
        self.commits += 1
        self.committed_positions.update(changes.positions)
        failpoint("stored", transactions.disconnect)
        self._publish(changes)
        took_s = self._clock.monotonic() - begun
        context.observer.committed(Commit(self.partition, changes, took_s, self.now_ms, ahead_ms))

    def _publish(self, changes: PendingTransaction) -> None:
        """Publish changes that are committed and on disk to indexes, timers, calls and views."""
        for table, index in self._indexes.items():
            for key, value in changes.rows[table].items():
                index.apply(key, value)
        if changes.rows[TIMERS]:
            self.timers.committed(changes.rows[TIMERS])
        self._calls_committed(changes.rows[CALLS])
        self._schedule_timers()
        self._context.counters.update(changes.counts)
        self._context.counters["commits"] += 1
        self._context.watch.committed(changes.answers, changes.rows)
        self._wake(lambda number: number < self._number)
        for callback in changes.callbacks:
            tell(self._context.counters, callback)

    def _calls_committed(self, rows: Mapping[bytes, bytes | None]) -> None:
        for call_id, row in rows.items():
            if row is None:
                self.calls.pop(call_id, None)
            else:
                self.calls[call_id] = decode_call(row).due_ms
        if asked := [call_id for call_id, row in rows.items() if row is not None]:
            self._context.calls.add(self, asked)

    def _wake(self, chosen: Callable[[int], bool], exc: Exception | None = None) -> None:
        for number, done in self._waiting:
            if chosen(number) and not done.done():
                done.set_exception(exc) if exc else done.set_result(None)
        self._waiting = [(number, done) for number, done in self._waiting if not done.done()]

    def verify_last_commit(self) -> None:
        """Commit again if some reader may not see the last commit: the next transaction resolves the doubt.

        An idle task would otherwise leave it open.
        """
        if self.is_running and self._transactions.in_doubt:
            self._commit_positions()

    def _schedule_checkpoint(self) -> None:
        self._progress_handle = asyncio.get_running_loop().call_later(
            self._context.settings.checkpoint_every_s, self._commit_for_checkpoint
        )

    def _commit_for_checkpoint(self) -> None:
        """Commit the positions of an idle task again, so that the store's checkpoint stays recent."""
        if self.alive:
            self._commit_positions()
            self._schedule_checkpoint()

    def _commit_positions(self) -> None:
        self.pending.positions = dict(self.next_offsets)
        self.request_commit()

    # -- for views: committed rows ----------------------------------------------------------------------------------

    def read(self, table: str, key: bytes) -> bytes | None:
        """Return a committed row. ``TaskBroken`` if the disk fails, because it fails for the handlers too."""
        try:
            return self._store.get(table, key)
        except StoreError as exc:
            raise self._break(exc) from exc

    def scan(self, table: str, prefix: bytes = b"", after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with the prefix whose keys come after ``after``, in key order."""
        rows = takewhile(lambda row: row[0].startswith(prefix), self._store.rows(table, max(prefix, after)))
        try:
            yield from (row for row in rows if row[0] > after)
        except StoreError as exc:
            raise self._break(exc) from exc

    async def purge(self, prefix: bytes) -> None:
        """Remove what the disk still has of deleted rows with the prefix. ``TaskBroken`` if the disk fails."""
        try:
            async with self._purging:  # one thread for all purges of a task
                await asyncio.to_thread(self._store.purge, prefix)
        except StoreError as exc:
            raise self._break(exc) from exc

    async def digest(self) -> str:
        """Return the digest of all rows between two commits. ``TaskBroken`` if the task closes meanwhile."""
        snapshot = self._store.snapshot()
        try:
            return await digest_of(snapshot, self._context.tables)
        except StoreError as exc:
            raise self._break(exc) from exc
        finally:
            snapshot.release()

    def _break(self, exc: StoreError) -> TaskBroken:
        self._context.break_task(self, exc)
        return TaskBroken(f"task {self.partition} broke: {exc}")

    # -- the end --------------------------------------------------------------------------------------------------

    def pass_failpoint(self, name: str) -> None:
        """Pass a failpoint outside a commit."""
        self._context.failpoint(name, self._transactions.disconnect)

    def fail(self, exc: BaseException) -> None:
        """Report that this error broke the task."""
        self._context.break_task(self, exc)

    def mark_broken(self) -> None:
        """Stop all work after an error. ``close`` releases what the task holds."""
        self._stop(TaskState.BROKEN)

    def _stop(self, state: TaskState) -> None:
        """Stop all work: apply, fire, call and commit nothing from now on."""
        self._move_to(state)
        self._has_capacity.set()
        for handle in (self._timer_handle, self._progress_handle):
            if handle is not None:
                handle.cancel()
        self._context.calls.forget(self)
        self._wake(lambda _: True, TaskBroken(f"task {self.partition} broke"))

    async def suspend(self) -> None:
        """Suspend the task until ``start``, and commit what it has applied.

        Calls under way may end, for ``close_calls_s``. The last commit may take ``close_commit_s``; what is not
        committed by then, the next owner does again.
        """
        if not self.alive:
            return
        self._move_to(TaskState.SUSPENDED)
        self._context.calls.forget(self)
        try:
            await self._context.calls.drain(self, self._context.settings.close_calls_s)
            for call in self.running_calls.values():
                call.cancel()  # its row stays: the next owner makes the call again
            async with asyncio.timeout(self._context.settings.close_commit_s):
                await self.committed()
        except (TimeoutError, TaskBroken):
            pass  # the next owner does it again, from what was committed

    async def close(self, *, commit: bool = True) -> None:
        """Release everything. With ``commit``, suspend the task before, so that it commits what it has applied."""
        try:
            if commit:
                await self.suspend()
        finally:
            self._stop(TaskState.CLOSED)
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
