"""What a check comes back with."""

from collections.abc import Iterable
from typing import NamedTuple


class Violation(NamedTuple):
    """Something that was promised not to be. ``sentence`` names the order and the evidence."""

    about: str
    """An order, a driver, a partition."""
    sentence: str


class Finding(NamedTuple):
    """What a check found: how many things it looked at, and what is wrong with them. ``unjudged`` says what it could
    not look at and why; empty if nothing."""

    checked: int
    violations: list[Violation]
    unjudged: str = ""

    def __add__(self, other: object) -> "Finding":
        """Both, of the same promise."""
        assert isinstance(other, Finding)
        reasons = dict.fromkeys(reason for reason in (self.unjudged, other.unjudged) if reason)
        return Finding(self.checked + other.checked, self.violations + other.violations, "; ".join(reasons))


def found(checked: int, violations: Iterable[Violation]) -> Finding:
    """A finding of a check that has looked at everything."""
    return Finding(checked, list(violations))


def no_ledger(name: str) -> Finding:
    """A finding of a check that needs a ledger which nobody keeps."""
    return Finding(0, [], f"there is no {name}.jsonl")
