"""Runs the worlds of successive seeds until one fails, and explains its failure by a plan as short as possible."""

import contextlib
import gc
import time
from collections.abc import Iterator
from typing import NamedTuple

from verification.planted.catalogue import plant
from verification.simulation.plan import draw
from verification.simulation.shrink import Shrinking
from verification.simulation.world import Result, run

WORLDS_PER_COLLECTION = 20


class Explored(NamedTuple):
    """Number of worlds that were run, the seconds they took, and the first world that failed."""

    worlds: int
    seconds: float
    failed: Result | None

    def __str__(self) -> str:
        return f"{self.worlds} simulated worlds in {self.seconds:.0f} s, {self.worlds / self.seconds:.1f} a second"


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection within the block; otherwise a world spends most of its time there."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def explore(base: int, seconds: float, step: int = 1, *, least: int = 0, most: int | None = None) -> Explored:
    """Run the seeds from ``base`` on until one fails, ``most`` worlds were run, or the time is over.

    At least ``least`` worlds are run, even if they take longer than ``seconds``.
    """
    began, worlds = time.perf_counter(), 0
    with without_garbage_collection():
        while ((spent_s := time.perf_counter() - began) < seconds or worlds < least) and worlds != most:
            result = run(draw(base + worlds * step))
            worlds += 1
            if result.wrong:
                return Explored(worlds, time.perf_counter() - began, result)
            if worlds % WORLDS_PER_COLLECTION == 0:
                gc.collect()
    return Explored(worlds, spent_s, None)


def explain(failed: Result) -> str:
    """Return the violations of a failed world, the shortest plan that still fails, and its command line."""
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
    """Explore in one of several processes, with a bug of ``verification.planted`` if named; explain a failure."""
    with plant(planted) if planted else contextlib.nullcontext():
        explored = explore(base, seconds, step)
        return explored._replace(failed=None), explain(explored.failed) if explored.failed else ""
