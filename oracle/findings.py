"""Results of the checks."""

from collections.abc import Iterable
from typing import NamedTuple


class Violation(NamedTuple):
    """A violation of a promise."""

    about: str
    """Name of the order, timer, partition or record."""
    sentence: str
    """Sentence that names the order and the evidence."""


class Finding(NamedTuple):
    """Result of a check."""

    checked: int
    """Number of things that were checked."""
    violations: list[Violation]
    unjudged: str = ""
    """Sentence about what could not be checked, and the reason; empty if everything was checked."""

    def __add__(self, other: object) -> "Finding":
        """Join two findings of one promise."""
        assert isinstance(other, Finding)
        reasons = dict.fromkeys(reason for reason in (self.unjudged, other.unjudged) if reason)
        return Finding(self.checked + other.checked, self.violations + other.violations, "; ".join(reasons))


def finding(checked: int, violations: Iterable[Violation]) -> Finding:
    """Return the finding of a check that could check everything."""
    return Finding(checked, list(violations))


def unknown_speed(names: Iterable[str]) -> str:
    """Return the sentence that the waits of these orders are not judged; empty without orders."""
    ordered = sorted(names)
    if not ordered:
        return ""
    orders = ordered[0] if len(ordered) == 1 else f"{len(ordered)} orders, {ordered[0]} .. {ordered[-1]}"
    return f"the waits of {orders}: the speed changed during the order's life, or is not on record"


def no_ledger(name: str) -> Finding:
    """Return the finding of a check whose ledger does not exist."""
    return Finding(0, [], f"there is no {name}.jsonl")
