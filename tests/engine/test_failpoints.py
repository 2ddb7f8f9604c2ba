"""Faults on demand, and none without."""

from collections.abc import Callable

import pytest

from streams.engine.failpoints import ACTIONS, NAMES, FailpointError, Failpoints, from_environment, no_failpoint


def test_without_the_variable_nothing_happens() -> None:
    assert from_environment({}) is no_failpoint
    assert from_environment({"DABBAWALA_FAILPOINTS": ""}) is no_failpoint


def test_every_nth_passage_is_hit() -> None:
    passed = from_environment({"DABBAWALA_FAILPOINTS": "committed:raise:3, stored:cut:1"})
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
    ("wanted", "said"),
    [
        ("committed", "'committed' is not name:action:every"),
        ("committed:kill:0", "a number from 1"),
        ("committed:kill:often", "a number from 1"),
        ("commited:kill:1", "there is no failpoint 'commited'; there are opening, "),
        ("committed:explode:1", "there is no action 'explode'; there are stop, "),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence(wanted: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"DABBAWALA_FAILPOINTS: .*{said}"):
        from_environment({"DABBAWALA_FAILPOINTS": wanted})


def test_all_names_and_actions_are_accepted() -> None:
    for name in NAMES:
        for action in ACTIONS:
            Failpoints(f"{name}:{action}:1000000").passed(name, lambda: None)
