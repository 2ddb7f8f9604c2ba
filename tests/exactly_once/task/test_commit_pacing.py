"""The pause between commits: none while commits are quick, longer the slower they are."""

import pytest

from exactly_once.task.commit_pacing import LAST, CommitPacer


def after(pace: CommitPacer, *took_ms: float, began_s: float = 0.0) -> float:
    """Return the pause in milliseconds after commits of these durations, one per second."""
    for number, took in enumerate(took_ms):
        pace.committed(took / 1000, began_s + number)
    return 1000 * pace.pause_s


def test_quick_commits_need_no_pause() -> None:
    assert after(CommitPacer(0, 25)) == 0
    assert after(CommitPacer(0, 25), *[3.0, 4.0, 5.5, 3.2] * 5) == 0


def test_slower_commits_lengthen_the_pause_up_to_the_maximum() -> None:
    assert after(CommitPacer(0, 25), 3, *[8.0] * LAST) == pytest.approx(4, rel=0.1)
    assert after(CommitPacer(0, 25), 3, *[12.0] * LAST) == pytest.approx(12, rel=0.1)
    assert after(CommitPacer(0, 25), 3, *[100.0] * LAST) == 25


def test_a_few_slow_commits_cause_no_pause() -> None:
    assert after(CommitPacer(0, 25), *[3.0] * LAST, *[60.0] * (LAST // 2)) == 0


def test_the_pause_ends_when_commits_are_quick_again() -> None:
    pace = CommitPacer(0, 25)
    assert after(pace, 3, *[50.0] * 20) == 25
    assert after(pace, *[3.0] * LAST, began_s=30) == 0


def test_the_pause_adapts_to_a_slower_cluster() -> None:
    pace = CommitPacer(0, 25)
    assert after(pace, 3, *[10.0] * LAST) > 0
    assert after(pace, *[10.0] * LAST, began_s=3600) == 0


def test_the_pause_has_a_minimum() -> None:
    assert after(CommitPacer(4, 25), *[3.0] * LAST) == 4
    assert after(CommitPacer(30, 25), *[100.0] * LAST) == 30
