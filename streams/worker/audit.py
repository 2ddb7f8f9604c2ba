"""Audit of operators' actions, from the view that takes the request to the task that applies its record.

The view puts the action into a header of the record that it writes, signed with the secret of the workers: others may
write to the topic, and must not write the audit. The task that applies the record emits the action with its decision,
in the same transaction.
"""

from collections.abc import Sequence
from hmac import compare_digest

from msgspec.structs import replace

from exactly_once import Record, Task
from processors.decision import Outcome
from streams.access.tokens import Tokens
from streams.worker.outbox import emit
from topics.audit import FAILED, READER, OperatorActed
from topics.headers import OPERATOR_ACTED
from topics.records import instant, write

Headers = Sequence[tuple[str, bytes | None]]


class Audit:
    """Writer of the audit topic inside tasks."""

    def __init__(self, tokens: Tokens, topic_prefix: str) -> None:
        self._tokens = tokens
        self._topic_prefix = topic_prefix

    def header(self, acted: OperatorActed, topic: str, key: bytes | None, value: bytes | None) -> bytes:
        """Return the header with which a view writes a record for an operator."""
        content = write(acted)
        return self._tokens.action_signature(topic, key, value, content) + b" " + content

    def is_of_operator(self, record: Record) -> bool:
        """Return whether a view wrote the record for an operator: others may write to the topic too."""
        return self._action(record.topic, record.key, record.value, record.headers) is not None

    def report(self, task: Task, record: Record, outcome: Outcome) -> None:
        """Emit the action that a record stands for, with the decision; nothing for a record of anybody else."""
        self._emit(task, self._action(record.topic, record.key, record.value, record.headers), outcome.value)

    def report_failure(self, task: Task, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Emit the action whose record of this topic became a dead letter, because it could not be applied."""
        self._emit(task, self._action(topic, key, value, headers), FAILED)

    def _emit(self, task: Task, acted: OperatorActed | None, outcome: str) -> None:
        if acted is not None:
            emit(task, replace(acted, at=instant(task.now_ms), outcome=outcome), self._topic_prefix)

    def _action(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers) -> OperatorActed | None:
        """Return the action in the headers; None without one that a view has signed for this record."""
        found = next((content for name, content in headers if name == OPERATOR_ACTED), None)
        if found is None:
            return None
        signature, _, content = found.partition(b" ")
        is_signed = compare_digest(signature, self._tokens.action_signature(topic, key, value, content))
        return READER.read(content) if is_signed else None
