"""A run without progress is reported as stuck, unless it waits for something."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from verification.chaos.stuck import MAX_QUIET_S, QUIET_S, SOON_S, Stuck, Watch


class Installation:
    """A stub of an installation's API, with a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due_in_s = -1.0

    async def ask(self, path: str) -> Any:
        due = (datetime.now(UTC) + timedelta(seconds=self.due_in_s)).isoformat()
        match path.partition("?")[0]:
            case "/v1/calls":
                return {"calls": [{"key": "shop:1/charge", "next_attempt": due}]}
            case "/v1/timers":
                return {"timers": [{"timer": "shop:1/retirement", "due": "2099-01-01T00:00:00Z"}]}
        return None


@pytest.fixture
def there() -> Installation:
    return Installation()


@pytest.fixture
def watch(there: Installation) -> Watch:
    watch = Watch(there.ask, lambda: there.now)
    watch.moves(7)
    return watch


async def test_no_progress_for_30_s_is_stuck_and_shows_the_state(there: Installation, watch: Watch) -> None:
    there.now += QUIET_S - 1
    watch.moves(7)
    await watch.check()
    there.now += 2
    with pytest.raises(Stuck, match="shop:1/charge"):
        await watch.check()


async def test_a_run_with_progress_is_not_stuck(there: Installation, watch: Watch) -> None:
    for number in range(8, 20):
        there.now += QUIET_S - 1
        watch.moves(number)
        await watch.check()


async def test_an_excused_run_is_not_stuck(there: Installation, watch: Watch) -> None:
    for _ in range(10):
        there.now += QUIET_S - 1
        watch.moves(7, excused=True)
        await watch.check()


async def test_a_call_due_soon_is_waited_for_within_a_limit(there: Installation, watch: Watch) -> None:
    there.due_in_s = SOON_S - 5
    there.now += MAX_QUIET_S - 1
    await watch.check()
    there.now += 2
    with pytest.raises(Stuck):
        await watch.check()


async def test_a_call_due_much_later_is_no_excuse(there: Installation, watch: Watch) -> None:
    there.due_in_s = SOON_S + 60
    there.now += QUIET_S + 1
    with pytest.raises(Stuck):
        await watch.check()
