"""HTTP between the parties outside and the workers: the real views of a worker, without sockets.

A request arrives at any worker. The view of its path serves it and forwards it if another worker owns the key, as in
production.
"""

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec
from aiohttp import web
from multidict import CIMultiDict

from streams.web.problems import problem_middleware
from topics.drivers import Delivered, PickedUp, SetAvailable
from topics.orders import Placed
from topics.payments import PaymentRecord
from topics.pos import PosRecord, TicketAccepted, TicketRejected
from topics.records import write
from verification.simulation.loop import VirtualLoop
from verification.simulation.network import Network
from verification.simulation.worker import KEY, Worker

Answer = tuple[int, Any]
"""Status and body, as JSON."""


class Request(NamedTuple):
    """An HTTP request of a party outside."""

    method: str
    path: str
    body: bytes = b""
    key: str = ""
    """Value of its `Idempotency-Key`."""


def place(placed: Placed) -> Request:
    """Return the request that places an order. It has a key beside the external id."""
    return Request("POST", "/v1/orders", write(placed), f"{placed.key}/place")


def call_back_payment(record: PaymentRecord) -> Request:
    """Return the payment provider's callback."""
    return Request("POST", "/v1/payments/payments/events", write(record))


def call_back_ticket(record: PosRecord) -> Request:
    """Return the restaurant's callback."""
    event = (
        "rejected"
        if isinstance(record, TicketRejected)
        else "accepted"
        if isinstance(record, TicketAccepted)
        else "finished"
    )
    body = {"reason": record.reason} if isinstance(record, TicketRejected) else {}
    return Request("POST", f"/v1/pos/{record.restaurant}/tickets/{record.order}/{event}", msgspec.json.encode(body))


def report(event: SetAvailable | PickedUp | Delivered, key: str = "") -> Request:
    """Return the request of a driver's app."""
    if isinstance(event, SetAvailable):
        body = msgspec.json.encode({"region": event.region, "position": event.position})
        return Request("POST", f"/v1/drivers/{event.driver}/available", body, key)
    step = "pickup" if isinstance(event, PickedUp) else "delivered"
    return Request("POST", f"/v1/drivers/{event.driver}/{step}", msgspec.json.encode({"delivery": event.delivery}))


class Front:
    """Public address of the workers. Every request arrives at one of them."""

    def __init__(self, loop: VirtualLoop, network: Network) -> None:
        self._loop = loop
        self._network = network
        self._chance = network.chance("front")
        self.workers: dict[str, Worker] = {}
        """The workers that listen, by name."""

    async def ask(self, request: Request, timeout_s: float = 15.0) -> Answer:
        """Send one request. Raises ``ConnectionError`` or ``TimeoutError`` if there is no answer."""
        await asyncio.sleep(self._network.delay_s("front"))
        if not self.workers:
            raise ConnectionError
        worker = self.workers[self._chance.choice(sorted(self.workers))]
        headers = {"Authorization": f"Bearer {KEY}"} | ({"Idempotency-Key": request.key} if request.key else {})
        async with asyncio.timeout(timeout_s):
            response = await self.serve(worker, request.method, request.path, request.body, headers)
        return response.status, msgspec.json.decode(_body(response) or b"null")

    async def serve(
        self, worker: Worker, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> web.Response:
        """Serve a request in a worker's process; raise ``ConnectionError`` if the process is dead or dies."""
        if worker.actor.dead:
            raise ConnectionError
        answered: asyncio.Future[web.Response] = self._loop.create_future()
        worker.open_answers[answered] = None
        worker.spawn(_serve(worker, SimulatedRequest(method, path, body, headers), answered))
        try:
            answer = await answered
        finally:
            worker.open_answers.pop(answered, None)
        await asyncio.sleep(self._network.delay_s("front"))
        return answer

    def client_of(self, worker: Worker) -> "Client":
        """Return the client with which a worker forwards requests."""
        return Client(self, self._network, worker)


class Forwarded(NamedTuple):
    """A request from one worker to another."""

    method: str
    url: str
    content: bytes
    headers: Mapping[bytes, bytes]
    timeout: httpx.Timeout


class Client:
    """The part of ``httpx.AsyncClient`` that ``streams.web.forwarding`` uses."""

    def __init__(self, front: Front, network: Network, worker: Worker) -> None:
        self._front = front
        self._network = network
        self._worker = worker

    def build_request(
        self, method: str, url: str, *, content: bytes, headers: Mapping[bytes, bytes], timeout: httpx.Timeout
    ) -> "Forwarded":
        """Return a request to another worker."""
        return Forwarded(method, url, content, headers, timeout)

    async def send(self, request: "Forwarded") -> httpx.Response:
        """Send a request to another worker. Raises ``httpx.HTTPError`` if there is no answer."""
        method, url, content, headers, timeout = request
        name, _, path = url.partition("/")
        other = self._front.workers.get(name)
        if other is None or self._worker.actor in self._network.cut or other.actor in self._network.cut:
            raise httpx.ConnectError("no worker listens there")
        sent = {header.decode(): value.decode() for header, value in headers.items()}
        try:
            async with asyncio.timeout(timeout.read):
                answer = await self._front.serve(other, method, f"/{path}", content, sent)
        except (ConnectionError, TimeoutError) as error:
            raise httpx.ReadError("the connection was cut") from error
        return httpx.Response(answer.status, headers=dict(answer.headers), content=_body(answer))


class SimulatedRequest:
    """The part of ``aiohttp.web.Request`` that the views use."""

    def __init__(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.method = method
        self.path_qs = path
        self.path = urlsplit(path).path
        self.query = dict(parse_qsl(urlsplit(path).query))
        self.headers = CIMultiDict(headers)
        self.match_info: dict[str, str] = {}
        self.remote = "party"
        self._noted: dict[Any, Any] = {}
        self._body = body

    def __setitem__(self, name: Any, value: Any) -> None:
        self._noted[name] = value

    def __getitem__(self, name: Any) -> Any:
        return self._noted[name]

    async def read(self) -> bytes:
        """Return the body."""
        return self._body


async def _serve(worker: Worker, request: Any, answered: "asyncio.Future[web.Response]") -> None:
    response = await problem_middleware(request, lambda given: _dispatch(worker, given))
    assert isinstance(response, web.Response)
    if not answered.done():
        answered.set_result(response)


async def _dispatch(worker: Worker, request: Any) -> web.StreamResponse:
    for pattern, view in worker.app.views.items():
        if found := _compiled(pattern).fullmatch(request.path):
            request.match_info = found.groupdict()
            response: web.StreamResponse = await view(request)
            return response
    raise web.HTTPNotFound


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a path pattern of aiohttp: ``{name}`` or ``{name:expression}``."""
    return re.compile(re.sub(r"\{(\w+)(?::([^}]+))?\}", lambda part: f"(?P<{part[1]}>{part[2] or '[^/]+'})", pattern))


def _body(response: web.Response) -> bytes:
    body = response.body
    return body if isinstance(body, bytes) else b""
