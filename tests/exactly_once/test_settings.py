"""Impossible settings are refused by name."""

import pytest

from exactly_once import EngineSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"commit_deadline_s": 10.0}, r"commit_deadline_s \(10.0\) must be below transaction_timeout_s"),
        ({"buffer_bytes": 0}, "buffer_bytes must be at least 1, not 0"),
        ({"timer_head": 0}, "timer_head must be at least 1"),
        ({"calls_at_once": -1}, "calls_at_once must be at least 1"),
        ({"commit_gap_ms": -1}, "commit_gap_ms must not be negative"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineSettings(**wrong)  # type: ignore[arg-type]
