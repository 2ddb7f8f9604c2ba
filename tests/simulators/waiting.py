"""Wait for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Callable

WITHIN_S = 300.0
POLL_S = 0.02


async def until(condition: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    """Return as soon as the condition holds; fail if it does not hold in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not so after {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)
