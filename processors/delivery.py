"""The delivery of one order: dispatch finds a driver, who picks the food up and delivers it.

Rules:
1. Every request for a driver is an attempt with a number. Events of another attempt or another driver do not count.
2. An assignment that comes too late is refused. The driver is unassigned and becomes available again.
3. If a driver refuses the assignment, the next attempt begins.
"""

from typing import Never

import msgspec

from processors.decision import Decision, DecisionContext, Rows, StageEnum, Table, ignore_duplicate, refused
from processors.events import (
    DeliveryAssigned,
    DeliveryCompleted,
    DeliveryEtaChanged,
    DeliveryPickedUp,
    DeliveryStarted,
)
from processors.parameters import Parameters
from topics.deliveries import Delivered, DriverAssigned, DriverRefused, EtaChanged, PickedUp
from topics.dispatch import DriverRequested
from topics.drivers import Unassign
from topics.places import Position
from topics.records import epoch_ms, instant


class Stage(StageEnum):
    """Progress of the delivery."""

    REQUESTED = "REQUESTED"
    ASSIGNED = "ASSIGNED"
    PICKED_UP = "PICKED_UP"
    DELIVERED = "DELIVERED"


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One delivery, with its places and its driver. Its id is the order's."""

    order: str
    stage: Stage
    attempt: int
    """Number of the latest request for a driver, from 1."""
    region: str
    restaurant: str
    pickup: Position
    dropoff: Position
    driver: str | None = None
    last_eta_ms: int = 0
    """Time of the last ``EtaChanged``, by the clock of the driver's app; older ones are absorbed."""


# -- guards ----------------------------------------------------------------------------------------------------------


def is_current_attempt(
    delivery: Delivery, event: DriverAssigned | DriverRefused | PickedUp | EtaChanged, _: DecisionContext
) -> bool:
    """the attempt is the current one"""
    return event.attempt == delivery.attempt


def is_earlier_attempt(delivery: Delivery, event: DriverRefused, _: DecisionContext) -> bool:
    """the attempt is an earlier one"""
    return event.attempt < delivery.attempt


def is_its_driver(
    delivery: Delivery, event: DriverAssigned | PickedUp | Delivered | EtaChanged, _: DecisionContext
) -> bool:
    """driver and attempt are the assigned ones"""
    return (event.driver, event.attempt) == (delivery.driver, delivery.attempt)


def newer_from_its_driver(delivery: Delivery, event: EtaChanged, context: DecisionContext) -> bool:
    """driver and attempt are the assigned ones, and the ETA is newer than the last"""
    return is_its_driver(delivery, event, context) and _event_time_ms(event, context) > delivery.last_eta_ms


# -- effects ---------------------------------------------------------------------------------------------------------


def request(_: None, event: DeliveryStarted, context: DecisionContext) -> Decision[Delivery]:
    """request a driver from dispatch: attempt 1"""
    delivery = Delivery(
        order=event.order,
        stage=Stage.REQUESTED,
        attempt=1,
        region=event.region,
        restaurant=event.restaurant,
        pickup=event.pickup,
        dropoff=event.dropoff,
    )
    return Decision(state=delivery, emit=(_driver_request(delivery, context),))


def request_another(delivery: Delivery, event: DriverRefused, context: DecisionContext) -> Decision[Delivery]:
    """request another driver from dispatch: the next attempt"""
    next_attempt = msgspec.structs.replace(delivery, attempt=event.attempt + 1)
    return Decision(state=next_attempt, emit=(_driver_request(next_attempt, context),))


def assign(delivery: Delivery, event: DriverAssigned | PickedUp, context: DecisionContext) -> Decision[Delivery]:
    """record the driver; notify the order: driver and ETA"""
    assigned = msgspec.structs.replace(delivery, driver=event.driver, last_eta_ms=0)
    return Decision(state=assigned, internal_events=(DeliveryAssigned(event.driver, _eta_ms(event, context)),))


def pick_up(_delivery: Delivery, event: PickedUp, context: DecisionContext) -> Decision[Delivery]:
    """notify the order: picked up, new ETA"""
    return Decision(internal_events=(DeliveryPickedUp(_eta_ms(event, context)),))


def update_eta(delivery: Delivery, event: EtaChanged, context: DecisionContext) -> Decision[Delivery]:
    """notify the order: new ETA"""
    updated = msgspec.structs.replace(delivery, last_eta_ms=_event_time_ms(event, context))
    return Decision(state=updated, internal_events=(DeliveryEtaChanged(_eta_ms(event, context)),))


