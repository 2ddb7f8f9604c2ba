"""What a state machine is here: a table of transitions, and what deciding by it yields.

Every machine is a module with a ``TABLE`` and a ``decide``. A row of the table says: in one of these stages, on this
event, if this holds, go there and do that. The first row that fits decides. Guards and effects are functions whose
docstrings say in a few words what they check and do; the diagrams in ARCHITECTURE.md are made from them.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from processors.parameters import Parameters
from topics.records import Record

S = TypeVar("S", bound=msgspec.Struct)
"""The state of a machine."""


class Named(Enum):
    """What the stages of a machine are. Tables are looked up by them, and ``Enum`` hashes its members in Python."""

    __hash__ = object.__hash__


class Outcome(Enum):
    """What became of an event; what its sender is told."""

    APPLIED = "APPLIED"
    ABSORBED = "ABSORBED"
    """Already so, or too late to matter: a repeat is answered like the first one."""
    REFUSED = "REFUSED"
    """The state does not allow it; the reason says why."""
    UNKNOWN = "UNKNOWN"
    """There is no such order or driver."""


class SetTimer(msgspec.Struct, frozen=True):
    """Come back at ``due_ms`` (milliseconds since 1970) with ``TimerDue(name)``; the name begins with the key."""

    name: str
    due_ms: int


class CancelTimer(msgspec.Struct, frozen=True):
    """The timer with this name and due time is to be forgotten."""

    name: str
    due_ms: int


CallKind = Literal["charge", "refund", "prepare"]


class Call(msgspec.Struct, frozen=True):
    """Ask somebody outside for something, again and again until they answer; ``key`` is the idempotency key."""

    key: str
    kind: CallKind
    request: msgspec.Struct


class Decision(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """What follows from one event. ``state`` is the new state, None where it stays as it was."""

    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    state: S | None = None
    tell: tuple[Any, ...] = ()
    """Events for the neighbours: the machines with the same key."""
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    calls: tuple[Call, ...] = ()
    cancel_calls: tuple[str, ...] = ()
    """Keys of calls that nobody needs the answer of any more."""
    again: bool = False
    """The same event is to be applied once more, in the new state."""
    gone: bool = False
    """There is no state any more."""


class Moment(NamedTuple):
    """When it is decided, in milliseconds since 1970, and by which numbers."""

    now_ms: int
    parameters: Parameters


Guard = Callable[[Any, Any, Moment], bool]
"""(state, event, moment) -> whether the row applies."""
Effect = Callable[[Any, Any, Moment], Any]
"""(state, event, moment) -> the decision: what happens, besides the change of stage."""


class Transition(NamedTuple):
    """One row of a machine's table."""

    at: tuple[Enum | None, ...]
    """The stages it applies in; None: before there is a state."""
    event: type
    to: Enum | None
    """The stage after it; None: the same."""
    does: Effect
    when: Guard | None = None
    again: bool = False
    """The event is applied once more in the stage reached, so that none is skipped."""
    update: bool = False
    """The world is told: a record on `order-updates`."""


class Table(Generic[S]):
    """The transitions of one machine, whose states have a field ``stage``."""

    def __init__(self, name: str, rows: Iterable[Transition]) -> None:
        self.name = name
        self.rows = tuple(rows)
        self._found: dict[tuple[Enum | None, type], tuple[Transition, ...]] = {}
        for row in self.rows:
            for stage in row.at:
                self._found[stage, row.event] = (*self._found.get((stage, row.event), ()), row)

    def __iter__(self) -> Iterator[Transition]:
        return iter(self.rows)

    def find(self, state: S | None, event: object, moment: Moment) -> Transition | None:
        """The first row that fits; None: the machine does not allow this event now."""
        stage = None if state is None else state.stage  # type: ignore[attr-defined]
        for row in self._found.get((stage, type(event)), ()):
            if row.when is None or row.when(state, event, moment):
                return row
        return None

    def apply(self, row: Transition, state: S | None, event: object, moment: Moment) -> Decision[S]:
        """What happens by this row, the change of stage included."""
        decision: Decision[S] = row.does(state, event, moment)
        after = decision.state or state
        if row.to is not None and after is not None and after.stage is not row.to:  # type: ignore[attr-defined]
            after = msgspec.structs.replace(after, stage=row.to)
        changed = after if after is not state else None
        if changed is decision.state and row.again is decision.again:
            return decision
        return msgspec.structs.replace(decision, state=changed, again=row.again)

    def decide(self, state: S | None, event: object, now_ms: int, parameters: Parameters) -> Decision[S]:
        """The decision by the first row that fits; where none does, a refusal."""
        moment = Moment(now_ms, parameters)
        row = self.find(state, event, moment)
        return self.refuse(state, event) if row is None else self.apply(row, state, event, moment)

    def refuse(self, state: S | None, event: object) -> Decision[S]:
        """What the table has no row for is refused."""
        stage = "not begun" if state is None else state.stage.value  # type: ignore[attr-defined]
        return refused(f"{self.name} is {stage}: {type(event).__name__} is not possible now")


def refused(reason: str, *tell: object) -> Decision[Any]:
    """The state does not allow it."""
    return Decision(outcome=Outcome.REFUSED, reason=reason, tell=tell)


def absorb(_state: object, _event: object, _moment: Moment) -> Decision[Any]:
    """nothing: it is so already"""
    return ABSORBED


ABSORBED: Decision[Any] = Decision(outcome=Outcome.ABSORBED)
