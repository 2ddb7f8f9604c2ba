"""Performs the calls that tasks have asked for, over HTTP.

A call's row holds what is asked (``kind`` and ``request``); here it becomes an HTTP request. What an answer *means* is
decided by the processors; here it is only decided whether it is an answer at all: a server error, a request to slow
down, a time-out or a cut connection is none, and the same call is made again under the same idempotency key.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from processors.decision import Call, CallKind
from processors.requests import ChargeRequest, PrepareRequest, RefundRequest
from streams.engine import Again, Answered
from streams.tracing import traceparent
from topics.identity import owner_of

TIMEOUT_S = 8.0
"""Below the engine's own limit, so that the reason names the party that is slow."""
NOT_ANSWERED = {408, 425, 429}
"""Client errors that ask for the same request again later (RFC 9110 section 15.5.9, RFC 8470, RFC 6585)."""
LONGEST_BODY = 65_536
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


class HttpPerformer:
    """Makes the calls; the engine bounds how many at once, in all and to one host."""

    def __init__(self, payment_url: str, payment_provider: str, public_url: Callable[[], str]) -> None:
        """``public_url``: where the parties that are called reach our web views."""
        self._payment_url, self._payment_provider, self._public_url = payment_url, payment_provider, public_url
        self._client: httpx.AsyncClient | None = None

    def host(self, request: bytes) -> str:
        """Who is called: calls to one host share a limit and a circuit breaker."""
        return urlsplit(self.url(request)).netloc

    def url(self, request: bytes) -> str:
        """Where a call goes."""
        return self._asked(request)[0]

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Answered | Again:
        """One attempt."""
        key, (url, body) = call_id.decode(), self._asked(request)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "traceparent": traceparent(owner_of(key), f"{key}#{attempt}"),
        }
        try:
            response = await self._open_client().post(url, content=msgspec.json.encode(body), headers=headers)
        except httpx.HTTPError as error:
            return Again(f"{url}: {type(error).__name__} {error}".rstrip())
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code in NOT_ANSWERED:
            return Again(f"{url}: status {response.status_code}", _wished_s(response))
        return Answered(msgspec.json.encode(Answer(response.status_code, response.text[:LONGEST_BODY])))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _asked(self, request: bytes) -> tuple[str, dict[str, Any]]:
        """Where the call goes, and its body."""
        row = ROWS.decode(request)
        asked = msgspec.json.decode(row.request, type=_KINDS[row.kind])
        body: dict[str, Any] = msgspec.to_builtins(asked)
        if isinstance(asked, PrepareRequest):
            body.pop("pos_url")
            callback = f"/v1/pos/{asked.restaurant}/tickets/{asked.order}"
            return f"{asked.pos_url}/prepare", {**body, "callback_url": self._public_url() + callback}
        callback = f"/v1/payments/{self._payment_provider}/events"
        url = f"{self._payment_url}/v1/{'charges' if isinstance(asked, ChargeRequest) else 'refunds'}"
        return url, {**body, "callback_url": self._public_url() + callback}

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            # httpx's own transport takes 3 ms of CPU a request with a hundred in flight, aiohttp's 0.6
            self._client = httpx.AsyncClient(transport=AiohttpTransport(), timeout=TIMEOUT_S)
        return self._client


def _wished_s(response: httpx.Response) -> float | None:
    """The party's own wish, in seconds (RFC 9110 section 10.2.3; dates are not read)."""
    wish = response.headers.get("Retry-After", "")
    return min(float(wish), LONGEST_WISH_S) if wish.isdigit() else None


_KINDS: dict[CallKind, Any] = {"charge": ChargeRequest, "refund": RefundRequest, "prepare": PrepareRequest}
