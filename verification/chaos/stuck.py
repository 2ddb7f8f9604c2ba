"""Detection of a run that makes no progress, with the state of every task, timer and call."""

import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

QUIET_S = 30.0
"""Longest time without progress."""
SOON_S = 65.0
"""Time within which a retry or a timer counts as imminent and is waited for."""
MAX_QUIET_S = SOON_S + QUIET_S
"""Longest time without progress while retries are imminent: endless retries are no progress."""
TO_SHOW = ("/v1/tasks", "/v1/calls?limit=1000", "/v1/timers?limit=1000", "/v1/orders?limit=1000", "/v1/dead-letters")

Ask = Callable[[str], Awaitable[object]]


class Stuck(Exception):
    """No progress; the message has the state of every task, timer and call."""


class Watch:
    """Watchdog over a number that grows with progress."""

    def __init__(self, ask: Ask, now: Callable[[], float] = time.monotonic) -> None:
        """`ask` returns the answer of an API path, or None if no worker answers."""
        self._ask = ask
        self._now = now
        self._number = -1
        self._moved_at = now()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last progress."""
        return self._now() - self._moved_at

    def moves(self, number: int, *, excused: bool = False) -> None:
        """Record the number; `excused`: a fault explains why it does not grow."""
        if number != self._number or excused:
            self._number = number
            self._moved_at = self._now()

    async def check(self) -> None:
        """Raise `Stuck` if progress is overdue and neither a retry nor a timer is imminent."""
        if self.quiet_s < QUIET_S:
            return
        shown = {path: await self._ask(path) for path in TO_SHOW}
        if self.quiet_s < MAX_QUIET_S and _something_comes(shown):
            return
        raise Stuck(f"no progress for {self.quiet_s:.0f} s:\n{json.dumps(shown, indent=1)}")


def _something_comes(shown: dict[str, Any]) -> bool:
    """Return whether a retry or a timer is due within `SOON_S`."""
    calls = (shown["/v1/calls?limit=1000"] or {}).get("calls", [])
    timers = (shown["/v1/timers?limit=1000"] or {}).get("timers", [])
    moments = [call["next_attempt"] for call in calls] + [timer["due"] for timer in timers]
    return any(0 < (datetime.fromisoformat(m) - datetime.now(UTC)).total_seconds() < SOON_S for m in moments)
