"""The trace of an order, drawn from its journal: as JSON, or as a page if `Accept` contains `text/html`.

It needs no collector, and shows orders that are not sampled too.
"""

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from itertools import pairwise

import msgspec
from aiohttp import web

from processors.order import Order
from processors.workflow import JournalLine
from streams.services import Services
from streams.tracing.ids import trace_hex
from streams.tracing.journal_tree import DrawnSpan, OpenCall, PendingTimer, drawn_trace, seconds
from streams.views.api_view import ApiView
from streams.views.calls import call_rows_of
from streams.views.orders import known_order, retired_order
from streams.web.operation import JSON, operation
from streams.web.requests import parse_id, respond
from topics.identity import OrderId
from topics.records import Instant, instant

MAX_SPANS = 1_000
"""Spans on one page. The JSON has all of them."""
WIDTH, HEIGHT, MIN_BAR = 600, 16, 4.0
"""Units of the drawing: width and height of a row of the waterfall, width of the shortest bar."""
FOLDED_MS = 5_000
"""A wait without any span that is longer is labelled on the page."""


class TraceSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A span of a trace."""

    id: str
    parent: str = ""
    depth: int = 0
    name: str
    start: Instant
    end: Instant | None
    notes: tuple[str, ...] = ()
    error: str = ""
    attempts: int | None = None
    next: Instant | None = None


class Trace(msgspec.Struct, frozen=True):
    """The trace of an order."""

    order: OrderId
    trace_id: str
    sampled: bool
    spans: list[TraceSpan]


class OrderTrace(ApiView):
    """The trace of an order."""

    @operation("getTrace", {200: Trace}, media=(JSON, "text/html"))
    async def get(self, request: web.Request, order: str) -> web.Response:
        """Return the spans of an order: a root, and every other one after the span that caused it.

        - 200: `{"order", "trace_id", "sampled", "spans": [...]}`. `sampled` tells whether the worker exports the trace.
          A span has `id`, `parent`, `depth`, `name`, `start` and `end` (null while it lasts), and if they apply `notes`
          (changes of stages, waits), `error`, and for an open call `attempts` and `next`, the time of the next one.
        - 404: there is no such order, or the history topic no longer has it.
        - 410: the order was erased.
        - 503: the history topic cannot be read.
        """
        parse_id(order, OrderId, "an order")
        if (answer := await self.services.forwarding.forward_to_owner(request, order)) is not None:
            return answer
        spans = await _drawn(self.services, request, order)
        if "text/html" in request.headers.get("Accept", ""):
            return _page(order, spans, self.services.now_ms())
        is_sampled = self.services.tracing.is_sampled(order)
        return respond(200, Trace(order, trace_hex(order), is_sampled, [_shown(span) for span in spans]))


async def _drawn(services: Services, request: web.Request, order: str) -> list[DrawnSpan]:
    flow = known_order(services, order)
    if flow.history is not None:
        stored = await retired_order(services, request, order, flow.history)
        return drawn_trace(order, stored.journal, flow.history.placed_ms)
    assert flow.order is not None
    lines: list[JournalLine] = [line async for _, line in services.tables.journal.pages(order, f"{order}/")]
    open_calls = call_rows_of(services, flow)
    calls = [OpenCall(key, call.attempt - 1, call.due_ms, call.last_error) for key, call in open_calls]
    return drawn_trace(order, lines, flow.order.placed_ms, calls, _timer(flow.order))


def _timer(row: Order) -> PendingTimer | None:
    if row.timer is None or row.status.ended:  # the retirement is no step of the order
        return None
    return PendingTimer(row.timer.name, row.waits_since_ms, row.timer.due_ms)


def _shown(span: DrawnSpan) -> TraceSpan:
    return TraceSpan(
        id=span.id,
        parent=span.parent,
        depth=span.depth,
        name=span.name,
        start=instant(span.start_ms),
        end=None if span.end_ms is None else instant(span.end_ms),
        notes=span.notes,
        error=span.error,
        attempts=span.attempts,
        next=None if span.next_ms is None else instant(span.next_ms),
    )


# -- the page --------------------------------------------------------------------------------------------------------


def _page(order: str, spans: Sequence[DrawnSpan], now_ms: int) -> web.Response:
    """Return the waterfall of a trace: a row for each span. Long waits are folded, so short steps can be seen."""
    shown = spans[:MAX_SPANS]
    left_out = f"<p>{len(spans) - MAX_SPANS} more spans are in the JSON.</p>" if len(spans) > MAX_SPANS else ""
    axis = _axis(shown, now_ms)
    waits = [(before, after) for before, after in pairwise(axis) if after - before >= FOLDED_MS]
    places = {(axis[before] + axis[after]) / 2: seconds(after - before) for before, after in waits}
    labels = "".join(f'<text x="{place:.1f}" y="12">{length}</text>' for place, length in places.items())
    marks = "".join(f'<line x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{HEIGHT}"/>' for place in places)
    rows = "".join(_row(span, shown[0].start_ms, now_ms, marks + _bar(span, axis, now_ms)) for span in shown)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>trace of {escape(order)} · Dabbawala</title>'
        f"<style>{_STYLE}</style><h1>trace of {escape(order)}</h1>"
        f"<p>Trace id <code>{trace_hex(order)}</code>. The axis is folded: a long wait takes little more room than "
        f"a short one, and a dashed line has its length.</p>{left_out}"
        f"<table><thead><tr><th>at</th><th>span</th><th>{_svg(labels)}</th><th>took</th><th>what happened</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></html>"
    )
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": _POLICY})


def _axis(spans: Iterable[DrawnSpan], now_ms: int) -> dict[int, float]:
    """Return moment -> place on the axis, in pixels: the room between two moments grows with the logarithm."""
    moments = sorted({moment for span in spans for moment in (span.start_ms, span.end_ms or now_ms)})
    places = [0.0]
    for before, after in pairwise(moments):
        places.append(places[-1] + 1 + math.log2(1 + max(0, after - before)))
    scale = (WIDTH - MIN_BAR) / (places[-1] or 1)
    return {moment: place * scale for moment, place in zip(moments, places, strict=False)}


def _svg(content: str) -> str:
    return f'<svg aria-hidden="true" viewBox="0 0 {WIDTH} {HEIGHT}">{content}</svg>'


def _bar(span: DrawnSpan, axis: Mapping[int, float], now_ms: int) -> str:
    start, end = axis[span.start_ms], axis[span.end_ms or now_ms]
    kind = "error" if span.error else "open" if span.end_ms is None else "done"
    width = max(MIN_BAR, end - start)
    return f'<rect class="{kind}" x="{start:.1f}" y="2" height="{HEIGHT - 4}" rx="2" width="{width:.1f}"/>'


def _row(span: DrawnSpan, began_ms: int, now_ms: int, bar: str) -> str:
    took = seconds((span.end_ms or now_ms) - span.start_ms) if span.end_ms != span.start_ms else ""
    notes = [escape(note) for note in span.notes]
    if span.attempts is not None:
        notes.append(f"{span.attempts} attempts")
    if span.next_ms is not None:
        notes.append(f"due at {instant(span.next_ms).isoformat(timespec='seconds')}")
    if span.error:
        notes.append(f"<b>{escape(span.error)}</b>")
    tree = "&#8195;" * span.depth + escape(span.name)
    state = took + (" so far" if span.end_ms is None else "")
    cells = (f"+{seconds(span.start_ms - began_ms)}", tree, _svg(bar), state, "; ".join(notes))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


_STYLE = (
    "body{font:15px system-ui;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd;vertical-align:top;white-space:nowrap}"
    "td:last-child{white-space:normal}td:nth-child(3){width:30%}svg{width:100%;min-width:12rem}code{font-size:12px}"
    "b{color:#b03020;font-weight:normal}line{stroke:#999;stroke-dasharray:3 3}text{fill:#666;font-size:11px;"
    "text-anchor:middle}.done{fill:#3a78b8}.open{fill:#d99a1c}.error{fill:#c0392b}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#333}b{color:#ff8a75}"
    "text{fill:#aaa}.done{fill:#6ea8dc}.error{fill:#e0604f}}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: the page's own style and nothing else."""
