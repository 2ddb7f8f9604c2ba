"""The life of one order: its machines, moved by one event at a time.

One step has up to three names: the record or answer from outside, the event of the machine that receives it, and the
internal event that this machine sends to the order. The happy path:

| step | from outside | event of the machine | internal event | status of the order |
|---|---|---|---|---|
| 1 | record `Placed` | | order: OrderPlaced | CREATED |
| 2 | | | payment: PaymentRequested | CREATED |
| 3 | call `charge` | payment: Charged | order: PaymentCharged | SCHEDULED |
| 4 | timer `start` (only an order for later) | | order: PreparationDue | SCHEDULED |
| 5 | | | ticket: TicketRequested | SCHEDULED |
| 6 | call `prepare`, or record `TicketAccepted` | ticket: TicketAccepted | order: RestaurantAccepted | IN_PREPARATION |
| 7 | record `PreparationFinished` | ticket: PreparationFinished | order: RestaurantFinished | SCHEDULING_DELIVERY |
| 8 | | | delivery: DeliveryStarted | SCHEDULING_DELIVERY |
| 9 | record `DriverAssigned` | delivery: DriverAssigned | order: DeliveryAssigned | WAITING_FOR_DRIVER |
| 10 | record `PickedUp` | delivery: PickedUp | order: DeliveryPickedUp | IN_DELIVERY |
| 11 | record `Delivered` | delivery: Delivered | order: DeliveryCompleted | DELIVERED |
| 12 | timer `retirement` | | order: RetentionExpired | (deleted) |
| 13 | | | history: RetirementRequested | (in the history topic) |

A record on `payments` is not a fact: it becomes PaymentReported, which has the open call made again. Only the answer to
that call moves the payment.

Between 8 and 9 the topic `dispatch` finds the driver: DriverRequested there, Assign on `drivers`, DriverAssigned on
`deliveries`. The driver's app sends PickedUp and Delivered to `drivers`; the driver's machine sends the records of the
same names to `deliveries`, with attempt and ETA.

An event from outside goes to one machine; the internal events that follow are applied in turn until none is left. The
result is one ``Step``, which the task commits as one transaction.

Start reading with the table at the end of ``processors.order``, then :func:`decide_step` here.
"""

from collections import deque
from collections.abc import Callable, Mapping
from hashlib import sha256

import msgspec

