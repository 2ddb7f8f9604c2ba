"""The demo's options: invalid values are named before anything starts, and the speed has a default."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from streams.demo.__main__ import FAULTY_SPEED, SPEED, Demo
from streams.demo.screen import Screen
from streams.local.file_lock import FileLock
from streams.settings import Settings
from tests.support.stack import ROOT


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--faults", "pos:slwo", "FAULTS=pos:slwo: 'slwo' is no fault of pos; its faults are refuse, 500,"),
        ("--faults", "slow", "FAULTS=slow: 'slow' does not begin with a party; the parties are payment, pos,"),
        ("--faults", "pos:slow:2", "the rate of slow is 2.0"),
        ("--day", "25:00", "DAY=25:00: it must be a time of day"),
        ("--orders", "0", "ORDERS=0: it must be at least 1"),
    ],
)
def test_invalid_value_is_named_with_the_valid_ones(option: str, value: str, why: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streams.demo.__main__", option, value],
        cwd=ROOT,
        env={"DABBAWALA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "faults", "speed"),
    [(None, {}, SPEED), (None, {"pos": {"slow": 1.0}}, FAULTY_SPEED), (0.0, {}, 0.0), (60.0, {}, 60.0)],
)
def test_speed_is_the_given_one_or_a_default(
    given: float | None, faults: dict[str, dict[str, float]], speed: float
) -> None:
    arguments = argparse.Namespace(orders=None, seed="1", rate=1.0, day=None, faults=faults, speed=given)
    assert Demo(arguments, Settings.from_environment(), Screen({})).speed == speed


def test_second_demo_in_a_directory_is_refused(tmp_path: Path) -> None:
    first = FileLock.try_acquire(tmp_path / "demo.lock")
    assert first is not None
    done = subprocess.run(
        [sys.executable, "-m", "streams.demo.__main__"],
        cwd=ROOT,
        env={"DABBAWALA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    first.release()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"A demo runs in {tmp_path} already: end it, or set DABBAWALA_DIR to another directory.\n"
