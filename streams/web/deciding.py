"""Decisions: a view produces a record and waits until the task that owns its key has committed what it decided.

produce  the record is on its topic, acknowledged by the broker; from here it is not lost
wait     the task applies it; after its commit the reply arrives
answer   the decision becomes an HTTP answer; if it takes too long, 202 and where to look
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Literal

import faust
from aiohttp import web
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from exactly_once import Engine
from processors.decision import Outcome
from streams.tracing.ids import root_of
from streams.tracing.spans import Tracing
from streams.web.limits import Backlog
from streams.web.problems import SOON, FieldError, Problem, incident
from streams.web.requests import respond
from streams.worker.audit import Audit
from streams.worker.order_workflow import DecisionReply
from topics.audit import OperatorActed
from topics.families import AUDIT, Family, topic_name
from topics.headers import OPERATOR_ACTED, REQUEST_ID, TRACEPARENT
from topics.identity import is_order_id
from topics.records import Record, write

Decided = Literal["APPLIED", "ABSORBED"]
"""Outcome in an answer. The other outcomes become problems."""
IN_TIME = 0.1
"""Part of the time that a sender waits for a decision: a task that takes longer gets fewer requests."""
MAX_ACKNOWLEDGE_S = 10.0
"""Time that Kafka may take to acknowledge a record; then 503, and the sender sends again under the same key."""


class Decisions:
    """Decisions of tasks on the records that views produce."""

    def __init__(
        self,
        app: faust.App,
        engine: Engine,
        audit: Audit,
        topic_prefix: str,
        new_id: Callable[[], str],
        within_s: float,
        tracing: Tracing,
    ) -> None:
        """``within_s`` limits the time that a sender waits for the decision."""
        self._app = app
        self._engine = engine
        self._audit = audit
        self._topic_prefix = topic_prefix
        self._new_id = new_id
        self._within_s = within_s
        self._tracing = tracing
        self._backlog = Backlog(within_s * IN_TIME)
        self._under_way: set[str] = set()

    @contextmanager
    def one_at_a_time(self, order: str) -> Iterator[None]:
        """Decide on one request with an `Idempotency-Key` for this order at a time in this worker.

        Raises a 409 problem if another one is under way.
        """
        if order in self._under_way:
            detail = "a request with this Idempotency-Key is under way; send it again after the time in Retry-After"
            raise Problem(409, "under-way", detail, headers=SOON)
        self._under_way.add(order)
        try:
            yield
        finally:
            self._under_way.discard(order)

    async def submit(
        self, family: Family, record: Record, acted: OperatorActed | None = None, traceparent: str = ""
    ) -> DecisionReply | None:
        """Produce a record and return the committed decision on it; None if that takes longer than `within_s`.

        ``acted`` is the operator's action that the record stands for; None if anybody else sends it. ``traceparent`` is
        the trace context of the sender. Raises a 503 problem if the task that decides is overloaded.
        """
        partition = self._engine.partition_of(record.key.encode())
        with self._backlog.wait(partition):
            return await self.submit_with(lambda request: self.produce(family, record, acted, request, traceparent))

    async def submit_with(self, produce: Callable[[str], Awaitable[None]]) -> DecisionReply | None:
        """Return the committed decision on the record that ``produce`` sends, with the request id in its headers."""
        request = self._new_id()
        with self._engine.watch.answer(request) as decision:
            await produce(request)
            try:
                reply = await decision.get(self._within_s)
            except TimeoutError:
                return None
        assert isinstance(reply, DecisionReply)
        return reply

    async def produce(
        self,
        family: Family,
        record: Record,
        acted: OperatorActed | None = None,
        request: str | None = None,
        traceparent: str = "",
    ) -> None:
        """Produce a record; returns when the broker has it. ``request`` names the view's request that waits for it.

        ``traceparent`` is the trace context of the sender; by default a record of an order gets that of the order.
        """
        headers: dict[str, bytes] = {}
        if traceparent or is_order_id(record.key):
            own = traceparent or self._tracing.traceparent(record.key, root_of(record.key))
            headers[TRACEPARENT] = own.encode()
        if request is not None:
            headers[REQUEST_ID] = request.encode()
        await self.send(family, record.key.encode(), write(record), headers, acted=acted)

    async def write_audit(self, acted: OperatorActed) -> None:
        """Write to the audit topic what no task applies; returns once acknowledged. Raises a 503 problem."""
        await self.send(AUDIT, acted.key.encode(), write(acted), {})

    async def send(
        self,
        family: Family,
        key: bytes | None,
        value: bytes | None,
        headers: dict[str, bytes],
        partition: int | None = None,
        acted: OperatorActed | None = None,
    ) -> None:
        """Send bytes to a topic, partitioned by their key unless ``partition`` is given; returns once acknowledged.

        The task that applies the record writes ``acted``, an operator's action, to the audit topic.

        Raises a problem: 413 if the record is too large for Kafka, 503 if Kafka does not acknowledge it in time.
        """
        topic = topic_name(family.name, self._topic_prefix)
        if acted is not None:
            headers = {**headers, OPERATOR_ACTED: self._audit.header(acted, topic, key, value)}
        try:
            async with asyncio.timeout(MAX_ACKNOWLEDGE_S):
                producer = await self._app.maybe_start_producer()  # a topic's own `send` takes three times as long
                await (await producer.send(topic, key, value, partition, None, headers))
        except MessageSizeTooLargeError:
            raise Problem(413, "too-large", "the request is too large for a record in Kafka") from None
        except (TimeoutError, KafkaError):
            raise Problem(
                503,
                "broker-silent",
                "Kafka has not acknowledged this; send it again with the same key",
                headers=SOON,
            ) from None


def to_response(reply: DecisionReply | None, subject: str, location: str, body: Mapping[str, object]) -> web.Response:
    """Return the answer for a decision; 202 with the ``location`` to look at if there is none yet.

    Raises a problem if the task refused.
    """
    if reply is None:
        return respond(202, body, Location=location)
    if reply.outcome in (Outcome.REFUSED, Outcome.NOT_FOUND) or reply.failed:
        raise to_problem(reply, subject)
    return respond(200, {**body, "outcome": reply.outcome.value})


def to_problem(reply: DecisionReply, subject: str, status: int = HTTPStatus.CONFLICT) -> Problem:
    """Return the problem that gives the reason of a refusal."""
    if reply.failed:
        kind = reply.reason.partition(":")[0]  # the rest may quote the record
        what, _, name = subject.partition(" ")
        return incident(
            "this could not be applied; it is a dead letter now",
            f"{kind!r}; the dead letter has the rest",
            name if what == "order" else "",
        )
    if reply.outcome is Outcome.NOT_FOUND:
        return Problem(404, "unknown", f"there is no {subject} here")
    errors = [FieldError(pointer, detail) for pointer, detail in reply.problems]
    return Problem(status, "invalid" if errors else "refused", reply.reason, errors)
