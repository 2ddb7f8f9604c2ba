"""Spans of an order's trace that tasks make: one for each step, sent with the transaction that commits the step.

A step is one event from outside with its lines in the order's journal. Its span id follows from the number of its first
line, so a step that is applied again after a crash makes the same span. An event that makes no line has no span, and
neither has a change of the ETA, of which an order has hundreds.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence

from exactly_once import Record, Task
from exactly_once.task.interfaces import StoreError, TaskBroken
from processors.causes import causes_of
from processors.decision import Outcome
from processors.order import Order
from processors.workflow import JournalLine, Step, journal_key
from streams.tracing import conventions as name
from streams.tracing.ids import SpanContext, context_of, root_of, span_id, step_span, trace_id
from streams.tracing.journal_tree import ETA_EVENTS, final_status, first_of_step, transitions
from streams.tracing.spans import NS_PER_MS, Attribute, Span, SpanKind, Tracing
from streams.worker.tables import Rows
from topics.headers import TRACEPARENT

log = logging.getLogger(__name__)

MAX_LINES_READ = 200
"""Lines of a journal that are read to find the cause of a step; beyond them, the root is its parent."""


def traced_lines(step: Step) -> tuple[JournalLine, ...]:
    """Return the lines that a step's span tells about; none if the step has no span."""
    return () if all(line.event in ETA_EVENTS for line in step.journal) else step.journal


def span_of_step(order: str, step: Step) -> int:
    """Return the id of a step's span, or that of the root if the step has none."""
    lines = traced_lines(step)
    return step_span(order, lines[0].seq) if lines else root_of(order)


def request_span(order: str, attempt: int) -> int:
    """Return the id of the span in which dispatch takes a delivery's request for a driver."""
    return span_id(f"{order}/driver/{attempt}")


def assignment_span(order: str, attempt: int) -> int:
    """Return the id of the span in which a driver takes the assignment of a delivery."""
    return span_id(f"{order}/assign/{attempt}")


def sender_context(record: Record) -> SpanContext | None:
    """Return the span that a record's sender names; None without one."""
    found = next((value for header, value in record.headers if header == TRACEPARENT), None)
    return context_of((found or b"").decode(errors="replace"))


def parent_in(order: str, record: Record) -> int:
    """Return the span of a task that emitted a record, or the root if the record names none of the order's trace."""
    found = sender_context(record)
    return found.span if found is not None and found.trace == trace_id(order) else root_of(order)


def messaging(record: Record) -> dict[str, Attribute]:
    """Return the attributes of a record that a task applies."""
    return {
        name.MESSAGING_SYSTEM: name.KAFKA,
        name.MESSAGING_OPERATION_NAME: name.PROCESS,
        name.MESSAGING_OPERATION_TYPE: name.PROCESS,
        name.MESSAGING_DESTINATION: record.topic,
        name.MESSAGING_PARTITION: str(record.partition),
        name.MESSAGING_OFFSET: record.offset,
    }


