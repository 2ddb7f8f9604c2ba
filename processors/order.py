"""An order's life, from the moment a provider places it until the customer has the food or the money.

The order moves when its neighbours (payment, restaurant, delivery) have got somewhere, and tells them when it is their
turn. It never waits without a timer: when a wait takes too long, a person is asked to look, and the order still goes
on when what it waited for comes after all.
"""

from enum import Enum

import msgspec

from processors.decision import Decision
from processors.parameters import Parameters
from topics.order_updates import OrderStatus
from topics.places import Position


class Stage(Enum):
    """Where an order is. Finer than its public status: see ``Order.status``."""

    CREATED = "CREATED"
    SCHEDULED = "SCHEDULED"
    ASKED = "SCHEDULED, asked"
    IN_PREPARATION = "IN_PREPARATION"
    SCHEDULING_DELIVERY = "SCHEDULING_DELIVERY"
    WAITING_FOR_DRIVER = "WAITING_FOR_DRIVER"
    IN_DELIVERY = "IN_DELIVERY"
    DELIVERED = "DELIVERED"
    REFUND_DUE = "REJECTED, refund due"
    REJECTED = "REJECTED"


class Timer(msgspec.Struct, frozen=True):
    """The timer that is running: its name, and when it is due in milliseconds since 1970."""

    name: str
    due_ms: int


class Concern(msgspec.Struct, frozen=True):
    """Why a person should look: what is waited for, since when, and the name of the wait whose end settles it."""

    wait: str
    waits_for: str
    since_ms: int


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order. Its body is a row of its own, and so are its payment, its ticket and its delivery."""

    id: str
    stage: Stage
    version: int
    """Of the last record on `order-updates`; they count up from 1 without a gap."""
    journal: int = 0
    """How many lines the journal has."""
    body_hash: str
    placed_ms: int
    updated_ms: int

    restaurant: str
    region: str
    pos_url: str
    pickup: Position
    dropoff: Position
    preparation_ms: int
    """The restaurant's estimate, as it was when the order was placed."""
    travel_ms: int
    """From the restaurant to the customer."""
    start_ms: int
    """When the restaurant is to be asked; in the past: at once."""

    waits_since_ms: int = 0
    timer: Timer | None = None
    """Of the wait the order is in."""
    concerns: tuple[Concern, ...] = ()
    """What a person should look at, the oldest first."""
    eta_ms: int | None = None
    driver: str | None = None
    reason: str = ""
    refunded: bool = False

    @property
    def status(self) -> OrderStatus:
        """What the world is told."""
        return STATUS[self.stage]


STATUS = {
    **{stage: OrderStatus(stage.value) for stage in Stage if stage not in (Stage.ASKED, Stage.REFUND_DUE)},
    Stage.ASKED: OrderStatus.SCHEDULED,
    Stage.REFUND_DUE: OrderStatus.REJECTED,
}


def decide(order: Order | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Order]:
    """What an event does to an order. Events: ``Placed`` (with what intake found out) and the order's in ``events``."""
    raise NotImplementedError
