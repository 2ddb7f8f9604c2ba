"""The state machines of one order inside a task: read the rows, decide, write the consequences.

`processors.workflow` decides, without I/O. This module gives it the order's rows. It writes the decision to the task's
transaction as rows, records, timers and calls.
"""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec

from exactly_once import Record, RejectRecord, Task
from processors import history, payment, workflow
from processors.decision import Call, Outcome
from processors.events import CallAnswered, TimerDue
from processors.history import Retired
from processors.parameters import Parameters
from processors.timers import TimerKind
from processors.workflow import Step, Workflow, journal_key
from streams.calls.http_performer import ANSWERS, ROWS
from streams.tracing.ids import SPAN_DIGITS, root_of
from streams.tracing.spans import OFF, Tracing
from streams.worker.order_spans import OrderSpans, span_of_step
from streams.worker.outbox import emit, published, set_timers
from streams.worker.sealing import Seal
from streams.worker.tables import Tables
from topics.families import DELIVERIES, topic_name
from topics.headers import REQUEST_ID
from topics.identity import owner_of
from topics.order_history import RowKind
from topics.order_updates import OrderUpdated
from topics.orders import ErasureRequested
from topics.restaurants import Restaurant

TIMER = TimerKind.ORDER.value
"""Payload of the timers of orders, by which a due timer finds its handler."""


class DecisionReply(msgspec.Struct, frozen=True):
    """The decision on an event, for its sender. ``problems`` are pairs of a JSON pointer and a description.

    A view waits for it in memory; it is never stored.
    """

    outcome: Outcome
    reason: str = ""
    problems: tuple[tuple[str, str], ...] = ()
    failed: bool = False
    """True if there is no decision: applying the record failed, and the record is a dead letter."""


def reply(task: Task, record: Record, decision: DecisionReply, subject: str) -> DecisionReply:
    """Answer the view that waits for the decision on this record, and return the decision.

    A refusal that no view waits for becomes a dead letter.
    """
    request = request_id_of(record)
    if decision.outcome in (Outcome.REFUSED, Outcome.NOT_FOUND) and not task.is_awaited(request):
        task.dead_letter(record, decision.reason or f"there is no {subject}")
    if request:
        task.answer(request, decision)
    return decision


def request_id_of(record: Record) -> str:
    """Return the id of the view's request that produced this record; empty if no view produced it."""
    for name, value in record.headers:
        if name == REQUEST_ID:
            return (value or b"").decode(errors="replace")
    return ""


