"""Recording of what tasks, calls and requests do. Children of metrics are kept: finding one takes microseconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cache

from aiohttp import web
from aiohttp.typedefs import Middleware

from exactly_once import CallOutcome, Completed, Retry
from exactly_once.task.observer import Commit
from processors.order import FINAL_STAGES, Stage
from streams.calls.http_performer import ROWS
from streams.metrics.indexes import OpenOrder, OrderRow
from streams.metrics.instruments import COMPLETED, RETRY, UNSETTLED, Instruments
from topics import dead_letters

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "_OTHER"
"""Method of a request with none of these (the convention of OpenTelemetry)."""
UNMATCHED = ""
"""Route of a request for a path that does not exist."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TaskMetrics:
    """Observer of the tasks of one worker (`exactly_once.task.observer`), and listener of its orders."""

    def __init__(self, instruments: Instruments, dead_letters_topic: str) -> None:
        self._metrics = instruments
        self._dead_letters = dead_letters_topic
        self._latency = cache(instruments.latency.labels)
        self._transition = cache(instruments.transitions.labels)
        self._stage_duration = cache(instruments.stage_duration.labels)
        self._attempts = cache(instruments.attempts.labels)
        self._call_duration = cache(instruments.call_duration.labels)

    # -- exactly_once.task.observer.Observer ---------------------------------------------------------------------------

    def committed(self, commit: Commit) -> None:
        """Record duration, size and latencies of a transaction, and its dead letters."""
        changes = commit.changes
        self._metrics.commit_duration.observe(commit.took_s)
        produced = sum(map(len, changes.outputs.values())) + sum(map(len, changes.rows.values()))
        self._metrics.commit_records.observe(produced)
        for topic, first_ms in changes.first_ms.items():
            self._latency(topic).observe(max(0, commit.now_ms - first_ms) / 1000)
        if commit.clock_ahead_ms is not None:
            self._metrics.clock_offset.set(commit.clock_ahead_ms / 1000)
        if changes.counts["dead_letters"]:
            for _, _, headers in changes.outputs[self._dead_letters, commit.partition]:
                self._metrics.letters.labels(_origin(dict(headers))).inc()

    def timer_fired(self, late_ms: int) -> None:
        """Record the lateness of a timer."""
        self._metrics.timer_lateness.observe(max(0, late_ms) / 1000)

    def restored(self, records: int, took_s: float) -> None:
        """Record the restoring of a task."""
        self._metrics.restored_records.inc(records)
        self._metrics.restore_duration.observe(took_s)

    def call_ended(self, request: bytes, took_s: float, outcome: CallOutcome) -> None:
        """Record an attempt of a call."""
        kind = ROWS.decode(request).kind.value
        result = COMPLETED if isinstance(outcome, Completed) else RETRY if isinstance(outcome, Retry) else UNSETTLED
        self._attempts(kind, result).inc()
        self._call_duration(kind).observe(took_s)

    # -- orders, see `streams.metrics.indexes.OpenOrders` --------------------------------------------------------------

    def order_placed(self) -> None:
        """Count a new order."""
        self._metrics.placed.inc()

    def order_moved(self, before: OpenOrder, row: OrderRow) -> None:
        """Record that an order left its stage, and whether it ended."""
        self._transition(before.stage.name, row.stage.name).inc()
        self._stage_duration(before.stage.name).observe(_seconds(row.waits_since_ms - before.since_ms))
        if row.stage not in FINAL_STAGES:
            return
        outcome = row.stage.value
        self._metrics.ended.labels(outcome).inc()
        self._metrics.order_duration.labels(outcome).observe(_seconds(row.waits_since_ms - row.placed_ms))
        if row.stage is Stage.DELIVERED:
            self._metrics.lateness.observe(_seconds(row.waits_since_ms - row.promised_ms))


def _seconds(milliseconds: int) -> float:
    """Return seconds; 0 for a negative time, because a sender's clock may be ahead."""
    return max(0, milliseconds) / 1000


def _origin(headers: dict[str, bytes]) -> str:
    """Return the origin of a dead letter: a topic, `timer` or `call`."""
    if dead_letters.TIMER in headers:
        return "timer"
    return "call" if dead_letters.CALL in headers else headers.get(dead_letters.TOPIC, b"").decode(errors="replace")


def request_middleware(instruments: Instruments) -> Middleware:
    """Return the middleware that records the duration of each request by method, route and status."""
    child = cache(instruments.requests.labels)

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        began, status = time.perf_counter(), 500
        try:
            answer = await handler(request)
            status = answer.status
            return answer
        except web.HTTPException as answered:
            status = answered.status
            raise
        except asyncio.CancelledError:
            status = 499  # the client went away
            raise
        finally:
            resource = request.match_info.route.resource
            route = UNMATCHED if resource is None else resource.canonical
            method = request.method if request.method in METHODS else OTHER
            child(method, route, status).observe(time.perf_counter() - began)

    return record
