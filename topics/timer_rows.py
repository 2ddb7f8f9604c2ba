"""Layout of the rows of the table ``timers``, as its changelog holds them.

| part | content |
|---|---|
| key, first 8 bytes | due time in milliseconds since 1970, big endian, so the order of keys is the order of due times |
| key, rest | id of the timer |
| value | payload of the timer; a deleted row has none |

The engine writes the rows and has its own copy of this layout, because it imports nothing of the product.
"""

from typing import NamedTuple

DUE_BYTES = 8


class TimerKey(NamedTuple):
    """Key of a timer's row."""

    due_ms: int
    """Due time in milliseconds since 1970."""
    timer_id: bytes

    @property
    def name(self) -> str:
        """Id of the timer as text."""
        return self.timer_id.decode(errors="replace")


def parse_timer_key(key: bytes) -> TimerKey:
    """Return the parts of a row's key."""
    return TimerKey(int.from_bytes(key[:DUE_BYTES], "big"), key[DUE_BYTES:])
