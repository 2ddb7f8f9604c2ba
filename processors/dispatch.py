"""Matching of deliveries and waiting drivers of a region.

Rules:
1. A delivery gets the nearest waiting driver; a driver gets the delivery that has waited longest. Without a match, each
   waits as a row of the table. A driver farther from the restaurant than ``pickup_limit_m`` is no match.
2. The transaction that writes the assignment deletes the row of the match.
3. An attempt to find a driver counts once, however often it is requested; requests are remembered for a day.
4. An event of a driver carries the driver's shift, and counts only for the row of that shift.

``HANDLERS`` has one function for each event. Each line of its docstring is a case, ``condition: effect``; the table in
docs/state-machines.md is generated from them.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from processors.decision import CancelTimer, DecisionContext, Outcome, SetTimer
from processors.events import TimerDue
from processors.geography import distance_m
from processors.parameters import Parameters
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved, DriverRequested
from topics.drivers import Assign
from topics.places import Position
from topics.records import Record, instant

# -- rows ------------------------------------------------------------------------------------------------------------


class WaitingDriver(msgspec.Struct, frozen=True, kw_only=True):
    """Row `<region>/driver/<driver>`."""

    region: str
    driver: str
    shift: int
    position: Position


class PendingDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Row `<region>/pending/<since_ms>/<delivery>`: no driver was available."""

    region: str
    delivery: str
    attempt: int
    since_ms: int
    """Time of the first attempt: a later attempt keeps the place in the queue."""
    restaurant: str
    pickup: Position
    dropoff: Position


class DriverRequestSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Row `<region>/asked/<delivery>`: the latest attempt, and the time at which the row is deleted."""

    region: str
    delivery: str
    attempt: int
    since_ms: int
    expires_ms: int


Row = WaitingDriver | PendingDelivery | DriverRequestSeen
_decoders: Mapping[str, Callable[[bytes], Row]] = {
    "driver": msgspec.json.Decoder(WaitingDriver).decode,
    "pending": msgspec.json.Decoder(PendingDelivery).decode,
    "asked": msgspec.json.Decoder(DriverRequestSeen).decode,
}


def driver_key(region: str, driver: str) -> str:
    """Return the row key of a waiting driver."""
    return f"{region}/driver/{driver}"


def pending_key(region: str, since_ms: int, delivery: str) -> str:
    """Return the row key of a pending delivery; keys of a region sort by age."""
    return f"{region}/pending/{since_ms:014d}/{delivery}"


def request_key(region: str, delivery: str) -> str:
    """Return the row key of a request, which is also the name of the timer that deletes the row."""
    return f"{region}/asked/{delivery}"


def kind_of(key: str) -> str:
    """Return the kind of row that has this key: driver, pending or asked."""
    return key.split("/", 2)[1]


def decode_row(key: str, value: bytes) -> Row:
    """Return the row from its JSON; the key determines its type."""
    return _decoders[kind_of(key)](value)


# -- view and decision -----------------------------------------------------------------------------------------------


class View(Protocol):
    """Rows that a decision may read, committed or not. Implemented in ``processors.spatial_index``."""

    def nearest(self, region: str, position: Position) -> WaitingDriver | None: ...
    def oldest_pending(self, region: str, near: Position, within_m: float) -> PendingDelivery | None: ...
    def get(self, key: str) -> Row | None: ...


class DispatchDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Consequences of an event: rows to write (None: delete), records and timers."""

    outcome: Outcome = Outcome.APPLIED
    rows: Mapping[str, Row | None] = {}
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()


# -- events ----------------------------------------------------------------------------------------------------------

Event = DriverRequested | DriverAvailable | DriverMoved | DriverGone | TimerDue
"""Union of the events of dispatch."""
IGNORED = DispatchDecision(outcome=Outcome.ABSORBED)
"""Decision on a repeat, or on an event that is too late."""


