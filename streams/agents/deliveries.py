"""Agent of the topic `deliveries`: events of drivers' machines about deliveries. See `processors.delivery`."""

from exactly_once import Record, Task
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from topics.deliveries import READER


def deliveries(services: Services, task: Task, record: Record) -> None:
    """Apply an event of a driver's machine to a delivery."""
    event = decode_or_reject(task, READER, record)
    if forward_unless_owned(task, record, event.order):
        services.order_workflow.apply_record(task, event.order, event, record)
