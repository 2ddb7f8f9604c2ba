"""Rates: each holder has a quota, told in the answer, and one who exceeds it slows nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.access.keys import RATES, Identity, Role
from streams.web import rates
from streams.web.problems import Problem
from streams.web.rates import UNKNOWN_RATE, WINDOW_S, Quota, Rates

SHOP = Identity("shop-1", Role.PROVIDER, "shop", rate=5.0)
OTHER = Identity("other-1", Role.PROVIDER, "other", rate=5.0)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal_of(counted: Rates, sender: Identity) -> Problem:
    """Return the problem of a request that is refused."""
    with pytest.raises(Problem) as refused:
        counted.take(sender)
    return refused.value


def test_a_quota_is_used_up_and_fills_again() -> None:
    clock = Clock()
    counted = Rates(clock)
    assert [counted.take(SHOP).remaining for _ in range(10)] == list(range(9, -1, -1))
    refused = refusal_of(counted, SHOP)
    assert refused.status == 429
    assert refused.detail.startswith("the key shop-1: more than 5 requests a second")
    assert refused.headers == {
        "Retry-After": "1",
        "RateLimit-Policy": '"key";q=10;w=2',
        "RateLimit": '"key";r=0;t=2',
    }
    clock.now += 0.2
    assert counted.take(SHOP).remaining == 0
    clock.now += 100
    assert counted.take(SHOP) == Quota(10, 9, 0.2)


def test_holders_have_quotas_of_their_own() -> None:
    counted = Rates(Clock())
    for _ in range(10):
        counted.take(SHOP)
    refusal_of(counted, SHOP)
    assert counted.take(OTHER).remaining == 9
    assert counted.take_unknown("10.0.0.1").remaining == UNKNOWN_RATE * WINDOW_S - 1


@pytest.mark.parametrize("role", Role)
def test_a_key_without_a_rate_has_that_of_its_role(role: Role) -> None:
    assert Rates(Clock()).take(Identity("k", role)).limit == RATES[role] * WINDOW_S


@given(
    rate=st.floats(0.05, 1000),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_no_window_admits_more_than_quota_and_rate(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    counted, admitted = Rates(clock), list[float]()
    sender = Identity("k", Role.PROVIDER, rate=rate)
    for pause in pauses:
        clock.now += pause
        try:
            quota = counted.take(sender)
        except Problem:
            continue
        assert 0 <= quota.remaining < quota.limit
        admitted.append(clock.now)
    limit = max(1, int(rate * WINDOW_S))
    for first, start in enumerate(admitted):
        for count, end in enumerate(admitted[first:], 1):
            assert count <= limit + (end - start) * rate + 1e-3


def test_what_is_kept_of_strangers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_HOLDERS", 100)
    clock = Clock()
    counted = Rates(clock)
    for number in range(1000):
        counted.take_unknown(f"10.0.0.{number}")
        clock.now += 0.01
    assert len(counted._full_at) <= 101
