"""A collector of traces: it takes OTLP over HTTP, as an exporter sends it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from streams.tracing.ids import trace_id


class Exported(NamedTuple):
    """One span as the collector got it. Ids are hex digits."""

    id: str
    parent: str
    """Empty: a root."""
    name: str
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    """Trace ids and span ids, as `trace/span`."""
    start_ns: int
    end_ns: int
    service: str


class Collector:
    """The spans that arrived, by trace."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.bodies: list[bytes] = []
        self._traces: dict[str, list[Exported]] = {}

    def of(self, order: str) -> list[Exported]:
        """Return the spans of an order in the order of their arrival."""
        return list(self._traces.get(f"{trace_id(order):032x}", ()))

    def named(self, order: str) -> dict[str, Exported]:
        """Return the spans of an order by name."""
        return {span.name: span for span in self.of(order)}

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        self.bodies.append(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _values(of_resource.resource.attributes)["service.name"]
            for span in (span for scope in of_resource.scope_spans for span in scope.spans):
                found = Exported(
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    _values(span.attributes),
                    tuple(f"{link.trace_id.hex()}/{link.span_id.hex()}" for link in span.links),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    service,
                )
                self._traces.setdefault(span.trace_id.hex(), []).append(found)


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(server.server_port)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
