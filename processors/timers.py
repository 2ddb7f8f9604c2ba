"""Kinds of timers. The kind is the payload of a timer; it selects the handler of a due timer."""

from enum import Enum


class TimerKind(Enum):
    """Owner of a timer; the value is the payload as stored."""

    ORDER = b"order"
    DISPATCH = b"dispatch"
    DRIVER = b"driver"
    DEAD_LETTER = b"dead-letter"
    USED_KEY = b"used-key"