def deliver(_delivery: Delivery, _event: Delivered, __: DecisionContext) -> Decision[Delivery]:
    """notify the order: delivered"""
    return Decision(internal_events=(DeliveryCompleted(),))


def refuse_late_driver(delivery: Delivery, event: DriverAssigned, context: DecisionContext) -> Decision[Delivery]:
    """refuse: another attempt or driver is current; unassign the driver"""
    current = f"attempt {delivery.attempt}" + (f", driver {delivery.driver}" if delivery.driver else "")
    reason = (
        f"the delivery is {delivery.stage.value} in {current}; attempt {event.attempt}, driver {event.driver} is late"
    )
    return refuse_and_unassign(event, reason, context)


# -- the table -------------------------------------------------------------------------------------------------------

REQUESTED, ASSIGNED, PICKED_UP, DELIVERED = Stage.REQUESTED, Stage.ASSIGNED, Stage.PICKED_UP, Stage.DELIVERED
ANY = (REQUESTED, ASSIGNED, PICKED_UP, DELIVERED)
HAS_DRIVER = (ASSIGNED, PICKED_UP, DELIVERED)

Event = DeliveryStarted | DriverAssigned | DriverRefused | PickedUp | EtaChanged | Delivered
"""Union of the events of the table."""
row = Rows[Delivery, Stage]()
ROWS = (
    row((None,), DeliveryStarted, REQUESTED, request),
    row((REQUESTED,), DriverAssigned, ASSIGNED, assign, when=is_current_attempt),
    row((REQUESTED,), DriverRefused, None, request_another, when=is_current_attempt),
    row((REQUESTED,), PickedUp, ASSIGNED, assign, when=is_current_attempt, reapply=True),
    row((REQUESTED,), EtaChanged, None, ignore_duplicate, when=is_current_attempt),
    row((ASSIGNED,), PickedUp, PICKED_UP, pick_up, when=is_its_driver),
    row((PICKED_UP,), Delivered, DELIVERED, deliver, when=is_its_driver),
    row((ASSIGNED, PICKED_UP), EtaChanged, None, update_eta, when=newer_from_its_driver),
    row(HAS_DRIVER, EtaChanged, None, ignore_duplicate),
    row(HAS_DRIVER, DriverAssigned, None, ignore_duplicate, when=is_its_driver),
    row(ANY, DriverAssigned, None, refuse_late_driver),
    row(ANY, DriverRefused, None, ignore_duplicate, when=is_earlier_attempt),
    row((PICKED_UP, DELIVERED), PickedUp, None, ignore_duplicate, when=is_its_driver),
    row((DELIVERED,), Delivered, None, ignore_duplicate, when=is_its_driver),
)
TABLE = Table[Delivery, Stage, Event]("the delivery", ROWS)


def decide(delivery: Delivery | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Delivery]:
    """Decide an event of a delivery: a record of ``topics.deliveries``, or an event for the delivery in ``events``."""
    return TABLE.decide(delivery, event, now_ms, parameters)


def refuse_and_unassign(event: DriverAssigned, reason: str, context: DecisionContext) -> Decision[Never]:
    """Refuse an assignment for this reason, and unassign the driver, who becomes available again."""
    unassign = Unassign(
        id=f"{event.order}/unassign/{event.attempt}/{event.driver}",
        at=instant(context.now_ms),
        driver=event.driver,
        delivery=event.order,
        attempt=event.attempt,
    )
    return msgspec.structs.replace(refused(reason), emit=(unassign,))


def _driver_request(delivery: Delivery, context: DecisionContext) -> DriverRequested:
    return DriverRequested(
        id=f"{delivery.order}/driver/{delivery.attempt}",
        at=instant(context.now_ms),
        region=delivery.region,
        delivery=delivery.order,
        attempt=delivery.attempt,
        restaurant=delivery.restaurant,
        pickup=delivery.pickup,
        dropoff=delivery.dropoff,
    )


def _event_time_ms(event: DriverAssigned | PickedUp | EtaChanged, context: DecisionContext) -> int:
    """Return the time at which the driver's ETA was true."""
    return context.now_ms if event.at is None else epoch_ms(event.at)


def _eta_ms(event: DriverAssigned | PickedUp | EtaChanged, context: DecisionContext) -> int:
    return _event_time_ms(event, context) + event.eta_s * 1000
