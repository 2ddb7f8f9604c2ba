"""Who stands still is noticed, and who waits for something is not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.chaos.stuck import MOST_S, QUIET_S, SOON_S, Stuck, Watch


class Installation:
    """What an API shows, and a clock."""

    def __init__(self) -> None:
        self.now, self.due_in_s = 1000.0, -1.0

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


async def test_what_has_not_moved_for_half_a_minute_is_stuck_and_says_what_it_is_at(
    there: Installation, watch: Watch
) -> None:
    there.now += QUIET_S - 1
    watch.moves(7)
    await watch.check()
    there.now += 2
    with pytest.raises(Stuck, match="shop:1/charge"):
        await watch.check()


async def test_what_moves_is_not_stuck(there: Installation, watch: Watch) -> None:
    for number in range(8, 20):
        there.now += QUIET_S - 1
        watch.moves(number)
        await watch.check()


async def test_nobody_has_to_move_while_there_is_an_excuse(there: Installation, watch: Watch) -> None:
    for _ in range(10):
        there.now += QUIET_S - 1
        watch.moves(7, excused=True)
        await watch.check()


async def test_a_call_that_is_made_again_soon_is_waited_for_but_not_for_ever(there: Installation, watch: Watch) -> None:
    there.due_in_s = SOON_S - 5
    there.now += MOST_S - 1
    await watch.check()
    there.now += 2
    with pytest.raises(Stuck):
        await watch.check()


async def test_what_is_due_much_later_is_not_waited_for(there: Installation, watch: Watch) -> None:
    there.due_in_s = SOON_S + 60
    there.now += QUIET_S + 1
    with pytest.raises(Stuck):
        await watch.check()
