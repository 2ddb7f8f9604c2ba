"""Outgoing calls: each a committed row until its answer is committed.

A call is asked for by a change and becomes a row of the table ``calls`` in the same transaction; only when that is in
RocksDB is it made. The answer enters the task as an event, in the transaction that deletes the row. Whatever dies in
between, the row is still there and the call is made again under the same idempotency key, its row's key: the other side
may see it more than once and can tell. When the next attempt is due is in the row, so a back-off survives a restart.

A fixed number of runners takes the calls from one queue. An asyncio task for each waiting call would be simpler, but a
reset that has to cancel thousands of them takes seconds.
"""

import asyncio
import hashlib
import heapq
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from streams.engine.settings import EngineSettings

if TYPE_CHECKING:
    from streams.engine.task import Clock, Task

CALLS = "calls"


WHY_CHARS = 500
GROWTH_BYTES = 4_000
"""By how much a row may grow from attempt to attempt: so much of ``why``, at 6 bytes a character, and two numbers."""


@dataclass(frozen=True, slots=True)
class Call:
    """One row of ``calls``. ``due_ms`` is when the attempt is due, ``why`` what the attempt before came to."""

    request: bytes
    attempt: int = 1
    due_ms: int = 0
    why: str = ""


class _Row(msgspec.Struct, omit_defaults=True):
    """How a call is written: one JSON object, in it the request as it is, or in base64 where it is no JSON object."""

    request: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: bytes | msgspec.UnsetType = msgspec.UNSET
    attempt: int = 1
    due_ms: int = 0
    why: str = ""


_encode_row: Callable[[_Row], bytes] = msgspec.json.Encoder().encode
_decode_row: Callable[[bytes], _Row] = msgspec.json.Decoder(_Row).decode


def encode_call(call: Call) -> bytes:
    row = _Row(attempt=call.attempt, due_ms=call.due_ms, why=call.why)
    if _is_json_object(call.request):
        row.request = msgspec.Raw(call.request)
    else:
        row.base64 = call.request
    return _encode_row(row)


def decode_call(row: bytes) -> Call:
    found = _decode_row(row)
    request = found.base64 if found.request is msgspec.UNSET else bytes(found.request)
    return Call(request or b"", found.attempt, found.due_ms, found.why)


def _is_json_object(request: bytes) -> bool:
    """Without anything around it, so that the very same bytes come out again."""
    if not (request.startswith(b"{") and request.endswith(b"}")):
        return False
    try:
        msgspec.json.decode(request)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Answered:
    """The other side has decided. Its answer, also a refusal, goes to ``on_result``."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing is decided: try again after the back-off, or after ``after_s`` where the other side asked for that."""

    why: str
    after_s: float | None = None


class Performer(Protocol):
    """Makes the calls. Knows nothing of tasks, and may be asked for the same call more than once."""

    def host(self, request: bytes) -> str:
        """Who is called: the limits and the circuit breaker are a host's."""
        ...

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Answered | Again:
        """One attempt, with ``call_id`` as its idempotency key. An exception is an ``Again``."""
        ...


