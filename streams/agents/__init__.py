"""What is consumed: one agent a topic, named after it. Importing one registers it with the app."""

from streams import workflow
from streams.agents import dead_letters, deliveries, dispatch, drivers, locations, orders, payments, pos
from streams.app import engine
from streams.engine import Task

__all__ = ["dead_letters", "deliveries", "dispatch", "drivers", "locations", "orders", "payments", "pos"]


@engine.on_timer
def timer_due(task: Task, timer_id: bytes, payload: bytes) -> None:
    """A timer is due: its payload says whose it is."""
    _DUE[payload](task, timer_id.decode())


@engine.on_result
def call_answered(task: Task, call_id: bytes, request: bytes, result: bytes) -> None:
    """A call to a party outside was answered. All of them are about orders."""
    workflow.call_answered(task, call_id.decode(), request, result)


_DUE = {
    workflow.TIMER: workflow.timer_due,
    dispatch.TIMER: dispatch.timer_due,
    dead_letters.TIMER: dead_letters.timer_due,
}
