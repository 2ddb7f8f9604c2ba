"""Rates of requests: each holder of a key has a quota, so that none takes the time of the others.

A quota is a token bucket: it holds what `WINDOW_S` seconds of its rate fill, and a request takes one token. Each worker
counts for itself. Answers tell the quota in the fields `RateLimit-Policy` and `RateLimit`
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers).
"""

from collections.abc import Callable, Mapping
from math import ceil
from typing import NamedTuple

from streams.access.keys import RATES, Identity
from streams.web.problems import Problem

WINDOW_S = 2.0
"""Seconds that a holder may save up: a quota is this many times its rate."""
UNKNOWN_RATE = 20.0
"""Requests a second without a valid key, from one address."""
ROUNDING = 1e-6
"""Part of a token that rounding may take away."""
MAX_HOLDERS = 10_000
"""Holders that are counted at a time. Beyond it, those that have a full quota are forgotten."""


class Quota(NamedTuple):
    """The quota of a holder after a request."""

    limit: int
    remaining: int
    full_in_s: float
    """Time until the quota is full again."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The fields of an answer."""
        return {
            "RateLimit-Policy": f'"key";q={self.limit};w={WINDOW_S:.0f}',
            "RateLimit": f'"key";r={self.remaining};t={ceil(self.full_in_s - ROUNDING)}',
        }


class Rates:
    """The quotas of all holders at one worker, counted by the generic cell rate algorithm."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds, and never goes back."""
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """Holder -> the moment at which its quota is full again."""

    def take(self, sender: Identity) -> Quota:
        """Count a request of a sender. Raises a 429 problem if the sender's quota is empty."""
        rate = RATES[sender.role] if sender.rate is None else sender.rate
        return self._take(f"{sender.role}\n{sender.name}\n{sender.party}", rate, f"the key {sender.name}")

    def take_unknown(self, address: str) -> Quota:
        """Count a request without a valid key from an address. Raises a 429 problem if its quota is empty."""
        return self._take(address, UNKNOWN_RATE, f"requests without a valid key from {address}")

    def _take(self, holder: str, rate: float, who: str) -> Quota:
        now = self._clock()
        limit = max(1, int(rate * WINDOW_S))
        missing_s = max(self._full_at.get(holder, now) - now, 0.0)
        full_in_s = missing_s + 1 / rate
        left = limit - full_in_s * rate + ROUNDING
        if left < 0:
            raise _refusal(Quota(limit, 0, missing_s), ceil(-left / rate), rate, who)
        if holder not in self._full_at and len(self._full_at) >= MAX_HOLDERS:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
        self._full_at[holder] = now + full_in_s
        return Quota(limit, int(left), full_in_s)


def _refusal(quota: Quota, retry_s: int, rate: float, who: str) -> Problem:
    detail = f"{who}: more than {rate:g} requests a second; send this again after {max(1, retry_s)} s"
    return Problem(429, "too-many-requests", detail, headers={"Retry-After": str(max(1, retry_s)), **quota.headers})
