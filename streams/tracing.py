"""Trace context (W3C Trace Context, https://www.w3.org/TR/trace-context/): one trace an order.

The trace id follows from the order's id and the span id from what caused the span, so every party that knows the order
continues the same trace without the context having to be kept anywhere.
"""

from functools import lru_cache
from hashlib import blake2b

ORDERS_REMEMBERED = 20_000
"""Whose trace id is not computed again: an order's is wanted a dozen times, all within its life."""


def traceparent(order: str, cause: str) -> str:
    """The `traceparent` of what happens to an order for this cause."""
    span = blake2b(cause.encode(), digest_size=8).hexdigest()
    return f"00-{_trace_id(order)}-{span}-01"


@lru_cache(ORDERS_REMEMBERED)
def _trace_id(order: str) -> str:
    return blake2b(order.encode(), digest_size=16).hexdigest()
