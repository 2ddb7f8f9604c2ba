"""The delivery of one order: a driver is looked for, comes, picks up and delivers."""

from enum import Enum

import msgspec

from processors.decision import Decision
from processors.parameters import Parameters
from topics.places import Position


class Stage(Enum):
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
    """When the driver's last ETA was true."""


def decide(delivery: Delivery | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Delivery]:
    """What an event does to a delivery: records of topics.deliveries and the delivery's in ``events``."""
    raise NotImplementedError