class Breaker:
    """Leaves a host alone after failures in a row, then lets one call try."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self.failures, self.tries_again_at, self.trying = 0, 0.0, False

    @property
    def open(self) -> bool:
        return self.failures >= self._settings.breaker_failures

    def lets_through(self, now: float) -> bool:
        return not self.open or (now >= self.tries_again_at and not self.trying)

    def began(self) -> bool:
        """A call starts. True if it is the one that tries whether the host is back: say ``tried`` when it is over."""
        if self.open:
            self.trying = True
        return self.trying

    def tried(self) -> None:
        self.trying = False

    def ended(self, *, failed: bool, now: float) -> None:
        self.failures = self.failures + 1 if failed else 0
        if self.open:
            times = self.failures - self._settings.breaker_failures
            rest_s = min(self._settings.breaker_first_s * float(1 << min(times, 30)), self._settings.breaker_max_s)
            self.tries_again_at = now + rest_s


Queued = tuple["Task", bytes]


class CallRunner:
    """Makes the calls of all tasks of one worker."""

    def __init__(
        self,
        settings: EngineSettings,
        clock: "Clock",
        performer: Callable[[], Performer | None],
        failpoint: Callable[["Task", str], None],
        broken: Callable[["Task", BaseException], None],
    ) -> None:
        self._settings, self._clock, self._performer = settings, clock, performer
        self._failpoint, self._broken = failpoint, broken
        self._later: list[tuple[int, int, Task, bytes, int]] = []  # due on our own clock, as a task's may be another's
        self._ready: OrderedDict[str, deque[Queued]] = OrderedDict()
        self._breakers: defaultdict[str, Breaker] = defaultdict(lambda: Breaker(settings))
        self._running: defaultdict[str, int] = defaultdict(int)
        self._count = 0
        self._wake: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        return sum(self._running.values())

    def add(self, task: "Task", call_id: bytes) -> None:
        """A committed call, to be made when it is due."""
        due_ms = task.calls[call_id]
        own_due_ms = _ms(self._clock.monotonic()) + due_ms - task.now_ms
        self._count += 1
        heapq.heappush(self._later, (own_due_ms, self._count, task, call_id, due_ms))
        self._start_due()

    def forget(self, task: "Task") -> None:
        """The task is no more: its waiting calls are dropped (its store has them), the running ones cancelled by it."""
        self._later = [entry for entry in self._later if entry[2] is not task]
        heapq.heapify(self._later)
        for host, queue in list(self._ready.items()):
            self._ready[host] = deque(entry for entry in queue if entry[0] is not task)

    async def drain(self, task: "Task", timeout_s: float) -> None:
        """Wait for the task's running calls; those cut off are made again by its next owner."""
        if task.running_calls:
            await asyncio.wait([*task.running_calls.values()], timeout=timeout_s)

    def next_attempt(self, call_id: bytes, call: Call, answer: Again, now_ms: int) -> Call:
        """The row for the attempt after this one."""
        delay_s = self._backoff_s(call_id, call.attempt) if answer.after_s is None else answer.after_s
        due_ms = max(now_ms + int(delay_s * 1000), call.due_ms + 1)
        why = answer.why[:WHY_CHARS].encode(errors="replace").decode()  # an exception may hold what no UTF-8 can
        return Call(call.request, call.attempt + 1, due_ms, why)

    def _backoff_s(self, call_id: bytes, attempt: int) -> float:
        """Doubling, less a jitter of up to half. It depends on call and attempt alone: a run can be replayed."""
        longest = min(self._settings.retry_first_s * float(1 << min(attempt - 1, 30)), self._settings.retry_max_s)
        digest = hashlib.blake2b(b"%d/%s" % (attempt, call_id), digest_size=4).digest()
        return longest * (1 - int.from_bytes(digest, "big") / 2**33)

    # -- the queue --------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        """Start what is due and allowed, a host at a time in turn, and wake up when more may be."""
        performer = self._performer()
        if performer is None:
            return
        now = self._clock.monotonic()
        self._collect_due(performer, now)
        for _ in range(len(self._ready)):
            host, queue = next(iter(self._ready.items()))
            self._ready.move_to_end(host)
            while queue and self._may_start(host, now):
                self._start(performer, host, *queue.popleft())
            if not queue:
                del self._ready[host]
        self._wake_later(now)

    def _collect_due(self, performer: Performer, now: float) -> None:
        while self._later and self._later[0][0] <= _ms(now):
            _, _, task, call_id, due_ms = heapq.heappop(self._later)
            row = task.get(CALLS, call_id) if task.calls.get(call_id) == due_ms else None
            if row is not None and call_id not in task.running_calls:
                host = _host(performer, decode_call(row).request)
                self._ready.setdefault(host, deque()).append((task, call_id))

    def _may_start(self, host: str, now: float) -> bool:
        return (
            self.running < self._settings.calls_at_once
            and self._running[host] < self._settings.calls_per_host
            and self._breakers[host].lets_through(now)
        )

    def _wake_later(self, now: float) -> None:
        """A host whose rest is over and that still waits, waits for a slot: the call that ends then looks again."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        resting = [self._breakers[host] for host in self._ready]
        delays = [b.tries_again_at - now for b in resting if b.open and not b.trying and b.tries_again_at > now]
        if self._later:
            delays.append((self._later[0][0] - _ms(now)) / 1000)
        if delays:
            delay_s = min(*delays, self._settings.look_again_s)
            self._wake = asyncio.get_running_loop().call_later(delay_s, self._start_due)

    # -- one attempt ------------------------------------------------------------------------------------------------

    def _start(self, performer: Performer, host: str, task: "Task", call_id: bytes) -> None:
        if not task.alive or task.closing or call_id in task.running_calls:
            return
        self._running[host] += 1
        trying = self._breakers[host].began()
        running = asyncio.create_task(self._run(performer, host, task, call_id), name=f"call {call_id!r}")
        task.running_calls[call_id] = running
        running.add_done_callback(lambda _: self._ended(host, task, call_id, trying))

    def _ended(self, host: str, task: "Task", call_id: bytes, trying: bool) -> None:
        self._running[host] -= 1
        if not self._running[host]:
            del self._running[host]
        if trying:
            self._breakers[host].tried()
        task.running_calls.pop(call_id, None)
        if task.alive and not task.closing and self._still_waits(task, call_id):
            self.add(task, call_id)
        else:
            self._start_due()

    def _still_waits(self, task: "Task", call_id: bytes) -> bool:
        """Whether the committed row is still to be performed: it was replaced while an earlier one was performed."""
        row = task.get(CALLS, call_id)
        return row is not None and decode_call(row).due_ms == task.calls.get(call_id)

    async def _run(self, performer: Performer, host: str, task: "Task", call_id: bytes) -> None:
        try:
            row = task.get(CALLS, call_id)
            if row is None or decode_call(row).due_ms != task.calls.get(call_id):
                return  # cancelled or replaced while it waited
            if not await task.prove_ownership(call_id, row) or task.closing or not task.alive:
                return
            self._failpoint(task, "before_call")
            answer = await self._attempt(performer, call_id, decode_call(row))
            self._breakers[host].ended(failed=isinstance(answer, Again), now=self._clock.monotonic())
            self._failpoint(task, "after_call")
            if task.alive:
                task.finish_call(call_id, row, answer)
        except Exception as exc:
            self._broken(task, exc)

    async def _attempt(self, performer: Performer, call_id: bytes, call: Call) -> Answered | Again:
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                return await performer.perform(call_id, call.request, call.attempt)
        except TimeoutError:
            return Again(f"no answer within {self._settings.call_timeout_s:g} s")
        except Exception as exc:
            return Again(f"{type(exc).__name__}: {exc}")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _host(performer: Performer, request: bytes) -> str:
    """A request whose host cannot be told is performed all the same: that fails, and is tried again, visibly."""
    try:
        return performer.host(request)
    except Exception:
        return ""
