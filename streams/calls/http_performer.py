"""HTTP client of the calls that tasks request.

The body of a request is written once, when a task requests the call, and stored in the call's row: every attempt sends
the same bytes, whichever worker makes it. Destinations compare the bodies under one idempotency key.

A server error, a request to slow down, a time-out or a broken connection is no answer: the engine repeats the call
under the same key. ``processors.call_results`` decides the meaning of an answer, and whether it ends the call.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport
from yarl import URL

from exactly_once import CallOutcome, Completed, DestinationKey, Health, Retry, Unsettled
from processors.call_kinds import CALLS, CallKind
from processors.call_results import NOT_SENT, Verdict, unclear, verdict_on
from processors.decision import Call
from processors.events import CallAnswered
from processors.requests import PrepareRequest
from streams.access.party_proofs import NO_PROOFS, PartyProofs, without_credentials
from streams.access.rules import PAYMENTS, POS, callback_subject
from streams.calls.addresses import AllowedAddresses
from streams.calls.resolver import ThreadedResolver
from streams.logs import about_order
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
QUICK_ATTEMPTS = 4
"""Attempts with the usual back-off before an unclear answer needs a person. They take about three seconds."""
SLOW_RETRY_S = 600.0
"""Pause after each unclear answer from then on. The party may settle it by itself."""

LOOPBACK_AND_PUBLIC = AllowedAddresses(("127.0.0.0/8", "::1/128"))


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """Row of a call: its kind, and the body as it is sent. A point of sale is named by its restaurant and address."""

    kind: CallKind
    body: msgspec.Raw
    restaurant: str = ""
    pos_url: str = ""


CAPABILITY = "~capability~"
"""Place of the capability in a callback's address, so that no row has the proof itself."""
OUR_ERRORS = (ValueError, httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of a request that cannot be written: a header that no protocol can hold, or a URL that is none."""
log = logging.getLogger(__name__)


class Answer(msgspec.Struct, frozen=True):
    """Answer of a party: the HTTP status and the text of the body, at most ``MAX_BODY_BYTES`` of it.

    The status ``NOT_SENT`` stands for an attempt that failed in this worker; the body is the error then.
    """

    status: int
    body: str


ROWS = msgspec.json.Decoder(Row)
ANSWERS = msgspec.json.Decoder(Answer)


def row_of(call: Call, public_url: str, payment_provider: str) -> bytes:
    """Return the row of a call. The called party reaches the HTTP API at ``public_url`` for its callbacks."""
    body: dict[str, Any] = msgspec.to_builtins(call.request)
    if isinstance(call.request, PrepareRequest):
        body["callback_url"] = _callback_url(public_url, POS, call.request.restaurant, call.request.order)
        address = {"restaurant": call.request.restaurant, "pos_url": body.pop("pos_url")}
    else:
        body["callback_url"] = _callback_url(public_url, PAYMENTS, payment_provider, body["order"])
        address = {}
    return msgspec.json.encode(Row(call.kind, msgspec.Raw(msgspec.json.encode(body)), **address))


def _callback_url(public_url: str, kind: str, party: str, order: str) -> str:
    """Return the address as the row has it: the capability takes its place when the request is sent."""
    return f"{public_url}/v1/callbacks/{CAPABILITY}/{kind}/{party}/{order}"


class HttpRequest(NamedTuple):
    """A call as an HTTP request. The party is the restaurant's id or the payment provider's name, not a host."""

    kind: CallKind
    party: str
    url: str
    body: bytes


class HttpPerformer:
    """Performer of calls over HTTP. The engine limits the calls at once: in all, per party and per host."""

    def __init__(
        self,
        payment_url: str,
        payment_provider: str,
        capability: Callable[[str], str],
        addresses: AllowedAddresses = LOOPBACK_AND_PUBLIC,
        proofs: PartyProofs = NO_PROOFS,
    ) -> None:
        """``capability`` returns the proof in a callback's address for its subject (`streams.access.rules`).

        ``addresses`` are those that calls may reach. ``proofs`` adds to a request the proof that it is ours.
        """
        self._capability = capability
        self._payment_url = payment_url
        self._payment_provider = payment_provider
        self._addresses = addresses
        self._proofs = proofs
        self._client: httpx.AsyncClient | None = None

    def destination_of(self, request: bytes) -> DestinationKey:
        """Return the destination of a call: a restaurant at its URL, the charges, or the refunds."""
        http = self._http_request(request)
        return DestinationKey(f"{http.party} {http.url}", urlsplit(http.url).netloc)

    def url(self, request: bytes) -> str:
        """Return the URL of a call."""
        return self._http_request(request).url

    async def perform(self, call_id: bytes, request: bytes, attempt: int) -> CallOutcome:
        """Make one attempt of a call.

        A failure of the party is a `Retry` with the error. An error of this side, such as a request that cannot be
        written, is `Unsettled`: it is no failure of the party, and a person has to look.
        """
        http = self._http_request(request)
        try:
            return await self._attempt(call_id.decode(), http, attempt)
        except TimeoutError:
            return Retry(f"{http.url}: no answer within {TIMEOUT_S:g} s")
        except OUR_ERRORS as error:
            return _not_sent(http.url, error)
        except (httpx.HTTPError, aiohttp.ClientError) as error:  # the transport does not convert all of aiohttp's
            return Retry(f"{http.url}: {_text_of(error)}")
        except Exception as error:
            key = call_id.decode(errors="replace")
            log.exception("the call %s failed in this worker", key, extra=about_order(owner_of(key)))
            return _not_sent(http.url, error)

    async def _attempt(self, key: str, http: HttpRequest, attempt: int) -> CallOutcome:
        body = self._with_capability(http, owner_of(key))
        proof = self._proof(http, key, body)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a small compressed body could unpack to a huge one
            IDEMPOTENCY_KEY: key,
            "traceparent": traceparent(owner_of(key), f"{key}#{attempt}"),
            **proof,
        }
        async with (
            asyncio.timeout(TIMEOUT_S),
            self._open_client().stream("POST", http.url, content=body, headers=headers) as response,
        ):
            if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or response.status_code in RETRY_STATUSES:
                return Retry(f"{http.url}: status {response.status_code}", _retry_after_s(response))
            text = without_credentials(await _text(response), proof)
            answer = CallAnswered(key, http.kind, response.status_code, text)
            return _outcome(answer, http.url, attempt, _retry_after_s(response))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _with_capability(self, http: HttpRequest, order: str) -> bytes:
        """Return the body with the capability of its callback address, the last member of the object."""
        kind = PAYMENTS if CALLS[http.kind].is_payment else POS
        before, _, after = http.body.rpartition(CAPABILITY.encode())
        return before + self._capability(callback_subject(kind, http.party, order)).encode() + after

    def _proof(self, http: HttpRequest, key: str, body: bytes) -> Mapping[str, str]:
        """Return the headers that prove to the party that the request is ours."""
        if CALLS[http.kind].is_payment:
            return self._proofs.of_payment()
        return self._proofs.of_ticket(http.party, key, body)

    def _http_request(self, request: bytes) -> HttpRequest:
        row = ROWS.decode(request)
        spec = CALLS[row.kind]
        party, base = (self._payment_provider, self._payment_url) if spec.is_payment else (row.restaurant, row.pos_url)
        return HttpRequest(row.kind, party, _joined(base, spec.path), bytes(row.body))

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


def _outcome(answer: CallAnswered, url: str, attempt: int, after_s: float | None) -> CallOutcome:
    """Return the outcome of an attempt that was answered."""
    verdict, result = verdict_on(answer), msgspec.json.encode(Answer(answer.status, answer.body))
    if verdict is Verdict.FINAL:
        return Completed(result)
    error = f"{url}: {unclear(answer)}"
    if verdict is Verdict.UNCLEAR and attempt >= QUICK_ATTEMPTS:
        return Unsettled(result, error, max(after_s or 0.0, SLOW_RETRY_S))
    return Retry(error, after_s, Health.ANSWERS)


def _not_sent(url: str, error: Exception) -> Unsettled:
    """Return the outcome of an attempt that failed in this worker."""
    text = _text_of(error)[:200]
    return Unsettled(msgspec.json.encode(Answer(NOT_SENT, text)), f"{url}: {text}", SLOW_RETRY_S, Health.UNKNOWN)


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__} {error}".rstrip()


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
    try:
        return str(URL(url).joinpath(path.removeprefix("/")))
    except ValueError:  # the attempt fails with this URL, and a person sees the reason
        return url + path


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the pause that the party asks for, in seconds (RFC 9110 section 10.2.3); None for a date or without one.

    0 also gives None, because the call would be repeated as fast as the party answers.
    """
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_S) or None if text.isdecimal() else None
