"""The `pos` topic: what restaurants' points of sale say of their tickets. See `processors.restaurant`."""

from streams import workflow
from streams.agents.intake import decoded, from_here
from streams.app import engine
from streams.app import pos as topic
from streams.engine import Record, Task
from topics.pos import READER


@engine.agent(topic)
def pos(task: Task, record: Record) -> None:
    """Apply what restaurants say of their tickets."""
    event = decoded(task, READER, record)
    if from_here(task, record, event.order):
        workflow.apply(task, event.order, event, record)
