"""How a view asks a task to decide: on the right worker, by a record on a topic, answered when that is committed.

arrive   the body is read and the key it is about is known
route    the request is sent on to the worker that owns the key's partition, unless that is this one
produce  the record is on its topic, acknowledged by the broker; from here it is not lost
answer   what the task decided, once committed; if that takes too long, 202 and where to look
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import httpx
import msgspec
from aiohttp import web
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faust.web import View
from httpx_aiohttp import AiohttpTransport

from processors.decision import Outcome
from streams.app import app, engine, topic_of
from streams.problems import SOON, FieldError, Problem
from streams.tracing import traceparent
from streams.workflow import REQUEST, Told
from topics.families import Family
from topics.identity import owner_of
from topics.records import Reader, Record, Undecodable, write

ACKNOWLEDGED_S = 10.0
"""How long Kafka may take to acknowledge a record; then 503, and the sender sends again under the same key."""
DECISION_S = 5.0
"""How long a sender is kept waiting for the decision; then 202, and the event is applied when it is."""
BODY_S = 10.0
"""How long somebody may take to send a body."""
PROXY_S = 40.0
"""Above the longest long poll."""
SENT_ON = "X-Dabbawala-Sent-On"
"""Marks a request that a worker sent on: it is not sent on again, or two workers could play ball with it."""

T = TypeVar("T")


class ApiView(View):
    """What the views share. Handlers get the path's variables by name."""

    async def dispatch(self, request: Any) -> Any:
        """Call the handler of the method; errors are the middleware's."""
        method = self.methods[request.method.lower()]
        if request.method not in self.get_methods():
            raise web.HTTPMethodNotAllowed(request.method, sorted(self.get_methods()))
        return await method(request, **request.match_info)


def respond(status: int, body: Any, **headers: str) -> web.Response:
    """A JSON answer."""
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers or None
    )


async def read_body(request: web.Request, reader: Reader[T]) -> T:
    """The body as the reader's type, or a problem naming the field."""
    try:
        return reader.read(await _body(request) or b"{}")
    except Undecodable as wrong:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid",
            f"the body cannot be used: {wrong}",
            [FieldError(wrong.pointer, wrong.reason)],
        ) from None


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        why = f"the body has not come within {BODY_S:g} s; send it again with the same key"
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", why) from None
    except web.RequestPayloadError as error:
        why = getattr(error.__cause__, "message", str(error))
        raise Problem(HTTPStatus.BAD_REQUEST, "unreadable", f"the body is not what its headers say: {why}") from None


def named(value: str, kind: Any, what: str) -> str:
    """A path's variable, if it can be the id of what it stands for; else there is none."""
    try:
        return str(msgspec.convert(value, kind))
    except msgspec.ValidationError:
        raise Problem(404, "unknown", f"{value!r} cannot be the id of {what}") from None


def idempotency_key(request: web.Request) -> str:
    """The request's `Idempotency-Key` without quotes; empty where there is none. A problem where it is no text."""
    key = request.headers.get("Idempotency-Key", "").strip('"')
    if not _is_text(key):
        raise Problem(422, "invalid", "Idempotency-Key: it must be text in UTF-8")
    return key


