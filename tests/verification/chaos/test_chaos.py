"""The short form of `make chaos`: a few faults in a short run of orders, and the oracle finds no violation."""

from pathlib import Path

import pytest

from oracle.facts import Facts, Period
from oracle.report import report_of
from verification.chaos.run import JUDGED, Shape, run, wrong_with

SEED, ORDERS = 4, 60
KINDS = (
    "kill a worker",
    "freeze a worker",
    "freeze a worker at end_sent",
    "kill a worker between Assign and DriverAssigned",
    "kill the broker",
    "line to the broker delivers what is asked and swallows what is answered",
    "kill the payment provider",
    "kill the points of sale",
    "wipe the tables",
    "clock jumps",
    "poison",
)


@pytest.mark.timeout(900)
async def test_a_chaos_run_loses_and_repeats_nothing(tmp_path: Path) -> None:
    report = await run(Shape(SEED, ORDERS, KINDS, seconds=0.5), tmp_path)
    assert not wrong_with(report), f"seed {SEED}: " + "\n".join(wrong_with(report))
    assert report.books["orders"] == ORDERS
    assert report.books["delivered"] + report.books["rejected"] == ORDERS
    assert report.books["needing attention"] == 0


def test_a_run_without_checks_is_a_failure() -> None:
    found = wrong_with(report_of(Facts(Period(now_ms=0, final=True, patience_ms=0))))
    assert found == [f"promise {number} was not judged" for number in sorted(JUDGED)]
