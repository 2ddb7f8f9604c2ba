"""Outgoing calls: each is a committed row until its answer is committed.

    request   A handler asks for a call; the call becomes a row of the table ``calls``, in the same transaction.
    attempt   The runner makes it once the row is in RocksDB.
    answer    The answer enters the task as an event, in the transaction that deletes the row.
    retry     A failed attempt replaces the row. The next attempt's time is in it, so a back-off survives a restart.
              A result may be unsettled: it enters the task, and the next attempt follows all the same.
    wake      A handler may have an open call made again at once, with the same request.

After a crash in between, the row is still there and the runner makes the call again under the same idempotency key,
the row's key: the destination may get a request more than once and can recognise it.

Calls that are due wait in the queue of their destination, and the destinations take turns (see ``fairness``). One
asyncio task for each waiting call would be simpler, but cancelling thousands of them in a reset takes seconds.
"""

import asyncio
import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol

from exactly_once.calls.destinations import Attempt, Destination, DestinationState, Waiting
from exactly_once.calls.fairness import ConcurrencyLimit, FairQueue
from exactly_once.calls.interfaces import (
    CallingTask,
    CallOutcome,
    Completed,
    DestinationKey,
    Health,
    Performer,
    Retry,
    Unsettled,
)
from exactly_once.calls.rows import CALLS, MAX_ERROR_CHARS, Call, decode_call
from exactly_once.settings import EngineSettings

EndOfAttempt = Callable[[bytes, float, CallOutcome], None]
"""Called with the request, the duration in seconds and the outcome of each attempt."""


