"""The commands that only run other programs: `make verify` and the comparison of two checkouts."""

import importlib.util
import subprocess

import pytest

import verification.__main__ as verify
from benchmarks.compare import figures


def test_every_hunt_is_a_program_of_its_own() -> None:
    commands = verify.hunts(kills=3, orders=50, minutes=0.5, seed=7)
    assert [name for name in commands if importlib.util.find_spec(commands[name][0]) is None] == []
    assert commands["simulate"][-1] == "0.5"


@pytest.mark.parametrize(("fails", "status", "ran"), [("", 0, 7), ("flow-kills", 1, 4)])
def test_verify_stops_at_the_first_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fails: str, status: int, ran: int
) -> None:
    commands = verify.hunts(1, 1, 1, 1)
    started: list[str] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        started.append(command[2])
        return subprocess.CompletedProcess(command, int(fails != "" and command[2] == commands[fails][0]))

    monkeypatch.setattr(subprocess, "run", run)
    assert verify.main([]) == status
    assert len(started) == ran
    assert capsys.readouterr().out.count(" after 0 min 0 s") == ran


def test_figures_are_read_from_a_table_of_results() -> None:
    results = """## Whole flow

|  | orders/s | ms, p50 |
| --- | ---: | ---: |
| 1 worker | 1,530 (1,500 - 1,600) | 5.14 |
| 2 workers | 2,100 |  |

A note | with a bar.
"""
    assert list(figures(results)) == [
        (("Whole flow", "1 worker", "orders/s"), 1530.0),
        (("Whole flow", "1 worker", "ms, p50"), 5.14),
        (("Whole flow", "2 workers", "orders/s"), 2100.0),
    ]
