"""Agent of the topic `dispatch`: deliveries that need a driver, and available drivers. See `processors.dispatch`."""

from exactly_once import Record, Task
from processors import dispatch as machine
from processors.decision import Outcome
from processors.events import TimerDue
from processors.spatial_index import DispatchIndex, Overlay
from processors.timers import TimerKind
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.tracing.spans import NS_PER_MS, Span, SpanKind
from streams.worker.order_spans import messaging, parent_in, request_span
from streams.worker.outbox import emit, set_timers
from topics.dispatch import READER, DriverRequested
from topics.drivers import Assign
from topics.records import Record as TopicRecord

TIMER = TimerKind.DISPATCH.value
"""Payload of the timers of dispatch, by which a due timer finds its handler."""


def dispatch(services: Services, task: Task, record: Record) -> None:
    """Match deliveries with waiting drivers of the region."""
    event = decode_or_reject(task, READER, record)
    if forward_unless_owned(task, record, event.region):
        outcome = _apply(services, task, event)
        if isinstance(event, DriverRequested) and outcome is Outcome.APPLIED:
            _trace(services, task, event, record)


def timer_due(services: Services, task: Task, name: str) -> None:
    """Delete the row of a driver request that is too old to be repeated; keep it if the delivery still waits."""
    _apply(services, task, TimerDue(name))


def _apply(services: Services, task: Task, event: object) -> Outcome:
    index = task.index(services.tables.dispatch.name)
    assert isinstance(index, DispatchIndex)
    view = Overlay(index, lambda key: task.get(services.tables.dispatch.name, key))
    decision = machine.decide(view, event, task.now_ms, services.parameters)
    for key, row in decision.rows.items():
        services.tables.dispatch.put(task, key, row)
    for message in decision.emit:
        emit(task, message, services.settings.topic_prefix, _traceparent(services, message))
    set_timers(task, decision.timers, TIMER)
    index.write(decision.rows)  # last, because a failure after it would leave the index changed
    return decision.outcome


def _traceparent(services: Services, message: TopicRecord) -> str:
    """Return the trace context of an assignment: the request for the driver caused it, also when it had to wait."""
    if not isinstance(message, Assign):
        return ""
    return services.tracing.traceparent(message.delivery, request_span(message.delivery, message.attempt))


def _trace(services: Services, task: Task, event: DriverRequested, record: Record) -> None:
    """Send the span of a request for a driver."""
    if services.tracing.is_sampled(event.delivery):
        now_ns = task.now_ms * NS_PER_MS
        span = Span(
            order=event.delivery,
            id=request_span(event.delivery, event.attempt),
            parent=parent_in(event.delivery, record),
            name="process DriverRequested",
            kind=SpanKind.CONSUMER,
            start_ns=now_ns,
            end_ns=now_ns,
            attributes=messaging(record),
        )
        services.tracing.send_after_commit(task, span)
