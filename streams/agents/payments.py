"""The `payments` topic: what payment providers say of an order's money. See `processors.payment`."""

from streams import workflow
from streams.agents.intake import decoded, from_here
from streams.app import engine
from streams.app import payments as topic
from streams.engine import Record, Task
from topics.payments import READER


@engine.agent(topic)
def payments(task: Task, record: Record) -> None:
    """Apply what payment providers say."""
    event = decoded(task, READER, record)
    if from_here(task, record, event.order):
        workflow.apply(task, event.order, event, record)
