"""The demo says what is wrong with what it is told, before it starts anything, and does what it is told."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from streams.embedded.demo import FAULTY_SPEED, SPEED, Demo
from streams.embedded.screen import Screen
from streams.settings import Settings
from tests.stack import ROOT


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--faults", "pos:slwo", "FAULTS=pos:slwo: 'slwo' is no fault of pos; there are refuse, 500,"),
        ("--faults", "slow", "FAULTS=slow: 'slow' does not begin with who has the fault; there are payment, pos,"),
        ("--faults", "pos:slow:2", "the rate of slow is 2.0"),
        ("--day", "25:00", "DAY=25:00: it must be a time of day"),
        ("--orders", "0", "ORDERS=0: it must be at least 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_do(option: str, value: str, why: str, tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "streams.embedded.demo", option, value],
        cwd=ROOT,
        env={"DABBAWALA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert why in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "faults", "speed"),
    [(None, {}, SPEED), (None, {"pos": {"slow": 1.0}}, FAULTY_SPEED), (0.0, {}, 0.0), (60.0, {}, 60.0)],
)
def test_it_runs_as_fast_as_it_is_told_also_without_any_delay(
    given: float | None, faults: dict[str, dict[str, float]], speed: float
) -> None:
    arguments = argparse.Namespace(orders=None, seed="1", rate=1.0, day=None, faults=faults, speed=given)
    assert Demo(arguments, Settings.from_environment(), Screen({})).speed == speed
