"""Agent of the topic `drivers`: events from drivers' apps, dispatch and deliveries. See `processors.driver`."""

from exactly_once import Record, Task
from processors import driver as machine
from processors.decision import Decision, Outcome
from processors.driver import Driver, ForgottenShift
from processors.events import TimerDue
from processors.timers import TimerKind
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.tracing.ids import root_of, span_id
from streams.tracing.spans import NS_PER_MS, Span, SpanKind
from streams.worker.order_spans import assignment_span, messaging, parent_in
from streams.worker.order_workflow import DecisionReply, reply
from streams.worker.outbox import emit, set_timers
from topics.deliveries import DeliveryRecord
from topics.drivers import READER, Assign, Delivered, DriverRecord, PickedUp, Unassign
from topics.identity import owner_of
from topics.records import Record as TopicRecord

OfDelivery = Assign | Unassign | PickedUp | Delivered
"""Events of a driver about the delivery of an order. They belong to the order's trace."""
TIMER = TimerKind.DRIVER.value
"""Payload of the timers of drivers, by which a due timer finds its handler."""


def drivers(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Apply an event to a driver, and answer the view that waits for the decision."""
    event = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, event.driver):
        return None
    span = _span(services, task, event, record)  # before the event, which may end the assignment
    decision = apply_event(services, task, event.driver, event)
    if span is not None and decision.outcome is Outcome.APPLIED:
        services.tracing.send_after_commit(task, span)
    return reply(task, record, DecisionReply(decision.outcome, decision.reason), f"driver {event.driver}")


def apply_event(services: Services, task: Task, driver: str, event: object) -> Decision[Driver]:
    """Apply an event to a driver's machine and write the decision to the task. The agent of `locations` uses it too."""
    before = services.tables.drivers.get(task, driver)
    forgotten = _forgotten_shift(services, task) if before is None else 0
    decision = machine.decide(before, event, task.now_ms, services.parameters, forgotten)
    if decision.state is not None or decision.deleted:
        services.tables.drivers.put(task, driver, decision.state)
    if decision.deleted and before is not None and before.shift > _forgotten_shift(services, task):
        services.tables.forgotten_shifts.put(task, _partition_key(task), ForgottenShift(shift=before.shift))
    for message in decision.emit:
        emit(task, message, services.settings.topic_prefix, _traceparent(services, event, message))
    set_timers(task, decision.timers, TIMER)
    return decision


def _traceparent(services: Services, event: object, message: TopicRecord) -> str:
    """Return the trace context of a record for an order: the driver's event caused it. A location has no span."""
    if not isinstance(message, DeliveryRecord):
        return ""
    span = _span_id(event) if isinstance(event, OfDelivery) else root_of(message.order)
    return services.tracing.traceparent(message.order, span)


def _span_id(event: OfDelivery) -> int:
    return assignment_span(event.delivery, event.attempt) if isinstance(event, Assign) else span_id(event.event_id)


def _span(services: Services, task: Task, event: DriverRecord, record: Record) -> Span | None:
    """Return the span of an event about a delivery; None for any other event, and for an order without spans."""
    if not isinstance(event, OfDelivery) or not services.tracing.is_sampled(event.delivery):
        return None
    now_ns = task.now_ms * NS_PER_MS
    return Span(
        order=event.delivery,
        id=_span_id(event),
        parent=_parent(services, task, event, record),
        name=f"process {type(event).__name__}",
        kind=SpanKind.CONSUMER,
        start_ns=now_ns,
        end_ns=now_ns,
        attributes=messaging(record),
    )


def _parent(services: Services, task: Task, event: OfDelivery, record: Record) -> int:
    """Return the span that caused an event: what the app reports follows from the assignment."""
    if isinstance(event, Assign | Unassign):
        return parent_in(event.delivery, record)
    row = services.tables.drivers.get(task, event.driver)
    assignment = None if row is None else row.assignment
    if assignment is None or assignment.delivery != event.delivery:
        return root_of(event.delivery)
    return assignment_span(event.delivery, assignment.attempt)


def timer_due(services: Services, task: Task, name: str) -> None:
    """Look whether a driver is silent: a waiting one goes off duty, and one who is off duty for long is forgotten."""
    apply_event(services, task, owner_of(name), TimerDue(name))


def _forgotten_shift(services: Services, task: Task) -> int:
    """Return the highest shift of the partition's drivers that were forgotten; 0 if none was."""
    row = services.tables.forgotten_shifts.get(task, _partition_key(task))
    return 0 if row is None else row.shift


def _partition_key(task: Task) -> str:
    return str(task.partition)
