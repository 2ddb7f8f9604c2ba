"""Agent of the topic `locations`: positions of drivers, which are events of `processors.driver`."""

import msgspec

from exactly_once import Record, Task
from processors.decision import Outcome
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.agents.drivers import apply_event
from streams.services import Services
from topics.locations import READER
from topics.records import instant

UNKNOWN_DRIVER = "locations of unknown drivers"


def locations(services: Services, task: Task, record: Record) -> None:
    """Apply a driver's location. One that is older than the last has no effect; one of an unknown driver is counted."""
    location = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, location.driver):
        return
    if location.at is None:
        location = msgspec.structs.replace(location, at=instant(record.timestamp))
    if apply_event(services, task, location.driver, location).outcome is Outcome.NOT_FOUND:
        task.count(UNKNOWN_DRIVER)
