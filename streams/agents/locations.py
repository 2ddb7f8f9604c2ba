"""Agent of the topic `locations`: positions of drivers, which are events of `processors.driver`."""

from exactly_once import Record, Task
from processors.decision import Outcome
from processors.driver import with_trusted_time
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.agents.drivers import apply_event
from streams.services import Services
from streams.worker.order_workflow import DecisionReply
from topics.locations import READER

UNKNOWN_DRIVER = "locations of unknown drivers"
IMPOSSIBLE = "impossible locations of drivers"


def locations(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Apply a driver's location. One that is older than the last has no effect.

    Locations of unknown drivers and impossible locations are counted.
    """
    location = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, location.driver):
        return None
    decision = apply_event(services, task, location.driver, with_trusted_time(location, max(0, record.timestamp)))
    if decision.outcome is Outcome.NOT_FOUND:
        task.count(UNKNOWN_DRIVER)
    elif decision.reason:
        task.count(IMPOSSIBLE)
    return DecisionReply(decision.outcome, decision.reason)