def decide(view: View, event: object, now_ms: int, parameters: Parameters) -> DispatchDecision:
    """Decide an event of a region: a record of ``topics.dispatch``, or ``TimerDue`` of a row that expires.

    Any other event is an error of the caller: ``TypeError``.
    """
    context = DecisionContext(now_ms, parameters)
    match event:
        case DriverRequested():
            return request_driver(view, event, context)
        case DriverAvailable():
            return add_driver(view, event, context)
        case DriverMoved():
            return move_driver(view, event, context)
        case DriverGone():
            return remove_driver(view, event, context)
        case TimerDue():
            return expire(view, event, context)
    raise TypeError(f"dispatch does not handle {type(event).__name__}")


def request_driver(view: View, event: DriverRequested, context: DecisionContext) -> DispatchDecision:
    """Find a driver for a delivery.

    - an attempt seen before: ignore
    - a driver waits near enough: assign the nearest driver; delete the rows of the driver and of an earlier attempt
    - no driver waits near enough: queue the delivery; replace the row of an earlier attempt
    """
    seen = view.get(request_key(event.region, event.delivery))
    assert seen is None or isinstance(seen, DriverRequestSeen)
    if seen is not None and seen.attempt >= event.attempt:
        return IGNORED
    driver = view.nearest(event.region, event.pickup)
    if driver is None or distance_m(driver.position, event.pickup) > context.parameters.pickup_limit_m:
        return queue_delivery(seen, event, context)
    return assign_nearest(view, driver, seen, event, context)


def add_driver(view: View, event: DriverAvailable, context: DecisionContext) -> DispatchDecision:
    """Find a delivery for a driver.

    - the driver waits already, in this shift or a later one: ignore
    - a delivery waits near enough: assign the one that has waited longest; delete its row and the driver's older row
    - no delivery waits near enough: queue the driver; replace the row of an earlier shift
    """
    waiting = view.get(driver_key(event.region, event.driver))
    assert waiting is None or isinstance(waiting, WaitingDriver)
    if waiting is not None and waiting.shift >= event.shift:
        return IGNORED
    return _match_driver(view, waiting, event, context)


def move_driver(view: View, event: DriverMoved, context: DecisionContext) -> DispatchDecision:
    """Move a waiting driver.

    - the driver does not wait in this shift: ignore
    - a delivery waits near enough now: assign the one that has waited longest; delete its row and the driver's row
    - no delivery waits near enough: write the new position to the row
    """
    waiting = view.get(driver_key(event.region, event.driver))
    if not isinstance(waiting, WaitingDriver) or waiting.shift != event.shift:
        return IGNORED
    return _match_driver(view, waiting, event, context)


def remove_driver(view: View, event: DriverGone, _: DecisionContext) -> DispatchDecision:
    """Remove a waiting driver.

    - the driver waits in this shift: delete the row
    - the driver does not wait in this shift: ignore
    """
    if not _waits_in_shift(view, event):
        return IGNORED
    return DispatchDecision(rows={driver_key(event.region, event.driver): None})


def expire(view: View, event: TimerDue, context: DecisionContext) -> DispatchDecision:
    """Delete the row of a request after a day.

    - the request has no row: ignore
    - the delivery still waits: keep the row for another day
    - the row has expired: delete the row
    - the row has not expired yet: ignore
    """
    seen = view.get(event.name)
    if not isinstance(seen, DriverRequestSeen):
        return IGNORED
    if view.get(pending_key(seen.region, seen.since_ms, seen.delivery)) is not None:
        return extend_memory(seen, event, context)
    return DispatchDecision(rows={event.name: None}) if seen.expires_ms <= context.now_ms else IGNORED


HANDLERS: tuple[Callable[..., DispatchDecision], ...] = (
    request_driver,
    add_driver,
    move_driver,
    remove_driver,
    expire,
)
"""Handler of each event, in the order of the documentation; a test compares them with ``Event``."""


# -- parts of decisions ----------------------------------------------------------------------------------------------


def _match_driver(
    view: View, waiting: WaitingDriver | None, event: DriverAvailable | DriverMoved, context: DecisionContext
) -> DispatchDecision:
    """Assign the oldest delivery near the driver; queue the driver if there is none."""
    pending = view.oldest_pending(event.region, event.position, context.parameters.pickup_limit_m)
    return queue_driver(event) if pending is None else assign_oldest(waiting, pending, event, context)


def _waits_in_shift(view: View, event: DriverGone) -> bool:
    waiting = view.get(driver_key(event.region, event.driver))
    return isinstance(waiting, WaitingDriver) and waiting.shift == event.shift


