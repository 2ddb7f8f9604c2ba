"""Agent of the topic `drivers`: events from drivers' apps, dispatch and deliveries. See `processors.driver`."""

from exactly_once import Record, Task
from processors import driver as machine
from processors.decision import Decision
from processors.driver import Driver
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.order_workflow import DecisionReply, reply
from streams.worker.outbox import emit
from topics.drivers import READER


def drivers(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Apply an event to a driver, and answer the view that waits for the decision."""
    event = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, event.driver):
        return None
    decision = apply_event(services, task, event.driver, event)
    return reply(task, record, DecisionReply(decision.outcome, decision.reason), f"driver {event.driver}")


def apply_event(services: Services, task: Task, driver: str, event: object) -> Decision[Driver]:
    """Apply an event to a driver's machine and write the decision to the task. The agent of `locations` uses it too."""
    decision = machine.decide(services.tables.drivers.get(task, driver), event, task.now_ms, services.parameters)
    if decision.state is not None:
        services.tables.drivers.put(task, driver, decision.state)
    for message in decision.emit:
        emit(task, message, services.settings.topic_prefix)
    return decision
