"""How long to pause between commits: not at all while little happens, longer the more a worker has to do.

A transaction costs worker and broker some milliseconds of CPU between them, however little is in it. Where records come
one by one it is made at once, for the next hop waits for it. Where a thousand come in a second, one for each would be
all that the machine does: then a pause lets more of them share one, and everything gets through sooner (whole orders
over HTTP on two cores: 55 orders/s without a pause, 95 with one of 25 ms, and half the latency).
"""

from streams.engine.settings import EngineSettings

WINDOW_S = 0.25
"""How long is counted before the rate is known anew."""


class Pace:
    """What one worker's tasks go by. ``now_s``: seconds since some moment."""

    def __init__(self, settings: EngineSettings, now_s: float) -> None:
        self.applied = 0
        """Records, timers and results applied, ever."""
        self._settings = settings
        self._rate = 0.0
        self._counted_at, self._counted = now_s, 0

    def pause_s(self, now_s: float) -> float:
        """Between two commits of a task, and between two fetches."""
        elapsed = now_s - self._counted_at
        if elapsed >= WINDOW_S:
            self._rate = (self.applied - self._counted) / elapsed
            self._counted_at, self._counted = now_s, self.applied
        least, most = self._settings.commit_gap_ms, self._settings.commit_gap_most_ms
        calm, busy = self._settings.calm_per_s, self._settings.busy_per_s
        share = min(1.0, max(0.0, (self._rate - calm) / (busy - calm)))
        return (least + share * max(0, most - least)) / 1000
