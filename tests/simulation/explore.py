"""Runs the worlds of one seed after the other, and says shortly what went wrong in the first that is not sound."""

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.planted.catalogue import plant
from tests.simulation.plan import draw
from tests.simulation.shrink import Shrinking
from tests.simulation.world import Result, run

COLLECTED_EVERY = 20


class Explored(NamedTuple):
    """How many worlds were run, in how many seconds, and the first that failed."""

    worlds: int
    seconds: float
    failed: Result | None

    def __str__(self) -> str:
        return f"{self.worlds} simulated worlds in {self.seconds:.0f} s, {self.worlds / self.seconds:.1f} a second"


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Without Python looking for garbage in the middle of a world; most of its time would go there."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def explore(base: int, seconds: float, step: int = 1, most: int | None = None) -> Explored:
    """Seeds from ``base`` on, until one fails, the time is over, or there were ``most``."""
    began, worlds = time.perf_counter(), 0
    with quick():
        while (spent_s := time.perf_counter() - began) < seconds and worlds != most:
            result = run(draw(base + worlds * step))
            worlds += 1
            if result.wrong:
                return Explored(worlds, time.perf_counter() - began, result)
            if worlds % COLLECTED_EVERY == 0:
                gc.collect()
    return Explored(worlds, spent_s, None)


def explain(failed: Result) -> str:
    """What is wrong, and the shortest plan that shows it."""
    shortest = run(Shrinking(failed.plan, lambda plan: bool(run(plan).wrong)).run())
    return "\n".join(
        [
            f"seed {failed.plan.seed}, {len(failed.plan.faults)} faults:",
            *(f"  {wrong}" for wrong in failed.wrong),
            f"shortened to {len(shortest.plan.faults)} faults:",
            *(f"  {wrong}" for wrong in shortest.wrong),
            shortest.plan.command,
        ]
    )


def explore_and_explain(base: int, seconds: float, step: int, planted: str | None) -> tuple[Explored, str]:
    """What one of several processes does; with a bug of ``tests.planted``."""
    with plant(planted) if planted else contextlib.nullcontext():
        explored = explore(base, seconds, step)
        return explored._replace(failed=None), explain(explored.failed) if explored.failed else ""
