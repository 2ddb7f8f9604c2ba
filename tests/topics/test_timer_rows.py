"""The layout of timer rows in ``topics`` is the layout that the engine writes."""

import pytest

from exactly_once.task.timers import timer_key
from topics.timer_rows import parse_timer_key


@pytest.mark.parametrize(("due_ms", "timer_id"), [(0, b""), (1_800_000_000_000, b"p:o/charge-wait"), (1, b"\xff")])
def test_keys_of_the_engine_are_parsed(due_ms: int, timer_id: bytes) -> None:
    assert parse_timer_key(timer_key(due_ms, timer_id)) == (due_ms, timer_id)


def test_name_of_a_timer_is_text() -> None:
    assert parse_timer_key(timer_key(5, b"p:o/charge-wait")).name == "p:o/charge-wait"
    assert parse_timer_key(timer_key(5, b"\xff")).name == "\N{REPLACEMENT CHARACTER}"
