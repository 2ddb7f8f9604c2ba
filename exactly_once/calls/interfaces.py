"""Protocols of the call runner: tasks that own calls, and a performer that makes them.

task       CallingTask: reads the call's row, verifies that this worker still owns the task, stores the outcome
performer  Performer: makes one attempt and returns Completed, Unsettled or Retry
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol


class DestinationKey(NamedTuple):
    """The destination of a call. Operators read both names, see ``DestinationState``."""

    party: str
    host: str


class Health(Enum):
    """Evidence that an attempt gives about its destination."""

    ANSWERS = "answers"
    """The destination answered: its circuit breaker closes."""
    FAILS = "fails"
    """The destination failed: its circuit breaker counts it."""
    UNKNOWN = "unknown"
    """The attempt did not reach the destination, because this side failed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A final answer, also a refusal. The result goes to ``on_result``.

    Every outcome may have a function that is called once the outcome is committed, see ``Task.after_commit``.
    """

    result: bytes
    after_commit: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """An attempt without a result. The next one follows after the back-off, or after ``after_s`` if that is set."""

    last_error: str
    after_s: float | None = None
    health: Health = Health.FAILS
    after_commit: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A result that does not end the call: it goes to ``on_result``, and the next attempt follows as after a `Retry`.

    ``on_result`` may cancel the call.
    """

    result: bytes
    last_error: str
    after_s: float | None = None
    health: Health = Health.ANSWERS
    after_commit: Callable[[], None] | None = None


CallOutcome = Completed | Retry | Unsettled
"""CallOutcome of one attempt."""


class Performer(Protocol):
    """Makes the calls. Knows nothing of tasks, and may get the same call more than once."""

    def destination_of(self, request: bytes) -> DestinationKey:
        """Return the destination: window and circuit breaker are per party; the parties of a host share a limit."""
        ...

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> CallOutcome:
        """Make one attempt, with ``call_id`` as its idempotency key.

        An exception counts as a `Retry` of unknown health: it is a failure of the performer, not of the destination.
        """
        ...


class CallingTask(Protocol):
    """A task, as far as its calls are concerned."""

    calls: dict[bytes, int]
    """The committed calls: id -> when the next attempt is due, in milliseconds since the epoch."""
    running_calls: dict[bytes, asyncio.Task[None]]
    """The calls under way, by id."""

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the task's clock."""
        ...

    @property
    def alive(self) -> bool:
        """True if the task is neither broken nor closed."""
        ...

    @property
    def accepts_work(self) -> bool:
        """True if calls may start: the task is alive and not suspended."""
        ...

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return a row, with the task's uncommitted changes."""
        ...

    async def verify_ownership_for_call(self, call_id: bytes, row: bytes) -> bool:
        """Return True once no other worker can own the task; False if the row has changed by then."""
        ...

    def finish_call(self, call_id: bytes, row: bytes, answer: CallOutcome) -> None:
        """Store the outcome of the attempt that began with this row."""
        ...

    def pass_failpoint(self, name: str) -> None:
        """Pass a failpoint of this name."""
        ...

    def fail(self, exc: BaseException) -> None:
        """Report that this error broke the task."""
        ...
