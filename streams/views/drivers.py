"""The driver's app: availability, the assigned delivery, pickup, delivery and location."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from processors.decision import Outcome
from processors.driver import Driver, Stage
from streams.services import Services
from streams.views.api_view import ApiView
from streams.web.deciding import Decided, to_response
from streams.web.doorkeeper import sender_of
from streams.web.listing import PAGE_QUERY, Listing
from streams.web.masking import masked
from streams.web.operation import operation
from streams.web.operators import action_of, sees_personal_data
from streams.web.problems import Problem
from streams.web.requests import IDEMPOTENT, key_part, parse_id, read_body, respond
from topics.drivers import Delivered, DriverRecord, PickedUp, SetAvailable, SetUnavailable
from topics.families import DRIVERS, LOCATIONS
from topics.identity import OrderId, PartyId
from topics.locations import Location
from topics.places import Position
from topics.records import Instant, Reader, instant

MAX_WAIT_S = 30.0
"""Longest wait of a long poll; then the app polls again."""


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `available`."""

    region: PartyId
    position: Position


class DeliveryRef(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `pickup` and `delivered`."""

    delivery: OrderId


class LocationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `location`."""

    position: Position
    at: Instant | None = None


class DriverRef(msgspec.Struct, frozen=True):
    """A driver."""

    driver: PartyId


class ShownDriver(msgspec.Struct, frozen=True, kw_only=True):
    """State of a driver."""

    driver: PartyId
    status: str
    shift: int
    region: PartyId
    position: Position
    delivery: OrderId | None
    picked_up: bool


class DecidedDriver(ShownDriver, frozen=True, kw_only=True):
    """The decision on an event of a driver, and the state of the driver."""

    outcome: Decided


class DriverPage(msgspec.Struct, frozen=True):
    """Page of the list of drivers."""

    drivers: list[ShownDriver]
    next: str | None


class DriversDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Present delivery of a driver."""

    delivery: OrderId
    attempt: int
    restaurant: PartyId
    pickup: Position
    dropoff: Position
    picked_up: bool


DECIDED_DRIVER: Mapping[int, Any] = MappingProxyType({200: DecidedDriver, 202: DriverRef})
"""Types of the answers to an event of a driver."""
_availability: Reader[Availability] = Reader(Availability)
_delivery_ref: Reader[DeliveryRef] = Reader(DeliveryRef)
_location_report: Reader[LocationReport] = Reader(LocationReport)


class Drivers(ApiView):
    """All drivers."""

    scans = True
    is_personal = True

    @operation(
        "listDrivers",
        {200: DriverPage},
        query={
            **PAGE_QUERY,
            "status": Annotated[
                Literal["IDLE", "WAITING_FOR_WORK", "DELIVERING"], Meta(description="Status of the drivers.")
            ],
            "region": Annotated[str, Meta(description="Their region.")],
        },
    )
    async def get(self, request: web.Request) -> web.Response:
        """List the drivers by id, page by page.

        `?status=` selects `IDLE`, `WAITING_FOR_WORK` or `DELIVERING`; `?region=` selects one region.

        Operators see positions rounded to about a kilometre, here and below, unless they reveal them.

        - 200: `{"drivers": [...], "next"}`, each driver as below.
        """
        status, region = _status(request), request.query.get("region")
        return await listing(self.services, exact=sees_personal_data(request)).answer(
            request, lambda row: status in (None, row.status) and region in (None, row.region)
        )


class DriverState(ApiView):
    """One driver."""

    is_personal = True

    @operation("getDriver", {200: ShownDriver})
    async def get(self, request: web.Request, driver: str) -> web.Response:
        """Return the state of a driver.

        - 200: `driver`, `status`, `shift` (number of the present shift), `region`, `position` (`lat` and `lon`
          in degrees), `delivery` (its id, or null) and `picked_up`.
        - 404: the driver has never been available.
        """
        parse_id(driver, PartyId, "a driver")
        return await self.services.forwarding.forward_to_owner(request, driver) or respond(
            200, _shown(_known(self.services, driver), exact=sees_personal_data(request))
        )


class Available(ApiView):
    """A driver becomes available."""

    @operation("makeAvailable", DECIDED_DRIVER, body=Availability, headers=IDEMPOTENT)
    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Make a driver available in a region; this begins a shift. The first call creates the driver.

        The body has `region` and `position` (`lat` and `lon` in degrees). A repeated `Idempotency-Key` has no effect.
        Without the header each request is a new one.

        A waiting driver who sends no location and no other request for 5 minutes is off duty (`IDLE`), and is forgotten
        after 30 days. Send the location at least once a minute, also if it stays the same.

        - 200: the driver's state and `outcome` (`APPLIED`, or `ABSORBED` for a repeat).
        - 409: the driver has a delivery, or the key was used for another request.
        """
        parse_id(driver, PartyId, "a driver")
        body = await read_body(request, _availability)
        event = SetAvailable(
            id=_request_id(self.services, request, driver, "available"),
            driver=driver,
            region=body.region,
            position=body.position,
        )
        return await _submit(self.services, request, driver, event)


class Unavailable(ApiView):
    """A driver becomes unavailable."""

    @operation("makeUnavailable", DECIDED_DRIVER, headers=IDEMPOTENT)
    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Make a driver unavailable; this ends the shift. The body may be empty.

        - 200: the driver's state and `outcome` (`APPLIED`, or `ABSORBED` for a repeat).
        - 404: the driver has never been available.
        - 409: the driver has a delivery, or the `Idempotency-Key` was used for another request.
        """
        parse_id(driver, PartyId, "a driver")
        return await _submit(
            self.services,
            request,
            driver,
            SetUnavailable(id=_request_id(self.services, request, driver, "unavailable"), driver=driver),
        )


class Pickup(ApiView):
    """A driver picks up the food."""

    @operation("reportPickup", DECIDED_DRIVER, body=DeliveryRef)
    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Report that the driver has picked up the food of a delivery. The body has `delivery`, the order's id.

        - 200: the driver's state and `outcome` (`APPLIED`, or `ABSORBED` for a repeat).
        - 404: the driver has never been available.
        - 409: the driver does not have this delivery.
        """
        parse_id(driver, PartyId, "a driver")
        body = await read_body(request, _delivery_ref)
        return await _submit(self.services, request, driver, PickedUp(driver=driver, delivery=body.delivery))


class Dropoff(ApiView):
    """A driver hands over the food."""

    @operation("reportDelivered", DECIDED_DRIVER, body=DeliveryRef)
    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Report that the customer has the food of a delivery. The body has `delivery`, the order's id.

        - 200: the driver's state and `outcome` (`APPLIED`, or `ABSORBED` for a repeat).
        - 404: the driver has never been available.
        - 409: the driver does not have this delivery, or has not picked it up.
        """
        parse_id(driver, PartyId, "a driver")
        body = await read_body(request, _delivery_ref)
        return await _submit(self.services, request, driver, Delivered(driver=driver, delivery=body.delivery))


class DriverLocation(ApiView):
    """Location of a driver."""

    @operation("reportLocation", {202: DriverRef}, body=LocationReport)
    async def post(self, request: web.Request, driver: str) -> web.Response:
        """Record the location of a driver. The answer does not wait for a decision.

        The body has `position` (`lat` and `lon` in degrees) and may have `at`, the time of the position; the default is
        now. A location that is older than the last one has no effect. Nor has latitude 0, longitude 0, or a jump faster
        than 300 m/s, of which the third in a row counts.

        - 202: Kafka has the location: `{"driver"}`.
        - 404: the driver has never been available.
        """
        parse_id(driver, PartyId, "a driver")
        report = await read_body(request, _location_report)
        if (answer := await self.services.forwarding.forward_to_owner(request, driver)) is not None:
            return answer
        _known(self.services, driver)
        at = report.at or instant(self.services.now_ms())
        event_id = f"{driver}/at/{at.isoformat()}"
        await self.services.decisions.produce(
            LOCATIONS,
            Location(id=event_id, driver=driver, position=report.position, at=at),
            action_of(request, self.services.new_id, driver),
        )
        return respond(202, {"driver": driver})


class AssignedDelivery(ApiView):
    """The assigned delivery."""

    is_personal = True

    @operation(
        "awaitDelivery",
        {200: DriversDelivery, 204: None},
        query={"wait": Annotated[float, Meta(ge=0, le=MAX_WAIT_S, description="Seconds to wait for an assignment.")]},
    )
    async def get(self, request: web.Request, driver: str) -> web.Response:
        """Return the delivery of a driver, as a long poll.

        `?wait=` is the time to wait for an assignment, from 0 (the default) to 30 seconds.

        - 200: `delivery`, `attempt`, `restaurant`, `pickup` and `dropoff` (positions), and `picked_up`.
        - 204: the driver has no delivery by then.
        - 404: the driver has never been available.
        """
        parse_id(driver, PartyId, "a driver")
        wait_s = _wait(request)
        if wait_s == 0:
            return await self._poll(request, driver, wait_s)
        with self.services.limits.waiting.take(sender_of(request).name):
            return await self._poll(request, driver, wait_s)

    async def _poll(self, request: web.Request, driver: str, wait_s: float) -> web.Response:
        deadline = asyncio.get_running_loop().time() + wait_s
        if (answer := await self.services.forwarding.forward_to_owner(request, driver)) is not None:
            return answer
        while (row := _known(self.services, driver)).assignment is None:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not await self.services.engine.watch.changed(
                self.services.tables.drivers.name, driver.encode(), left
            ):
                return web.Response(status=204)
            await self.services.engine.verify_ownership(self.services.engine.partition_of(driver.encode()))
        delivery = row.assignment if sees_personal_data(request) else masked(row.assignment)
        return respond(200, {**msgspec.to_builtins(delivery), "picked_up": row.picked_up})


async def _submit(services: Services, request: web.Request, driver: str, event: DriverRecord) -> web.Response:
    if (answer := await services.forwarding.forward_to_owner(request, driver)) is not None:
        return answer
    decision = await services.decisions.submit(DRIVERS, event, action_of(request, services.new_id, driver))
    is_decided = decision is not None and decision.outcome is not Outcome.NOT_FOUND and not decision.failed
    state = _shown(_known(services, driver), exact=sees_personal_data(request)) if is_decided else DriverRef(driver)
    return to_response(decision, f"driver {driver}", f"/v1/drivers/{driver}", msgspec.structs.asdict(state))


def _known(services: Services, driver: str) -> Driver:
    row = services.tables.drivers.read(driver, driver)
    if row is None:
        raise Problem(404, "unknown", f"driver {driver} has never been available")
    return row


def _shown(row: Driver, *, exact: bool) -> ShownDriver:
    return ShownDriver(
        driver=row.id,
        status=row.status,
        shift=row.shift,
        region=row.region,
        position=row.position if exact else masked(row).position,
        delivery=row.assignment.delivery if row.assignment else None,
        picked_up=row.picked_up,
    )


def listing(services: Services, *, exact: bool) -> Listing[Driver]:
    """Return the list of all drivers, with the table and the form of its rows; ``exact`` shows exact positions."""
    return Listing(
        services.engine,
        services.forwarding,
        services.tables.drivers.name,
        "drivers",
        lambda key, value: services.tables.drivers.decode(key.decode(), value),
        lambda _, row: _shown(row, exact=exact),
    )


def _status(request: web.Request) -> str | None:
    status, known = request.query.get("status"), {stage.value.partition(",")[0] for stage in Stage}
    if status is not None and status not in known:
        raise Problem(422, "invalid", f"status={status}: it must be one of {', '.join(sorted(known))}")
    return status


def _request_id(services: Services, request: web.Request, driver: str, action: str) -> str:
    """Return the event's id: the same for requests with the same `Idempotency-Key`, unique without one."""
    return f"{driver}/{action}/{key_part(request, services.new_id)}"


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise Problem(422, "invalid", f"wait={text}: it must be a number of seconds from 0 to {MAX_WAIT_S:g}")
    return seconds
