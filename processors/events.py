"""What reaches a machine besides the records of the topics: timers, answers to calls, and what its neighbours say.

The machines of one order have the same key and are moved in one transaction, so what they tell each other needs no
topic. Each event says which ``machine`` it is for.
"""

from typing import ClassVar

import msgspec

from processors.decision import CallKind
from topics.orders import Placed
from topics.places import Position
from topics.restaurants import Restaurant


class TimerDue(msgspec.Struct, frozen=True):
    """The timer of this name has fired. ``asking``: a call of the order has no answer yet."""

    name: str
    asking: bool = False


class CallAnswered(msgspec.Struct, frozen=True):
    """A call was answered: the idempotency key it was made under, the HTTP status and the body's text."""

    key: str
    kind: CallKind
    status: int
    body: str


class _ForOrder(msgspec.Struct, frozen=True):
    machine: ClassVar[str] = "order"


class _ForHistory(msgspec.Struct, frozen=True):
    machine: ClassVar[str] = "history"


class _ForPayment(msgspec.Struct, frozen=True):
    machine: ClassVar[str] = "payment"


class _ForTicket(msgspec.Struct, frozen=True):
    machine: ClassVar[str] = "ticket"


class _ForDelivery(msgspec.Struct, frozen=True):
    machine: ClassVar[str] = "delivery"


# -- intake, time and people -----------------------------------------------------------------------------------------


class OrderPlaced(_ForOrder, frozen=True):
    """An order that was checked; ``restaurant`` is the one it names (None where the order is known already)."""

    placed: Placed
    restaurant: Restaurant | None


class StartDue(_ForOrder, frozen=True):
    """It is time to ask the restaurant."""


class WaitedTooLong(_ForOrder, frozen=True):
    """What the order waits for has not come."""


class RetireDue(_ForOrder, frozen=True):
    """It is time for an order that has ended to leave the tables. ``asking``: a call of it has no answer yet."""

    asking: bool = False


class AttentionNeeded(_ForOrder, frozen=True):
    """A person should look. ``wait`` names what must end for that to be over; "" is the order's present wait."""

    waits_for: str
    wait: str = ""


OPERATOR = "operator"
"""The wait of what no event settles: an operator has to."""


class OperatorSettled(_ForOrder, frozen=True):
    """An operator has seen to it. ``asked``: who, and why."""

    asked: str


class AttentionOver(_ForOrder, frozen=True):
    """What a person should have looked at has come right."""

    wait: str


# -- history ---------------------------------------------------------------------------------------------------------


class Retire(_ForHistory, frozen=True):
    """The order leaves the tables."""

    order: str
    placed_ms: int
    body_hash: str


class ForgetDue(_ForHistory, frozen=True):
    """The history topic keeps the order no longer."""


# -- payment ---------------------------------------------------------------------------------------------------------


class PaymentDue(_ForPayment, frozen=True):
    """Charge the customer."""

    order: str
    amount: int
    currency: str


class RefundDue(_ForPayment, frozen=True):
    """Give the customer's money back."""


class ChargeFailed(_ForPayment, frozen=True):
    """The payment provider will not talk about the charge; asking again does not help."""

    reason: str


class RefundFailed(_ForPayment, frozen=True):
    """The payment provider will not talk about the refund of this charge; asking again does not help."""

    charge_id: str
    reason: str


class PaymentCharged(_ForOrder, frozen=True):
    """The customer has paid."""


class PaymentDeclined(_ForOrder, frozen=True):
    """The customer cannot pay."""

    reason: str


class PaymentMismatched(_ForOrder, frozen=True):
    """The customer was charged something else than the order's total; that charge is being refunded."""

    reason: str


class PaymentRefunded(_ForOrder, frozen=True):
    """The customer has the money back. Settles the ``wait`` for it, where a person was to look."""

    wait: str


class ChargeRetried(_ForPayment, frozen=True):
    """An operator wants the customer charged after all. ``asked``: who, and why."""

    asked: str


class ChargeAbandoned(_ForPayment, frozen=True):
    """An operator does not want the charge asked for any more. ``asked``: who, and why."""

    asked: str


class RefundRetried(_ForPayment, frozen=True):
    """An operator wants this charge given back after all. ``asked``: who, and why."""

    charge_id: str
    asked: str


class RefundAbandoned(_ForPayment, frozen=True):
    """An operator does not want this refund asked for any more. ``asked``: who, and why."""

    charge_id: str
    asked: str


# -- restaurant ------------------------------------------------------------------------------------------------------


class TicketAsked(_ForTicket, frozen=True):
    """Ask the restaurant to cook the order. The order's body is a row of its own: the workflow adds it."""

    pos_url: str
    placed: Placed | None = None


class TicketReceived(_ForTicket, frozen=True):
    """The restaurant has the ticket and will say later whether it cooks it."""


class PrepareFailed(_ForTicket, frozen=True):
    """The restaurant's point of sale will not talk about the ticket; asking again does not help."""

    reason: str


class PrepareRetried(_ForTicket, frozen=True):
    """An operator wants the restaurant asked again. ``asked``: who, and why."""

    asked: str
    pos_url: str
    placed: Placed | None = None


class PrepareAbandoned(_ForTicket, frozen=True):
    """An operator does not want the restaurant asked any more. ``asked``: who, and why."""

    asked: str


class RestaurantAccepted(_ForOrder, frozen=True):
    """The restaurant cooks."""


class RestaurantRefused(_ForOrder, frozen=True):
    """The restaurant does not cook."""

    reason: str


class RestaurantFinished(_ForOrder, frozen=True):
    """The food stands ready."""


# -- delivery --------------------------------------------------------------------------------------------------------


class DeliveryStarted(_ForDelivery, frozen=True):
    """Find a driver and have the food brought from here to there."""

    order: str
    region: str
    restaurant: str
    pickup: Position
    dropoff: Position


class DeliveryAssigned(_ForOrder, frozen=True):
    """A driver comes; at the customer's at ``eta_ms`` (milliseconds since 1970)."""

    driver: str
    eta_ms: int


class DeliveryPickedUp(_ForOrder, frozen=True):
    """The driver has the food."""

    eta_ms: int


class DeliveryEtaChanged(_ForOrder, frozen=True):
    """The driver will be there at another time."""

    eta_ms: int


class DeliveryDone(_ForOrder, frozen=True):
    """The customer has the food."""
