"""Agent of the topic `payments`: charges, declines and refunds of providers. See `processors.payment`."""

from exactly_once import Record, Task
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.order_workflow import DecisionReply
from topics.payments import READER


def payments(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Apply an event of a payment provider to an order."""
    event = decode_or_reject(task, READER, record)
    if not forward_unless_owned(task, record, event.order):
        return None
    return services.order_workflow.apply_record(task, event.order, event, record)
