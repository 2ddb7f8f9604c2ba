"""Destinations of calls: how many calls each gets at once, and when its circuit breaker opens.

A destination is one party at one host. One host may serve many parties. Each destination has:

window           A limit of calls at once. An answer that finds the window full widens it by one, up to
                 ``calls_per_party``; it is 1 after the breaker was open, so a destination that recovers is not flooded
                 by all that waited for it. Retries get half of it at most: calls that fail again and again do not hold
                 up first attempts.
circuit breaker  closed        calls pass
                 open          after ``breaker_failures`` failures in a row no call passes, for ``breaker_first_s``
                 half-open     then one call passes; each failure doubles the pause, up to ``breaker_max_s``
                 An answer closes it again.

Destinations that fail or do not answer count as unresponsive: see ``fairness`` for the capacity they share.
"""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from exactly_once.calls.interfaces import CallingTask, DestinationKey
from exactly_once.settings import EngineSettings

CLOSED = "closed"
UNRESPONSIVE = "unresponsive"
FAILING = "failing"
OPEN = "open"
HALF_OPEN = "half-open"


class Waiting(NamedTuple):
    """A call that is due. It is outdated if its row has another due time by now."""

    owner: CallingTask
    call_id: bytes
    due_ms: int
    is_retry: bool


class Attempt(NamedTuple):
    """A call under way. ``trips``: how often the breaker had opened when the call began."""

    waiting: Waiting
    began: float
    trips: int


@dataclass(frozen=True, slots=True)
class DestinationState:
    """State of a destination, for operators.

    ``running`` calls are under way, ``waiting`` ones are due and held back, of ``window`` at once. The breaker lets
    the next call pass ``tried_in_s`` seconds from now. The oldest call under way has had no answer for ``silent_s``.
    """

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


class Destination:
    """A destination's window, circuit breaker and waiting calls."""

    def __init__(self, key: DestinationKey, settings: EngineSettings) -> None:
        self.key = key
        self.running: dict[Attempt, None] = {}
        """Calls under way, in the order in which they began."""
        self.failures = 0
        """Failures in a row."""
        self.open_until = 0.0
        """End of the breaker's pause, in seconds of the runner's clock."""
        self.is_scheduled = False
        """True if the runner looks at this destination when the pause is over."""
        self.window = settings.party_first
        """Limit of calls at once."""
        self._settings = settings
        self._first: deque[Waiting] = deque()
        self._retries: deque[Waiting] = deque()
        self._retry_is_next = False
        self._running_retries = 0
        self._trips = 0
        self._last_error = ""

    # -- waiting calls ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Number of calls that are due and have not started."""
        return len(self._first) + len(self._retries)

    @property
    def is_idle(self) -> bool:
        """True if this destination has no calls and no failures, so that it need not be kept."""
        return not (self.running or self.waiting or self.failures)

    def add(self, waiting: Waiting) -> None:
        """Queue a call that is due."""
        (self._retries if waiting.is_retry else self._first).append(waiting)

    def forget(self, owner: object) -> None:
        """Drop the waiting calls of one task."""
        self._first = deque(each for each in self._first if each.owner is not owner)
        self._retries = deque(each for each in self._retries if each.owner is not owner)

    def may_start(self, now: float) -> bool:
        """Return whether breaker and window let a waiting call start."""
        if now < self.open_until or len(self.running) >= self.window:
            return False
        return bool(self._first) or self._retry_may_start

    @property
    def _retry_may_start(self) -> bool:
        return bool(self._retries) and self._running_retries < max(1, self.window // 2)

    def take(self) -> Waiting:
        """Remove and return the next call to start: first attempts and retries in turn.

        If the breaker was open, first attempts come before all retries: a call that fails whenever it is made must not
        keep the breaker open for the others.
        """
        was_open = self.failures >= self._settings.breaker_failures
        retry = self._retry_may_start and (not self._first or (self._retry_is_next and not was_open))
        self._retry_is_next = not retry
        return (self._retries if retry else self._first).popleft()

    # -- calls under way ----------------------------------------------------------------------------------------------

    def begin(self, waiting: Waiting, now: float) -> Attempt:
        """Start a call."""
        attempt = Attempt(waiting, now, self._trips)
        self.running[attempt] = None
        self._running_retries += waiting.is_retry
        return attempt

    def end(self, attempt: Attempt) -> None:
        """End a call, after ``record_answer`` or ``record_failure``; a cancelled call has neither."""
        del self.running[attempt]
        self._running_retries -= attempt.waiting.is_retry

    def record_answer(self) -> None:
        """Close the breaker, and widen the window if it was full."""
        if len(self.running) >= self.window:
            self.window = min(self.window + 1, self._settings.calls_per_party)
        self.failures = 0
        self._trips = 0
        self.open_until = 0.0

    def record_failure(self, attempt: Attempt, error: str, now: float) -> None:
        """Count a failure, and open the breaker after ``breaker_failures`` in a row."""
        self.failures += 1
        self._last_error = error
        if self.failures < self._settings.breaker_failures or attempt.trips < self._trips:
            return  # a call that began before the breaker opened brings no news
        pause_s = min(self._settings.breaker_first_s * float(1 << min(self._trips, 30)), self._settings.breaker_max_s)
        self.window = 1
        self.open_until = now + pause_s
        self._trips += 1

    def is_unresponsive(self, now: float) -> bool:
        """Return whether the last call failed, or one has been without an answer for ``silent_after_s``."""
        return self.failures > 0 or now >= self.unresponsive_at

    @property
    def unresponsive_at(self) -> float:
        """Time from which this destination counts as unresponsive, unless an answer comes before."""
        oldest = next(iter(self.running), None)
        return float("inf") if oldest is None else oldest.began + self._settings.silent_after_s

    # -- for operators ------------------------------------------------------------------------------------------------

    def state(self, now: float) -> DestinationState:
        """Return the state for operators."""
        oldest = next(iter(self.running), None)
        return DestinationState(
            *self.key,
            state=self._state(now),
            running=len(self.running),
            waiting=self.waiting,
            window=self.window,
            failures=self.failures,
            silent_s=0.0 if oldest is None else now - oldest.began,
            tried_in_s=max(0.0, self.open_until - now),
            last_error=self._last_error if self.failures else "",
        )

    def _state(self, now: float) -> str:
        if self.failures >= self._settings.breaker_failures:
            return OPEN if now < self.open_until else HALF_OPEN
        if self.failures:
            return FAILING
        return UNRESPONSIVE if self.is_unresponsive(now) else CLOSED