class OrderWorkflow:
    """Moves the machines of one order inside a task's transaction."""

    def __init__(
        self,
        tables: Tables,
        parameters: Parameters,
        topic_prefix: str,
        row_of_call: Callable[[Call, str], bytes],
        pseudonym: Callable[[str, str], str],
        new_data_key: Callable[[], bytes],
        tracing: Tracing = OFF,
    ) -> None:
        """``row_of_call`` returns the row of a new call, with the body that every attempt sends. It also takes the span
        that requests the call, 16 hex digits, empty for an order without spans.

        ``pseudonym`` returns the name under which the updates of an order show a driver, ``new_data_key`` a random key
        for the rows of an order in the history topic.
        """
        self._tables = tables
        self._parameters = parameters
        self._topic_prefix = topic_prefix
        self._row_of_call = row_of_call
        self._pseudonym = pseudonym
        self._new_data_key = new_data_key
        self._spans = OrderSpans(tracing, tables.journal, topic_name(DELIVERIES.name, topic_prefix))

    def apply_record(
        self, task: Task, order: str, event: Any, record: Record, restaurant: Restaurant | None = None
    ) -> DecisionReply:
        """Apply the event of a record, answer the view that waits for the decision, and return the decision."""
        step = self.apply_and_store(task, order, event, restaurant, record.timestamp)
        self._spans.applied(task, order, record, step)
        return reply(task, record, DecisionReply(step.outcome, step.reason, _pairs(step)), f"order {order}")

    def timer_due(self, task: Task, name: str) -> None:
        """Apply a due timer of an order: a wait that timed out, or a planned step."""
        order = owner_of(name)
        before = self._tables.orders.get(task, order) if self._spans.tracing.is_sampled(order) else None
        step = self.apply_and_store(task, order, TimerDue(name, self._has_open_call(task, order)))
        self._spans.fired(task, order, before, step)

    def call_answered(self, task: Task, key: str, request: bytes, result: bytes) -> None:
        """Apply the answer to a call, in the transaction that deletes the call or sets its next attempt.

        Raises `RejectRecord` if the order has left the tables. Its journal is gone too, so the answer becomes a dead
        letter.
        """
        answer = ANSWERS.decode(result)
        event = CallAnswered(key, ROWS.decode(request).kind, answer.status, answer.body)
        order = owner_of(key)
        step = self.apply_and_store(task, order, event)
        if step.workflow.order is None:
            raise RejectRecord(step.reason)
        self._spans.answered(task, order, answer.span, step)

    def apply_and_store(
        self,
        task: Task,
        order: str,
        event: Any,
        restaurant: Restaurant | None = None,
        recorded_ms: int | None = None,
    ) -> Step:
        """Decide on an event, and write the decision to the task's transaction."""
        before = self._tables.workflow_of(task, order)
        has_open_call = isinstance(event, ErasureRequested) and self._has_open_call(task, order)
        step = workflow.decide_step(
            before, event, task.now_ms, self._parameters, restaurant, recorded_ms, has_open_call
        )
        span = span_of_step(order, step)
        traceparent = self._spans.tracing.traceparent(order, span)
        changed = dict(step.changed)
        if step.retire:
            changed[RowKind.HISTORY] = self._retire(task, before, step.workflow)
        for name, row in changed.items():
            self._tables.of_an_order[name].put(task, order, row)
        for line in step.journal:
            self._tables.journal.put(task, journal_key(order, line.seq), line)
        for record in step.emit:
            public = published(record, self._pseudonym) if isinstance(record, OrderUpdated) else record
            emit(task, public, self._topic_prefix, traceparent)
        set_timers(task, step.timers, TIMER)
        for call in step.calls:
            self._request(task, call, span)
        for key in step.wake_calls:
            task.wake_call(key.encode())
        for key in step.cancel_calls:
            task.cancel_call(key.encode())
        return step

    def _has_open_call(self, task: Task, order: str) -> bool:
        """Return whether a charge or refund of the order has no answer yet."""
        row = self._tables.payments.get(task, order)
        keys = () if row is None else payment.call_keys(row)
        return any(task.has_call(key.encode()) for key in keys)

    def _request(self, task: Task, call: Call, span: int) -> None:
        """Request a call. One that is open keeps its body, as its attempts may have reached the destination."""
        key = call.key.encode()
        if task.has_call(key):
            task.wake_call(key)
        else:
            is_sampled = self._spans.tracing.is_sampled(owner_of(call.key))
            task.call(key, self._row_of_call(call, f"{span:0{SPAN_DIGITS}x}" if is_sampled else ""))

    def _retire(self, task: Task, flow: Workflow, after: Workflow) -> Retired:
        """Emit an order's rows and journal to the history topic, sealed, and delete the journal's rows.

        The order's other rows are deleted by the step's changes. Returns the row that remains, with the key of the
        sealed rows unless the order is erased.
        """
        assert flow.order is not None
        assert after.history is not None
        order, status = flow.order.id, flow.order.status
        rows: list[tuple[RowKind, msgspec.Struct]] = [
            (name, row) for name in workflow.RETIRED_WITH_ORDER if (row := getattr(flow, name)) is not None
        ]
        for number in range(1, flow.order.journal + 1):
            key = journal_key(order, number)
            line = self._tables.journal.get(task, key)
            assert line is not None, f"the journal of {order} has no line {number}"
            rows.append((RowKind.JOURNAL, line))
            self._tables.journal.put(task, key, None)
        data_key = self._new_data_key()
        for record in history.records_of(order, status, rows, after.history.retired_ms, Seal(data_key, order).close):
            emit(task, record, self._topic_prefix, self._spans.tracing.traceparent(order, root_of(order)))
        if after.history.erased_ms is not None:
            return after.history
        return msgspec.structs.replace(after.history, data_key=b64encode(data_key).decode())


def _pairs(step: Step) -> tuple[tuple[str, str], ...]:
    return tuple((problem.pointer, problem.detail) for problem in step.problems)
