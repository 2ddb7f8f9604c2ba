"""Simulated worlds have no violations and replay exactly; with a planted bug they have violations."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.stack import ROOT
from verification.planted.catalogue import BUGS, plant
from verification.simulation.__main__ import main
from verification.simulation.explore import explain, explore
from verification.simulation.plan import Fault, Plan, draw
from verification.simulation.shrink import Shrinking
from verification.simulation.world import run

SECONDS = 60.0
SEEDS_FOR_A_BUG = 150
"""Number of worlds within which each planted bug is found. Ten are usually enough."""
MIN_WORLDS = 51
"""Number of worlds that run even if a busy machine needs longer than `SECONDS`."""


def test_the_worlds_of_a_minute_have_no_violation(record_property: Callable[[str, object], None]) -> None:
    base = secrets.randbelow(10**9)
    explored = explore(base, SECONDS, least=MIN_WORLDS)
    record_property("summary", f"{explored}, from seed {base} on")
    if explored.failed is not None:
        pytest.fail(explain(explored.failed), pytrace=False)


@pytest.mark.parametrize("seed", [1, 30, 57])
def test_a_seed_is_the_same_world_in_any_process(seed: int) -> None:
    here = run(draw(seed), keep_log=True)
    assert run(draw(seed), keep_log=True) == here
    done = subprocess.run(
        [sys.executable, "-m", "verification.simulation", "--seed", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert here.trace in done.stdout, done.stdout + done.stderr


def test_other_seeds_are_other_worlds() -> None:
    assert len({run(draw(seed)).trace for seed in range(5)}) == 5


@pytest.mark.parametrize("name", [bug.name for bug in BUGS.values() if bug.breaks != 11])  # no intruder comes here
def test_a_planted_bug_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    with plant(name):
        explored = explore(0, float("inf"), most=SEEDS_FOR_A_BUG)
    assert explored.failed is not None, f"{name} is not found in {explored.worlds} worlds"
    record_property("summary", f"simulation: {name} found in {explored.worlds} worlds: {explored.failed.wrong[0]}")


def test_a_failing_plan_is_shortened_and_replays(capsys: pytest.CaptureFixture[str]) -> None:
    with plant("disk-before-commit"):
        failed = explore(0, float("inf"), most=SEEDS_FOR_A_BUG).failed
        assert failed is not None
        explanation = explain(failed)
    command = explanation.splitlines()[-1]
    assert len(command.partition("--faults ")[2].split(",")) <= 2, explanation
    arguments = [argument.strip("'") for argument in command.split()[3:]]
    assert main([*arguments, "--planted", "disk-before-commit"]) == 1
    shown = capsys.readouterr().out
    assert all(wrong.strip() in shown for wrong in explanation.partition("shortened")[2].splitlines()[1:-1])
    assert main(arguments) == 0, "without the bug there is no violation"


def test_shortening_keeps_only_what_is_needed_to_fail() -> None:
    faults = tuple(Fault("end", number, "lost") for number in range(20))
    plan = Plan(1, orders=3, workers=3, partitions=1, drivers=2, faults=faults)

    def fails(plan: Plan) -> bool:
        return {faults[3], faults[17]} <= set(plan.faults) and plan.workers > 1

    shortest = Shrinking(plan, fails).run()
    assert shortest == plan._replace(orders=1, workers=2, drivers=1, faults=(faults[3], faults[17]))


def test_a_fault_is_written_as_it_is_read() -> None:
    for fault in (fault for seed in range(50) for fault in draw(seed).faults):
        assert Fault.read(str(fault)) == fault
    with pytest.raises(ValueError, match="is no fault"):
        Fault.read("end=lost")


SILENT_DRIVER = "join#2=unanswered,join#4=lost-silent,order#1=misplaced,worker-1#607=freeze:33.6"


@pytest.mark.parametrize(("seed", "orders", "workers", "drivers", "faults"), [(690300418, 2, 3, 2, SILENT_DRIVER)])
def test_a_fixed_plan_stays_fixed(seed: int, orders: int, workers: int, drivers: int, faults: str) -> None:
    found = tuple(Fault.read(fault) for fault in faults.split(","))
    plan = draw(seed)._replace(orders=orders, workers=workers, drivers=drivers, faults=found)
    assert run(plan).wrong == ()
