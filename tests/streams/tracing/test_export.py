"""Export of spans: a collector that is away costs a count and one line."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from streams.tracing import export as module
from streams.tracing.export import SPANS_DROPPED, CountedExporter, Exporter
from streams.tracing.ids import SpanContext, root_of, trace_id
from streams.tracing.spans import Span, SpanKind, Tracing
from tests.flow.collector import Collector, collecting

ORDER = "my-shop:1"
ROOT = Span(order=ORDER, id=root_of(ORDER), parent=None, name="order placed", start_ns=5, end_ns=7)
CHILD = Span(
    order=ORDER,
    id=2,
    parent=root_of(ORDER),
    name="POST /prepare",
    kind=SpanKind.CLIENT,
    start_ns=8,
    end_ns=9,
    attributes={"http.response.status_code": 503},
    links=(SpanContext(3, 4),),
    error="503",
)


class Scripted(SpanExporter):
    """An exporter whose results the test decides."""

    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.result


def exporter_to(monkeypatch: pytest.MonkeyPatch, collector: Collector, **more: str) -> tuple[Exporter, Counter[str]]:
    """Return an exporter that delivers to a collector, and its counters."""
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}.items():
        monkeypatch.setenv(name, value)
    counters: Counter[str] = Counter()
    return Exporter(counters, "worker-1"), counters


async def test_a_stop_delivers_what_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        exporter, counters = exporter_to(monkeypatch, collector, OTEL_SERVICE_NAME="lunch")
        tracing = Tracing(1.0, exporter.export)
        tracing.send(ROOT)
        tracing.send(CHILD)
        await exporter.stop()
        found = collector.named(ORDER)
        tracing.send(CHILD)
    root, child = found["order placed"], found["POST /prepare"]
    assert (root.id, root.parent, root.start_ns, root.end_ns) == (f"{root_of(ORDER):016x}", "", 5, 7)
    assert (child.parent, child.links) == (root.id, (f"{3:032x}/{4:016x}",))
    assert child.attributes == {"dabbawala.order": ORDER, "http.response.status_code": 503, "error.type": "503"}
    assert root.service == "lunch"
    assert counters == {SPANS_DROPPED: 1}, "the one after the stop"
    assert trace_id(ORDER) != trace_id("my-shop:2")


def test_failures_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    inner, counters = Scripted(), Counter[str]()
    exporter = CountedExporter(inner, counters)
    spans = [ReadableSpan("a"), ReadableSpan("b")]
    with caplog.at_level(logging.WARNING):
        for result in (SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS):
            inner.result = result
            exporter.export(spans)
    assert counters[SPANS_DROPPED] == 4
    first, second = [record.getMessage() for record in caplog.records if record.name == CountedExporter.__module__]
    assert "takes no spans" in first
    assert "takes spans again; 4 were dropped" in second


async def test_a_full_queue_drops_and_a_stop_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.05)
    with collecting() as collector:
        more = {"OTEL_BSP_MAX_QUEUE_SIZE": "3", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "3"}
        exporter, counters = exporter_to(monkeypatch, collector, OTEL_BSP_SCHEDULE_DELAY="60000", **more)
        release = hang(monkeypatch, exporter)
        for _ in range(20):
            exporter.export(ROOT)
        assert counters[SPANS_DROPPED] >= 14, "three wait, and at most three are on the way"
        await exporter.stop()
        release()


def hang(monkeypatch: pytest.MonkeyPatch, exporter: Exporter) -> Callable[[], None]:
    """Have deliveries hang until the returned function is called."""
    released = threading.Event()

    def export(_: Sequence[ReadableSpan]) -> SpanExportResult:
        released.wait()
        return SpanExportResult.SUCCESS

    monkeypatch.setattr(exporter._exporter._inner, "export", export)
    return released.set


def test_variables_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    with pytest.raises(ValueError, match="many"):
        Exporter(Counter(), "worker-1")
