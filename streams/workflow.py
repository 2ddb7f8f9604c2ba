"""How the machines of one order move inside a task: read the rows, decide, write everything that follows.

`processors.workflow` decides, without knowing where rows and records come from; here it is given the order's rows, and
what it decides becomes rows, records, timers and calls of the task's transaction.
"""

from typing import Any

import msgspec

from processors import history, payment, workflow
from processors.decision import Outcome
from processors.events import CallAnswered, TimerDue
from processors.workflow import Step, Workflow, journal_key
from streams import tables
from streams.app import parameters, settings
from streams.calls.performer import ANSWERS, ROWS, row_of
from streams.engine import Record, Refuse, Task
from streams.outbox import emit, set_timers
from topics.identity import owner_of
from topics.order_history import Kind
from topics.restaurants import Restaurant

REQUEST = "dabbawala-request"
"""Header of a record that a view has produced and waits for. Not the event's id: two requests may be one event."""
TIMER = b"order"
"""Marks the timers of orders among those of the task."""


class Told(msgspec.Struct, frozen=True):
    """What the sender of an event is told of its decision. ``problems`` are (JSON pointer, what is wrong)."""

    outcome: Outcome
    reason: str = ""
    problems: tuple[tuple[str, str], ...] = ()
    failed: bool = False
    """Nothing was decided: applying it broke down, and it lies in the dead letters."""


def apply(task: Task, order: str, event: Any, record: Record, restaurant: Restaurant | None = None) -> None:
    """Apply an event that came as a record; its sender is told, and what is refused unheard is a dead letter."""
    step = _move(task, order, event, restaurant)
    tell(task, record, Told(step.outcome, step.reason, _pairs(step)), f"order {order}")


def tell(task: Task, record: Record, told: Told, whom: str) -> None:
    """Tell the view that waits for the decision on this record. A refusal that nobody waits for is a dead letter."""
    request = request_of(record)
    if told.outcome in (Outcome.REFUSED, Outcome.UNKNOWN) and not task.waited_for(request):
        task.dead_letter(record, told.reason or f"there is no {whom}")
    if request:
        task.answer(request, told)


def request_of(record: Record) -> str:
    """Which request of a view this record was made for; empty for everybody else's records."""
    for name, value in record.headers:
        if name == REQUEST:
            return (value or b"").decode(errors="replace")
    return ""


def timer_due(task: Task, name: str) -> None:
    """Apply the end of a wait."""
    order = owner_of(name)
    money = tables.payments.get(task, order)
    keys = () if money is None else payment.call_keys(money)
    _move(task, order, TimerDue(name, asking=any(task.has_call(key.encode()) for key in keys)))


def call_answered(task: Task, key: str, request: bytes, result: bytes) -> None:
    """Apply the answer to a call, in the transaction that deletes the call. One that comes when the order has left the
    tables has no journal to be noted in: it is a dead letter."""
    answer = ANSWERS.decode(result)
    step = _move(task, owner_of(key), CallAnswered(key, ROWS.decode(request).kind, answer.status, answer.body))
    if step.workflow.order is None:
        raise Refuse(step.reason)


def _move(task: Task, order: str, event: Any, restaurant: Restaurant | None = None) -> Step:
    before = tables.workflow_of(task, order)
    step = workflow.apply(before, event, task.now_ms, parameters, restaurant)
    if step.retire:
        _retire(task, before, step.workflow)
    for name, row in step.changed.items():
        tables.OF_AN_ORDER[name].put(task, order, row)
    for line in step.journal:
        tables.journal.put(task, journal_key(order, line.seq), line)
    for said in step.emit:
        emit(task, said, settings.topic_prefix)
    set_timers(task, step.timers, TIMER)
    for call in step.calls:
        task.call(call.key.encode(), row_of(call))
    for key in step.cancel_calls:
        task.cancel_call(key.encode())
    return step


def _retire(task: Task, flow: Workflow, after: Workflow) -> None:
    """Put an order's rows and journal on the history topic; the journal's rows go here, the others are changes."""
    assert flow.order is not None
    assert after.history is not None
    order, status = flow.order.id, flow.order.status
    rows: list[tuple[Kind, msgspec.Struct]] = [
        (name, row) for name in workflow.WITH_THE_ORDER if (row := getattr(flow, name)) is not None
    ]
    for number in range(1, flow.order.journal + 1):
        key = journal_key(order, number)
        line = tables.journal.get(task, key)
        assert line is not None, f"the journal of {order} has no line {number}"
        rows.append(("journal", line))
        tables.journal.put(task, key, None)
    for record in history.records_of(order, status, rows, after.history.retired_ms):
        emit(task, record, settings.topic_prefix)


def _pairs(step: Step) -> tuple[tuple[str, str], ...]:
    return tuple((problem.pointer, problem.detail) for problem in step.problems)
