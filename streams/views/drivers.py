"""What a driver's app calls: work wanted and not wanted, the delivery assigned, picked up, delivered, where I am."""

import asyncio
import time
from hashlib import sha256
from uuid import uuid4

import msgspec
from aiohttp import web

from processors.decision import Outcome
from processors.driver import Driver, Stage
from streams import tables
from streams.app import app, engine
from streams.problems import Problem
from streams.views.ask import ApiView, answered, decide, elsewhere, idempotency_key, named, produce, read_body, respond
from streams.views.listing import Listing
from topics.drivers import Delivered, DriverRecord, PickedUp, SetAvailable, SetUnavailable
from topics.families import DRIVERS, LOCATIONS
from topics.identity import OrderId, PartyId
from topics.locations import Location
from topics.places import Position
from topics.records import Instant, Reader, instant

LONGEST_KEY = 64
"""Of an `Idempotency-Key` that becomes part of an event's id as it is; a longer one is hashed."""
LONGEST_WAIT_S = 30.0
"""Of a long poll; an app polls again."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `available`."""

    region: PartyId
    position: Position


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `pickup` and `delivered`."""

    delivery: OrderId


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `location`."""

    position: Position
    at: Instant | None = None


_wanted: Reader[Wanted] = Reader(Wanted)
_done: Reader[Done] = Reader(Done)
_where: Reader[Where] = Reader(Where)


@app.page("/v1/drivers")
class Drivers(ApiView):
    """All of them."""

    async def get(self, request: web.Request) -> web.Response:
        """In the order of their ids; `?status=` and `?region=` narrow it down."""
        status, region = _status(request), request.query.get("region")
        return await listing.answer(request, lambda row: status in (None, row.status) and region in (None, row.region))


@app.page("/v1/drivers/{driver}")
class DriverState(ApiView):
    """How a driver stands."""

    async def get(self, request: web.Request, driver: str) -> web.Response:
        """Status, shift, place, delivery."""
        named(driver, PartyId, "a driver")
        return await elsewhere(request, driver) or respond(200, _shown(_known(driver)))


@app.page("/v1/drivers/{driver}/available")
class Available(ApiView):
    """The driver wants work."""

    async def post(self, request: web.Request, driver: str) -> web.Response:
        """In a region, from a position on."""
        named(driver, PartyId, "a driver")
        wanted = await read_body(request, _wanted)
        event = SetAvailable(
            id=_request_id(request, driver, "available"), driver=driver, region=wanted.region, position=wanted.position
        )
        return await _tell(request, driver, event)


@app.page("/v1/drivers/{driver}/unavailable")
class Unavailable(ApiView):
    """The driver wants no more work."""

    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Refused while a delivery is under way."""
        named(driver, PartyId, "a driver")
        return await _tell(
            request, driver, SetUnavailable(id=_request_id(request, driver, "unavailable"), driver=driver)
        )


@app.page("/v1/drivers/{driver}/pickup")
class Pickup(ApiView):
    """The driver has the food."""

    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Of this delivery."""
        named(driver, PartyId, "a driver")
        done = await read_body(request, _done)
        return await _tell(request, driver, PickedUp(driver=driver, delivery=done.delivery))


@app.page("/v1/drivers/{driver}/delivered")
class HandedOver(ApiView):
    """The customer has the food."""

    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Of this delivery."""
        named(driver, PartyId, "a driver")
        done = await read_body(request, _done)
        return await _tell(request, driver, Delivered(driver=driver, delivery=done.delivery))


@app.page("/v1/drivers/{driver}/location")
class DriverLocation(ApiView):
    """Where the driver is."""

    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Taken when Kafka has it; nobody waits for what follows from it."""
        named(driver, PartyId, "a driver")
        where = await read_body(request, _where)
        if (answer := await elsewhere(request, driver)) is not None:
            return answer
        _known(driver)
        at = where.at or instant(time.time_ns() // 1_000_000)
        event_id = f"{driver}/at/{at.isoformat()}"
        await produce(LOCATIONS, Location(id=event_id, driver=driver, position=where.position, at=at))
        return respond(202, {"driver": driver})


@app.page("/v1/drivers/{driver}/delivery")
class AssignedDelivery(ApiView):
    """The delivery the driver has, as a long poll."""

    async def get(self, request: web.Request, driver: str) -> web.Response:
        """With `?wait=SECONDS`, wait so long for one; 204 if there is none by then."""
        named(driver, PartyId, "a driver")
        deadline = asyncio.get_running_loop().time() + _wait(request)
        if (answer := await elsewhere(request, driver)) is not None:
            return answer
        while (row := _known(driver)).assignment is None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not await engine.watch.changed(tables.drivers.name, driver.encode(), left):
                return web.Response(status=204)
            await engine.prove(engine.partition_of(driver.encode()))
        return respond(200, {**msgspec.to_builtins(row.assignment), "picked_up": row.picked_up})


async def _tell(request: web.Request, driver: str, event: DriverRecord) -> web.Response:
    if (answer := await elsewhere(request, driver)) is not None:
        return answer
    told = await decide(DRIVERS, event)
    known = {} if told is None or told.outcome is Outcome.UNKNOWN or told.failed else _shown(_known(driver))
    return answered(told, f"driver {driver}", f"/v1/drivers/{driver}", {"driver": driver, **known})


def _known(driver: str) -> Driver:
    row = tables.drivers.read(driver, driver)
    if row is None:
        raise Problem(404, "unknown", f"driver {driver} has never been available")
    return row


def _shown(row: Driver) -> dict[str, object]:
    return {
        "driver": row.id,
        "status": row.status,
        "shift": row.shift,
        "region": row.region,
        "position": row.position,
        "delivery": row.assignment.delivery if row.assignment else None,
        "picked_up": row.picked_up,
    }


listing = Listing(
    tables.drivers.name,
    "drivers",
    lambda key, value: tables.drivers.decode(key.decode(), value),
    lambda _, row: _shown(row),
)


def _status(request: web.Request) -> str | None:
    status, known = request.query.get("status"), {stage.value.partition(",")[0] for stage in Stage}
    if status is not None and status not in known:
        raise Problem(422, "invalid", f"status={status}: it must be one of {', '.join(sorted(known))}")
    return status


def _request_id(request: web.Request, driver: str, what: str) -> str:
    """A request that is sent again with its `Idempotency-Key` is the same event; without one each is its own."""
    key = idempotency_key(request) or uuid4().hex
    return f"{driver}/{what}/{key if len(key) <= LONGEST_KEY else sha256(key.encode()).hexdigest()}"


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_S:
        raise Problem(422, "invalid", f"wait={text}: it must be a number of seconds from 0 to {LONGEST_WAIT_S:g}")
    return seconds
