"""Simulated worlds are sound, replay exactly, and are not sound where the product is broken on purpose."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.planted.catalogue import BUGS, plant
from tests.simulation.__main__ import main
from tests.simulation.explore import explain, explore
from tests.simulation.plan import Fault, Plan, draw
from tests.simulation.shrink import Shrinking
from tests.simulation.world import run
from tests.stack import ROOT

SECONDS = 120.0
SEEDS_FOR_A_BUG = 150
"""Within so many worlds each planted bug is found; it takes some ten."""


def test_as_many_worlds_as_two_minutes_give_are_sound(record_property: Callable[[str, object], None]) -> None:
    base = secrets.randbelow(10**9)
    explored = explore(base, SECONDS)
    record_property("summary", f"{explored}, from seed {base} on")
    if explored.failed is not None:
        pytest.fail(explain(explored.failed), pytrace=False)
    assert explored.worlds > 50


@pytest.mark.parametrize("seed", [1, 30, 57])
def test_a_seed_is_the_same_world_again_also_in_another_process(seed: int) -> None:
    here = run(draw(seed), keep_log=True)
    assert run(draw(seed), keep_log=True) == here
    told = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert here.trace in told.stdout, told.stdout + told.stderr


def test_other_seeds_are_other_worlds() -> None:
    assert len({run(draw(seed)).trace for seed in range(5)}) == 5


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    with plant(name):
        explored = explore(0, float("inf"), most=SEEDS_FOR_A_BUG)
    assert explored.failed is not None, f"{name} is not found in {explored.worlds} worlds"
    record_property("summary", f"simulation: {name} found in {explored.worlds} worlds: {explored.failed.wrong[0]}")


def test_a_plan_that_fails_is_shortened_and_replays(capsys: pytest.CaptureFixture[str]) -> None:
    with plant("disk-before-commit"):
        failed = explore(0, float("inf"), most=SEEDS_FOR_A_BUG).failed
        assert failed is not None
        told = explain(failed)
    command = told.splitlines()[-1]
    assert len(command.partition("--faults ")[2].split(",")) <= 2, told
    arguments = [argument.strip("'") for argument in command.split()[3:]]
    assert main([*arguments, "--planted", "disk-before-commit"]) == 1
    shown = capsys.readouterr().out
    assert all(wrong.strip() in shown for wrong in told.partition("shortened")[2].splitlines()[1:-1])
    assert main(arguments) == 0, "without the bug it is sound"


def test_shortening_leaves_what_matters_and_nothing_else() -> None:
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
def test_what_was_once_found_stays_mended(seed: int, orders: int, workers: int, drivers: int, faults: str) -> None:
    found = tuple(Fault.read(fault) for fault in faults.split(","))
    plan = draw(seed)._replace(orders=orders, workers=workers, drivers=drivers, faults=found)
    assert run(plan).wrong == ()
