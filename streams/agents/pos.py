"""Agent of the topic `pos`: events of restaurants' points of sale about tickets. See `processors.ticket`."""

from exactly_once import Record, Task
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.order_workflow import DecisionReply
from topics.pos import READER


def pos(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Apply an event of a restaurant to the ticket of an order."""
    event = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, event.order):
        return None
    return services.order_workflow.apply_record(task, event.order, event, record)
