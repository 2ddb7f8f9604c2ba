"""A driver's twin: what the driver does for us, and where the driver is."""

from enum import Enum

import msgspec

from processors.decision import Decision
from processors.parameters import Parameters
from topics.places import Position


class Stage(Enum):
    """What a driver does. Finer than the public status: see ``Driver.status``."""

    IDLE = "IDLE"
    WAITING_FOR_WORK = "WAITING_FOR_WORK"
    DELIVERING = "DELIVERING"
    PICKED_UP = "DELIVERING, picked up"


class Assignment(msgspec.Struct, frozen=True):
    """The delivery a driver has, or had last."""

    delivery: str
    attempt: int
    restaurant: str
    pickup: Position
    dropoff: Position


class Driver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One driver."""

    id: str
    stage: Stage
    shift: int
    """How often the driver became available."""
    region: str
    position: Position
    located_ms: int
    """When the driver was at ``position``."""
    cell: str
    """The H3 cell dispatch knows the driver in."""
    available_id: str = ""
    """Id of the last SetAvailable that was taken: a repeat of it is absorbed."""
    assignment: Assignment | None = None
    last: Assignment | None = None
    """The assignment that was finished last."""
    eta_ms: int | None = None
    """When the driver will be at the customer's, as the delivery was told."""

    @property
    def status(self) -> str:
        """IDLE, WAITING_FOR_WORK or DELIVERING."""
        return self.stage.value.partition(",")[0]

    @property
    def picked_up(self) -> bool:
        """Whether the driver has the food."""
        return self.stage is Stage.PICKED_UP


def decide(driver: Driver | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Driver]:
    """What an event does to a driver: records of topics.drivers, and Location. Outcome UNKNOWN: no such driver."""
    raise NotImplementedError
