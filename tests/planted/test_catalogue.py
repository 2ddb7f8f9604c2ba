"""Each bug of the catalogue changes the product, and is gone afterwards; one that would change nothing raises."""

from typing import Any
from unittest.mock import patch

import pytest

from processors import delivery, dispatch, order, payment, restaurant
from processors.decision import Table
from streams.engine.calls import CallRunner
from streams.engine.changes import Changes
from streams.engine.engine import Engine
from streams.engine.task import Task
from streams.engine.timers import TimerHead
from tests.planted.catalogue import BUGS, UnknownBug, plant

PLACES: tuple[Any, ...] = (Task, Changes, TimerHead, CallRunner, Engine, order.Wait)
PLACES += (order, payment, restaurant, delivery, dispatch)
WANTED = {
    "offsets-before-outputs",
    "output-dropped",
    "changelog-record-dropped",
    "charge-without-key",
    "new-key-on-retry",
    "duplicate-applied-twice",
    "timer-fired-early",
    "timer-lost",
    "disk-before-commit",
    "zombie-commits",
    "driver-assigned-twice",
    "early-callback-lost",
}


def product() -> list[dict[str, Any]]:
    """Everything that a bug may change."""
    return [dict(vars(place)) for place in PLACES]


def test_the_catalogue_has_every_bug_that_is_wanted() -> None:
    assert set(BUGS) >= WANTED


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_there_within_its_block_and_nowhere_else(name: str) -> None:
    before = product()
    with plant(name):
        assert product() != before
    assert product() == before
    assert BUGS[name].what.endswith(".")
    assert BUGS[name].breaks in range(1, 13)


@pytest.mark.parametrize(
    ("name", "place", "target"),
    [
        ("output-dropped", Changes, "emit"),
        ("timer-fired-early", order.Wait, "timer"),
        ("timer-lost", TimerHead, "committed"),
        ("new-key-on-retry", CallRunner, "_attempt"),
        ("zombie-commits", Engine, "_transactional_client"),
        ("zombie-commits", Task, "prove_ownership"),
    ],
)
def test_a_bug_whose_target_is_gone_raises(name: str, place: Any, target: str) -> None:
    kept = vars(place)[target]
    delattr(place, target)
    try:
        with pytest.raises(AttributeError), plant(name):
            pass
    finally:
        setattr(place, target, kept)


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("refund-forgotten", order),
        ("attention-lost", order),
        ("duplicate-applied-twice", payment),
        ("driver-assigned-twice", dispatch),
        ("driver-assigned-twice", delivery),
    ],
)
def test_a_bug_whose_transition_is_gone_raises(name: str, machine: Any) -> None:
    with (
        patch.object(machine, "TABLE", Table(machine.TABLE.name, ())),
        pytest.raises(LookupError),
        plant(name),
    ):
        pass


def test_a_bug_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownBug, match="timer-lost"):
        plant("sunspots")