from processors import call_results, delivery, history, order, payment, ticket
from processors.call_kinds import CallKind, parse_call_key
from processors.decision import Call, CancelTimer, Decision, HasStage, Outcome, SetTimer
from processors.delivery import Delivery
from processors.events import (
    CallAnswered,
    ChargeAbandoned,
    ChargeRetried,
    HistoryExpired,
    InternalEvent,
    OperatorErased,
    OperatorSettled,
    OrderPlaced,
    PaymentReported,
    PrepareAbandoned,
    PrepareRetried,
    RefundAbandoned,
    RefundRetried,
    RetentionExpired,
    TicketRequested,
    TimerDue,
)
from processors.history import Retired
from processors.order import Order
from processors.order_validation import Problem, timeliness, times_of, validate
from processors.parameters import Parameters
from processors.payment import Payment
from processors.ticket import Ticket
from topics.identity import owner_of
from topics.order_history import RowKind
from topics.orders import AttentionSettled, CallAbandonRequested, CallRetryRequested, ErasureRequested, Placed
from topics.payments import Charged, Declined, Refunded
from topics.records import Record, epoch_ms, instant
from topics.restaurants import Restaurant


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one order; None for a row that does not exist. The field names are the keys of ``Step.changed``.

    Each row is stored as JSON by msgspec, under the order's id.
    """

    order: Order | None = None
    placed: Placed | None = None
    """Body of the order. A separate row because it is the largest and never changes; rows are rewritten whole."""
    payment: Payment | None = None
    ticket: Ticket | None = None
    delivery: Delivery | None = None
    history: Retired | None = None
    """Row of an order that has left the tables; all other rows are None then."""


MAX_JOURNALLED_REFUSALS = 1_000
"""Limit of the lines in an order's journal that record a refusal."""
MAX_JOURNAL_LINES = 10_000
"""Number of lines after which only a change of stage makes a line. One transaction deletes the whole journal."""


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that a machine has applied or refused.

    Absorbed events make no line; neither does a refusal that is identical to the previous one.
    ``MAX_JOURNALLED_REFUSALS`` and ``MAX_JOURNAL_LINES`` bound the journal.
    """

    seq: int
    """Number of the line, from 1, without a gap."""
    at_ms: int
    machine: str
    event: str
    event_id: str
    """Id of the event from outside that led to this event."""
    before: str = ""
    after: str = ""
    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    emitted: tuple[str, ...] = ()
    """Ids of the records and keys of the calls that the event caused."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Consequences of one event from outside, for one transaction.

    ``outcome``, ``reason`` and ``problems`` are the answer to the sender. ``changed`` has the rows to write (None: to
    delete), by the names of ``Workflow``'s fields. An event of an unknown order changes nothing.
    """

    outcome: Outcome
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    workflow: Workflow
    changed: Mapping[RowKind, HasStage | Placed | None] = {}
    retire: bool = False
    """True if the order leaves the tables: its previous rows and its journal go to the history topic, and the journal
    is deleted."""
    journal: tuple[JournalLine, ...] = ()
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    calls: tuple[Call, ...] = ()
    cancel_calls: tuple[str, ...] = ()
    wake_calls: tuple[str, ...] = ()


def journal_key(order_id: str, seq: int) -> str:
    """Return the row key of a journal line; keys of an order sort by number."""
    return f"{order_id}/{seq:06d}"


def decide_step(
    workflow: Workflow,
    event: object,
    now_ms: int,
    parameters: Parameters,
    restaurant: Restaurant | None = None,
    recorded_ms: int | None = None,
    has_open_call: bool = False,
) -> Step:
    """Apply one event from outside to an order.

    Events: records of the topics orders, payments, pos and deliveries; ``TimerDue``; ``CallAnswered``. Any other event
    is an error of the caller: ``TypeError``. For a ``Placed``, ``restaurant`` is the restaurant that it names (None if
    there is no such restaurant), and ``recorded_ms`` is the broker's time of the record. ``has_open_call``: a charge or
    refund of the order has no answer yet.
    """
    if workflow.history is not None:
        return _apply_retired(workflow, event, now_ms, parameters)
    if isinstance(event, Placed):
        return _place(workflow, event, now_ms, parameters, restaurant, recorded_ms)
    if workflow.order is None:
        return Step(outcome=Outcome.NOT_FOUND, reason="there is no such order", workflow=workflow)
    match event:
        case TimerDue():
            return _fire(workflow, event, now_ms, parameters)
        case CallRetryRequested() | CallAbandonRequested():
            return _Run(workflow, event.event_id, now_ms, parameters).run(_operator_event(workflow, event))
        case AttentionSettled():
            settled = OperatorSettled(_requested_by(event))
            return _Run(workflow, event.event_id, now_ms, parameters).run(settled)
        case ErasureRequested():
            erased = OperatorErased(_requested_by(event), has_open_call)
            return _Run(workflow, event.event_id, now_ms, parameters).run(erased)
        case CallAnswered():
            result = payment.with_charge_id(workflow.payment, call_results.to_event(event))
            if result is None:
                return Step(outcome=Outcome.APPLIED, reason="the party will answer later", workflow=workflow)
            return _Run(workflow, event.key, now_ms, parameters).run(result)
        case Charged() | Declined() | Refunded():
            return _Run(workflow, event.event_id, now_ms, parameters).run(PaymentReported(event))
        case Record():
            return _Run(workflow, event.event_id, now_ms, parameters).run(event)
    raise TypeError(f"an order does not handle {type(event).__name__}")


def _place(
    workflow: Workflow,
    placed: Placed,
    now_ms: int,
    parameters: Parameters,
    restaurant: Restaurant | None,
    recorded_ms: int | None,
) -> Step:
    if workflow.order is None:
        sent_ms, placed_ms = times_of(placed, _recorded_ms(placed, recorded_ms, now_ms), now_ms)
        placed = msgspec.structs.replace(placed, at=instant(placed_ms))
        problems = [*timeliness(placed, sent_ms, now_ms), *validate(placed, restaurant, placed_ms, parameters)]
        if problems:
            reason = "; ".join(": ".join(filter(None, (problem.pointer, problem.detail))) for problem in problems)
            return Step(outcome=Outcome.REFUSED, reason=reason, problems=tuple(problems), workflow=workflow)
        workflow = msgspec.structs.replace(workflow, placed=placed)
    return _Run(workflow, placed.event_id, now_ms, parameters).run(OrderPlaced(placed, restaurant))


def _recorded_ms(placed: Placed, recorded_ms: int | None, now_ms: int) -> int:
    """Return the broker's time of the record; without one, the sender's time counts, or else now."""
    if recorded_ms is not None:
        return recorded_ms
    return now_ms if placed.at is None else epoch_ms(placed.at)


def _fire(workflow: Workflow, due: TimerDue, now_ms: int, parameters: Parameters) -> Step:
    """Apply the order's running timer.

    A timer is deleted when its wait ends, so only the running one can fire. It is checked nevertheless, because an
    operator may have replayed an earlier one.
    """
    assert workflow.order is not None
    timer = workflow.order.timer
    if timer is None or timer.name != due.name or timer.due_ms > now_ms:
        return Step(outcome=Outcome.REFUSED, reason=f"no timer {due.name} is due", workflow=workflow)
    fires = order.WAITS[workflow.order.stage].timer_event
    event = RetentionExpired(due.has_open_call) if fires is RetentionExpired else fires()
    return _Run(workflow, due.name, now_ms, parameters).run(event)


def _operator_event(workflow: Workflow, event: CallRetryRequested | CallAbandonRequested) -> InternalEvent:
    """Return the event for the machine that made the call."""
    assert workflow.order is not None
    requested_by = _requested_by(event)
    retried = isinstance(event, CallRetryRequested)
    kind, ref = parse_call_key(event.call)
    charge_id = payment.charge_of(workflow.payment, ref)
    match kind:
        case CallKind.CHARGE:
            return ChargeRetried(requested_by) if retried else ChargeAbandoned(requested_by)
        case CallKind.REFUND:
            return RefundRetried(charge_id, requested_by) if retried else RefundAbandoned(charge_id, requested_by)
        case CallKind.PREPARE:
            if retried:
                return PrepareRetried(requested_by, workflow.order.pos_url)
            return PrepareAbandoned(requested_by)


def _requested_by(event: CallRetryRequested | CallAbandonRequested | AttentionSettled | ErasureRequested) -> str:
    """Return name and reason, for the journal: "by ana: the bank is closed"."""
    return "by " + (event.by or "an operator") + (f": {event.reason}" if event.reason else "")


def _apply_retired(workflow: Workflow, event: object, now_ms: int, parameters: Parameters) -> Step:
    """Apply an event to an order that has left the tables: it has one row and no journal."""
    match event:
        case Placed():
            event = OrderPlaced(event, None)
        case TimerDue():
            if event.name != history.timer_name(owner_of(event.name)):  # replayed by an operator
                return Step(outcome=Outcome.REFUSED, reason=f"no timer {event.name} is due", workflow=workflow)
            event = HistoryExpired()
        case ErasureRequested():
            event = OperatorErased(_requested_by(event))
    decision = history.decide(workflow.history, event, now_ms, parameters)
    return Step(
        outcome=decision.outcome,
        reason=decision.reason,
        workflow=Workflow(history=None if decision.deleted else decision.state or workflow.history),
        changed={RowKind.HISTORY: decision.state} if decision.deleted or decision.state else {},
        emit=decision.emit,
    )


MACHINES: Mapping[RowKind, Callable[[Workflow, object, int, Parameters], Decision[HasStage]]] = {
    RowKind.ORDER: lambda flow, *given: order.decide(flow.order, *given),
    RowKind.PAYMENT: lambda flow, *given: payment.decide(flow.payment, *given),
    RowKind.TICKET: lambda flow, *given: ticket.decide(flow.ticket, *given),
    RowKind.DELIVERY: lambda flow, *given: delivery.decide(flow.delivery, *given),
    RowKind.HISTORY: lambda flow, *given: history.decide(flow.history, *given),
}
MACHINE_OF_FAMILY: Mapping[str, RowKind] = {
    "payments": RowKind.PAYMENT,
    "pos": RowKind.TICKET,
    "deliveries": RowKind.DELIVERY,
}
"""Machine that gets the records of a topic. An internal event names its machine."""

RETIRED_WITH_ORDER = (RowKind.ORDER, RowKind.PLACED, RowKind.PAYMENT, RowKind.TICKET, RowKind.DELIVERY)
"""Rows that leave the tables together."""


class _Run:
    """Application of one event from outside to the machines of one order."""

    def __init__(self, workflow: Workflow, event_id: str, now_ms: int, parameters: Parameters) -> None:
        self._before = workflow
        self._event_id = event_id
        self._now_ms = now_ms
        self._parameters = parameters
        self._flow = workflow
        self._changed: dict[RowKind, HasStage | Placed | None] = {}
        order = workflow.order
        self._lines = 0 if order is None else order.journal
        self._refusals = 0 if order is None else order.refusals
        self._last_refusal = "" if order is None else order.last_refusal
        self._journal: list[JournalLine] = []
        self._decisions: list[Decision[HasStage]] = []

    def run(self, event: Record | InternalEvent) -> Step:
        """Apply an event and the internal events that follow from it, until none is left."""
        queue: deque[Record | InternalEvent] = deque([event])
        while queue:
            event = queue.popleft()
            decision = self._apply(event)
            if not self._is_suppressed(decision):
                queue.extend(decision.internal_events)
            if decision.reapply:
                queue.appendleft(event)
        return self._step()

    def _apply(self, event: Record | InternalEvent) -> Decision[HasStage]:
        machine = MACHINE_OF_FAMILY[event.family] if isinstance(event, Record) else event.machine
        if isinstance(event, TicketRequested | PrepareRetried):  # the body is a separate row
            event = msgspec.structs.replace(event, placed=self._before.placed)
        before: HasStage | None = getattr(self._flow, machine)
        decision = MACHINES[machine](self._flow, event, self._now_ms, self._parameters)
        if decision.state is not None or decision.deleted:
            self._put(machine, decision.state)
        if self._is_journalled(machine, event, before, decision):
            self._add_line(machine, event, before, decision)
        self._decisions.append(decision)
        return decision

    def _put(self, machine: RowKind, state: HasStage | None) -> None:
        self._changed[machine] = state
        self._flow = msgspec.structs.replace(self._flow, **{machine: state})

    def _is_suppressed(self, decision: Decision[HasStage]) -> bool:
        """Return True for a refusal above the limit, if the order needs attention already."""
        order = self._flow.order
        too_many = decision.outcome is Outcome.REFUSED and self._refusals >= MAX_JOURNALLED_REFUSALS
        return too_many and order is not None and bool(order.attention)

    def _is_journalled(
        self, machine: RowKind, event: Record | InternalEvent, before: HasStage | None, decision: Decision[HasStage]
    ) -> bool:
        """Return True if the event makes a line. Repeated refusals make none, so that the journal stays bounded."""
        if decision.outcome is Outcome.ABSORBED or self._flow.order is None:
            return False
        if decision.outcome is Outcome.REFUSED:
            content = (machine, type(event).__name__, decision.reason, *decision.internal_events)
            refusal = sha256(msgspec.json.encode(content)).hexdigest()[:32]
            if refusal == self._last_refusal or self._refusals >= MAX_JOURNALLED_REFUSALS:
                return False
            self._refusals, self._last_refusal = self._refusals + 1, refusal
        moved = decision.state is not None and (before is None or decision.state.stage is not before.stage)
        return moved or self._lines < MAX_JOURNAL_LINES

    def _add_line(
        self, machine: RowKind, event: Record | InternalEvent, before: HasStage | None, decision: Decision[HasStage]
    ) -> None:
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
        if self._journal and self._flow.order is not None:
            counted = msgspec.structs.replace(
                self._flow.order,
                journal=self._lines,
                refusals=self._refusals,
                last_refusal=self._last_refusal,
            )
            self._put(RowKind.ORDER, counted)
        if self._before.order is None and self._before.placed is not None:
            self._changed[RowKind.PLACED] = self._before.placed
        flow = self._flow
        if flow.order is None:
            flow = Workflow(history=flow.history)
            self._changed |= {kind: None for kind in RETIRED_WITH_ORDER if getattr(self._before, kind) is not None}
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
            wake_calls=tuple([key for decision in decisions for key in decision.wake_calls]),
        )
