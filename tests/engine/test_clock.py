"""Whether the clock of a task that opens can be gone by."""

from collections.abc import Mapping, Sequence

import pytest

from streams.engine.changes import Appended, Outgoing
from streams.engine.clock import DELETION, doubt_of
from streams.engine.settings import EngineSettings
from streams.engine.task import RESERVED_PREFIX
from tests.engine.fakes import FakeClock

CHANGELOG = ("positions-changelog", 3)
BROKER_MS = 1_000_000


class Stamps:
    """A broker whose time stands still."""

    def __init__(self, clock: FakeClock, broker_ms: int = BROKER_MS, takes_ms: int = 0) -> None:
        self._broker_ms, self.ended = broker_ms, 0
        self.produced: list[tuple[str, int]] = []
        self._clock, self._takes_ms = clock, takes_ms

    async def produce(self, outputs: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], Appended]:
        assert list(outputs.values()) == [[DELETION]]
        self.produced += outputs
        self._clock.ms += self._takes_ms
        return {CHANGELOG: Appended(1, self._broker_ms)}

    async def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("apart_ms", [0, 1999, 2000, -2000])
async def test_a_clock_that_is_near_the_brokers_is_gone_by(apart_ms: int) -> None:
    clock = FakeClock(BROKER_MS + apart_ms)
    stamps = Stamps(clock)
    assert await doubt_of(clock, stamps, CHANGELOG, 2.0) == ""
    assert (stamps.produced, stamps.ended) == ([CHANGELOG], 1), "one transaction, and it is over"


@pytest.mark.parametrize(
    ("apart_ms", "how"), [(2001, "2.0 s ahead of"), (3_600_000, "3600.0 s ahead of"), (-3_600_000, "3600.0 s behind")]
)
async def test_one_that_is_not_is_doubted_and_it_is_said_what_to_do(apart_ms: int, how: str) -> None:
    clock = FakeClock(BROKER_MS + apart_ms)
    stamps = Stamps(clock)
    doubt = await doubt_of(clock, stamps, CHANGELOG, 2.0)
    assert doubt == (
        f"this machine's clock is {how} the broker's, set right the one that is wrong: at most 2 s will do"
    )
    assert stamps.ended == 1


@pytest.mark.parametrize(("began_ms", "doubted"), [(-9_000, False), (-12_001, True), (2_001, True)])
async def test_a_slow_answer_is_no_doubt(began_ms: int, doubted: bool) -> None:
    """It takes 10 s, and the broker may have appended at any time of it."""
    clock = FakeClock(BROKER_MS + began_ms)
    assert bool(await doubt_of(clock, Stamps(clock, takes_ms=10_000), CHANGELOG, 2.0)) is doubted


async def test_a_broker_that_does_not_tell_is_a_doubt() -> None:
    clock = FakeClock()
    doubt = await doubt_of(clock, Stamps(clock, broker_ms=-1), CHANGELOG, 2.0)
    assert "the topic positions-changelog, and every other changelog, needs message.timestamp.type" in doubt
    assert "topics check --create" in doubt


def test_what_is_appended_for_it_is_the_deletion_of_a_row_that_nobody_can_write() -> None:
    key, value, headers = DELETION
    assert (key or b"").startswith(RESERVED_PREFIX)
    assert (value, headers) == (None, ())


def test_a_bound_that_no_clock_can_keep_is_refused() -> None:
    with pytest.raises(ValueError, match="clock_apart_s"):
        EngineSettings(clock_apart_s=0)
