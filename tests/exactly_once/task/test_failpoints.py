"""Failpoints inject faults only if the environment asks for them."""

from collections.abc import Callable

import pytest

from exactly_once.task.failpoints import ACTIONS, NAMES, FailpointError, Failpoints, no_failpoint, parse_failpoints


def test_failpoints_are_off_without_the_variable() -> None:
    assert parse_failpoints("") is no_failpoint


def test_every_nth_passage_is_hit() -> None:
    passed = parse_failpoints("committed:raise:3, stored:cut:1")
    cuts: list[int] = []
    cut: Callable[[], None] = lambda: cuts.append(1)  # noqa: E731
    for n in range(1, 10):
        if n % 3:
            passed("committed", cut)
        else:
            with pytest.raises(FailpointError, match="committed"):
                passed("committed", cut)
    passed("opening", cut)
    assert cuts == []
    passed("stored", cut)
    assert cuts == [1]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("committed", "'committed' is not name:action:every"),
        ("committed:kill:0", "a number from 1"),
        ("committed:kill:often", "a number from 1"),
        ("commited:kill:1", "there is no failpoint 'commited'; there are opening, "),
        ("committed:explode:1", "there is no action 'explode'; there are stop, "),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"failpoints: .*{message}"):
        parse_failpoints(wanted)


def test_all_names_and_actions_are_accepted() -> None:
    for name in NAMES:
        for action in ACTIONS:
            Failpoints(f"{name}:{action}:1000000").passed(name, lambda: None)
