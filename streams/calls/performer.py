"""Performs the calls that tasks have asked for, over HTTP.

A call's row holds what is asked (`kind` and `body`) and where (`url`). What an answer *means* is decided by the
processors; here it is only decided whether it is an answer at all: a server error, a request to slow down, a time-out
or a cut connection is none, and the same call is made again under the same idempotency key.
"""

from urllib.parse import urlsplit

import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from streams.engine import Again, Answered
from streams.tracing import traceparent
from topics.identity import owner_of

TIMEOUT_S = 8.0
"""Below the engine's own limit, so that the reason names the party that is slow."""
NOT_ANSWERED = {408, 425, 429}
"""Client errors that ask for the same request again later (RFC 9110 section 15.5.9, RFC 8470, RFC 6585)."""
LONGEST_BODY = 65_536


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A call's row: what is asked of whom."""

    kind: str
    url: str
    body: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: the HTTP status and the body's text."""

    status: int
    body: str


class HttpPerformer:
    """Makes the calls; the engine bounds how many at once, in all and to one host."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    def host(self, request: bytes) -> str:
        """Who is called: calls to one host share a limit and a circuit breaker."""
        return urlsplit(_requests.decode(request).url).netloc

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> Answered | Again:
        """One attempt."""
        key, asked = call_id.decode(), _requests.decode(request)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{key}"',
            "traceparent": traceparent(owner_of(key), f"{key}#{attempt}"),
        }
        try:
            response = await self._open_client().post(asked.url, content=bytes(asked.body), headers=headers)
        except httpx.HTTPError as error:
            return Again(f"{asked.url}: {type(error).__name__} {error}".rstrip())
        if response.status_code >= 500 or response.status_code in NOT_ANSWERED:
            return Again(f"{asked.url}: status {response.status_code}", _retry_after(response))
        answer = Answer(status=response.status_code, body=response.text[:LONGEST_BODY])
        return Answered(msgspec.json.encode(answer))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            # httpx's own transport takes 3 ms of CPU a request with 100 in flight, aiohttp's 0.6
            self._client = httpx.AsyncClient(transport=AiohttpTransport(), timeout=TIMEOUT_S)
        return self._client


def _retry_after(response: httpx.Response) -> float | None:
    """The party's own wish, in seconds, up to ten minutes (RFC 9110 section 10.2.3; dates are not read)."""
    wish = response.headers.get("Retry-After", "")
    return min(float(wish), 600.0) if wish.isdigit() else None


_requests = msgspec.json.Decoder(Request)
