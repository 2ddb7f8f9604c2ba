"""Notices when nothing moves, and says then what everything is at."""

import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

QUIET_S = 30.0
"""Nothing may stand still for longer."""
SOON_S = 65.0
"""A call is made again, or a timer due, within this time at the latest: until then it is waited for."""
MOST_S = SOON_S + QUIET_S
"""But not for ever: what is made again and again moves nothing."""
TO_SHOW = ("/v1/tasks", "/v1/calls?limit=1000", "/v1/timers?limit=1000", "/v1/orders?limit=1000", "/v1/dead-letters")

Ask = Callable[[str], Awaitable[object]]


class Stuck(Exception):
    """Nothing moves; the message is what every task, timer and call is at."""


class Watch:
    """Looks at one number that grows as long as something moves."""

    def __init__(self, ask: Ask, now: Callable[[], float] = time.monotonic) -> None:
        """`ask`: what an address of the API shows; None: nobody answers."""
        self._ask, self._now = ask, now
        self._number = -1
        self._moved_at = now()

    @property
    def quiet_s(self) -> float:
        """For how long nothing has moved."""
        return self._now() - self._moved_at

    def moves(self, number: int, *, excused: bool = False) -> None:
        """It is at this number; `excused`: there is a reason why it would not grow."""
        if number != self._number or excused:
            self._number, self._moved_at = number, self._now()

    async def check(self) -> None:
        """Raise `Stuck` if nothing has moved for too long, and nothing is about to."""
        if self.quiet_s < QUIET_S:
            return
        shown = {path: await self._ask(path) for path in TO_SHOW}
        if self.quiet_s < MOST_S and _something_comes(shown):
            return
        raise Stuck(f"nothing has moved for {self.quiet_s:.0f} s:\n{json.dumps(shown, indent=1)}")


def _something_comes(shown: dict[str, Any]) -> bool:
    """Whether a call or a timer is to come soon."""
    calls = (shown["/v1/calls?limit=1000"] or {}).get("calls", [])
    timers = (shown["/v1/timers?limit=1000"] or {}).get("timers", [])
    moments = [call["next_attempt"] for call in calls] + [timer["due"] for timer in timers]
    return any(0 < (datetime.fromisoformat(m) - datetime.now(UTC)).total_seconds() < SOON_S for m in moments)
