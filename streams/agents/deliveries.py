"""The `deliveries` topic: what drivers' twins say to deliveries. See `processors.delivery`."""

from streams import workflow
from streams.agents.intake import decoded, from_here
from streams.app import deliveries as topic
from streams.app import engine
from streams.engine import Record, Task
from topics.deliveries import READER


@engine.agent(topic)
def deliveries(task: Task, record: Record) -> None:
    """Apply what drivers' twins say to deliveries."""
    event = decoded(task, READER, record)
    if from_here(task, record, event.order):
        workflow.apply(task, event.order, event, record)
