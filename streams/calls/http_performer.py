"""HTTP client of the calls that tasks request.

The body of a request is written once, when a task requests the call, and stored in the call's row: every attempt sends
the same bytes, whichever worker makes it. Destinations compare the bodies under one idempotency key.

A server error, a request to slow down, a time-out or a broken connection is no answer: the engine repeats the call
under the same key. ``processors.call_results`` decides the meaning of an answer, and whether it ends the call.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
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
from streams.tracing import conventions as name
from streams.tracing.ids import SPAN_DIGITS, attempt_span, root_of
from streams.tracing.spans import OFF, Attribute, Span, SpanKind, Tracing
from topics.headers import IDEMPOTENCY_KEY, TRACEPARENT
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
    span: str = ""
    """Id of the span that requested the call, 16 hex digits; empty for an order without spans."""


CAPABILITY = "~capability~"
"""Place of the capability in a callback's address, so that no row has the proof itself."""
OUR_ERRORS = (ValueError, httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of a request that cannot be written: a header that no protocol can hold, or a URL that is none."""
log = logging.getLogger(__name__)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of a party: the HTTP status and the text of the body, at most ``MAX_BODY_BYTES`` of it.

    The status ``NOT_SENT`` stands for an attempt that failed in this worker; the body is the error then.
    """

    status: int
    body: str
    span: str = ""
    """Id of the attempt's span, 16 hex digits; empty for an order without spans."""


ROWS = msgspec.json.Decoder(Row)
ANSWERS = msgspec.json.Decoder(Answer)


def row_of(call: Call, public_url: str, payment_provider: str, span: str = "") -> bytes:
    """Return the row of a call. The called party reaches the HTTP API at ``public_url`` for its callbacks.

    ``span`` is the id of the span that requests the call.
    """
    body: dict[str, Any] = msgspec.to_builtins(call.request)
    if isinstance(call.request, PrepareRequest):
        body["callback_url"] = _callback_url(public_url, POS, call.request.restaurant, call.request.order)
        address = {"restaurant": call.request.restaurant, "pos_url": body.pop("pos_url")}
    else:
        body["callback_url"] = _callback_url(public_url, PAYMENTS, payment_provider, body["order"])
        address = {}
    return msgspec.json.encode(Row(call.kind, msgspec.Raw(msgspec.json.encode(body)), **address, span=span))


def _callback_url(public_url: str, kind: str, party: str, order: str) -> str:
    """Return the address as the row has it: the capability takes its place when the request is sent."""
    return f"{public_url}/v1/callbacks/{CAPABILITY}/{kind}/{party}/{order}"


class HttpRequest(NamedTuple):
    """A call as an HTTP request. The party is the restaurant's id or the payment provider's name, not a host."""

    kind: CallKind
    party: str
    url: str
    body: bytes
    span: str
    """Id of the span that requested the call; empty for an order without spans."""


class Attempted(NamedTuple):
    """Outcome of an attempt, with the status of the answer or the error."""

    outcome: CallOutcome
    result: int | Exception


class HttpPerformer:
    """Performer of calls over HTTP. The engine limits the calls at once: in all, per party and per host."""

    def __init__(
        self,
        payment_url: str,
        payment_provider: str,
        capability: Callable[[str], str],
        addresses: AllowedAddresses = LOOPBACK_AND_PUBLIC,
        proofs: PartyProofs = NO_PROOFS,
        tracing: Tracing = OFF,
    ) -> None:
        """``capability`` returns the proof in a callback's address for its subject (`streams.access.rules`).

        ``addresses`` are those that calls may reach. ``proofs`` adds to a request the proof that it is ours.
        """
        self._capability = capability
        self._payment_url = payment_url
        self._payment_provider = payment_provider
        self._addresses = addresses
        self._proofs = proofs
        self._tracing = tracing
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
        http, began_ns = self._http_request(request), time.time_ns()
        outcome, result = await self._attempt_or_error(call_id, http, attempt)
        key = call_id.decode(errors="replace")
        if not self._tracing.is_sampled(owner_of(key)):
            return outcome
        span = _span(key, http, attempt, began_ns, result)
        return replace(outcome, after_commit=partial(self._tracing.send, span))

    async def _attempt_or_error(self, call_id: bytes, http: HttpRequest, attempt: int) -> Attempted:
        try:
            return await self._attempt(call_id.decode(), http, attempt)
        except TimeoutError as error:
            return Attempted(Retry(f"{http.url}: no answer within {TIMEOUT_S:g} s"), error)
        except OUR_ERRORS as error:
            return Attempted(_not_sent(http.url, error), error)
        except (httpx.HTTPError, aiohttp.ClientError) as error:  # the transport does not convert all of aiohttp's
            return Attempted(Retry(f"{http.url}: {_text_of(error)}"), error)
        except Exception as error:
            key = call_id.decode(errors="replace")
            log.exception("the call %s failed in this worker", key, extra=about_order(owner_of(key)))
            return Attempted(_not_sent(http.url, error), error)

    async def _attempt(self, key: str, http: HttpRequest, attempt: int) -> Attempted:
        order, span = owner_of(key), attempt_span(key, attempt, _asked_by(key, http))
        body = self._with_capability(http, order)
        proof = self._proof(http, key, body)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # a small compressed body could unpack to a huge one
            IDEMPOTENCY_KEY: key,
            TRACEPARENT: self._tracing.traceparent(order, span),
            **proof,
        }
        async with (
            asyncio.timeout(TIMEOUT_S),
            self._open_client().stream("POST", http.url, content=body, headers=headers) as response,
        ):
            status = response.status_code
            if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in RETRY_STATUSES:
                return Attempted(Retry(f"{http.url}: status {status}", _retry_after_s(response)), status)
            text = without_credentials(await _text(response), proof)
            answer = CallAnswered(key, http.kind, status, text)
            traced = f"{span:0{SPAN_DIGITS}x}" if self._tracing.is_sampled(order) else ""
            return Attempted(_outcome(answer, http.url, attempt, _retry_after_s(response), traced), status)

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
        return HttpRequest(row.kind, party, _joined(base, spec.path), bytes(row.body), row.span)

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


