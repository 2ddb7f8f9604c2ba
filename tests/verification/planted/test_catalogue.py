"""Each bug of the catalogue changes the product within its block only; a bug without a target raises."""

from typing import Any
from unittest.mock import patch

import pytest

from exactly_once.calls.runner import CallRunner
from exactly_once.engine import Engine
from exactly_once.task.task import Task
from exactly_once.task.timers import TimerHead
from exactly_once.task.transaction import PendingTransaction
from processors import delivery, dispatch, order, payment, ticket, workflow
from processors.decision import Table
from streams.access.rules import RULES
from streams.access.tokens import Tokens
from streams.web.masking import PERSONAL
from verification.planted.catalogue import BUGS, UnknownBug, plant

PLACES: tuple[Any, ...] = (Task, PendingTransaction, TimerHead, CallRunner, Engine, order.Wait)
PLACES += (Tokens, order, payment, ticket, delivery, dispatch, workflow)
WANTED = {
    "offsets-before-outputs",
    "output-dropped",
    "changelog-record-dropped",
    "charge-without-key",
    "new-key-on-retry",
    "duplicate-applied-twice",
    "callback-believed",
    "timer-fired-early",
    "timer-lost",
    "disk-before-commit",
    "zombie-commits",
    "driver-assigned-twice",
    "early-callback-lost",
    "route-unchecked",
    "capability-not-compared",
    "mask-forgotten",
}


def product() -> list[dict[str, Any]]:
    """Return everything that a bug may change."""
    return [*(dict(vars(place)) for place in PLACES), dict(RULES), dict(PERSONAL)]


def test_the_catalogue_has_every_wanted_bug() -> None:
    assert set(BUGS) >= WANTED


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_exists_only_within_its_block(name: str) -> None:
    before = product()
    with plant(name):
        assert product() != before
    assert product() == before
    assert BUGS[name].what.endswith(".")
    assert BUGS[name].breaks in range(1, 13)


@pytest.mark.parametrize(
    ("name", "place", "target"),
    [
        ("output-dropped", PendingTransaction, "emit"),
        ("timer-fired-early", order.Wait, "timer"),
        ("timer-lost", TimerHead, "committed"),
        ("new-key-on-retry", CallRunner, "_attempt"),
        ("driver-assigned-twice", dispatch, "assign_oldest"),
        ("callback-believed", workflow, "PaymentReported"),
        ("zombie-commits", Engine, "_transactional_client"),
        ("zombie-commits", Task, "verify_ownership_for_call"),
    ],
)
def test_a_bug_without_its_target_raises(name: str, place: Any, target: str) -> None:
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
        ("driver-assigned-twice", delivery),
    ],
)
def test_a_bug_without_its_transition_raises(name: str, machine: Any) -> None:
    with (
        patch.object(machine, "TABLE", Table(machine.TABLE.name, ())),
        pytest.raises(LookupError),
        plant(name),
    ):
        pass


def test_an_unknown_bug_lists_the_known_ones() -> None:
    with pytest.raises(UnknownBug, match="timer-lost"):
        plant("sunspots")