def _is_text(header: str) -> bool:
    """Whether all of it is UTF-8: aiohttp makes surrogates of other bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in header)


async def elsewhere(request: web.Request, key: str) -> web.Response | None:
    """The answer of the worker that owns the key; None if that is this one."""
    return await elsewhere_by_partition(request, engine.partition_of(key.encode()))


async def elsewhere_by_partition(request: web.Request, partition: int) -> web.Response | None:
    """The answer of the worker that owns the partition; None if that is this one."""
    if partition in engine.open_partitions():
        if request.method == "GET":  # a decision proves itself: it is committed
            await engine.prove(partition)
        return None
    owner = engine.owners().get(partition)
    if owner is None or owner.rstrip("/") == this_worker() or SENT_ON in request.headers:
        state = f"is held: {engine.held[partition]}" if partition in engine.held else "is being opened"
        raise Problem(503, "not-ready", f"partition {partition} {state}; try again", headers=SOON)
    return await send_on(request, owner)


async def everywhere(request: web.Request, own: list[Any], member: str) -> list[Any]:
    """What this worker found, and what the others find when they are asked the same; `member` of their answers."""
    others = other_workers()
    if SENT_ON in request.headers or not others:
        return own
    answers = await asyncio.gather(*(send_on(request, owner, Accept="application/json") for owner in others))
    for answer in answers:
        if answer.status != HTTPStatus.OK:
            raise Problem(503, "owner-unreachable", "another worker cannot answer now; try again", headers=SOON)
    return own + [row for answer in answers for row in msgspec.json.decode(answer.text or "")[member]]


def this_worker() -> str:
    """The URL of this worker."""
    return str(app.conf.canonical_url).rstrip("/")


def other_workers() -> list[str]:
    """The URLs of the other workers that own partitions."""
    return sorted({owner.rstrip("/") for owner in engine.owners().values()} - {this_worker()})


async def send_on(request: web.Request, owner: str, *, within_s: float = PROXY_S, **more: str) -> web.Response:
    """The same request, asked of another worker, which may be silent for so long; ``more``: headers to change."""
    passed_on = {name: value for name, value in request.headers.items() if name.lower() in _PASSED_ON}
    headers = passed_on | more | {SENT_ON: "1"}
    try:
        answer = await _client().request(
            request.method,
            owner.rstrip("/") + request.path_qs,
            content=await _body(request),
            # as bytes, for httpx takes text to be ASCII; what is not text means nothing to any view
            headers={name.encode(): value.encode() for name, value in headers.items() if _is_text(value)},
            timeout=httpx.Timeout(PROXY_S, read=within_s),
        )
    except (httpx.HTTPError, aiohttp.ClientError) as error:
        raise Problem(
            503,
            "owner-unreachable",
            f"{owner} owns it and does not answer ({type(error).__name__}); try again",
            headers=SOON,
        ) from None
    kept = {name: value for name, value in answer.headers.items() if name.lower() in _PASSED_BACK}
    return web.Response(status=answer.status_code, body=answer.content, headers=kept)


async def decide(family: Family, record: Record) -> Told | None:
    """Put the record on its topic and wait for the committed decision; None if that takes too long."""
    return await decided(lambda request: produce(family, record, request))


async def decided(ask: Callable[[str], Awaitable[None]]) -> Told | None:
    """The committed decision on a record that `ask` puts on its topic, with the request it is given in its headers;
    None if that takes too long."""
    request = uuid4().hex
    with engine.watch.answer(request) as decision:
        await ask(request)
        try:
            told = await decision.get(DECISION_S)
        except TimeoutError:
            return None
    assert isinstance(told, Told)
    return told


async def produce(family: Family, record: Record, request: str | None = None) -> None:
    """Put the record on its topic; returns when the broker has it. ``request``: who waits for an answer."""
    headers = {"traceparent": traceparent(owner_of(record.event_id) or record.key, record.event_id).encode()}
    if request is not None:
        headers[REQUEST] = request.encode()
    await send(family, record.key.encode(), write(record), headers)


async def send(
    family: Family, key: bytes | None, value: bytes | None, headers: dict[str, bytes], partition: int | None = None
) -> None:
    """Put bytes on a topic, by their key unless told which partition; returns when the broker has them."""
    try:
        async with asyncio.timeout(ACKNOWLEDGED_S):
            producer = await app.maybe_start_producer()  # a topic's own `send` takes three times as long
            await (await producer.send(topic_of(family), key, value, partition, None, headers))
    except MessageSizeTooLargeError:
        raise Problem(413, "too-large", "the request is too large for a record in Kafka") from None
    except (TimeoutError, KafkaError):
        raise Problem(
            503,
            "broker-silent",
            "Kafka has not acknowledged this; send it again with the same key",
            headers=SOON,
        ) from None


def answered(told: Told | None, whom: str, location: str, body: Mapping[str, object]) -> web.Response:
    """The answer to an event: what was decided, or 202 and where to look as long as it is not."""
    if told is None:
        return respond(202, body, Location=location)
    if told.outcome in (Outcome.REFUSED, Outcome.UNKNOWN) or told.failed:
        raise refusal(told, whom)
    return respond(200, {**body, "outcome": told.outcome.value})


def refusal(told: Told, key: str, status: int = HTTPStatus.CONFLICT) -> Problem:
    """The problem that says why something was refused."""
    if told.failed:
        return Problem(500, "internal", f"this could not be applied and lies in the dead letters: {told.reason}")
    if told.outcome is Outcome.UNKNOWN:
        return Problem(404, "unknown", f"there is no {key} here")
    errors = [FieldError(pointer, detail) for pointer, detail in told.problems]
    return Problem(status, "invalid" if errors else "refused", told.reason, errors)


@cache
def _client() -> httpx.AsyncClient:
    # 0 is aiohttp's word for any number: each long poll that is sent on holds a connection, and nobody must wait for it
    transport = AiohttpTransport(limits=httpx.Limits(max_connections=0))
    return httpx.AsyncClient(transport=transport)


_PASSED_ON = {"content-type", "idempotency-key", "traceparent", "accept"}
_PASSED_BACK = {"content-type", "location", "retry-after"}
