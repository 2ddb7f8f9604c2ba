"""The `drivers` topic: what drivers' apps, dispatch and deliveries say to a driver's twin. See `processors.driver`."""

from processors import driver as machine
from processors.decision import Decision
from processors.driver import Driver
from streams import tables
from streams.agents.intake import decoded, from_here
from streams.app import drivers as topic
from streams.app import engine, parameters, settings
from streams.engine import Record, Task
from streams.outbox import emit
from streams.workflow import Told, tell
from topics.drivers import READER


@engine.agent(topic)
def drivers(task: Task, record: Record) -> None:
    """Move drivers' twins."""
    event = decoded(task, READER, record)
    if from_here(task, record, event.driver):
        decision = move(task, event.driver, event)
        tell(task, record, Told(decision.outcome, decision.reason), f"driver {event.driver}")


def move(task: Task, driver: str, event: object) -> Decision[Driver]:
    """Apply an event to a driver's twin; also the agent of `locations` does."""
    decision = machine.decide(tables.drivers.get(task, driver), event, task.now_ms, parameters)
    if decision.state is not None:
        tables.drivers.put(task, driver, decision.state)
    for said in decision.emit:
        emit(task, said, settings.topic_prefix)
    return decision
