"""Handlers of due timers and of answered calls. `register` declares them with a worker's engine."""

from collections.abc import Callable

from exactly_once import Task
from streams.agents import dead_letters, dispatch, drivers, orders
from streams.services import Services
from streams.worker import order_workflow


def register(services: Services) -> None:
    """Declare the handlers of timers and of answers to calls."""
    due: dict[bytes, Callable[[Task, str], None]] = {
        order_workflow.TIMER: services.order_workflow.timer_due,
        dispatch.TIMER: lambda task, timer: dispatch.timer_due(services, task, timer),
        drivers.TIMER: lambda task, timer: drivers.timer_due(services, task, timer),
        orders.TIMER: lambda task, timer: orders.timer_due(services, task, timer),
        dead_letters.TIMER: lambda task, timer: dead_letters.timer_due(services, task, timer),
    }

    @services.engine.on_timer
    def timer_due(task: Task, timer_id: bytes, payload: bytes) -> None:
        """Pass a due timer to the handler that its payload names."""
        due[payload](task, timer_id.decode())

    @services.engine.on_result
    def call_answered(task: Task, call_id: bytes, request: bytes, result: bytes) -> None:
        """Apply the answer to a call. Every call belongs to an order."""
        services.order_workflow.call_answered(task, call_id.decode(), request, result)
