"""Trace context (W3C Trace Context, https://www.w3.org/TR/trace-context/): one trace per order.

The trace id is a hash of the order's id, the span id a hash of the span's cause. Every party that knows the order
therefore continues the same trace, and no context has to be stored.
"""

from functools import lru_cache
from hashlib import blake2b

MAX_CACHED_ORDERS = 20_000
"""Orders whose trace id is cached. An order needs its trace id a dozen times, all within its life."""


def traceparent(order: str, cause: str) -> str:
    """Return the `traceparent` header of an event of an order, derived from the event's cause."""
    span = blake2b(cause.encode(), digest_size=8).hexdigest()
    return f"00-{_trace_id(order)}-{span}-01"


@lru_cache(MAX_CACHED_ORDERS)
def _trace_id(order: str) -> str:
    return blake2b(order.encode(), digest_size=16).hexdigest()