def assign_nearest(
    view: View,
    driver: WaitingDriver,
    seen: DriverRequestSeen | None,
    event: DriverRequested,
    context: DecisionContext,
) -> DispatchDecision:
    """Assign the delivery to the nearest driver; delete the rows of the driver and of an earlier attempt."""
    request, timers = _remember_request(seen, event, context)
    pending = pending_key(event.region, request.since_ms, event.delivery)
    rows: dict[str, Row | None] = {driver_key(event.region, driver.driver): None, _key(request): request}
    if seen is not None and view.get(pending) is not None:
        rows[pending] = None
    return DispatchDecision(rows=rows, emit=(_assign(driver, event, context),), timers=timers)


def queue_delivery(
    seen: DriverRequestSeen | None, event: DriverRequested, context: DecisionContext
) -> DispatchDecision:
    """Queue the delivery; replace the row of an earlier attempt."""
    request, timers = _remember_request(seen, event, context)
    pending = PendingDelivery(
        region=event.region,
        delivery=event.delivery,
        attempt=event.attempt,
        since_ms=request.since_ms,
        restaurant=event.restaurant,
        pickup=event.pickup,
        dropoff=event.dropoff,
    )
    key = pending_key(event.region, request.since_ms, event.delivery)
    return DispatchDecision(rows={key: pending, _key(request): request}, timers=timers)


def assign_oldest(
    waiting: WaitingDriver | None,
    pending: PendingDelivery,
    event: DriverAvailable | DriverMoved,
    context: DecisionContext,
) -> DispatchDecision:
    """Assign the delivery that has waited longest; delete its row and the driver's older row."""
    rows: dict[str, Row | None] = {pending_key(event.region, pending.since_ms, pending.delivery): None}
    if waiting is not None:
        rows[driver_key(event.region, event.driver)] = None
    return DispatchDecision(rows=rows, emit=(_assign(event, pending, context),))


def queue_driver(event: DriverAvailable | DriverMoved) -> DispatchDecision:
    """Write the row of the waiting driver."""
    row = WaitingDriver(region=event.region, driver=event.driver, shift=event.shift, position=event.position)
    return DispatchDecision(rows={driver_key(event.region, event.driver): row})


def extend_memory(seen: DriverRequestSeen, event: TimerDue, context: DecisionContext) -> DispatchDecision:
    """Keep the row for another day."""
    expires_ms = _expires_ms(context)
    extended = msgspec.structs.replace(seen, expires_ms=expires_ms)
    return DispatchDecision(rows={event.name: extended}, timers=(SetTimer(event.name, expires_ms),))


def _remember_request(
    before: DriverRequestSeen | None, event: DriverRequested, context: DecisionContext
) -> tuple[DriverRequestSeen, tuple[SetTimer | CancelTimer, ...]]:
    """Return the row that remembers this attempt, and the changes of its timer."""
    seen = DriverRequestSeen(
        region=event.region,
        delivery=event.delivery,
        attempt=event.attempt,
        since_ms=context.now_ms if before is None else before.since_ms,
        expires_ms=_expires_ms(context),
    )
    expiry = SetTimer(_key(seen), seen.expires_ms)
    if before is None or before.expires_ms == seen.expires_ms:
        return seen, (expiry,)
    return seen, (CancelTimer(_key(seen), before.expires_ms), expiry)


def _key(seen: DriverRequestSeen) -> str:
    return request_key(seen.region, seen.delivery)


def _expires_ms(context: DecisionContext) -> int:
    return context.now_ms + round(context.parameters.request_memory_s * 1000)


def _assign(
    driver: WaitingDriver | DriverAvailable | DriverMoved,
    delivery: PendingDelivery | DriverRequested,
    context: DecisionContext,
) -> Assign:
    return Assign(
        id=f"{delivery.delivery}/assign/{delivery.attempt}",
        at=instant(context.now_ms),
        driver=driver.driver,
        shift=driver.shift,
        delivery=delivery.delivery,
        attempt=delivery.attempt,
        restaurant=delivery.restaurant,
        pickup=delivery.pickup,
        dropoff=delivery.dropoff,
    )
