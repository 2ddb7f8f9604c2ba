"""HTTP client of the calls that tasks request.

A call's row holds its ``kind`` and ``request``; this module turns it into an HTTP request. It decides only whether the
response is an answer. A server error, a request to slow down, a time-out or a broken connection is no answer: the
engine repeats the call under the same idempotency key. The processors decide what an answer means.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from exactly_once import Completed, DestinationKey, Retry
from processors.call_kinds import CALLS, CallKind
from processors.decision import Call
from processors.requests import PrepareRequest
from streams.calls.addresses import AllowedAddresses
from streams.calls.resolver import ThreadedResolver
from streams.tracing import traceparent
from topics.headers import IDEMPOTENCY_KEY
from topics.identity import owner_of

TIMEOUT_S = 8.0
"""Time limit of a call, from the connection to the last byte of the answer. It is below the engine's limit, so that the
error names the slow party."""
CONNECT_TIMEOUT_S = 3.0
"""Part of ``TIMEOUT_S`` that the connection may take."""
RETRY_STATUSES = {408, 425, 429}
"""Client errors that ask for the same request again later (RFC 9110 section 15.5.9, RFC 8470, RFC 6585)."""
KEEP_ALIVE_S = 5.0
"""Time that an idle connection stays open. Many servers close theirs soon after it."""
MAX_BODY_BYTES = 65_536
"""Bytes of an answer that are read; the rest is ignored."""
MAX_RETRY_AFTER_S = 600.0
"""Upper bound on the pause that a party may ask for with ``Retry-After``."""

LOOPBACK_AND_PUBLIC = AllowedAddresses(("127.0.0.0/8", "::1/128"))


class Row(msgspec.Struct, frozen=True):
    """Row of a call: its kind, and the request as JSON."""

    kind: CallKind
    request: msgspec.Raw


class Answer(msgspec.Struct, frozen=True):
    """Answer of a party: the HTTP status and the text of the body, at most ``MAX_BODY_BYTES`` of it."""

    status: int
    body: str


ROWS = msgspec.json.Decoder(Row)
ANSWERS = msgspec.json.Decoder(Answer)


def row_of(call: Call) -> bytes:
    """Return the row of a call."""
    return msgspec.json.encode(Row(call.kind, msgspec.Raw(msgspec.json.encode(call.request))))


class HttpRequest(NamedTuple):
    """A call as an HTTP request. The party is the restaurant's id or the payment provider's name, not a host."""

    party: str
    url: str
    body: dict[str, Any]


class HttpPerformer:
    """Performer of calls over HTTP. The engine limits the calls at once: in all, per party and per host."""

    def __init__(
        self,
        payment_url: str,
        payment_provider: str,
        public_url: Callable[[], str],
        addresses: AllowedAddresses = LOOPBACK_AND_PUBLIC,
    ) -> None:
        """``public_url`` returns the URL at which the called parties reach the HTTP API for their callbacks.

        ``addresses`` are those that calls may reach.
        """
        self._payment_url = payment_url
        self._payment_provider = payment_provider
        self._public_url = public_url
        self._addresses = addresses
        self._client: httpx.AsyncClient | None = None

    def destination_of(self, request: bytes) -> DestinationKey:
        """Return the destination of a call: a restaurant at its URL, the charges, or the refunds."""
        http = self._http_request(request)
        return DestinationKey(f"{http.party} {http.url}", urlsplit(http.url).netloc)

    def url(self, request: bytes) -> str:
        """Return the URL of a call."""
        return self._http_request(request).url

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Completed | Retry:
        """Make one attempt of a call. Never raises for a failure of the party: it returns a `Retry` with the error."""
        key = call_id.decode()
        _, url, body = self._http_request(request)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a small compressed body could unpack to a huge one
            IDEMPOTENCY_KEY: key,
            "traceparent": traceparent(owner_of(key), f"{key}#{attempt}"),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._open_client().stream("POST", url, content=msgspec.json.encode(body), headers=headers) as response,
            ):
                return await _answer(url, response)
        except TimeoutError:
            return Retry(f"{url}: no answer within {TIMEOUT_S:g} s")
        except (httpx.HTTPError, aiohttp.ClientError) as error:  # the transport does not convert all of aiohttp's
            return Retry(f"{url}: {type(error).__name__} {error}".rstrip())

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _http_request(self, request: bytes) -> HttpRequest:
        row = ROWS.decode(request)
        content: msgspec.Struct = msgspec.json.decode(row.request, type=CALLS[row.kind].request)
        body: dict[str, Any] = msgspec.to_builtins(content)
        if isinstance(content, PrepareRequest):
            body.pop("pos_url")
            callback = f"/v1/pos/{content.restaurant}/tickets/{content.order}"
            body["callback_url"] = self._public_url() + callback
            return HttpRequest(content.restaurant, _joined(content.pos_url, CALLS[row.kind].path), body)
        callback = f"/v1/payments/{self._payment_provider}/events"
        url = _joined(self._payment_url, CALLS[row.kind].path)
        return HttpRequest(self._payment_provider, url, {**body, "callback_url": self._public_url() + callback})

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            # with a hundred requests in flight, httpx's own transport takes 3 ms of CPU per request, aiohttp's 0.6 ms
            self._client = httpx.AsyncClient(
                transport=AiohttpTransport(client=self._session),
                timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            )
        return self._client

    def _session(self) -> aiohttp.ClientSession:
        """Return a session without a limit of connections and without cookies.

        A limit would let calls wait for connections that hang; the engine has limits of its calls. A cookie of one
        party must not reach another party at the same host.
        """
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=ThreadedResolver(urlsplit(self._payment_url).hostname or ""),
            socket_factory=self._addresses.connect_socket,
            ssl=httpx.create_ssl_context(),
            keepalive_timeout=KEEP_ALIVE_S,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def _answer(url: str, response: httpx.Response) -> Completed | Retry:
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code in RETRY_STATUSES:
        return Retry(f"{url}: status {response.status_code}", _retry_after_s(response))
    return Completed(msgspec.json.encode(Answer(response.status_code, await _text(response))))


async def _text(response: httpx.Response) -> str:
    """Return the body, cut off after ``MAX_BODY_BYTES``. The connection is closed if a rest is left unread."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body[:MAX_BODY_BYTES]).decode(errors="replace")


def _joined(url: str, path: str) -> str:
    """Return the URL of a path below another URL."""
    return str(URL(url).joinpath(path.removeprefix("/")))


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the pause that the party asks for, in seconds (RFC 9110 section 10.2.3); None for a date or without one.

    0 also gives None, because the call would be repeated as fast as the party answers.
    """
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_S) or None if text.isdecimal() else None
