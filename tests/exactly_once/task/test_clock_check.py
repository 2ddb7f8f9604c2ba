"""Check of a machine's clock against the broker's when a task opens."""

from collections.abc import Mapping, Sequence

import pytest

from exactly_once.settings import EngineSettings
from exactly_once.task.clock_check import PROBE, clock_skew_error
from exactly_once.task.interfaces import RESERVED_PREFIX
from exactly_once.task.transaction import ProduceResult, ProducerRecord
from tests.exactly_once.fakes import FakeClock

CHANGELOG = ("positions-changelog", 3)
BROKER_MS = 1_000_000


class Stamps:
    """A broker whose clock does not move."""

    def __init__(self, clock: FakeClock, broker_ms: int = BROKER_MS, takes_ms: int = 0) -> None:
        self._broker_ms = broker_ms
        self.ended = 0
        self.produced: list[tuple[str, int]] = []
        self._clock = clock
        self._takes_ms = takes_ms

    async def produce(
        self, outputs: Mapping[tuple[str, int], Sequence[ProducerRecord]]
    ) -> dict[tuple[str, int], ProduceResult]:
        assert list(outputs.values()) == [[PROBE]]
        self.produced += outputs
        self._clock.ms += self._takes_ms
        return {CHANGELOG: ProduceResult(1, self._broker_ms)}

    async def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("apart_ms", [0, 1999, 2000, -2000])
async def test_a_clock_near_the_brokers_is_accepted(apart_ms: int) -> None:
    clock = FakeClock(BROKER_MS + apart_ms)
    stamps = Stamps(clock)
    assert await clock_skew_error(clock, stamps, CHANGELOG, 2.0) == ""
    assert (stamps.produced, stamps.ended) == ([CHANGELOG], 1), "one transaction, which has ended"


@pytest.mark.parametrize(
    ("apart_ms", "how"), [(2001, "2.0 s ahead of"), (3_600_000, "3600.0 s ahead of"), (-3_600_000, "3600.0 s behind")]
)
async def test_a_skewed_clock_is_rejected_with_a_remedy(apart_ms: int, how: str) -> None:
    clock = FakeClock(BROKER_MS + apart_ms)
    stamps = Stamps(clock)
    doubt = await clock_skew_error(clock, stamps, CHANGELOG, 2.0)
    assert doubt == (
        f"this machine's clock is {how} the broker's, set right the one that is wrong: at most 2 s will do"
    )
    assert stamps.ended == 1


@pytest.mark.parametrize(("began_ms", "doubted"), [(-9_000, False), (-12_001, True), (2_001, True)])
async def test_a_slow_answer_is_no_error(began_ms: int, doubted: bool) -> None:
    """The answer takes 10 s, and the broker may have appended the probe at any time in between."""
    clock = FakeClock(BROKER_MS + began_ms)
    assert bool(await clock_skew_error(clock, Stamps(clock, takes_ms=10_000), CHANGELOG, 2.0)) is doubted


async def test_a_broker_without_a_timestamp_is_an_error() -> None:
    clock = FakeClock()
    doubt = await clock_skew_error(clock, Stamps(clock, broker_ms=-1), CHANGELOG, 2.0)
    assert "the topic positions-changelog, and every other changelog, needs message.timestamp.type" in doubt
    assert "message.timestamp.type=LogAppendTime" in doubt


def test_the_probe_is_a_tombstone_of_a_reserved_key() -> None:
    key, value, headers = PROBE
    assert (key or b"").startswith(RESERVED_PREFIX)
    assert (value, headers) == (None, ())


def test_an_unattainable_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="clock_apart_s"):
        EngineSettings(clock_apart_s=0)
