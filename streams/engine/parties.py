"""Whom calls go to, and how many at once: a party that does not answer takes nothing from the others.

A *party* is one restaurant or one service of a payment provider; parties may share a *host*. Of each:

window    so many calls at once. It grows by one with an answer that found it full, and is 1 after a rest: a party that
          comes back is not run over by all that waited for it. Calls that are made again have half of it at most: what
          one customer's bank is silent about does not hold up the next customer.
breaker   after failures in a row the party rests; then one call tries, and each that fails doubles the rest.
room      a host and the worker as a whole have room for so many calls. Parties that are silent, because the last
          attempt failed or a call has been without an answer for a while, have half of it at most, all of them
          together: however many hang, there is room for those that answer.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from streams.engine.settings import EngineSettings

if TYPE_CHECKING:
    from streams.engine.task import Task


class Whom(NamedTuple):
    """Who is called. Both names are for people, too."""

    party: str
    host: str


class Waiting(NamedTuple):
    """A call that is due: the row with this due time is to be performed."""

    task: "Task"
    call_id: bytes
    due_ms: int
    again: bool


class Attempt(NamedTuple):
    """A call under way. ``rests``: how often its party had rested when it began."""

    waiting: Waiting
    began: float
    rests: int


@dataclass(frozen=True, slots=True)
class PartyState:
    """How a party stands, for people: ``running`` calls under way, ``waiting`` ones that are due and held back, of
    ``window`` at once. ``tried_in_s``: when the next one tries, where it is left alone."""

    party: str
    host: str
    state: str
    running: int
    waiting: int
    window: int
    failures: int
    silent_s: float
    tried_in_s: float
    last_error: str


class Party:
    """One of those that are called."""

    def __init__(self, whom: Whom, settings: EngineSettings) -> None:
        self.whom = whom
        self.running: dict[Attempt, None] = {}
        """In the order in which they began."""
        self.failures = 0
        """In a row."""
        self.rests_until = 0.0
        self.noted = False
        """Whether somebody looks at it again when its rest is over."""
        self.turn: Turn | None = None
        """Its place in ``Turns``."""
        self.window = settings.party_first
        self._settings = settings
        self._first: deque[Waiting] = deque()
        self._again: deque[Waiting] = deque()
        self._again_next = False
        self._running_again = self._rests = 0
        self._last_error = ""

    # -- what waits ---------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._first) + len(self._again)

    @property
    def idle(self) -> bool:
        """Whether nothing is lost when it is forgotten."""
        return not (self.running or self.waiting or self.failures)

    def add(self, waiting: Waiting) -> None:
        (self._again if waiting.again else self._first).append(waiting)

    def forget(self, task: "Task") -> None:
        """What waits of this task waits no more."""
        self._first = deque(each for each in self._first if each.task is not task)
        self._again = deque(each for each in self._again if each.task is not task)

    def may_start(self, now: float) -> bool:
        """Whether one of those that wait may start, as far as this party goes."""
        if now < self.rests_until or len(self.running) >= self.window:
            return False
        return bool(self._first) or self._again_may_start

    @property
    def _again_may_start(self) -> bool:
        return bool(self._again) and self._running_again < max(1, self.window // 2)

    def take(self) -> Waiting:
        """The next that may start: of first attempts and others in turn."""
        again = self._again_may_start and (self._again_next or not self._first)
        self._again_next = not again
        return (self._again if again else self._first).popleft()

    # -- what is under way --------------------------------------------------------------------------------------------

    def begin(self, waiting: Waiting, now: float) -> Attempt:
        attempt = Attempt(waiting, now, self._rests)
        self.running[attempt] = None
        self._running_again += waiting.again
        return attempt

    def end(self, attempt: Attempt) -> None:
        """After ``answered`` or ``failed``, or without either where it was cut off."""
        del self.running[attempt]
        self._running_again -= attempt.waiting.again

    def answered(self) -> None:
        if len(self.running) >= self.window:
            self.window = min(self.window + 1, self._settings.calls_per_party)
        self.failures = self._rests = 0
        self.rests_until = 0.0

    def failed(self, attempt: Attempt, why: str, now: float) -> None:
        self.failures += 1
        self._last_error = why
        if self.failures < self._settings.breaker_failures or attempt.rests < self._rests:
            return  # one that began before the rest says nothing new
        rest_s = min(self._settings.breaker_first_s * float(1 << min(self._rests, 30)), self._settings.breaker_max_s)
        self.window, self.rests_until = 1, now + rest_s
        self._rests += 1

    def silent(self, now: float) -> bool:
        """Whether nobody knows that it answers."""
        return self.failures > 0 or now >= self.silent_at

    @property
    def silent_at(self) -> float:
        """When it is silent, if nothing comes until then."""
        oldest = next(iter(self.running), None)
        return float("inf") if oldest is None else oldest.began + self._settings.silent_after_s

    # -- for people ---------------------------------------------------------------------------------------------------

    def state(self, now: float) -> PartyState:
        oldest = next(iter(self.running), None)
        return PartyState(
            *self.whom,
            state=self._state(now),
            running=len(self.running),
            waiting=self.waiting,
            window=self.window,
            failures=self.failures,
            silent_s=0.0 if oldest is None else now - oldest.began,
            tried_in_s=max(0.0, self.rests_until - now),
            last_error=self._last_error if self.failures else "",
        )

    def _state(self, now: float) -> str:
        if self.failures >= self._settings.breaker_failures:
            return "rests" if now < self.rests_until else "tried"
        if self.failures:
            return "fails"
        return "silent" if self.silent(now) else "answers"


class Turn(NamedTuple):
    """A place in line."""

    number: int
    party: Party
    silent: bool


class Turns:
    """Who has a call to start, in the order in which they came.

    Parties that are silent are in a line of their own, as there may be room for the others alone, and so are those at a
    host that had no room when it was their turn. What cannot start is not looked at whenever something else can: when a
    host with a thousand parties is down, that would be most of what a worker does.
    """

    def __init__(self) -> None:
        self._count = 0
        self._lines: dict[bool, deque[Turn]] = {False: deque(), True: deque()}
        self._at_full_hosts: dict[tuple[bool, str], deque[Turn]] = {}

    def __bool__(self) -> bool:
        return any(self._lines.values()) or bool(self._at_full_hosts)

    def put(self, party: Party, now: float) -> None:
        """At the end, unless it is in the right line already."""
        silent = party.silent(now)
        if party.turn is None or party.turn.silent is not silent:
            self._count += 1
            party.turn = Turn(self._count, party, silent)
            self._lines[silent].append(party.turn)

    def take(self, worker: "Room", hosts: Mapping[str, "Room"], now: float) -> Turn | None:
        """The first that the worker and its host have room for; it is in line no more."""
        kinds = [silent for silent in (False, True) if worker.has_room(silent, now)]
        open_lines = [line for silent in kinds for line in self._open_lines(silent, hosts, now)]
        if not open_lines:
            return None
        turn = min(open_lines, key=lambda line: line[0].number).popleft()
        turn.party.turn = None
        return turn

    def _open_lines(self, silent: bool, hosts: Mapping[str, "Room"], now: float) -> Iterator[deque[Turn]]:
        line = self._lines[silent]
        while first := _first_of(line):
            host = first.party.whom.host
            if hosts[host].has_room(silent, now):
                yield line
                break
            self._at_full_hosts.setdefault((silent, host), deque()).append(line.popleft())
        for (kind, host), waiting in list(self._at_full_hosts.items()):
            if _first_of(waiting) is None:
                del self._at_full_hosts[kind, host]
            elif kind is silent and hosts[host].has_room(silent, now):
                yield waiting


def _first_of(line: deque[Turn]) -> Turn | None:
    """Passing over those who have another place by now, or none."""
    while line and line[0].party.turn is not line[0]:
        line.popleft()
    return line[0] if line else None


class Room:
    """For so many calls at once, half of them at most to parties that are silent."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.parties: dict[Party, int] = {}
        """Those with calls under way, and how many."""
        self._size, self._half = size, max(1, size // 2)
        self._silent, self._silent_of = 0, -1.0

    def has_room(self, silent: bool, now: float) -> bool:
        """For one more call, to a party that is silent or not."""
        if self.count < self._half:
            return True
        if self._silent_of != now:
            self._silent = sum(count for each, count in self.parties.items() if each.silent(now))
            self._silent_of = now
        if silent:
            return self._silent < self._half and self.count < self._size
        return self.count - self._silent < self._size - min(self._silent, self._half)

    def begin(self, party: Party) -> None:
        self.parties[party] = self.parties.get(party, 0) + 1
        self.count += 1
        self._silent_of = -1.0

    def end(self, party: Party) -> None:
        self.parties[party] -= 1
        if not self.parties[party]:
            del self.parties[party]
        self.count -= 1
        self._silent_of = -1.0
