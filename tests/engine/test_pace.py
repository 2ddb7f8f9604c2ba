"""The pause between commits: none while they are quick, longer the more they are held up."""

import pytest

from streams.engine.pace import LAST, Pace


def after(pace: Pace, *took_ms: float, began_s: float = 0.0) -> float:
    """The pause in milliseconds once commits took so long, one a second."""
    for number, took in enumerate(took_ms):
        pace.committed(took / 1000, began_s + number)
    return 1000 * pace.pause_s


def test_while_commits_are_quick_there_is_none() -> None:
    assert after(Pace(0, 25)) == 0
    assert after(Pace(0, 25), *[3.0, 4.0, 5.5, 3.2] * 5) == 0


def test_the_longer_they_are_held_up_the_longer_it_is_up_to_the_most() -> None:
    assert after(Pace(0, 25), 3, *[8.0] * LAST) == pytest.approx(4, rel=0.1)
    assert after(Pace(0, 25), 3, *[12.0] * LAST) == pytest.approx(12, rel=0.1)
    assert after(Pace(0, 25), 3, *[100.0] * LAST) == 25


def test_a_few_slow_ones_mean_nothing() -> None:
    assert after(Pace(0, 25), *[3.0] * LAST, *[60.0] * (LAST // 2)) == 0


def test_when_they_are_quick_again_it_goes() -> None:
    pace = Pace(0, 25)
    assert after(pace, 3, *[50.0] * 20) == 25
    assert after(pace, *[3.0] * LAST, began_s=30) == 0


def test_a_cluster_that_has_become_slower_is_got_used_to() -> None:
    pace = Pace(0, 25)
    assert after(pace, 3, *[10.0] * LAST) > 0
    assert after(pace, *[10.0] * LAST, began_s=3600) == 0


def test_there_is_a_least() -> None:
    assert after(Pace(4, 25), *[3.0] * LAST) == 4
    assert after(Pace(30, 25), *[100.0] * LAST) == 30
