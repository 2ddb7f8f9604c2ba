"""Actions of operators, and their readings of personal data.

| topic | key | written by | read by |
|---|---|---|---|
| audit | name of the operator's key | the task that applies the action; a worker that answers | `GET /v1/audit` |

The task writes an action in the transaction of its decision, so that each action leaves one record. The worker writes a
reading before it sends the answer. The records of one key holder are in one partition, in order.
"""

from typing import Annotated, ClassVar

from msgspec import Meta

from topics.patterns import LINE
from topics.records import Reader, Record
from topics.text import Name, Text

YEAR_AND_A_MONTH_MS = 400 * 24 * 3600 * 1000
"""Retention: a year, and a month to look at it."""
READ = "READ"
"""Outcome of a reading."""
FAILED = "FAILED"
"""Outcome of an action whose record could not be applied and became a dead letter."""
MAX_TARGET_LENGTH = 4096
"""Characters of an action or a thing: a path may be long."""

Target = Annotated[str, Meta(max_length=MAX_TARGET_LENGTH, pattern=LINE)]


class OperatorActed(Record, frozen=True, kw_only=True, omit_defaults=True):
    """An operator sent a request that changes something, or that shows personal data; ``id`` is the request's."""

    family: ClassVar[str] = "audit"

    by: Name
    """Name of the operator's key."""
    role: Name
    action: Target
    """Method and path of the request."""
    thing: Target = ""
    """Id of the order, driver, dead letter or table that the request names; empty for a list."""
    reason: Text = ""
    address: Name = ""
    """Address of the client, as the first worker saw it."""
    outcome: Name = ""
    """Decision of the task, READ or FAILED."""

    @property
    def key(self) -> str:
        """Name of the operator's key."""
        return self.by


READER: Reader[OperatorActed] = Reader(OperatorActed)
