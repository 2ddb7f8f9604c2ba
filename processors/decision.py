"""State machines as tables of transitions, and the decisions they return.

Every machine is a module with a ``TABLE`` and a ``decide``. A row means: in one of these stages, on this event, if the
guard holds, change to that stage and apply the effect. The first row that fits decides. The docstring of a guard is a
condition, the docstring of an effect a verb phrase; docs/state-machines.md is generated from them.

:class:`Rows` makes the rows, so that mypy checks each: the stages are the machine's own, the effect and the guard take
the row's event, and the event belongs to the machine's union of events.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Generic, NamedTuple, Never, Protocol, TypeVar, overload

import msgspec

from processors.call_kinds import CallKind
from processors.event_names import event_name
from processors.events import InternalEvent
from processors.parameters import Parameters
from topics.records import Record


class HasStage(Protocol):
    """State of a machine: a row of a table, with the machine's stage."""

    @property
    def stage(self) -> Enum:
        """Stage of the machine."""


S = TypeVar("S", bound=HasStage)
"""State of a machine."""
S_co = TypeVar("S_co", bound=HasStage, covariant=True)
G = TypeVar("G", bound=Enum)
"""Stages of a machine."""
E = TypeVar("E")
"""Event of a row; for a table, the union of the machine's events."""
E_co = TypeVar("E_co", covariant=True)


class StageEnum(Enum):
    """Base of a machine's stages. It has the fast hash of ``object``, because rows are looked up by stage."""

    __hash__ = object.__hash__


class Outcome(Enum):
    """Result of an event, reported to its sender."""

    APPLIED = "APPLIED"
    ABSORBED = "ABSORBED"
    """The event is a repeat, or too late to matter; the sender gets the answer to the first one."""
    REFUSED = "REFUSED"
    """The state does not allow the event; ``Decision.reason`` explains it."""
    NOT_FOUND = "NOT_FOUND"
    """No order or driver has this id."""


class SetTimer(msgspec.Struct, frozen=True):
    """Fire ``TimerDue(name)`` at ``due_ms`` (milliseconds since 1970); the name begins with the key."""

    name: str
    due_ms: int


class CancelTimer(msgspec.Struct, frozen=True):
    """Delete the timer with this name and due time."""

    name: str
    due_ms: int


class Call(msgspec.Struct, frozen=True):
    """A request to an outside party, repeated until it is answered; ``key`` is the idempotency key.

    A call that is open already keeps its request and is made again at once.
    """

    key: str
    kind: CallKind
    request: msgspec.Struct


class Decision(msgspec.Struct, Generic[S_co], frozen=True, kw_only=True):
    """Consequences of one event. ``state`` is the new state; None if it is unchanged."""

    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    state: S_co | None = None
    internal_events: tuple[InternalEvent, ...] = ()
    """Events for the machines of the same order."""
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    calls: tuple[Call, ...] = ()
    cancel_calls: tuple[str, ...] = ()
    """Keys of calls whose answers are no longer needed."""
    wake_calls: tuple[str, ...] = ()
    """Keys of calls that are made again at once, with the request they have; those that are not open stay so."""
    reapply: bool = False
    """True if the event has to be applied once more, to the new state."""
    deleted: bool = False
    """True if the state is deleted."""


class DecisionContext(NamedTuple):
    """Time of the decision in milliseconds since 1970, and the parameters that decisions depend on."""

    now_ms: int
    parameters: Parameters


class Transition(NamedTuple, Generic[S, G, E_co]):
    """One row of a machine's table. :class:`Rows` makes it, and checks the types of guard and effect."""

    at: tuple[G | None, ...]
    """Stages in which the row applies; None stands for "no state yet"."""
    event: type[E_co]
    to: G | None
    """Next stage; None if the stage stays."""
    does: Callable[..., Decision[S]]
    """Effect: takes state, event and context; returns the decision without the change of stage."""
    when: Callable[..., bool] | None = None
    """Guard: takes state, event and context; returns True if the row applies."""
    reapply: bool = False
    """True if the event is applied once more in the next stage, so that no stage is skipped."""
    update: bool = False
    """True if the change is published as a record on `order-updates`."""


