"""The short form of `make chaos`: a handful of faults in a run of some orders, and then the oracle finds nothing."""

from pathlib import Path

import pytest

from tests.chaos.run import Shape, run

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
async def test_a_run_in_which_much_goes_wrong_loses_no_order_and_does_nothing_twice(tmp_path: Path) -> None:
    report = await run(Shape(SEED, ORDERS, KINDS, seconds=0.5), tmp_path)
    assert not report.violations, f"seed {SEED}: " + "\n".join(report.violations)
    assert report.books["orders"] == ORDERS
    assert report.books["delivered"] + report.books["rejected"] == ORDERS
    assert report.books["needing attention"] == 0
    judged = {promise.number for promise in report.promises if promise.checked}
    assert judged >= {1, 2, 3, 4, 5, 6, 7, 9, 10}
