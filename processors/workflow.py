"""The machines of one order, moved together: order, payment, ticket and delivery share a key and a transaction.

An event from outside goes to the machine it is for; what that machine tells its neighbours is applied to them at once,
until nobody has anything left to tell. The whole of it is one ``Step``, to be committed as one.
"""

from collections import deque
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from processors import answers, delivery, history, order, payment, restaurant
from processors.decision import Call, CancelTimer, Decision, Outcome, SetTimer
from processors.delivery import Delivery
from processors.events import (
    CallAnswered,
    ChargeAbandoned,
    ChargeRetried,
    ForgetDue,
    OperatorSettled,
    OrderPlaced,
    PrepareAbandoned,
    PrepareRetried,
    RefundAbandoned,
    RefundRetried,
    RetireDue,
    TicketAsked,
    TimerDue,
)
from processors.history import Retired
from processors.intake import Problem, check
from processors.order import Order
from processors.parameters import Parameters
from processors.payment import Payment
from processors.restaurant import Ticket
from topics.identity import owner_of
from topics.order_history import Kind
from topics.orders import AttentionSettled, CallAbandonAsked, CallRetryAsked, Placed
from topics.records import Record, epoch_ms, instant
from topics.restaurants import Restaurant


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one order, None where there is none yet. The field names are the names in ``Step.changed``.

    Each is stored as JSON by msgspec, under the order's id.
    """

    order: Order | None = None
    placed: Placed | None = None
    """The order's body. Written once: rows are rewritten whole, and this is the largest."""
    payment: Payment | None = None
    ticket: Ticket | None = None
    delivery: Delivery | None = None
    history: Retired | None = None
    """Of an order that has left the tables: then there is none of the others."""


