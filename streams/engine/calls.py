"""Outgoing calls: each a committed row until its answer is committed.

A call is asked for by a change and becomes a row of the table ``calls`` in the same transaction; only when that is in
RocksDB is it made. The answer enters the task as an event, in the transaction that deletes the row. Whatever dies in
between, the row is still there and the call is made again under the same idempotency key, its row's key: the other side
may see it more than once and can tell. When the next attempt is due is in the row, so a back-off survives a restart.

What is due waits in its party's queue, and those parties take turns (see ``parties``). An asyncio task for each waiting
call would be simpler, but a reset that has to cancel thousands of them takes seconds.
"""

import asyncio
import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from streams.engine.parties import Attempt, Party, PartyState, Room, Turns, Waiting, Whom
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

    def whom(self, request: bytes) -> Whom:
        """Who is called: limit and circuit breaker are the party's; parties of one host share a larger limit."""
        ...

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Answered | Again:
        """One attempt, with ``call_id`` as its idempotency key. An exception is an ``Again``."""
        ...


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
        self._parties: dict[Whom, Party] = {}
        self._turns = Turns()  # of those that have a call to start and may
        self._rests: list[tuple[float, int, Party]] = []
        self._worker = Room(settings.calls_at_once)
        self._hosts = defaultdict[str, Room](lambda: Room(settings.calls_per_host))
        self._count = 0
        self._wake: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        return self._worker.count

    def parties(self) -> list[PartyState]:
        """How those stand that something is under way to, waits for, or went wrong with last."""
        now = self._clock.monotonic()
        return [party.state(now) for party in self._parties.values()]

    def party(self, request: bytes) -> PartyState | None:
        """How the one stands that this request goes to, where there is something to say."""
        performer = self._performer()
        party = None if performer is None else self._parties.get(_whom(performer, request))
        return None if party is None else party.state(self._clock.monotonic())

    def add(self, task: "Task", call_ids: Iterable[bytes]) -> None:
        """Committed calls, to be made when they are due."""
        ahead_ms = _ms(self._clock.monotonic()) - task.now_ms
        for call_id in call_ids:
            due_ms = task.calls[call_id]
            self._count += 1
            heapq.heappush(self._later, (due_ms + ahead_ms, self._count, task, call_id, due_ms))
        self._start_due()

    def forget(self, task: "Task") -> None:
        """The task is no more: its waiting calls are dropped (its store has them), the running ones cancelled by it."""
        self._later = [entry for entry in self._later if entry[2] is not task]
        heapq.heapify(self._later)
        for party in list(self._parties.values()):
            party.forget(task)
            self._tidy(party)

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
        """Start what is due and allowed, a call of each party in turn, and wake up when more may be."""
        performer = self._performer()
        if performer is None:
            return
        now = self._clock.monotonic()
        self._collect_due(performer, now)
        self._collect_rested(now)
        while (turn := self._turns.take(self._worker, self._hosts, now)) is not None:
            party = turn.party
            if turn.silent is party.silent(now) and party.may_start(now):
                self._start(performer, party, party.take(), now)
            self._look_at(party, now)
            self._tidy(party)
        self._wake_later(now)

    def _collect_due(self, performer: Performer, now: float) -> None:
        while self._later and self._later[0][0] <= _ms(now):
            _, _, task, call_id, due_ms = heapq.heappop(self._later)
            row = task.get(CALLS, call_id) if task.calls.get(call_id) == due_ms else None
            if row is not None and call_id not in task.running_calls:
                call = decode_call(row)
                party = self._party(_whom(performer, call.request))
                party.add(Waiting(task, call_id, due_ms, call.attempt > 1))
                self._look_at(party, now)

    def _collect_rested(self, now: float) -> None:
        while self._rests and self._rests[0][0] <= now:
            party = heapq.heappop(self._rests)[2]
            party.noted = False
            self._look_at(party, now)

    def _party(self, whom: Whom) -> Party:
        if whom not in self._parties:
            self._parties[whom] = Party(whom, self._settings)
        return self._parties[whom]

    def _rooms(self, party: Party) -> tuple[Room, Room]:
        return self._worker, self._hosts[party.whom.host]

    def _look_at(self, party: Party, now: float) -> None:
        """It has its turn if it may start something; while it rests, it is looked at again afterwards."""
        if party.may_start(now):
            self._turns.put(party, now)
        elif party.waiting and party.rests_until > now and not party.noted:
            party.noted = True
            self._count += 1
            heapq.heappush(self._rests, (party.rests_until, self._count, party))

    def _wake_later(self, now: float) -> None:
        """For what becomes due, for whom a rest ends, and, if something finds no room, for who becomes silent."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        delays = []
        if self._later:
            delays.append((self._later[0][0] - _ms(now)) / 1000)
        if self._rests:
            delays.append(self._rests[0][0] - now)
        if self._turns:
            delays += [party.silent_at - now for party in self._worker.parties if not party.silent(now)]
        if delays:
            delay_s = min(*delays, self._settings.look_again_s)
            self._wake = asyncio.get_running_loop().call_later(delay_s, self._start_due)

    # -- one attempt ------------------------------------------------------------------------------------------------

    def _start(self, performer: Performer, party: Party, waiting: Waiting, now: float) -> None:
        task, call_id, due_ms, _ = waiting
        if not task.alive or task.closing or call_id in task.running_calls or task.calls.get(call_id) != due_ms:
            return
        attempt = party.begin(waiting, now)
        for room in self._rooms(party):
            room.begin(party)
        running = asyncio.create_task(self._run(performer, party, attempt), name=f"call {call_id!r}")
        task.running_calls[call_id] = running
        running.add_done_callback(lambda _: self._ended(party, attempt))

    def _ended(self, party: Party, attempt: Attempt) -> None:
        task, call_id, _, _ = attempt.waiting
        party.end(attempt)
        for room in self._rooms(party):
            room.end(party)
        task.running_calls.pop(call_id, None)
        self._look_at(party, self._clock.monotonic())
        if task.alive and not task.closing and self._still_waits(task, call_id):
            self.add(task, [call_id])
        else:
            self._start_due()
        self._tidy(party)

    def _tidy(self, party: Party) -> None:
        """Nothing is kept of a party that is not called and of which nothing is wrong."""
        if party.idle:
            self._parties.pop(party.whom, None)
            party.turn = None

    def _still_waits(self, task: "Task", call_id: bytes) -> bool:
        """Whether the committed row is still to be performed: it was replaced while an earlier one was performed."""
        row = task.get(CALLS, call_id)
        return row is not None and decode_call(row).due_ms == task.calls.get(call_id)

    async def _run(self, performer: Performer, party: Party, attempt: Attempt) -> None:
        task, call_id, _, _ = attempt.waiting
        try:
            row = task.get(CALLS, call_id)
            if row is None or decode_call(row).due_ms != task.calls.get(call_id):
                return  # cancelled or replaced while it waited
            if not await task.prove_ownership(call_id, row) or task.closing or not task.alive:
                return
            self._failpoint(task, "before_call")
            answer = await self._attempt(performer, call_id, decode_call(row))
            if isinstance(answer, Again):
                party.failed(attempt, answer.why, self._clock.monotonic())
            else:
                party.answered()
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


def _whom(performer: Performer, request: bytes) -> Whom:
    """A request of which that cannot be told is performed all the same: that fails, and is tried again, visibly."""
    try:
        return performer.whom(request)
    except Exception:
        return Whom("", "")
