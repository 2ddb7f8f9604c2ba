"""Recording of what tasks, calls and requests do, as it happens."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from exactly_once import CallOutcome, Completed, Retry
from exactly_once.task.observer import Commit
from processors.order import FINAL_STAGES, Stage
from streams.calls.http_performer import ROWS
from streams.metrics.indexes import OrderRow
from streams.metrics.instruments import COMPLETED, RETRY, UNSETTLED, Instruments
from topics import dead_letters

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "_OTHER"
"""Method of a request with none of these (the convention of OpenTelemetry)."""
STAGE_NAMES = {stage: stage.name for stage in Stage}
"""Names of the stages: finding one in an enumeration takes longer."""
UNMATCHED = ""
"""Route of a request for a path that does not exist."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TaskMetrics:
    """Observer of the tasks of one worker (`exactly_once.task.observer`), and listener of its orders."""

    def __init__(self, instruments: Instruments, dead_letters_topic: str) -> None:
        self._metrics = instruments
        self._dead_letters = dead_letters_topic
        self.clock_ahead_ms = 0
        """Lead of a task's clock at the last commit."""

    # -- exactly_once.task.observer.Observer ---------------------------------------------------------------------------

    def committed(self, commit: Commit) -> None:
        """Record duration, size and latencies of a transaction, and its dead letters."""
        changes = commit.changes
        self._metrics.commit_duration.observe(commit.took_s)
        produced = sum(map(len, changes.outputs.values())) + sum(map(len, changes.rows.values()))
        self._metrics.commit_records.observe(produced)
        for topic, first_ms in changes.first_ms.items():
            self._metrics.latency.observe(_seconds(commit.now_ms - first_ms), topic)
        if commit.clock_ahead_ms is not None:
            self.clock_ahead_ms = commit.clock_ahead_ms
        if changes.counts.get("dead_letters"):
            for _, _, headers in changes.outputs[self._dead_letters, commit.partition]:
                self._metrics.letters.add(_origin(dict(headers)))

    def timer_fired(self, late_ms: int) -> None:
        """Record the lateness of a timer."""
        self._metrics.timer_lateness.observe(_seconds(late_ms))

    def restored(self, records: int, took_s: float) -> None:
        """Record the restoring of a task."""
        self._metrics.restored_records.add(count=records)
        self._metrics.restore_duration.observe(took_s)

    def call_ended(self, request: bytes, took_s: float, outcome: CallOutcome) -> None:
        """Record an attempt of a call."""
        kind = ROWS.decode(request).kind.value
        result = COMPLETED if isinstance(outcome, Completed) else RETRY if isinstance(outcome, Retry) else UNSETTLED
        self._metrics.attempts.add(kind, result)
        self._metrics.call_duration.observe(took_s, kind)

    # -- orders, see `streams.metrics.indexes.OpenOrders` --------------------------------------------------------------

    def order_placed(self) -> None:
        """Count a new order."""
        self._metrics.placed.add()

    def order_moved(self, before: OrderRow, row: OrderRow) -> None:
        """Record that an order left its stage, and whether it ended."""
        was, stage = STAGE_NAMES[before.stage], STAGE_NAMES[row.stage]
        self._metrics.transitions.add(was, stage)
        self._metrics.stage_duration.observe(_seconds(row.waits_since_ms - before.waits_since_ms), was)
        if row.stage not in FINAL_STAGES:
            return
        outcome = row.stage.value
        self._metrics.ended.add(outcome)
        self._metrics.order_duration.observe(_seconds(row.waits_since_ms - row.placed_ms), outcome)
        if row.stage is Stage.DELIVERED:
            self._metrics.lateness.observe(_seconds(row.waits_since_ms - row.promised_ms))


def _seconds(milliseconds: int) -> float:
    """Return seconds; 0 for a negative time, because a sender's clock may be ahead."""
    return milliseconds / 1000 if milliseconds > 0 else 0.0


def _origin(headers: dict[str, bytes]) -> str:
    """Return the origin of a dead letter: a topic, `timer` or `call`."""
    if dead_letters.TIMER in headers:
        return "timer"
    return "call" if dead_letters.CALL in headers else headers.get(dead_letters.TOPIC, b"").decode(errors="replace")


def request_middleware(instruments: Instruments) -> Middleware:
    """Return the middleware that records the duration of each request by method, route and status."""
    observe = instruments.requests.observe

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
            observe(time.perf_counter() - began, method, route, status)

    return record
