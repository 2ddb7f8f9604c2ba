"""The list of calls."""

import pytest

from exactly_once import DestinationState
from streams.views.calls import _held_back


@pytest.mark.parametrize(
    ("failures", "reason"), [(1, "its party failed once"), (2, "its party failed 2 times in a row")]
)
def test_call_held_back_names_the_failures_before(failures: int, reason: str) -> None:
    party = DestinationState(
        party="charges http://bank/v1/charges",
        host="bank",
        state="half-open",
        running=1,
        waiting=1,
        window=1,
        failures=failures,
        silent_s=0.0,
        tried_in_s=0.0,
        last_error="status 500",
    )
    assert _held_back(party) == reason
