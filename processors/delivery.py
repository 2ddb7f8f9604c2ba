"""The delivery of one order: a driver is looked for, comes, picks up and delivers.

Rules:
1. Every request for a driver is an attempt with a number; what is said about another attempt, or by another driver,
   does not count.
2. A driver that comes too late is told so, and is free again.
3. A driver that refuses is replaced: the next attempt begins.
"""

import msgspec

from processors.decision import Decision, Moment, Named, Table, Transition, absorb, refused
from processors.events import (
    DeliveryAssigned,
    DeliveryDone,
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


class Stage(Named):
    """How far the delivery is."""

    REQUESTED = "REQUESTED"
    ASSIGNED = "ASSIGNED"
    PICKED_UP = "PICKED_UP"
    DELIVERED = "DELIVERED"


class Delivery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where to where, and by whom. Its id is the order's."""

    order: str
    stage: Stage
    attempt: int
    """How many drivers were asked for."""
    region: str
    restaurant: str
    pickup: Position
    dropoff: Position
    driver: str | None = None
    heard_ms: int = 0
    """Of when the last ``EtaChanged`` is, by the clock of the driver's app: older ones are absorbed."""


# -- guards ----------------------------------------------------------------------------------------------------------


def current_attempt(delivery: Delivery, event: DriverAssigned | DriverRefused | PickedUp, _: Moment) -> bool:
    """of the current attempt"""
    return event.attempt == delivery.attempt


def earlier_attempt(delivery: Delivery, event: DriverRefused, _: Moment) -> bool:
    """of an earlier attempt"""
    return event.attempt < delivery.attempt


def its_driver(delivery: Delivery, event: DriverAssigned | PickedUp | Delivered | EtaChanged, _: Moment) -> bool:
    """by its driver, of this attempt"""
    return (event.driver, event.attempt) == (delivery.driver, delivery.attempt)


def its_driver_anew(delivery: Delivery, event: EtaChanged, moment: Moment) -> bool:
    """by its driver, newer than the last"""
    return its_driver(delivery, event, moment) and _said_ms(event, moment) > delivery.heard_ms


# -- effects ---------------------------------------------------------------------------------------------------------


def request(_: None, event: DeliveryStarted, moment: Moment) -> Decision[Delivery]:
    """dispatch: DriverRequested(1)"""
    delivery = Delivery(
        order=event.order,
        stage=Stage.REQUESTED,
        attempt=1,
        region=event.region,
        restaurant=event.restaurant,
        pickup=event.pickup,
        dropoff=event.dropoff,
    )
    return Decision(state=delivery, emit=(_wanted(delivery, moment),))


def request_another(delivery: Delivery, event: DriverRefused, moment: Moment) -> Decision[Delivery]:
    """dispatch: DriverRequested(n + 1)"""
    following = msgspec.structs.replace(delivery, attempt=event.attempt + 1)
    return Decision(state=following, emit=(_wanted(following, moment),))


def assign(delivery: Delivery, event: DriverAssigned | PickedUp, moment: Moment) -> Decision[Delivery]:
    """order: a driver comes"""
    assigned = msgspec.structs.replace(delivery, driver=event.driver, heard_ms=0)
    return Decision(state=assigned, tell=(DeliveryAssigned(event.driver, _eta_ms(event, moment)),))


def pick_up(_delivery: Delivery, event: PickedUp, moment: Moment) -> Decision[Delivery]:
    """order: picked up"""
    return Decision(tell=(DeliveryPickedUp(_eta_ms(event, moment)),))


def estimate(delivery: Delivery, event: EtaChanged, moment: Moment) -> Decision[Delivery]:
    """order: ETA"""
    heard = msgspec.structs.replace(delivery, heard_ms=_said_ms(event, moment))
    return Decision(state=heard, tell=(DeliveryEtaChanged(_eta_ms(event, moment)),))


def deliver(_delivery: Delivery, _event: Delivered, __: Moment) -> Decision[Delivery]:
    """order: delivered"""
    return Decision(tell=(DeliveryDone(),))


def turn_away(delivery: Delivery, event: DriverAssigned, moment: Moment) -> Decision[Delivery]:
    """refused; driver: Unassign"""
    unassign = Unassign(
        id=f"{delivery.order}/unassign/{event.attempt}/{event.driver}",
        at=instant(moment.now_ms),
        driver=event.driver,
        delivery=delivery.order,
        attempt=event.attempt,
    )
    whose = f"attempt {delivery.attempt}" + (f", driver {delivery.driver}" if delivery.driver else "")
    decision: Decision[Delivery] = refused(
        f"the delivery is {delivery.stage.value} in {whose}: attempt {event.attempt} of {event.driver} is not wanted"
    )
    return msgspec.structs.replace(decision, emit=(unassign,))


# -- the table -------------------------------------------------------------------------------------------------------

REQUESTED, ASSIGNED, PICKED_UP, DELIVERED = Stage.REQUESTED, Stage.ASSIGNED, Stage.PICKED_UP, Stage.DELIVERED
ANY = (REQUESTED, ASSIGNED, PICKED_UP, DELIVERED)
HAS_DRIVER = (ASSIGNED, PICKED_UP, DELIVERED)

TABLE: Table[Delivery] = Table(
    "the delivery",
    (
        Transition((None,), DeliveryStarted, REQUESTED, request),
        Transition((REQUESTED,), DriverAssigned, ASSIGNED, assign, when=current_attempt),
        Transition((REQUESTED,), DriverRefused, None, request_another, when=current_attempt),
        Transition((REQUESTED,), PickedUp, ASSIGNED, assign, when=current_attempt, again=True),
        Transition((REQUESTED,), EtaChanged, None, absorb, when=current_attempt),
        Transition((ASSIGNED,), PickedUp, PICKED_UP, pick_up, when=its_driver),
        Transition((PICKED_UP,), Delivered, DELIVERED, deliver, when=its_driver),
        Transition((ASSIGNED, PICKED_UP), EtaChanged, None, estimate, when=its_driver_anew),
        Transition(HAS_DRIVER, EtaChanged, None, absorb),
        Transition(HAS_DRIVER, DriverAssigned, None, absorb, when=its_driver),
        Transition(ANY, DriverAssigned, None, turn_away),
        Transition(ANY, DriverRefused, None, absorb, when=earlier_attempt),
        Transition((PICKED_UP, DELIVERED), PickedUp, None, absorb, when=its_driver),
        Transition((DELIVERED,), Delivered, None, absorb, when=its_driver),
    ),
)


def decide(delivery: Delivery | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Delivery]:
    """What an event does to a delivery: records of topics.deliveries and the delivery's in ``events``."""
    return TABLE.decide(delivery, event, now_ms, parameters)


def _wanted(delivery: Delivery, moment: Moment) -> DriverRequested:
    return DriverRequested(
        id=f"{delivery.order}/driver/{delivery.attempt}",
        at=instant(moment.now_ms),
        region=delivery.region,
        delivery=delivery.order,
        attempt=delivery.attempt,
        restaurant=delivery.restaurant,
        pickup=delivery.pickup,
        dropoff=delivery.dropoff,
    )


def _said_ms(event: DriverAssigned | PickedUp | EtaChanged, moment: Moment) -> int:
    """When the driver's ETA was true."""
    return moment.now_ms if event.at is None else epoch_ms(event.at)


def _eta_ms(event: DriverAssigned | PickedUp | EtaChanged, moment: Moment) -> int:
    return _said_ms(event, moment) + event.eta_s * 1000
