"""A worker in memory, which answers as told: what the simulators call, kept in a list."""

import asyncio
from collections import defaultdict, deque
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

LOST = 0
"""Instead of a status: the request is heard and done, and the connection cut. With a server error it is not done."""


class Heard(NamedTuple):
    """A request as it came in."""

    path: str
    key: str
    body: Any
    status: int


class Twin(msgspec.Struct, kw_only=True):
    """A driver as the worker sees them."""

    driver: str
    status: str = "IDLE"
    shift: int = 0
    region: str = ""
    position: Any = None
    delivery: str | None = None
    picked_up: bool = False


class FakeWorker:
    """Answers every callback with 200, places every order, and hands offered deliveries to whoever waits."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.first: dict[str, deque[int]] = defaultdict(deque)
        """Path -> the statuses with which its next requests are answered."""
        self.orders: dict[str, Any] = {}
        self.statuses: dict[str, str] = {}
        self.drivers: dict[str, Twin] = {}
        self.offers: deque[dict[str, Any]] = deque()
        self.assignments: dict[str, dict[str, Any]] = {}
        self._done: set[str] = set()
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._listens = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, on the same port again if there was one."""
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
        """Cut every connection and listen no more; what it knows stays."""
        self._listens = False
        if self._runner is not None:
            await self._runner.cleanup()

    def calls(self, path: str) -> list[Heard]:
        """The requests on a path, oldest first."""
        return [heard for heard in self.heard if heard.path == path]

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        return await self._hear(request, 200, {})

    async def _place(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read())
        order = f"{body['provider']}:{body['external_id']}"
        known = self.orders.setdefault(order, body)
        self.statuses.setdefault(order, "CREATED")
        same = {**known, "at": None} == {**body, "at": None}
        status = 422 if not same else 200 if order in self._done else 201
        self._done.add(order)
        return await self._hear(request, status, {"id": order, "detail": "the same id with another body"})

    async def _order(self, request: web.Request) -> web.StreamResponse:
        order = request.match_info["order"]
        if order not in self.statuses:
            return await self._hear(request, 404, {"detail": "no such order"})
        return await self._hear(request, 200, {"id": order, "status": self.statuses[order], "version": 1, "reason": ""})

    async def _driver(self, request: web.Request) -> web.StreamResponse:
        twin = self.drivers.get(request.match_info["driver"])
        return await self._hear(request, 200 if twin else 404, twin)

    async def _delivery(self, request: web.Request) -> web.StreamResponse:
        twin = self.drivers.get(request.match_info["driver"])
        if twin is None:
            return await self._hear(request, 404, {})
        deadline = asyncio.get_running_loop().time() + float(request.query["wait"])
        while self._listens and twin.delivery is None and asyncio.get_running_loop().time() < deadline:
            if self.offers and twin.status == "WAITING_FOR_WORK":
                self._assign(twin, self.offers.popleft())
            else:
                await asyncio.sleep(0.01)
        if twin.delivery is None:
            return web.Response(status=204)
        return await self._hear(request, 200, {**self.assignments[twin.driver], "picked_up": twin.picked_up})

    def _assign(self, twin: Twin, offer: dict[str, Any]) -> None:
        self.assignments[twin.driver] = offer
        twin.status, twin.delivery, twin.picked_up = "DELIVERING", offer["delivery"], False

    async def _driver_event(self, request: web.Request) -> web.StreamResponse:
        twin = self.drivers.setdefault(request.match_info["driver"], Twin(driver=request.match_info["driver"]))
        key, body = request.headers["Idempotency-Key"], msgspec.json.decode(await request.read())
        if next(iter(self.first[request.path]), LOST) >= 500:
            return await self._hear(request, 500, {})
        status = 200 if key in self._done else self._apply(twin, request.match_info["event"], body)
        if status == 200:
            self._done.add(key)
        return await self._hear(request, status, twin if status == 200 else {"detail": f"not when {twin.status}"})

    def _apply(self, twin: Twin, event: str, body: Any) -> int:
        match event:
            case "available" if twin.status != "DELIVERING":
                twin.status, twin.shift, twin.region = "WAITING_FOR_WORK", twin.shift + 1, body["region"]
                twin.position = body["position"]
            case "unavailable" if twin.status != "DELIVERING":
                twin.status = "IDLE"
            case "pickup" if twin.delivery == body["delivery"]:
                twin.picked_up = True
            case "delivered" if twin.delivery == body["delivery"] and twin.picked_up:
                twin.status, twin.delivery, twin.picked_up = "IDLE", None, False
            case _:
                return 409
        return 200

    async def _hear(self, request: web.Request, status: int, body: Any) -> web.StreamResponse:
        told = self.first[request.path].popleft() if self.first[request.path] else status
        text = await request.read()
        said = msgspec.json.decode(text) if text else None
        self.heard.append(Heard(request.path, request.headers.get("Idempotency-Key", ""), said, told))
        if told == LOST:
            assert request.transport is not None
            request.transport.abort()
        answer = body if told == status else {"detail": f"answered {told} as the test wants"}
        return web.Response(status=told or 500, body=msgspec.json.encode(answer), content_type="application/json")


async def _ready(_: web.Request) -> web.StreamResponse:
    return web.Response()
