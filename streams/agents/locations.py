"""The `locations` topic: where drivers are. See `processors.driver`, whose events they are."""

import msgspec

from processors.decision import Outcome
from streams.agents.drivers import move
from streams.agents.intake import decoded, from_here
from streams.app import engine
from streams.app import locations as topic
from streams.engine import Record, Task
from topics.locations import READER
from topics.records import instant

UNKNOWN_DRIVER = "locations of unknown drivers"


@engine.agent(topic)
def locations(task: Task, record: Record) -> None:
    """Follow drivers; a location that comes too late or is of nobody we know is passed over, counted."""
    location = decoded(task, READER, record)
    if not from_here(task, record, location.driver):
        return
    if location.at is None:
        location = msgspec.structs.replace(location, at=instant(record.timestamp))
    if move(task, location.driver, location).outcome is Outcome.UNKNOWN:
        task.count(UNKNOWN_DRIVER)
