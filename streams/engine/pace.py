"""How long to pause between commits: not at all while they are quick, longer the more everything is held up.

A transaction costs worker and broker some milliseconds of CPU between them, however little is in it. Where records come
one by one it is made at once, for the next hop waits for it. Where there is more to do than the machine can, one for
every few records would be all that it does: then a pause lets more of them share one, and everything gets through sooner
(whole orders over HTTP on two busy cores: 27 orders/s without a pause, 95 with one of 25 ms, at a quarter of the
latency).

That there is too much to do shows in how long commits take, compared with the quickest: as in TCP Vegas, where a longer
round trip tells of queues on the way (Brakmo and Peterson, 1995).
"""

import statistics
from collections import deque

LAST = 7
"""Commits whose median counts: a single slow one, while a disk or a collector stalls, means nothing."""
STRETCHED = 2.0
"""So many times the quickest is still a commit that nothing holds up."""
GAIN = 2.0
"""Milliseconds of pause for each that a commit takes longer than that."""
FORGOTTEN_A_S = 0.1 / 60
"""The quickest counts as a tenth slower every minute: a cluster may have moved."""


class Pace:
    """What one worker's tasks go by. Pauses are between ``least_ms`` and ``most_ms``."""

    def __init__(self, least_ms: int, most_ms: int) -> None:
        self._least_s, self._most_s = least_ms / 1000, max(least_ms, most_ms) / 1000
        self._took: deque[float] = deque(maxlen=LAST)
        self._quickest_s, self._quickest_at = float("inf"), 0.0
        self.pause_s = self._least_s
        """Between two commits of a task, and between two fetches."""

    def committed(self, took_s: float, now_s: float) -> None:
        """A commit took so long. ``now_s``: seconds since some moment."""
        self._took.append(took_s)
        quickest_s = self._quickest_s * (1 + FORGOTTEN_A_S * (now_s - self._quickest_at))
        if took_s <= quickest_s:
            self._quickest_s, self._quickest_at, quickest_s = took_s, now_s, took_s
        held_up_s = statistics.median(self._took) - STRETCHED * quickest_s
        self.pause_s = min(self._most_s, max(self._least_s, GAIN * held_up_s))