MOST_REFUSALS = 1_000
"""Lines of an order's journal that tell of a refusal."""
MOST_LINES = 10_000
"""Lines from which on only a change of stage makes one. It leaves the tables with its order, in one transaction."""


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that was applied to one machine, or refused by it. Absorbed ones leave no line, nor does a refusal
    that is the same as the one before; nor what is too much, see ``MOST_REFUSALS`` and ``MOST_LINES``."""

    seq: int
    """From 1, without a gap."""
    at_ms: int
    machine: str
    event: str
    event_id: str
    """Of the event from outside that led to this one."""
    before: str = ""
    after: str = ""
    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    emitted: tuple[str, ...] = ()
    """Ids of the records written and keys of the calls asked for."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one event from outside led to, to be committed as one.

    ``outcome``, ``reason`` and ``problems`` are for its sender. ``changed`` holds the rows to write (None: to delete)
    by the names of ``Workflow``'s fields. For an order nobody knows, nothing is written and nothing journalled.
    """

    outcome: Outcome
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    workflow: Workflow
    changed: dict[str, msgspec.Struct | None] = {}
    retire: bool = False
    """The order leaves the tables: its rows, as they were, and its journal go to the history topic, and the journal's
    rows are deleted."""
    journal: tuple[JournalLine, ...] = ()
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    calls: tuple[Call, ...] = ()
    cancel_calls: tuple[str, ...] = ()


def journal_key(order_id: str, seq: int) -> str:
    """The row key of a line: lines sort by their number."""
    return f"{order_id}/{seq:06d}"


def apply(
    workflow: Workflow, event: Any, now_ms: int, parameters: Parameters, restaurant: Restaurant | None = None
) -> Step:
    """Apply one event from outside to an order.

    Events: the records of the topics orders, payments, pos and deliveries; ``TimerDue``; ``CallAnswered``. A ``Placed``
    needs the ``restaurant`` it names (None: there is no such restaurant) and its time in ``at`` (the record's Kafka
    time where the sender gave none), for a wished time is judged against it.
    """
    match event:
        case _ if workflow.history is not None:
            return _look_back(workflow, event, now_ms, parameters)
        case Placed():
            return _place(workflow, event, now_ms, parameters, restaurant)
        case _ if workflow.order is None:
            return Step(outcome=Outcome.UNKNOWN, reason="there is no such order", workflow=workflow)
        case TimerDue():
            return _fire(workflow, event, now_ms, parameters)
        case CallRetryAsked() | CallAbandonAsked():
            return _Moving(workflow, event.event_id, now_ms, parameters).run(_wish(workflow, event))
        case AttentionSettled():
            settled = OperatorSettled(_asked(event))
            return _Moving(workflow, event.event_id, now_ms, parameters).run(settled)
        case CallAnswered():
            meant = answers.meaning(event)
            if meant is None:
                return Step(outcome=Outcome.APPLIED, reason="the answer will follow", workflow=workflow)
            return _Moving(workflow, event.key, now_ms, parameters).run(meant)
        case _:
            return _Moving(workflow, event.event_id, now_ms, parameters).run(event)


def _place(
    workflow: Workflow, placed: Placed, now_ms: int, parameters: Parameters, restaurant: Restaurant | None
) -> Step:
    if workflow.order is None:
        at_ms = _placed_ms(placed, now_ms)
        placed = msgspec.structs.replace(placed, at=instant(at_ms))
        if problems := check(placed, restaurant, at_ms, parameters):
            reason = "; ".join(": ".join(filter(None, (problem.pointer, problem.detail))) for problem in problems)
            return Step(outcome=Outcome.REFUSED, reason=reason, problems=tuple(problems), workflow=workflow)
        workflow = msgspec.structs.replace(workflow, placed=placed)
    return _Moving(workflow, placed.event_id, now_ms, parameters).run(OrderPlaced(placed, restaurant))


def _placed_ms(placed: Placed, now_ms: int) -> int:
    """When it was placed. A clock that is ahead counts as ours, or the order would wait for its time; none is before
    1970."""
    return now_ms if placed.at is None else max(0, min(epoch_ms(placed.at), now_ms))


def _fire(workflow: Workflow, due: TimerDue, now_ms: int, parameters: Parameters) -> Step:
    """A timer is deleted with the wait it belongs to, so only the one that is running can fire. It is looked at all the
    same, for an operator may have put back an earlier one."""
    assert workflow.order is not None
    timer = workflow.order.timer
    if timer is None or timer.name != due.name or timer.due_ms > now_ms:
        return Step(outcome=Outcome.REFUSED, reason=f"no timer {due.name} is due", workflow=workflow)
    fires = order.WAITS[workflow.order.stage].fires
    event = RetireDue(due.asking) if fires is RetireDue else fires()
    return _Moving(workflow, due.name, now_ms, parameters).run(event)


def _wish(workflow: Workflow, event: CallRetryAsked | CallAbandonAsked) -> Any:
    """What an operator wants done with a call, told to the machine that asked for it."""
    assert workflow.order is not None
    asked = _asked(event)
    retried = isinstance(event, CallRetryAsked)
    purpose, _, charge_id = event.call.removeprefix(f"{event.key}/").partition("/")
    match purpose:
        case "charge":
            return ChargeRetried(asked) if retried else ChargeAbandoned(asked)
        case "refund":
            return RefundRetried(charge_id, asked) if retried else RefundAbandoned(charge_id, asked)
        case _:
            return PrepareRetried(asked, workflow.order.pos_url) if retried else PrepareAbandoned(asked)


def _asked(event: CallRetryAsked | CallAbandonAsked | AttentionSettled) -> str:
    """Who, and why."""
    return "by " + (event.by or "an operator") + (f": {event.reason}" if event.reason else "")


def _look_back(workflow: Workflow, event: Any, now_ms: int, parameters: Parameters) -> Step:
    """An order that has left the tables has one row and no journal."""
    match event:
        case Placed():
            event = OrderPlaced(event, None)
        case TimerDue():
            if event.name != history.timer_name(owner_of(event.name)):  # an earlier one, put back by an operator
                return Step(outcome=Outcome.REFUSED, reason=f"no timer {event.name} is due", workflow=workflow)
            event = ForgetDue()
    decision = history.decide(workflow.history, event, now_ms, parameters)
    return Step(
        outcome=decision.outcome,
        reason=decision.reason,
        workflow=Workflow() if decision.gone else workflow,
        changed={"history": None} if decision.gone else {},
        emit=decision.emit,
    )


MACHINES: Mapping[str, Callable[[Any, Any, int, Parameters], Decision[Any]]] = {
    "order": order.decide,
    "payment": payment.decide,
    "ticket": restaurant.decide,
    "delivery": delivery.decide,
    "history": history.decide,
}
MACHINE_OF_FAMILY: Mapping[str, str] = {"payments": "payment", "pos": "ticket", "deliveries": "delivery"}
"""Which machine the records of a topic are for. Events of our own say it themselves."""


NEEDS_THE_BODY = (TicketAsked, PrepareRetried)
"""Events that the order's body is added to, which is a row of its own."""

WITH_THE_ORDER: tuple[Kind, ...] = ("order", "placed", "payment", "ticket", "delivery")
"""The rows that leave the tables together."""


