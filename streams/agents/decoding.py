"""The first two steps of every agent: decode the record, and forward it if another task owns its key."""

from typing import TypeVar

from exactly_once import Record, RejectRecord, Task
from processors.decision import Outcome
from streams.worker.order_workflow import DecisionReply, request_id_of
from topics.records import Reader, Undecodable

R = TypeVar("R")


def decode_or_reject(task: Task, reader: Reader[R], record: Record) -> R:
    """Return the decoded record. Raises `RejectRecord` if it cannot be decoded, which makes it a dead letter.

    From this call on, the view that waits for the decision gets an answer even if applying the record fails.
    """
    if request := request_id_of(record):
        task.answer_on_failure(request, lambda reason: DecisionReply(Outcome.REFUSED, reason, failed=True))
    try:
        return reader.read(record.value)
    except Undecodable as wrong:
        raise RejectRecord(str(wrong)) from None


def forward_unless_owned(task: Task, record: Record, key: str) -> bool:
    """Return whether this task owns the key. If not, forward the record to the partition of the task that owns it.

    The key is taken from the body, because a producer may hash keys differently (librdkafka does) or send none.
    """
    if task.owns_key(key.encode()):
        return True
    task.forward(record, key.encode())
    return False
