"""The HTTP server of the simulators that are called: typed bodies, errors as problem+json (RFC 9457), faults.

GET /faults             {kind: rate} of the faults that are switched on
POST /faults            {kind: rate}: switch these on, besides the others
DELETE /faults          switch all off; requests that were left unanswered are cut

A simulator serves no web pages and calls back only workers on this machine, the host of `DABBAWALA_URL`, and those of
`--callback-host`.
"""

import argparse
import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, Any, Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from simulators.cli import Failure, Reporter
from simulators.faults import AFTER, BEFORE, SLOW_S, Faults, WrongFault
from simulators.http_client import Caller
from simulators.ledger import record_run
from topics.headers import IDEMPOTENCY_KEY
from topics.patterns import HTTP_URL
from topics.records import Reader, Undecodable

CallbackUrl = Annotated[str, msgspec.Meta(pattern=HTTP_URL)]
"""The address for a caller's callback."""


class _CallingBack(msgspec.Struct):
    callback_url: str = ""


_rates: Reader[Mapping[str, float]] = Reader(dict[str, float])

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Party(Protocol):
    """A simulated party that is called over HTTP."""

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the party."""

    def resume(self) -> None:
        """Continue the work that the last process left unfinished."""


class Problem(Exception):
    """A request that fails: an HTTP status, and a detail that names the cause and the remedy."""

    def __init__(self, status: int, detail: str, wrong: Undecodable | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.wrong = wrong


def respond(status: int, body: Any) -> web.Response:
    """Return a JSON answer."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


async def read_body(request: web.Request, reader: Reader[T]) -> T:
    """Return the body as the reader's type. Raises a `Problem` (400) that names the wrong field."""
    try:
        return reader.read(await request.read())
    except Undecodable as wrong:
        raise Problem(400, f"the body cannot be used: {wrong}", wrong) from None


def idempotency_key(request: web.Request) -> str:
    """Return the request's `Idempotency-Key`, without quotes. Raises a `Problem` (400) if it has none."""
    key = request.headers.get(IDEMPOTENCY_KEY, "").strip().strip('"')
    if not key:
        raise Problem(400, "send an Idempotency-Key header, so that a repeated request has no second effect")
    return key


def faults_routes(faults: Faults) -> list[web.RouteDef]:
    """Return the routes that switch faults on and off while the simulator runs."""

    async def show(_: web.Request) -> web.Response:
        return respond(200, faults.rates)

    async def switch_on(request: web.Request) -> web.Response:
        try:
            faults.switch_on(await read_body(request, _rates))
        except WrongFault as wrong:
            raise Problem(400, str(wrong)) from None
        return respond(200, faults.rates)

    async def switch_off(_: web.Request) -> web.Response:
        faults.switch_off()
        return respond(200, faults.rates)

    return [web.get("/faults", show), web.post("/faults", switch_on), web.delete("/faults", switch_off)]


def with_faults(handler: Handler, faults: Faults) -> Handler:
    """Return the handler with the faults that may strike its requests."""

    async def handle(request: web.Request) -> web.StreamResponse:
        key, restaurant = request.headers.get(IDEMPOTENCY_KEY, ""), request.match_info.get("restaurant", "")
        match faults.one_of(BEFORE, key, restaurant):
            case "500":
                raise Problem(500, "nothing was done: the fault 500 is switched on")
            case "silent":
                await faults.until_off("silent", restaurant)
                return _cut(request)
            case "cut":
                return _cut(request)
        answer = await handler(request)
        match faults.one_of(AFTER, key, restaurant):
            case "500-after":
                raise Problem(500, "the request may have been done: the fault 500-after is switched on")
            case "cut-after":
                return _cut(request)
            case "slow":
                await asyncio.sleep(SLOW_S)
        return answer

    return handle


def one_at_a_time(handler: Handler, *, is_strict: bool) -> Handler:
    """Return the handler; if strict, with 409 for a request whose key is under way, also if its client has gone."""
    under_way: set[str] = set()

    async def handle(request: web.Request) -> web.StreamResponse:
        key = request.headers.get(IDEMPOTENCY_KEY, "")
        if key in under_way:
            raise Problem(409, f"the first request with the key {key} is under way")
        under_way.add(key)
        try:
            return await handler(request)
        finally:
            under_way.discard(key)

    return handle if is_strict else handler


def _cut(request: web.Request) -> web.Response:
    """Cut the connection; the returned answer is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@asynccontextmanager
async def served(
    routes: list[web.RouteDef], host: str, port: int, callback_hosts: Collection[str]
) -> AsyncIterator[tuple[str, asyncio.Future[None]]]:
    """Serve; yield the address, and a future that fails with the first `Failure` of a handler."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    application = web.Application(middlewares=[_answers_problems(failed), _refuses_strangers(callback_hosts)])
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}", failed
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Failure(f"port {port} is taken: end what listens there, or choose another with --port") from None
        raise Failure(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    finally:
        await runner.cleanup()


async def serve_party(
    name: str,
    arguments: argparse.Namespace,
    make: Callable[[argparse.Namespace, Caller, asyncio.TaskGroup, Reporter], Party],
) -> int:
    """Serve a party until the process is stopped; return its exit status."""
    reporter = Reporter(name, arguments.quiet)
    async with Caller(reporter, arguments.seed) as caller, asyncio.TaskGroup() as tasks:
        party = make(arguments, caller, tasks, reporter)
        record_run(arguments.ledger, name, arguments.speed.factor)
        hosts = arguments.callback_host
        async with served(party.routes(), arguments.host, arguments.port, hosts) as (address, failed):
            reporter.notice(f"listening on {address}")
            party.resume()
            await failed
    return 0


def _answers_problems(failed: "asyncio.Future[None]") -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return _problem(problem)
        except web.HTTPException as error:
            return _problem(Problem(error.status, error.reason))
        except Failure as failure:
            if not failed.done():
                failed.set_exception(failure)
            return _problem(Problem(503, "out of order"))

    return middleware


def _refuses_strangers(callback_hosts: Collection[str]) -> Any:
    """Return a middleware that refuses web pages, bodies that are not JSON, and callbacks to other hosts."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
            raise Problem(403, "a simulator serves no web pages: send the request with another program")
        if request.body_exists:
            if request.content_type != "application/json":
                raise Problem(415, "a body must be application/json: send this Content-Type (with curl: --json BODY)")
            _check_callback(await request.read(), callback_hosts)
        return await handler(request)

    return middleware


def _check_callback(body: bytes, hosts: Collection[str]) -> None:
    """Raise a `Problem` (422) if the body asks for a callback to a host that is not allowed."""
    try:
        host = urlsplit(msgspec.json.decode(body, type=_CallingBack).callback_url).hostname
    except (msgspec.DecodeError, ValueError):  # the handler names the field that is wrong
        return
    if host is not None and host not in hosts and not _is_loopback(host):
        raise Problem(422, f"/callback_url: this simulator calls no host {host!r} unless --callback-host names it")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(problem: Problem) -> web.Response:
    wrong = problem.wrong
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "errors": [{"pointer": wrong.pointer, "detail": wrong.reason}] if wrong else [],
    }
    answer = respond(problem.status, body)
    answer.content_type = "application/problem+json"
    return answer
