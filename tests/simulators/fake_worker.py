"""A worker in memory: it answers as a test demands, and records the simulators' requests."""

import asyncio
from collections import defaultdict, deque
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

CUT = 0
"""A value in place of a status: the request takes effect and the connection is cut."""


class Request(NamedTuple):
    """A request, and the status of its answer."""

    path: str
    key: str
    body: Any
    status: int


class DriverRow(msgspec.Struct, kw_only=True):
    """The state of a driver at the worker."""

    driver: str
    status: str = "IDLE"
    shift: int = 0
    region: str = ""
    position: Any = None
    delivery: str | None = None
    picked_up: bool = False


class FakeWorker:
    """A worker that answers every callback with 200, places every order, and assigns offers to waiting drivers."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.next_statuses: dict[str, deque[int]] = defaultdict(deque)
        """Path -> statuses of the next answers there. A request answered with a server error has no effect."""
        self.orders: dict[str, Any] = {}
        self.statuses: dict[str, str] = {}
        self.drivers: dict[str, DriverRow] = {}
        self.offers: deque[dict[str, Any]] = deque()
        self.assignments: dict[str, dict[str, Any]] = {}
        self.longest_poll_s = 60.0
        self._done: set[str] = set()
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._listens = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen on a free port, or on the last one after `stop`."""
        application = web.Application()
        application.add_routes(
            [
                web.get("/readyz", _ready),
                web.post("/v1/orders", self._place),
                web.get("/v1/orders/{order}", self._order),
                web.get("/v1/drivers/{driver}", self._driver),
                web.get("/v1/drivers/{driver}/delivery", self._delivery),
                web.post("/v1/drivers/{driver}/{event}", self._driver_event),
                web.post("/{path:.*}", self._callback),
            ]
        )
        self._listens = True
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection and the port. The state stays."""
        self._listens = False
        if self._runner is not None:
            await self._runner.cleanup()

    def calls(self, path: str) -> list[Request]:
        """Return the requests for a path, oldest first."""
        return [request for request in self.requests if request.path == path]

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        return await self._record(request, 200, {})

    async def _place(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read())
        order = f"{body['provider']}:{body['external_id']}"
        known = self.orders.setdefault(order, body)
        self.statuses.setdefault(order, "CREATED")
        same = {**known, "at": None} == {**body, "at": None}
        status = 422 if not same else 200 if order in self._done else 201
        self._done.add(order)
        return await self._record(request, status, {"id": order, "detail": "the same id with another body"})

    async def _order(self, request: web.Request) -> web.StreamResponse:
        order = request.match_info["order"]
        if order not in self.statuses:
            return await self._record(request, 404, {"detail": "no such order"})
        return await self._record(
            request, 200, {"id": order, "status": self.statuses[order], "version": 1, "reason": ""}
        )

    async def _driver(self, request: web.Request) -> web.StreamResponse:
        row = self.drivers.get(request.match_info["driver"])
        return await self._record(request, 200 if row else 404, row)

    async def _delivery(self, request: web.Request) -> web.StreamResponse:
        row = self.drivers.get(request.match_info["driver"])
        if row is None:
            return await self._record(request, 404, {})
        deadline = asyncio.get_running_loop().time() + min(self.longest_poll_s, float(request.query["wait"]))
        while self._listens and row.delivery is None and asyncio.get_running_loop().time() < deadline:
            if self.offers and row.status == "WAITING_FOR_WORK":
                self._assign(row, self.offers.popleft())
            else:
                await asyncio.sleep(0.01)
        if row.delivery is None:
            return web.Response(status=204)
        return await self._record(request, 200, {**self.assignments[row.driver], "picked_up": row.picked_up})

    def _assign(self, row: DriverRow, offer: dict[str, Any]) -> None:
        self.assignments[row.driver] = offer
        row.status, row.delivery, row.picked_up = "DELIVERING", offer["delivery"], False

    async def _driver_event(self, request: web.Request) -> web.StreamResponse:
        row = self.drivers.setdefault(request.match_info["driver"], DriverRow(driver=request.match_info["driver"]))
        key, body = request.headers["Idempotency-Key"], msgspec.json.decode(await request.read())
        if next(iter(self.next_statuses[request.path]), CUT) >= 500:
            return await self._record(request, 500, {})
        status = 200 if key in self._done else self._apply(row, request.match_info["event"], body)
        if status == 200:
            self._done.add(key)
        return await self._record(request, status, row if status == 200 else {"detail": f"not when {row.status}"})

    def _apply(self, row: DriverRow, event: str, body: Any) -> int:
        match event:
            case "available" if row.status != "DELIVERING":
                row.status, row.shift, row.region = "WAITING_FOR_WORK", row.shift + 1, body["region"]
                row.position = body["position"]
            case "unavailable" if row.status != "DELIVERING":
                row.status = "IDLE"
            case "pickup" if row.delivery == body["delivery"]:
                row.picked_up = True
            case "delivered" if row.delivery == body["delivery"] and row.picked_up:
                row.status, row.delivery, row.picked_up = "IDLE", None, False
            case _:
                return 409
        return 200

    async def _record(self, request: web.Request, status: int, body: Any) -> web.StreamResponse:
        sent = self.next_statuses[request.path].popleft() if self.next_statuses[request.path] else status
        text = await request.read()
        body_in = msgspec.json.decode(text) if text else None
        self.requests.append(Request(request.path, request.headers.get("Idempotency-Key", ""), body_in, sent))
        if sent == CUT:
            assert request.transport is not None
            request.transport.abort()
        answer = body if sent == status else {"detail": f"answered {sent} as the test demands"}
        headers = {"Retry-After": "1"} if (sent, request.path) == (409, "/v1/orders") else None
        content = msgspec.json.encode(answer)
        return web.Response(status=sent or 500, body=content, content_type="application/json", headers=headers)


async def _ready(_: web.Request) -> web.StreamResponse:
    return web.Response()
