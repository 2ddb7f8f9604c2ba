"""A day of orders: a rate for each hour, the same moments for the same seed, and an end at midnight."""

import argparse
import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from simulators.day import DAY_H, HOUR_S, ORDERS_PER_HOUR, arrivals, clock, read_curve, read_time
from tests.simulators.conftest import MakeSimulator
from tests.simulators.fake_worker import FakeWorker
from tests.simulators.test_provider import PLACE, outcomes

DAYS = range(20)


def by_hour(start: str = "00:00") -> Counter[int]:
    """Count the orders of some days by hour."""
    return Counter(
        int(second // HOUR_S) for day in DAYS for second in arrivals(ORDERS_PER_HOUR, read_time(start), f"{day}")
    )


def test_each_hour_has_its_rate_with_peaks_at_lunch_and_dinner() -> None:
    hours = by_hour()
    assert max(range(16), key=hours.__getitem__) == 13
    assert max(range(16, 24), key=hours.__getitem__) == 20
    assert hours[16] < hours[13] / 2
    for hour, expected in enumerate(ORDERS_PER_HOUR):
        assert abs(hours[hour] / len(DAYS) - expected) < 4 * (expected / len(DAYS)) ** 0.5 + 0.5


def test_arrivals_are_a_poisson_process() -> None:
    seconds = [second for day in DAYS for second in arrivals((60.0,) * DAY_H, 0, f"{day}")]
    minutes = Counter(int(second // 60) for second in seconds)
    counts = [minutes[minute] / len(DAYS) for minute in range(DAY_H * 60)]
    mean = sum(counts) / len(counts)
    variance = sum((count - mean) ** 2 for count in counts) / len(counts)
    assert mean == pytest.approx(1, abs=0.05)
    assert variance * len(DAYS) == pytest.approx(1, abs=0.2)


def test_seed_decides_the_moments_and_a_day_ends_at_midnight() -> None:
    first = list(arrivals(ORDERS_PER_HOUR, read_time("22:30"), "1"))
    assert first == list(arrivals(ORDERS_PER_HOUR, read_time("22:30"), "1"))
    assert first != list(arrivals(ORDERS_PER_HOUR, read_time("22:30"), "2"))
    assert first == sorted(first)
    assert read_time("22:30") < first[0]
    assert first[-1] < DAY_H * HOUR_S


def test_hour_without_orders_is_skipped() -> None:
    curve = (0.0,) * 23 + (30.0,)
    assert {clock(second)[:2] for second in arrivals(curve, 0, "1")} == {"23"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2]", "24 numbers"),
        ("[" + "0," * 23 + "0]", "not all 0"),
        ("lunch", "not a JSON list"),
        (None, "cannot be read"),
    ],
)
def test_invalid_curve_is_explained(text: str | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "curve.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        read_curve(str(file))


async def test_provider_follows_the_day_from_a_given_time(
    simulator: MakeSimulator, worker: FakeWorker, tmp_path: Path
) -> None:
    curve = tmp_path / "curve.json"
    curve.write_text(json.dumps([1] * 22 + [5, 20]))
    provider = simulator(
        "provider", "--worker", worker.url, "--run", "r", "--day", str(curve), "--from", "22:00", "--speed", "7200",
        "--later", "0.3",
    )  # fmt: skip
    provider.start()
    assert await provider.ended() == 0, provider.output
    expected = list(arrivals(read_curve(str(curve)), read_time("22:00"), "1"))
    assert len(outcomes(provider)) == len(worker.orders) == len(expected)
    assert re.search(rf"{len(expected)} orders: {len(expected)} accepted", provider.output)
    assert "run r from 22:00" in provider.output
    assert "past 23:00; orders per hour: 20" in provider.output
    placed = sorted(datetime.fromisoformat(call.body["at"]) for call in worker.calls(PLACE))
    took_s = (placed[-1] - placed[0]).total_seconds()
    assert took_s >= (expected[-1] - expected[0]) / 7200
    ahead = [
        datetime.fromisoformat(body["deliver_at"]) - datetime.fromisoformat(body["at"])
        for body in worker.orders.values()
        if "deliver_at" in body
    ]
    assert 0 < len(ahead) < len(expected)
    assert all(3600 - 8 <= wish.total_seconds() * 7200 <= 4 * 3600 + 8 for wish in ahead)


async def test_day_may_end_after_a_number_of_orders(simulator: MakeSimulator, worker: FakeWorker) -> None:
    provider = simulator(
        "provider", "--worker", worker.url, "--speed", "0", "--day", "--from", "12:00", "--orders", "7"
    )
    provider.start()
    assert await provider.ended() == 0, provider.output
    assert len(worker.orders) == 7
