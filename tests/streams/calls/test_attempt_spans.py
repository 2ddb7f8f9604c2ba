"""Spans of the attempts of calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from exactly_once import Completed, Retry
from processors.call_kinds import CallKind
from processors.decision import Call
from processors.requests import ChargeRequest
from streams.calls.http_performer import ANSWERS, HttpPerformer, row_of
from streams.tracing.ids import attempt_span, root_of, traceparent
from streams.tracing.spans import Span, SpanKind, Tracing

ORDER, ASKED_BY = "shop:1", 0xAB
KEY = f"{ORDER}/charge"


@asynccontextmanager
async def recording(status: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """Provide the address of a party that answers with this status, and the heads of the requests."""
    heads: list[str] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" % status)
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def charge(asked_by: str = f"{ASKED_BY:016x}") -> bytes:
    """Return the row of a call that this span requests."""
    request = ChargeRequest(order=ORDER, amount=1, currency="INR")
    return row_of(Call(KEY, CallKind.CHARGE, request), "http://us", "bank", asked_by)


async def test_an_attempt_is_a_span_once_it_is_committed() -> None:
    spans: list[Span] = []
    async with recording(b"503 Away") as (url, heads):
        performer = HttpPerformer(url, "bank", lambda _: "capability", tracing=Tracing(1.0, spans.append))
        outcome = await performer.perform(KEY.encode(), charge(), 3)
        await performer.close()
    assert isinstance(outcome, Retry)
    assert not spans, "nothing before the commit"
    assert outcome.after_commit is not None
    outcome.after_commit()
    [span] = spans
    own = attempt_span(KEY, 3, ASKED_BY)
    assert (span.id, span.parent, span.kind) == (own, ASKED_BY, SpanKind.CLIENT)
    assert (span.name, span.error) == ("POST /v1/charges", "503")
    assert span.attributes == {
        "dabbawala.order": ORDER,
        "dabbawala.call": KEY,
        "http.request.method": "POST",
        "http.request.resend_count": 2,
        "http.response.status_code": 503,
        "server.address": "127.0.0.1",
        "url.template": "/v1/charges",
    }
    assert f"traceparent: {traceparent(ORDER, own, sampled=True)}\r\n" in heads[0]
    assert span.start_ns <= span.end_ns


async def test_an_attempt_without_an_answer_names_the_error() -> None:
    spans: list[Span] = []
    performer = HttpPerformer("http://127.0.0.1:1", "bank", lambda _: "c", tracing=Tracing(1.0, spans.append))
    outcome = await performer.perform(KEY.encode(), charge(), 1)
    await performer.close()
    assert outcome.after_commit is not None
    outcome.after_commit()
    assert spans[0].error.startswith("Connect")
    assert "http.request.resend_count" not in spans[0].attributes


async def test_an_answer_names_its_attempt_if_the_order_is_sampled() -> None:
    for share in (0.0, 1.0):
        async with recording(b"402 No") as (url, _):
            performer = HttpPerformer(url, "bank", lambda _: "c", tracing=Tracing(share, lambda _: None))
            outcome = await performer.perform(KEY.encode(), charge() if share else charge(""), 1)
            await performer.close()
        assert isinstance(outcome, Completed)
        named = ANSWERS.decode(outcome.result).span
        assert named == (f"{attempt_span(KEY, 1, ASKED_BY):016x}" if share else "")
        assert (outcome.after_commit is None) == (share == 0.0)
        assert root_of(ORDER) != ASKED_BY
