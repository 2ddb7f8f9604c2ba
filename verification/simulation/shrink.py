"""Shrinks a failing plan to the smallest one found: fewer faults, orders, workers and drivers."""

from collections.abc import Callable, Iterator, Sequence

from verification.simulation.plan import Fault, Plan

MAX_RUNS = 300


class Shrinking:
    """Search for the smallest failing plan. ``fails`` runs a plan and returns whether it still fails."""

    def __init__(self, plan: Plan, fails: Callable[[Plan], bool], max_runs: int = MAX_RUNS) -> None:
        self.plan = plan
        self.runs = 0
        self._fails = fails
        self._max_runs = max_runs

    def run(self) -> Plan:
        """Return the smallest failing plan found."""
        before = None
        while before != self.plan and self.runs < self._max_runs:
            before = self.plan
            self._fewer_faults()
            for field in ("orders", "workers", "drivers"):
                self._fewer(field)
        return self.plan

    def _fewer_faults(self) -> None:
        """Apply delta debugging (Zeller and Hildebrandt, 2002): omit halves, then quarters, then single faults."""
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
        if self.runs >= self._max_runs or plan == self.plan:
            return False
        self.runs += 1
        if self._fails(plan):
            self.plan = plan
            return True
        return False


def _without(faults: Sequence[Fault], size: int) -> Iterator[tuple[Fault, ...]]:
    """Yield the faults without each run of ``size`` faults in turn."""
    for start in range(0, len(faults), size):
        yield (*faults[:start], *faults[start + size :])