class OrderSpans:
    """The spans of the steps of all orders of one worker."""

    def __init__(self, tracing: Tracing, journal: Rows[JournalLine], internal_topic: str) -> None:
        """``internal_topic`` is written by tasks alone, so its records name the spans that caused them."""
        self.tracing = tracing
        self._journal = journal
        self._internal_topic = internal_topic

    def applied(self, task: Task, order: str, record: Record, step: Step) -> None:
        """Send the span of a step that a record led to. The first one of an order is the root of its trace."""
        self._try(order, lambda: self._applied(task, order, record, step))

    def answered(self, task: Task, order: str, attempt: str, step: Step) -> None:
        """Send the span of a step that the answer to a call led to. ``attempt`` is the span of the last attempt."""
        self._try(order, lambda: self._answered(task, order, attempt, step))

    def fired(self, task: Task, order: str, before: Order | None, step: Step) -> None:
        """Send the span of a step that a timer led to, with a link to the step that set the timer."""
        self._try(order, lambda: self._fired(task, order, before, step))

    def _try(self, order: str, send: Callable[[], None]) -> None:
        """Send a span, or log why there is none: a trace must not undo the step that it tells about."""
        if not self.tracing.is_sampled(order):
            return
        try:
            send()
        except (StoreError, TaskBroken):
            raise
        except Exception:
            log.exception("the span of a step of %s could not be made", order)

    def _applied(self, task: Task, order: str, record: Record, step: Step) -> None:
        if not (lines := traced_lines(step)):
            return
        if lines[0].seq == 1:
            sender = sender_context(record)
            links = () if sender is None or sender.trace == trace_id(order) else (sender,)
            self._send(task, order, step, "order placed", None, SpanKind.CONSUMER, messaging(record), links)
            return
        is_internal = record.topic == self._internal_topic
        parent = parent_in(order, record) if is_internal else self._cause(task, order, lines)
        self._send(task, order, step, f"process {lines[0].event}", parent, SpanKind.CONSUMER, messaging(record))

    def _answered(self, task: Task, order: str, attempt: str, step: Step) -> None:
        if lines := traced_lines(step):
            parent = int(attempt, 16) if attempt else self._cause(task, order, lines)
            self._send(task, order, step, f"answer {lines[0].event}", parent)

    def _fired(self, task: Task, order: str, before: Order | None, step: Step) -> None:
        if before is None or not (lines := traced_lines(step)):
            return
        since_ms = before.waits_since_ms
        numbers = range(1, lines[0].seq)
        set_by = bisect_left(numbers, since_ms, key=lambda number: self._line(task, order, number).at_ms) + 1
        links = (SpanContext(trace_id(order), step_span(order, set_by)),) if set_by < lines[0].seq else ()
        waited: dict[str, Attribute] = {name.WAITED_MS: task.now_ms - since_ms}
        event = f"timer {lines[0].event}"
        self._send(task, order, step, event, root_of(order), SpanKind.INTERNAL, waited, links)

    def _send(
        self,
        task: Task,
        order: str,
        step: Step,
        title: str,
        parent: int | None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, Attribute] | None = None,
        links: tuple[SpanContext, ...] = (),
    ) -> None:
        now_ns, first, row = task.now_ms * NS_PER_MS, step.journal[0], step.workflow.order
        assert row is not None, "an order without a row has no journal"
        was_applied = step.outcome is Outcome.APPLIED
        outcome: dict[str, Attribute] = {} if was_applied else {name.OUTCOME: step.outcome.value}
        span = Span(
            order=order,
            id=step_span(order, first.seq),
            parent=parent,
            name=title,
            kind=kind,
            start_ns=now_ns if parent is not None else min(now_ns, row.placed_ms * NS_PER_MS),
            end_ns=now_ns,
            attributes={
                name.EVENT: first.event,
                name.TRANSITIONS: transitions(step.journal),
                **outcome,
                **(attributes or {}),
            },
            links=links,
            error="" if was_applied else step.outcome.value.lower(),
        )
        self.tracing.send_after_commit(task, span)
        if status := final_status(step.journal):
            ended = Span(
                order=order,
                id=span_id(f"{order}/ended"),
                parent=span.id,
                name="order ended",
                start_ns=now_ns,
                end_ns=now_ns,
                attributes={
                    name.STATUS: status,
                    name.DURATION_MS: task.now_ms - row.placed_ms,
                },
            )
            self.tracing.send_after_commit(task, ended)

    def _cause(self, task: Task, order: str, lines: Sequence[JournalLine]) -> int:
        """Return the span of the step that the journal has as the cause of these lines."""
        first = lines[0].seq
        if first > MAX_LINES_READ:
            return root_of(order)
        journal = [*(self._line(task, order, number) for number in range(1, first)), *lines]
        return step_span(order, first_of_step(journal, causes_of(journal)[first]))

    def _line(self, task: Task, order: str, number: int) -> JournalLine:
        line = self._journal.get(task, journal_key(order, number))
        assert line is not None, f"the journal of {order} has no line {number}"
        return line
