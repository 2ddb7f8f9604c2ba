"""Export of spans by OpenTelemetry's SDK: OTLP over HTTP, in batches, from a thread.

The SDK reads the standard variables ``OTEL_EXPORTER_OTLP_*``, ``OTEL_BSP_*``, ``OTEL_SERVICE_NAME`` and
``OTEL_RESOURCE_ATTRIBUTES``. A collector that is away delays nobody: spans beyond the queue are dropped and counted.
"""

import asyncio
import logging
import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import export as sdk
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from streams.tracing import ids
from streams.tracing.conventions import ERROR_TYPE, SERVICE_INSTANCE, SERVICE_NAME
from streams.tracing.spans import Span

SPANS_DROPPED = "spans_dropped"
"""Counter of spans that no collector has got."""
MAX_QUEUED = 2_048
"""Spans that wait for the exporter, unless a variable says otherwise; the SDK's default."""
STOP_S = 1.5
"""Time that a stop waits for the last batches. It is part of the 4.5 s after which the worker is cut off."""
SCOPE = InstrumentationScope("dabbawala")
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
KINDS = {kind.name: kind for kind in SpanKind}
log = logging.getLogger(__name__)


class CountedExporter(sdk.SpanExporter):
    """An exporter that counts the spans that it cannot deliver, and logs the first failure and the recovery."""

    def __init__(self, inner: sdk.SpanExporter, counters: Counter[str]) -> None:
        self.taken = 0
        """Spans taken from the queue, delivered or not."""
        self._inner = inner
        self._counters = counters
        self._lock = threading.Lock()
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> sdk.SpanExportResult:
        """Deliver a batch. The SDK calls this in its thread."""
        self.taken += len(spans)
        result = self._inner.export(spans)
        failed = result is not sdk.SpanExportResult.SUCCESS
        if failed:
            self.drop(len(spans))
        if failed is not self._is_failing:
            self._is_failing = failed
            if failed:
                log.warning("the collector takes no spans: they are dropped and counted until it does")
            else:
                log.warning("the collector takes spans again; %d were dropped so far", self._counters[SPANS_DROPPED])
        return result

    def drop(self, count: int) -> None:
        """Count spans that nobody gets."""
        with self._lock:
            self._counters[SPANS_DROPPED] += count

    def shutdown(self) -> None:
        """Close the connections."""
        self._inner.shutdown()


class Exporter:
    """The queue of one worker's spans, and the thread that delivers them."""

    def __init__(self, counters: Counter[str], instance: str) -> None:
        """``instance`` names the worker. Raises ``ValueError`` for variables that the SDK cannot use."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it logs a line for each failed batch
        named = {SERVICE_NAME: "dabbawala", SERVICE_INSTANCE: instance}
        self._resource = Resource.create({**named, **OTELResourceDetector().detect().attributes})
        self._exporter = CountedExporter(OTLPSpanExporter(), counters)
        self._room = int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or MAX_QUEUED)
        self._processor = sdk.BatchSpanProcessor(self._exporter, self._room)
        self._given = 0
        self._is_stopped = False

    def export(self, span: Span) -> None:
        """Queue a span; drop it if the queue is full or the worker has stopped."""
        if self._is_stopped or self._given - self._exporter.taken >= self._room:
            self._exporter.drop(1)
            return
        self._given += 1
        self._processor.on_end(_readable(span, self._resource))

    async def stop(self) -> None:
        """Deliver what is queued, for at most ``STOP_S``."""
        self._is_stopped = True
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # the loop may be closed by then
                loop.call_soon_threadsafe(done.set)

        # a thread of the loop's executor would keep the process from ending
        threading.Thread(target=flush, name="last spans", daemon=True).start()
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), STOP_S)


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    """Return a span as the SDK has it."""
    attributes = {**span.attributes, ERROR_TYPE: span.error} if span.error else span.attributes
    return ReadableSpan(
        name=span.name,
        context=_context(ids.SpanContext(ids.trace_id(span.order), span.id)),
        parent=None if span.parent is None else _context(ids.SpanContext(ids.trace_id(span.order), span.parent)),
        resource=resource,
        attributes=attributes,
        links=[Link(_context(link)) for link in span.links],
        kind=KINDS[span.kind.name],
        status=Status(StatusCode.ERROR) if span.error else Status(StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=SCOPE,
    )


def _context(found: ids.SpanContext) -> SpanContext:
    return SpanContext(found.trace, found.span, is_remote=False, trace_flags=SAMPLED)
