"""Pause between commits: none while commits are quick, longer as they slow down.

A transaction costs worker and broker some milliseconds of CPU together, however small it is. A single record is
committed at once, because the next hop waits for it. On an overloaded machine, transactions of a few records would take
all its time: a pause lets more records share one, and everything gets through sooner. (Measured on two busy cores, nine
transactions an input: 27 inputs/s without a pause, 95 with one of 25 ms, at a quarter of the latency.)

Overload shows in the duration of commits, compared with the quickest: as in TCP Vegas, where a longer round trip means
queues on the way (Brakmo and Peterson, 1995).
"""

import statistics
from collections import deque

LAST = 7
"""Number of commits whose median counts: one slow commit, while a disk or a collector stalls, means nothing."""
STRETCHED = 2.0
"""Multiple of the quickest commit up to which a commit counts as undisturbed."""
GAIN = 2.0
"""Milliseconds of pause for each millisecond beyond that."""
FORGOTTEN_A_S = 0.1 / 60
"""Growth of the quickest commit, a tenth a minute: a cluster may have moved."""


class CommitPacer:
    """The pause that all tasks of one worker share, between ``least_ms`` and ``most_ms``."""

    def __init__(self, least_ms: int, most_ms: int) -> None:
        self._least_s = least_ms / 1000
        self._most_s = max(least_ms, most_ms) / 1000
        self._took: deque[float] = deque(maxlen=LAST)
        self._quickest_s = float("inf")
        self._quickest_at = 0.0
        self.pause_s = self._least_s
        """Pause between two commits of a task, and between two fetches."""

    def committed(self, took_s: float, now_s: float) -> None:
        """Record the duration of a commit. ``now_s``: seconds since some moment."""
        self._took.append(took_s)
        quickest_s = self._quickest_s * (1 + FORGOTTEN_A_S * (now_s - self._quickest_at))
        if took_s <= quickest_s:
            self._quickest_s, self._quickest_at, quickest_s = took_s, now_s, took_s
        held_up_s = statistics.median(self._took) - STRETCHED * quickest_s
        self.pause_s = min(self._most_s, max(self._least_s, GAIN * held_up_s))
