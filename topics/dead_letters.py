"""Records that could not be applied, as they came, with the cause; and what operators want done with them.

| topic | key | written by | read by |
|---|---|---|---|
| dead-letters | the record's key | every task, in the transaction that passes over the record | agent `dead_letters` |

The value is the original one, byte for byte; that of a timer is its payload, that of the answer to a call the answer.
The headers say where it came from and why it lies here (the idea of Kafka's KIP-1034): `origin.topic`,
`origin.partition` and `origin.offset` of a record, `origin.timer` or `origin.call` and `origin.request` of what was
none; `dead-letter.reason`; `exception.*` where a handler broke down; `dead-letter.cut` where the value was
too large to be kept whole. A letter lies in the partition of the task that set it aside, and is called after where it
lies: partition and offset.

A record with the header `dabbawala-command` is no letter: it says what to do with the one at the offset in
`dabbawala-letter`, in the same partition. The HTTP view writes it.
"""

from enum import Enum

FAMILY = "dead-letters"
COMMAND = "dabbawala-command"
LETTER = "dabbawala-letter"
NOTES = ("origin.", "dead-letter.", "exception.")
"""How the headers begin that were added to the record's own."""
REASON, BROKE_DOWN, CUT, TOPIC, TIMER, CALL, REQUEST = (
    "dead-letter.reason",
    "exception.class",
    "dead-letter.cut",
    "origin.topic",
    "origin.timer",
    "origin.call",
    "origin.request",
)


class Command(Enum):
    """What is to become of a letter."""

    REPLAY = "replay"
    DISCARD = "discard"