class _Moving:
    """The machines of one order while one event moves them."""

    def __init__(self, workflow: Workflow, event_id: str, now_ms: int, parameters: Parameters) -> None:
        self._before, self._event_id, self._now_ms, self._parameters = workflow, event_id, now_ms, parameters
        self._states: dict[str, Any] = {machine: getattr(workflow, machine) for machine in MACHINES}
        self._changed: dict[str, msgspec.Struct | None] = {}
        order = workflow.order
        self._lines = 0 if order is None else order.journal
        self._refusals, self._last_refusal = (0, "") if order is None else (order.refusals, order.last_refusal)
        self._journal: list[JournalLine] = []
        self._decisions: list[Decision[Any]] = []

    def run(self, event: Any) -> Step:
        """Move until nobody has anything left to tell."""
        waiting = deque([event])
        while waiting:
            event = waiting.popleft()
            decision = self._move(event)
            if not self._unheard(decision):
                waiting.extend(decision.tell)
            if decision.again:
                waiting.appendleft(event)
        return self._step()

    def _move(self, event: Any) -> Decision[Any]:
        machine = MACHINE_OF_FAMILY[event.family] if isinstance(event, Record) else event.machine
        if isinstance(event, NEEDS_THE_BODY):
            event = msgspec.structs.replace(event, placed=self._before.placed)
        before = self._states[machine]
        decision = MACHINES[machine](before, event, self._now_ms, self._parameters)
        if decision.state is not None or decision.gone:
            self._states[machine] = self._changed[machine] = decision.state
        if self._noteworthy(machine, event, before, decision):
            self._note(machine, event, before, decision)
        self._decisions.append(decision)
        return decision

    def _unheard(self, decision: Decision[Any]) -> bool:
        """A refusal that is one too many worries nobody who looks already."""
        order = self._states["order"]
        too_many = decision.outcome is Outcome.REFUSED and self._refusals >= MOST_REFUSALS
        return too_many and order is not None and bool(order.concerns)

    def _noteworthy(self, machine: str, event: Any, before: Any, decision: Decision[Any]) -> bool:
        """Whether it makes a line: whoever says the same for ever does not make a journal without end."""
        if decision.outcome is Outcome.ABSORBED or self._states["order"] is None:
            return False
        if decision.outcome is Outcome.REFUSED:
            said = (machine, type(event).__name__, decision.reason, *decision.tell)
            refusal = sha256(msgspec.json.encode(said)).hexdigest()[:16]
            if refusal == self._last_refusal or self._refusals >= MOST_REFUSALS:
                return False
            self._refusals, self._last_refusal = self._refusals + 1, refusal
        moved = decision.state is not None and (before is None or decision.state.stage is not before.stage)
        return moved or self._lines < MOST_LINES

    def _note(self, machine: str, event: Any, before: Any, decision: Decision[Any]) -> None:
        self._lines += 1
        after = decision.state or before
        line = JournalLine(
            seq=self._lines,
            at_ms=self._now_ms,
            machine=machine,
            event=type(event).__name__,
            event_id=self._event_id,
            before="" if before is None else before.stage.value,
            after="" if after is None else after.stage.value,
            outcome=decision.outcome,
            reason=decision.reason,
            emitted=(*(record.id for record in decision.emit), *(call.key for call in decision.calls)),
        )
        self._journal.append(line)

    def _step(self) -> Step:
        if self._journal:
            counted = msgspec.structs.replace(
                self._states["order"],
                journal=self._lines,
                refusals=self._refusals,
                last_refusal=self._last_refusal,
            )
            self._states["order"] = self._changed["order"] = counted
        if self._before.order is None and self._before.placed is not None:
            self._changed["placed"] = self._before.placed
        flow = Workflow(placed=self._before.placed, **self._states)
        if flow.order is None:
            flow = Workflow(history=flow.history)
            self._changed |= {name: None for name in WITH_THE_ORDER if getattr(self._before, name) is not None}
        decisions, first = self._decisions, self._decisions[0]
        return Step(
            outcome=first.outcome,
            reason=first.reason,
            workflow=flow,
            changed=self._changed,
            retire=flow.order is None,
            journal=tuple(self._journal),
            emit=tuple([record for decision in decisions for record in decision.emit]),
            timers=tuple([timer for decision in decisions for timer in decision.timers]),
            calls=tuple([call for decision in decisions for call in decision.calls]),
            cancel_calls=tuple([key for decision in decisions for key in decision.cancel_calls]),
        )
