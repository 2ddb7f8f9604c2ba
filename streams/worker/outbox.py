"""Output of the processors, written to a task's transaction: records for topics, and timers."""

from collections.abc import Callable, Iterable

import msgspec

from exactly_once import Task
from processors.decision import CancelTimer, SetTimer
from topics.families import topic_name
from topics.headers import TRACEPARENT
from topics.order_updates import OrderUpdated
from topics.records import Record, write

SOURCE = "dabbawala"


def emit(task: Task, record: Record, prefix: str, traceparent: str = "") -> None:
    """Put a record with its trace context on the topic of its family. `OrderUpdated` gets CloudEvents headers too."""
    headers = [(TRACEPARENT, traceparent.encode())] if traceparent else []
    if isinstance(record, OrderUpdated):
        headers += _cloud_event(record)
    task.emit(topic_name(record.family, prefix), record.key.encode(), write(record), headers)


def published(update: OrderUpdated, pseudonym: Callable[[str, str], str]) -> OrderUpdated:
    """Return an update as it leaves the workers: ``pseudonym`` of order and driver stands for the driver."""
    if update.driver is None:
        return update
    return msgspec.structs.replace(update, driver=pseudonym(update.order, update.driver))


def set_timers(task: Task, timers: Iterable[SetTimer | CancelTimer], mark: bytes) -> None:
    """Set and cancel timers. ``mark`` is their payload, by which a due timer finds its handler."""
    for timer in timers:
        if isinstance(timer, SetTimer):
            task.set_timer(timer.due_ms, timer.name.encode(), mark)
        else:
            task.cancel_timer(timer.due_ms, timer.name.encode())


def _cloud_event(update: OrderUpdated) -> list[tuple[str, bytes]]:
    """Return the attributes of CloudEvents 1.0 as headers, in Kafka's binary content mode."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", update.event_id.encode()),
        ("ce_type", b"dabbawala.OrderUpdated"),
        ("ce_source", SOURCE.encode()),
        ("ce_subject", update.order.encode()),
        ("ce_time", update.at.isoformat().encode() if update.at else b""),
        ("ce_sequence", str(update.version).encode()),
        ("content-type", b"application/json"),
    ]
