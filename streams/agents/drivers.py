"""Agent of the topic `drivers`: events from drivers' apps, dispatch and deliveries. See `processors.driver`."""

from exactly_once import Record, Task
from processors import driver as machine
from processors.decision import Decision
from processors.driver import Driver, ForgottenShift
from processors.events import TimerDue
from processors.timers import TimerKind
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.order_workflow import DecisionReply, reply
from streams.worker.outbox import emit, set_timers
from topics.drivers import READER
from topics.identity import owner_of

TIMER = TimerKind.DRIVER.value
"""Payload of the timers of drivers, by which a due timer finds its handler."""


def drivers(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Apply an event to a driver, and answer the view that waits for the decision."""
    event = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, event.driver):
        return None
    decision = apply_event(services, task, event.driver, event)
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
        emit(task, message, services.settings.topic_prefix)
    set_timers(task, decision.timers, TIMER)
    return decision


def timer_due(services: Services, task: Task, name: str) -> None:
    """Look whether a driver is silent: a waiting one goes off duty, and one who is off duty for long is forgotten."""
    apply_event(services, task, owner_of(name), TimerDue(name))


def _forgotten_shift(services: Services, task: Task) -> int:
    """Return the highest shift of the partition's drivers that were forgotten; 0 if none was."""
    row = services.tables.forgotten_shifts.get(task, _partition_key(task))
    return 0 if row is None else row.shift


def _partition_key(task: Task) -> str:
    return str(task.partition)
