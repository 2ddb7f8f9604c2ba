"""What every agent does with a record before anything is decided: read it, and see that it lies where it belongs."""

from typing import TypeVar

from processors.decision import Outcome
from streams.engine import Record, Refuse, Task
from streams.workflow import Told, request_of
from topics.records import Reader, Undecodable

R = TypeVar("R")


def decoded(task: Task, reader: Reader[R], record: Record) -> R:
    """The record that these bytes hold; refused, which makes it a dead letter, where they hold none.

    From here on whoever waits for the decision is told, even if applying the record breaks down.
    """
    if request := request_of(record):
        task.answer_if_undone(request, lambda reason: Told(Outcome.REFUSED, reason, failed=True))
    try:
        return reader.read(record.value)
    except Undecodable as wrong:
        raise Refuse(str(wrong)) from None


def from_here(task: Task, record: Record, key: str) -> bool:
    """Whether this task owns the key. If not, the record is sent on to the partition of the task that does: what the
    body says decides, for a producer may hash differently (librdkafka does) or give no key at all."""
    if task.belongs(key.encode()):
        return True
    task.forward(record, key.encode())
    return False
