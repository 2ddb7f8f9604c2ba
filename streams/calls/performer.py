"""Performs the calls that tasks have asked for, over HTTP.

A call's row holds what is asked (``kind`` and ``request``); here it becomes an HTTP request. What an answer *means* is
decided by the processors; here it is only decided whether it is an answer at all: a server error, a request to slow
down, a time-out or a cut connection is none, and the same call is made again under the same idempotency key.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from processors.decision import Call, CallKind
from processors.requests import ChargeRequest, PrepareRequest, RefundRequest
from streams.calls.names import Names
from streams.engine import Again, Answered, Whom
from streams.tracing import traceparent
from topics.identity import owner_of

TIMEOUT_S = 8.0
"""From the first byte that is sent to the last that comes. Below the engine's own limit, so that the reason names the
party that is slow."""
CONNECT_S = 3.0
"""Of that, until somebody takes the connection."""
NOT_ANSWERED = {408, 425, 429}
"""Client errors that ask for the same request again later (RFC 9110 section 15.5.9, RFC 8470, RFC 6585)."""
KEPT_S = 5.0
"""How long an idle connection is kept: many servers close theirs not much later."""
LONGEST_BODY = 65_536
"""Bytes of an answer that are read; of what goes on behind them nothing is wanted."""
LONGEST_WISH_S = 600.0
"""A party that asks us to come back later than in ten minutes is asked again all the same."""


class Row(msgspec.Struct, frozen=True):
    """A call's row: what is asked."""

    kind: CallKind
    request: msgspec.Raw


class Answer(msgspec.Struct, frozen=True):
    """What came back: the HTTP status and the body's text."""

    status: int
    body: str


ROWS = msgspec.json.Decoder(Row)
ANSWERS = msgspec.json.Decoder(Answer)


def row_of(call: Call) -> bytes:
    """The row that asks for a call."""
    return msgspec.json.encode(Row(call.kind, msgspec.Raw(msgspec.json.encode(call.request))))


class Asked(NamedTuple):
    """A call as HTTP: whom, where, and the body. A restaurant is known by its own name, whoever else is at its host."""

    party: str
    url: str
    body: dict[str, Any]


class HttpPerformer:
    """Makes the calls; the engine bounds how many at once, in all, to one party and to one host."""

    def __init__(self, payment_url: str, payment_provider: str, public_url: Callable[[], str]) -> None:
        """``public_url``: where the parties that are called reach our web views."""
        self._payment_url, self._payment_provider, self._public_url = payment_url, payment_provider, public_url
        self._client: httpx.AsyncClient | None = None

    def whom(self, request: bytes) -> Whom:
        """Who is called: a restaurant at its address, or the payment provider, for charges and refunds apart."""
        asked = self._asked(request)
        return Whom(f"{asked.party} {asked.url}", urlsplit(asked.url).netloc)

    def url(self, request: bytes) -> str:
        """Where a call goes."""
        return self._asked(request).url

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Answered | Again:
        """One attempt."""
        key, (_, url, body) = call_id.decode(), self._asked(request)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a small body that unfolds to a large one is not for us
            "Idempotency-Key": key,
            "traceparent": traceparent(owner_of(key), f"{key}#{attempt}"),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._open_client().stream("POST", url, content=msgspec.json.encode(body), headers=headers) as response,
            ):
                return await _answer(url, response)
        except TimeoutError:
            return Again(f"{url}: no answer within {TIMEOUT_S:g} s")
        except (httpx.HTTPError, aiohttp.ClientError) as error:  # some the transport leaves as they are
            return Again(f"{url}: {type(error).__name__} {error}".rstrip())

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _asked(self, request: bytes) -> Asked:
        row = ROWS.decode(request)
        asked = msgspec.json.decode(row.request, type=_KINDS[row.kind])
        body: dict[str, Any] = msgspec.to_builtins(asked)
        if isinstance(asked, PrepareRequest):
            body.pop("pos_url")
            callback = f"/v1/pos/{asked.restaurant}/tickets/{asked.order}"
            body["callback_url"] = self._public_url() + callback
            return Asked(asked.restaurant, f"{asked.pos_url}/prepare", body)
        callback = f"/v1/payments/{self._payment_provider}/events"
        url = f"{self._payment_url}/v1/{'charges' if isinstance(asked, ChargeRequest) else 'refunds'}"
        return Asked(self._payment_provider, url, {**body, "callback_url": self._public_url() + callback})

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            # httpx's own transport takes 3 ms of CPU a request with a hundred in flight, aiohttp's 0.6
            self._client = httpx.AsyncClient(
                transport=AiohttpTransport(client=_session), timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
            )
        return self._client


async def _answer(url: str, response: httpx.Response) -> Answered | Again:
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code in NOT_ANSWERED:
        return Again(f"{url}: status {response.status_code}", _wished_s(response))
    return Answered(msgspec.json.encode(Answer(response.status_code, await _text(response))))


async def _text(response: httpx.Response) -> str:
    """The body, or the beginning of one that is too long: leaving the rest unread closes the connection."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > LONGEST_BODY:
            break
    return bytes(body[:LONGEST_BODY]).decode(errors="replace")


def _session() -> aiohttp.ClientSession:
    """No limit of connections: who waited for one would wait for those that hang. The engine has limits. No cookies:
    what one party sets is not for others at its host."""
    connector = aiohttp.TCPConnector(
        limit=0, resolver=Names(), ssl=httpx.create_ssl_context(), keepalive_timeout=KEPT_S
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _wished_s(response: httpx.Response) -> float | None:
    """The party's own wish, in seconds (RFC 9110 section 10.2.3; dates are not read). At once is none: the calls would
    go round as fast as it answers."""
    wish = response.headers.get("Retry-After", "")
    return min(float(wish), LONGEST_WISH_S) or None if wish.isdecimal() else None


_KINDS: dict[CallKind, Any] = {"charge": ChargeRequest, "refund": RefundRequest, "prepare": PrepareRequest}
