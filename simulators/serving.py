"""How the simulators that are called serve HTTP: bodies read with types, errors as problem+json (RFC 9457), faults.

GET /faults             {kind: rate} of those that are switched on
POST /faults            {kind: rate}: these too
DELETE /faults          none any more; requests that were kept silent about are cut
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from simulators.command import Failure
from simulators.faults import AFTER, BEFORE, SLOW_S, Faults, WrongFault
from topics.records import Reader, Undecodable

CallbackUrl = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s]+", max_length=2000)]
"""Where a caller wants to be called back."""

_rates: Reader[Mapping[str, float]] = Reader(dict[str, float])

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """The request cannot be done; `status` and `detail` say what is wrong with it and what to do."""

    def __init__(self, status: int, detail: str, wrong: Undecodable | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.wrong = status, detail, wrong


def respond(status: int, body: Any) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


async def read_body(request: web.Request, reader: Reader[T]) -> T:
    """The body as the reader's type; a `Problem` names the field that is wrong."""
    try:
        return reader.read(await request.read())
    except Undecodable as wrong:
        raise Problem(400, f"the body cannot be used: {wrong}", wrong) from None


def idempotency_key(request: web.Request) -> str:
    """The request's `Idempotency-Key`, quoted or not; a `Problem` where it has none."""
    key = request.headers.get("Idempotency-Key", "").strip().strip('"')
    if not key:
        raise Problem(400, "send an Idempotency-Key header: the same request again must not be done twice")
    return key


def faults_routes(faults: Faults) -> list[web.RouteDef]:
    """Where faults are switched on and off while the simulator runs."""

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


def troubled(handler: Handler, faults: Faults) -> Handler:
    """The handler, as somebody sees it whose request one of these faults may strike."""

    async def handle(request: web.Request) -> web.StreamResponse:
        key, restaurant = request.headers.get("Idempotency-Key", ""), request.match_info.get("restaurant", "")
        match faults.one_of(BEFORE, key, restaurant):
            case "500":
                raise Problem(500, "nothing was done: a fault that is switched on")
            case "silent":
                await faults.until_off("silent", restaurant)
                return _cut(request)
            case "cut":
                return _cut(request)
        answer = await handler(request)
        match faults.one_of(AFTER, key, restaurant):
            case "500-after":
                raise Problem(500, "nobody knows what was done: a fault that is switched on")
            case "cut-after":
                return _cut(request)
            case "slow":
                await asyncio.sleep(SLOW_S)
        return answer

    return handle


def _cut(request: web.Request) -> web.Response:
    """Cut the connection; what is returned reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@asynccontextmanager
async def served(routes: list[web.RouteDef], host: str, port: int) -> AsyncIterator[tuple[str, asyncio.Future[None]]]:
    """Serve; gives the address, and a future that fails with the `Failure` a handler ran into."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    application = web.Application(middlewares=[_answers_problems(failed)])
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
