"""Makes a plan that fails as short as it gets: fewer faults, fewer orders, workers and drivers."""

from collections.abc import Callable, Iterator, Sequence

from tests.simulation.plan import Fault, Plan

MOST_RUNS = 300


class Shrinking:
    """``fails`` runs a plan and tells whether it still does."""

    def __init__(self, plan: Plan, fails: Callable[[Plan], bool], most_runs: int = MOST_RUNS) -> None:
        self.plan = plan
        self.runs = 0
        self._fails, self._most_runs = fails, most_runs

    def run(self) -> Plan:
        """The shortest that was found."""
        before = None
        while before != self.plan and self.runs < self._most_runs:
            before = self.plan
            self._fewer_faults()
            for field in ("orders", "workers", "drivers"):
                self._fewer(field)
        return self.plan

    def _fewer_faults(self) -> None:
        """Delta debugging (Zeller and Hildebrandt, 2002): leave out halves, then quarters, then one by one."""
        size = max(1, len(self.plan.faults) // 2)
        while True:
            while any(self._try(self.plan._replace(faults=kept)) for kept in _without(self.plan.faults, size)):
                size = min(size, max(1, len(self.plan.faults)))
            if size == 1:
                return
            size //= 2

    def _fewer(self, field: str) -> None:
        for count in range(1, getattr(self.plan, field)):
            if self._try(self.plan._replace(**{field: count})):  # type: ignore[arg-type]
                return

    def _try(self, plan: Plan) -> bool:
        if self.runs >= self._most_runs or plan == self.plan:
            return False
        self.runs += 1
        if self._fails(plan):
            self.plan = plan
            return True
        return False


def _without(faults: Sequence[Fault], size: int) -> Iterator[tuple[Fault, ...]]:
    """Without so many of them, in turn."""
    for start in range(0, len(faults), size):
        yield (*faults[:start], *faults[start + size :])
