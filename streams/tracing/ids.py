"""Ids of traces and spans, and the header `traceparent` (W3C Trace Context, https://www.w3.org/TR/trace-context/).

The trace id is a hash of the order's id, the id of a span a hash of its cause. Every worker therefore makes the same
ids, also after a restart, and a span that is sent twice has the same id twice.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

MAX_CACHED_ORDERS = 20_000
"""Orders whose trace id is cached. An order needs its trace id a dozen times, all within its life."""
TRACE_DIGITS, SPAN_DIGITS = 32, 16
_HEX = frozenset("0123456789abcdef")


class SpanContext(NamedTuple):
    """A span of any trace."""

    trace: int
    span: int


@lru_cache(MAX_CACHED_ORDERS)
def trace_id(order: str) -> int:
    """Return the id of an order's trace, a number of 128 bits."""
    return int.from_bytes(blake2b(order.encode(), digest_size=TRACE_DIGITS // 2).digest(), "big")


def trace_hex(order: str) -> str:
    """Return the id of an order's trace as people and headers write it: 32 hexadecimal digits."""
    return f"{trace_id(order):032x}"


def span_id(cause: str) -> int:
    """Return the id of the span with this cause, a number of 64 bits."""
    cause_bytes = cause.encode(errors="surrogatepass")
    return int.from_bytes(blake2b(cause_bytes, digest_size=SPAN_DIGITS // 2).digest(), "big")


def root_of(order: str) -> int:
    """Return the id of the root span of an order's trace: the step that placed the order."""
    return step_span(order, 1)


def step_span(order: str, first_line: int) -> int:
    """Return the id of the span of a step, by the number of its first line in the order's journal."""
    return span_id(f"{order}/{first_line}")


def attempt_span(call: str, attempt: int, asked_by: int) -> int:
    """Return the id of the span of an attempt, by the idempotency key of the call.

    ``asked_by`` is the span that requested the call: attempts count from 1 again if a call is requested again.
    """
    return span_id(f"{call}#{attempt}/{asked_by:0{SPAN_DIGITS}x}")


def traceparent(order: str, span: int, *, sampled: bool) -> str:
    """Return the header that continues an order's trace below a span."""
    return f"00-{trace_hex(order)}-{span:016x}-{sampled:02x}"


def context_of(header: str) -> SpanContext | None:
    """Return the span that a `traceparent` names; None if it is not written as the standard says."""
    version, *parts = header.split("-")
    if len(parts) < 3 or not _is_hex(version, 2) or version == "ff" or (version == "00" and len(parts) > 3):
        return None
    trace, span, flags = parts[:3]
    if not (_is_hex(trace, TRACE_DIGITS) and _is_hex(span, SPAN_DIGITS) and _is_hex(flags, 2)):
        return None
    found = SpanContext(int(trace, 16), int(span, 16))
    return found if all(found) else None


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and _HEX.issuperset(text)