class MonotonicClock(Protocol):
    """A clock for back-offs and timeouts."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        ...


class CallRunner:
    """Makes the calls of all tasks of one worker."""

    def __init__(
        self,
        settings: EngineSettings,
        clock: MonotonicClock,
        performer: Callable[[], Performer | None],
        on_end: EndOfAttempt,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._performer = performer
        self._on_end = on_end
        # due by the runner's own clock, which may differ from the task's
        self._later: list[tuple[int, int, CallingTask, bytes, int]] = []
        self._destinations: dict[DestinationKey, Destination] = {}
        self._queue = FairQueue()
        self._paused: list[tuple[float, int, Destination]] = []  # end of the breaker's pause first
        self._worker = ConcurrencyLimit(settings.calls_at_once)
        self._hosts = defaultdict[str, ConcurrencyLimit](lambda: ConcurrencyLimit(settings.calls_per_host))
        self._count = 0
        self._wake: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        """Number of calls under way."""
        return self._worker.count

    def destinations(self) -> list[DestinationState]:
        """Return the state of each destination with calls or failures."""
        now = self._clock.monotonic()
        return [destination.state(now) for destination in self._destinations.values()]

    def destination(self, request: bytes) -> DestinationState | None:
        """Return the state of this request's destination; None if it has neither calls nor failures."""
        performer = self._performer()
        found = None if performer is None else self._destinations.get(_destination_of(performer, request))
        return None if found is None else found.state(self._clock.monotonic())

    def add(self, task: CallingTask, call_ids: Iterable[bytes]) -> None:
        """Schedule committed calls for when they are due."""
        ahead_ms = _ms(self._clock.monotonic()) - task.now_ms
        for call_id in call_ids:
            due_ms = task.calls[call_id]
            self._count += 1
            heapq.heappush(self._later, (due_ms + ahead_ms, self._count, task, call_id, due_ms))
        self._start_due()

    def forget(self, task: CallingTask) -> None:
        """Drop the task's waiting calls; its store has them. The task itself cancels those under way."""
        self._later = [entry for entry in self._later if entry[2] is not task]
        heapq.heapify(self._later)
        for destination in list(self._destinations.values()):
            destination.forget(task)
            self._drop_if_idle(destination)

    async def drain(self, task: CallingTask, timeout_s: float) -> None:
        """Wait for the task's calls under way. Its next owner makes those again that take longer."""
        if task.running_calls:
            await asyncio.wait([*task.running_calls.values()], timeout=timeout_s)

    def next_attempt(self, call_id: bytes, call: Call, answer: Retry | Unsettled, now_ms: int) -> Call:
        """Return the row of the next attempt."""
        delay_s = self._backoff_s(call_id, call.attempt) if answer.after_s is None else answer.after_s
        due_ms = max(now_ms + int(delay_s * 1000), call.due_ms + 1)
        error = answer.last_error[:MAX_ERROR_CHARS].encode(errors="replace").decode()  # UTF-8 cannot hold every error
        return Call(call.request, call.attempt + 1, due_ms, error)

    def _backoff_s(self, call_id: bytes, attempt: int) -> float:
        """Return the back-off: doubling, less a jitter of up to half.

        The jitter depends on call and attempt alone, so a run can be replayed.
        """
        longest = min(self._settings.retry_first_s * float(1 << min(attempt - 1, 30)), self._settings.retry_max_s)
        digest = hashlib.blake2b(b"%d/%s" % (attempt, call_id), digest_size=4).digest()
        return longest * (1 - int.from_bytes(digest, "big") / 2**33)

    # -- the queue --------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        """Start the calls that are due and allowed, destinations in turn; schedule the next look."""
        performer = self._performer()
        if performer is None:
            return
        now = self._clock.monotonic()
        self._collect_due(performer, now)
        self._collect_paused(now)
        while (turn := self._queue.take(self._worker, self._hosts, now)) is not None:
            destination = turn.destination
            if turn.unresponsive is destination.is_unresponsive(now) and destination.may_start(now):
                self._start(performer, destination, destination.take(), now)
            self._enqueue_if_ready(destination, now)
            self._drop_if_idle(destination)
        self._wake_later(now)

    def _collect_due(self, performer: Performer, now: float) -> None:
        while self._later and self._later[0][0] <= _ms(now):
            _, _, task, call_id, due_ms = heapq.heappop(self._later)
            row = task.get(CALLS, call_id) if task.calls.get(call_id) == due_ms else None
            if row is not None and call_id not in task.running_calls:
                call = decode_call(row)
                destination = self._destination(_destination_of(performer, call.request))
                destination.add(Waiting(task, call_id, due_ms, call.attempt > 1))
                self._enqueue_if_ready(destination, now)

    def _collect_paused(self, now: float) -> None:
        while self._paused and self._paused[0][0] <= now:
            destination = heapq.heappop(self._paused)[2]
            destination.is_scheduled = False
            self._enqueue_if_ready(destination, now)

    def _destination(self, key: DestinationKey) -> Destination:
        if key not in self._destinations:
            self._destinations[key] = Destination(key, self._settings)
        return self._destinations[key]

    def _limits(self, destination: Destination) -> tuple[ConcurrencyLimit, ConcurrencyLimit]:
        return self._worker, self._hosts[destination.key.host]

    def _enqueue_if_ready(self, destination: Destination, now: float) -> None:
        """Queue a destination that may start a call; look again later at one whose breaker is open."""
        if destination.may_start(now):
            self._queue.put(destination, now)
        elif destination.waiting and destination.open_until > now and not destination.is_scheduled:
            destination.is_scheduled = True
            self._count += 1
            heapq.heappush(self._paused, (destination.open_until, self._count, destination))

    def _wake_later(self, now: float) -> None:
        """Wake up for the next call that is due and the next pause that ends.

        If the queue lacks capacity, also for the next destination that becomes unresponsive.
        """
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        delays = []
        if self._later:
            delays.append((self._later[0][0] - _ms(now)) / 1000)
        if self._paused:
            delays.append(self._paused[0][0] - now)
        if self._queue:
            running = self._worker.destinations
            delays += [each.unresponsive_at - now for each in running if not each.is_unresponsive(now)]
        if delays:
            delay_s = min(*delays, self._settings.look_again_s)
            self._wake = asyncio.get_running_loop().call_later(delay_s, self._start_due)

    # -- one attempt ------------------------------------------------------------------------------------------------

    def _start(self, performer: Performer, destination: Destination, waiting: Waiting, now: float) -> None:
        task, call_id, due_ms, _ = waiting
        if not task.accepts_work or call_id in task.running_calls or task.calls.get(call_id) != due_ms:
            return
        attempt = destination.begin(waiting, now)
        for limit in self._limits(destination):
            limit.begin(destination)
        running = asyncio.create_task(self._run(performer, destination, attempt), name=f"call {call_id!r}")
        task.running_calls[call_id] = running
        running.add_done_callback(lambda _: self._ended(destination, attempt))

    def _ended(self, destination: Destination, attempt: Attempt) -> None:
        task, call_id, _, _ = attempt.waiting
        destination.end(attempt)
        for limit in self._limits(destination):
            limit.end(destination)
        task.running_calls.pop(call_id, None)
        self._enqueue_if_ready(destination, self._clock.monotonic())
        if task.accepts_work and self._is_pending(task, call_id):
            self.add(task, [call_id])
        else:
            self._start_due()
        self._drop_if_idle(destination)

    def _drop_if_idle(self, destination: Destination) -> None:
        """Forget a destination without calls and failures."""
        if destination.is_idle:
            self._destinations.pop(destination.key, None)
            self._queue.remove(destination)

    def _is_pending(self, task: CallingTask, call_id: bytes) -> bool:
        """Return whether a committed row waits for an attempt. It may have replaced the row of the last attempt."""
        row = task.get(CALLS, call_id)
        return row is not None and decode_call(row).due_ms == task.calls.get(call_id)

    async def _run(self, performer: Performer, destination: Destination, attempt: Attempt) -> None:
        task, call_id, _, _ = attempt.waiting
        try:
            row = task.get(CALLS, call_id)
            if row is None or decode_call(row).due_ms != task.calls.get(call_id):
                return  # cancelled or replaced while it waited
            if not await task.verify_ownership_for_call(call_id, row) or not task.accepts_work:
                return
            task.pass_failpoint("before_call")
            call, began = decode_call(row), self._clock.monotonic()
            answer = await self._attempt(performer, call_id, call)
            self._on_end(call.request, self._clock.monotonic() - began, answer)
            self._record_health(destination, attempt, answer)
            task.pass_failpoint("after_call")
            if task.alive:
                task.finish_call(call_id, row, answer)
        except Exception as exc:
            task.fail(exc)

    def _record_health(self, destination: Destination, attempt: Attempt, answer: CallOutcome) -> None:
        """Count the attempt for the destination's circuit breaker."""
        if isinstance(answer, Completed) or answer.health is Health.ANSWERS:
            destination.record_answer()
        elif answer.health is Health.FAILS:
            destination.record_failure(attempt, answer.last_error, self._clock.monotonic())

    async def _attempt(self, performer: Performer, call_id: bytes, call: Call) -> CallOutcome:
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                return await performer.perform(call_id, call.request, call.attempt)
        except TimeoutError:
            return Retry(f"no answer within {self._settings.call_timeout_s:g} s")
        except Exception as exc:
            return Retry(f"{type(exc).__name__}: {exc}", health=Health.UNKNOWN)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _destination_of(performer: Performer, request: bytes) -> DestinationKey:
    """Return the request's destination, or an empty key where the performer cannot determine it.

    The call then fails and is retried, which operators can see.
    """
    try:
        return performer.destination_of(request)
    except Exception:
        return DestinationKey("", "")