def _span(key: str, http: HttpRequest, attempt: int, began_ns: int, result: int | Exception) -> Span:
    """Return the span of an attempt that ends now. It has the host, but not the URL, which may contain credentials."""
    order, template, asked_by = owner_of(key), CALLS[http.kind].path, _asked_by(key, http)
    attributes: dict[str, Attribute] = {
        name.CALL: key,
        name.HTTP_METHOD: "POST",
        name.URL_TEMPLATE: template,
        name.SERVER_ADDRESS: _host_of(http.url),
    }
    if attempt > 1:
        attributes[name.HTTP_RESEND_COUNT] = attempt - 1
    error = ""
    if isinstance(result, Exception):
        error = type(result).__name__
    else:
        attributes[name.HTTP_STATUS] = result
        error = str(result) if result >= httpx.codes.BAD_REQUEST else ""
    return Span(
        order=order,
        id=attempt_span(key, attempt, asked_by),
        parent=asked_by,
        name=f"POST {template}",
        kind=SpanKind.CLIENT,
        start_ns=began_ns,
        end_ns=time.time_ns(),
        attributes=attributes,
        error=error,
    )


def _asked_by(key: str, http: HttpRequest) -> int:
    """Return the span that requested a call; the root for an order without spans."""
    return int(http.span, 16) if http.span else root_of(owner_of(key))


def _host_of(url: str) -> str:
    """Return the host of a URL; empty if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _outcome(answer: CallAnswered, url: str, attempt: int, after_s: float | None, span: str) -> CallOutcome:
    """Return the outcome of an attempt that was answered; ``span`` is the id of its span."""
    verdict, result = verdict_on(answer), msgspec.json.encode(Answer(answer.status, answer.body, span))
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
