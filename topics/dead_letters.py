"""Records that could not be applied, with the cause, and the commands of operators about them.

| topic | key | written by | read by |
|---|---|---|---|
| dead-letters | the record's key | every task, in the transaction that passes over the record | agent `dead_letters` |

The value of a dead letter is the value of the record, byte for byte. The letter of a timer holds the timer's payload,
and the letter of a call holds the answer. The headers give the origin and the cause, as in Kafka's KIP-1034:

- The origin is `origin.topic`, `origin.partition` and `origin.offset` of a record, `origin.timer` of a timer, or
  `origin.call` and `origin.request` of a call.
- `dead-letter.reason` gives the cause, and `exception.*` the exception if a handler raised one.
- `dead-letter.cut` marks a value that was too large to be kept whole.

The task that sets a record aside writes the letter to the task's partition. Partition and offset identify the letter.

A record with the header `dabbawala-command` is a command and not a letter. `dabbawala-letter` holds the offset of the
letter that the command is about, in the same partition. The HTTP view writes commands.

Both are signed with the secret of the workers, in `dead-letter.signature` and `dabbawala-signature`. Others can write
to the topic, too: a letter without a valid signature can be looked at and discarded and not replayed, and a command
without one is a letter.
"""

from enum import Enum

FAMILY = "dead-letters"
COMMAND = "dabbawala-command"
LETTER = "dabbawala-letter"
NOTES = ("origin.", "dead-letter.", "exception.")
"""Prefixes of the headers that a task adds to the headers of the record."""
REASON = "dead-letter.reason"
BROKE_DOWN = "exception.class"
CUT = "dead-letter.cut"
SIGNATURE = "dead-letter.signature"
COMMAND_SIGNATURE = "dabbawala-signature"
TOPIC = "origin.topic"
PARTITION = "origin.partition"
OFFSET = "origin.offset"
TIMER = "origin.timer"
CALL = "origin.call"
REQUEST = "origin.request"


class Command(Enum):
    """A command about a dead letter: apply it again, or delete it."""

    REPLAY = "replay"
    DISCARD = "discard"
