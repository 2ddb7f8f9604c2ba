"""Trace context (W3C Trace Context, https://www.w3.org/TR/trace-context/): one trace an order.

The trace id follows from the order's id and the span id from what caused the span, so every party that knows the order
continues the same trace without the context having to be kept anywhere.
"""

from hashlib import blake2b


def traceparent(order: str, cause: str) -> str:
    """The `traceparent` of what happens to an order for this cause."""
    trace = blake2b(order.encode(), digest_size=16).hexdigest()
    span = blake2b(cause.encode(), digest_size=8).hexdigest()
    return f"00-{trace}-{span}-01"