class Rows(Generic[S, G]):
    """Constructor of one machine's rows: ``row = Rows[Order, Stage]()``."""

    @overload
    def __call__(
        self,
        at: tuple[None],
        event: type[E],
        to: G | None,
        does: Callable[[None, E, DecisionContext], Decision[S]],
        when: Callable[[None, E, DecisionContext], bool] | None = None,
        *,
        update: bool = False,
    ) -> Transition[S, G, E]: ...
    @overload
    def __call__(
        self,
        at: tuple[G, ...],
        event: type[E],
        to: G | None,
        does: Callable[[S, E, DecisionContext], Decision[S]],
        when: Callable[[S, E, DecisionContext], bool] | None = None,
        *,
        reapply: bool = False,
        update: bool = False,
    ) -> Transition[S, G, E]: ...
    @overload
    def __call__(
        self,
        at: tuple[G | None, ...],
        event: type[E],
        to: G | None,
        does: Callable[[S | None, E, DecisionContext], Decision[S]],
    ) -> Transition[S, G, E]: ...
    def __call__(
        self,
        at: tuple[G | None, ...],
        event: type[E],
        to: G | None,
        does: Callable[..., Decision[S]],
        when: Callable[..., bool] | None = None,
        *,
        reapply: bool = False,
        update: bool = False,
    ) -> Transition[S, G, E]:
        """Return a row of the table."""
        return Transition(at, event, to, does, when, reapply, update)


class Table(Generic[S, G, E]):
    """The transitions of one machine, with its states, its stages and the union of its events."""

    def __init__(self, name: str, rows: Iterable[Transition[S, G, E]]) -> None:
        self.name = name
        self.rows = tuple(rows)
        self._by_stage_and_event: dict[tuple[Enum | None, type], tuple[Transition[S, G, E], ...]] = {}
        for row in self.rows:
            for stage in row.at:
                known = self._by_stage_and_event.get((stage, row.event), ())
                self._by_stage_and_event[stage, row.event] = (*known, row)

    def __iter__(self) -> Iterator[Transition[S, G, E]]:
        return iter(self.rows)

    def find(self, state: S | None, event: object, context: DecisionContext) -> Transition[S, G, E] | None:
        """Return the first row that fits; None if the machine does not allow the event in this state."""
        stage = None if state is None else state.stage
        for row in self._by_stage_and_event.get((stage, type(event)), ()):
            if row.when is None or row.when(state, event, context):
                return row
        return None

    def apply(self, row: Transition[S, G, E], state: S | None, event: object, context: DecisionContext) -> Decision[S]:
        """Return the decision of this row, including the change of stage."""
        decision = row.does(state, event, context)
        after = decision.state or state
        if row.to is not None and after is not None and after.stage is not row.to:
            after = _in_stage(after, row.to)
        changed = after if after is not state else None
        if changed is decision.state and row.reapply is decision.reapply:
            return decision
        return msgspec.structs.replace(decision, state=changed, reapply=row.reapply)

    def decide(self, state: S | None, event: object, now_ms: int, parameters: Parameters) -> Decision[S]:
        """Return the decision of the first row that fits; refuse the event if no row fits."""
        context = DecisionContext(now_ms, parameters)
        row = self.find(state, event, context)
        return self.refuse(state, event) if row is None else self.apply(row, state, event, context)

    def refuse(self, state: S | None, event: object) -> Decision[Never]:
        """Refuse an event for which the table has no row."""
        stage = "has not begun" if state is None else f"is {state.stage.value}"
        return refused(f"{self.name} {stage}: {event_name(event)} is not possible")


def refused(reason: str, *internal_events: InternalEvent) -> Decision[Never]:
    """Refuse an event; the state does not change."""
    return Decision(outcome=Outcome.REFUSED, reason=reason, internal_events=internal_events)


def ignore_duplicate(_state: object, _event: object, _context: DecisionContext) -> Decision[Never]:
    """ignore: it changes nothing"""
    return _ABSORBED


_ABSORBED: Decision[Never] = Decision(outcome=Outcome.ABSORBED)


def _in_stage(state: S, stage: Enum) -> S:
    assert isinstance(state, msgspec.Struct)
    return msgspec.structs.replace(state, stage=stage)
