"""Spans of orders, and the decision which orders have some.

All spans are short and are sent once what they tell about is committed. Nothing stays open while an order waits, so a
trace of an order that waits for hours can be read meanwhile.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial

import msgspec

from exactly_once import Task
from streams.tracing.conventions import ORDER
from streams.tracing.ids import SpanContext, trace_id, traceparent

NS_PER_MS = 1_000_000
LOW_64_BITS = (1 << 64) - 1

Attribute = str | int | tuple[str, ...]


class SpanKind(Enum):
    """Role of a span in a request; the names are OpenTelemetry's."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    CONSUMER = "CONSUMER"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span of an order's trace. Times are in nanoseconds since 1970."""

    order: str
    id: int
    parent: int | None
    """None: the root."""
    name: str
    start_ns: int
    end_ns: int
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, Attribute] = {}
    links: tuple[SpanContext, ...] = ()
    error: str = ""
    """Type of the error; empty if there was none."""


class Tracing:
    """The traces of one worker. ``share`` of the orders have spans; every worker with this share chooses the same."""

    def __init__(self, share: float, export: Callable[[Span], None]) -> None:
        self._bound = round(share * (LOW_64_BITS + 1))  # the rule of OpenTelemetry's TraceIdRatioBased
        self._export = export

    @property
    def is_on(self) -> bool:
        """True if any order may have spans."""
        return self._bound > 0

    def is_sampled(self, order: str) -> bool:
        """Return whether an order has spans. The order's id alone decides."""
        return self._bound > 0 and trace_id(order) & LOW_64_BITS < self._bound

    def traceparent(self, order: str, span: int) -> str:
        """Return the header that continues an order's trace below a span."""
        return traceparent(order, span, sampled=self.is_sampled(order))

    def send(self, span: Span) -> None:
        """Send a span of a sampled order."""
        attributes = {ORDER: span.order, **span.attributes}
        self._export(msgspec.structs.replace(span, attributes=attributes))

    def send_after_commit(self, task: Task, span: Span) -> None:
        """Send a span with the task's transaction; it ends with the commit. What is rolled back sends nothing."""
        task.after_commit(partial(self._committed, task, span))

    def _committed(self, task: Task, span: Span) -> None:
        end_ns = max(span.end_ns, task.now_ms * NS_PER_MS)
        self.send(msgspec.structs.replace(span, end_ns=end_ns))


OFF = Tracing(0.0, lambda _: None)
"""Tracing without a collector."""
