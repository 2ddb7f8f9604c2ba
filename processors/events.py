"""Events that reach a machine without a topic: timers, answers to calls, and internal events of other machines.

The machines of one order share its key and change in one transaction, so the events between them need no topic.
``machine`` names the machine an event is for.
"""

from typing import ClassVar

import msgspec

from processors.call_kinds import CallKind
from topics.order_history import RowKind
from topics.orders import Placed
from topics.payments import Charged, Declined, Refunded
from topics.places import Position
from topics.restaurants import Restaurant


class TimerDue(msgspec.Struct, frozen=True):
    """The timer with this name has fired. ``has_open_call``: a call of the order has no answer yet."""

    name: str
    has_open_call: bool = False


class CallAnswered(msgspec.Struct, frozen=True):
    """A call was answered: the idempotency key it was made under, the HTTP status and the body's text."""

    key: str
    kind: CallKind
    status: int
    body: str


class InternalEvent(msgspec.Struct, frozen=True):
    """Event of one machine for another of the same order; ``machine`` names the receiver."""

    machine: ClassVar[RowKind]


class _ForOrder(InternalEvent, frozen=True):
    machine: ClassVar[RowKind] = RowKind.ORDER


class _ForHistory(InternalEvent, frozen=True):
    machine: ClassVar[RowKind] = RowKind.HISTORY


class _ForPayment(InternalEvent, frozen=True):
    machine: ClassVar[RowKind] = RowKind.PAYMENT


class _ForTicket(InternalEvent, frozen=True):
    machine: ClassVar[RowKind] = RowKind.TICKET


class _ForDelivery(InternalEvent, frozen=True):
    machine: ClassVar[RowKind] = RowKind.DELIVERY


# -- the order: placing, timers and attention ------------------------------------------------------------------------


class OrderPlaced(_ForOrder, frozen=True):
    """An order has passed validation. ``restaurant`` is None if the order is known already."""

    placed: Placed
    restaurant: Restaurant | None


class PreparationDue(_ForOrder, frozen=True):
    """The time has come to send the ticket to the restaurant."""


class WaitTimedOut(_ForOrder, frozen=True):
    """The awaited event has not come in time."""


class RetentionExpired(_ForOrder, frozen=True):
    """The time has come for an ended order to leave the tables. ``has_open_call``: a call has no answer yet."""

    has_open_call: bool = False


class AttentionRaised(_ForOrder, frozen=True):
    """A person should look. ``wait`` names the wait whose end clears it; "" stands for the order's present wait."""

    waits_for: str
    wait: str = ""


OPERATOR = "operator"
"""Wait that no event ends: only an operator can clear it."""


class OperatorSettled(_ForOrder, frozen=True):
    """An operator has settled the matter. ``requested_by``: name and reason."""

    requested_by: str


class OperatorErased(_ForOrder, frozen=True):
    """An operator erases the order's personal data. ``requested_by``: name and reason."""

    requested_by: str
    has_open_call: bool = False


class AttentionCleared(_ForOrder, frozen=True):
    """The matter that needed a person is over."""

    wait: str


# -- history ---------------------------------------------------------------------------------------------------------


class RetirementRequested(_ForHistory, frozen=True):
    """The order leaves the tables."""

    order: str
    placed_ms: int
    body_hash: str
    is_erased: bool = False
    """True if nobody may be able to read the order's rows in the history topic."""


class HistoryExpired(_ForHistory, frozen=True):
    """The history topic does not keep the order any longer."""


# -- payment ---------------------------------------------------------------------------------------------------------


class PaymentRequested(_ForPayment, frozen=True):
    """Charge the customer."""

    order: str
    amount: int
    currency: str


class RefundRequested(_ForPayment, frozen=True):
    """Refund the customer."""


class PaymentReported(_ForPayment, frozen=True):
    """A callback or record reports a payment. It proves nothing: the answer to the open call does."""

    report: Charged | Declined | Refunded


class ChargeFailed(_ForPayment, frozen=True):
    """The payment provider answers the charge unclearly. The call goes on."""

    reason: str


class RefundFailed(_ForPayment, frozen=True):
    """The payment provider answers the refund of this charge unclearly. The call goes on."""

    charge_id: str
    reason: str


class PaymentCharged(_ForOrder, frozen=True):
    """The customer has paid."""


class PaymentDeclined(_ForOrder, frozen=True):
    """The payment was declined."""

    reason: str


class PaymentMismatched(_ForOrder, frozen=True):
    """The customer was charged another amount than the order's total; that charge is being refunded."""

    reason: str


class PaymentRefunded(_ForOrder, frozen=True):
    """The customer was refunded. Clears attention for this ``wait``."""

    wait: str


class ChargeRetried(_ForPayment, frozen=True):
    """An operator requests a retry of the charge. ``requested_by``: name and reason."""

    requested_by: str


class ChargeAbandoned(_ForPayment, frozen=True):
    """An operator gives up the charge. ``requested_by``: name and reason."""

    requested_by: str


class RefundRetried(_ForPayment, frozen=True):
    """An operator requests a retry of the refund of this charge. ``requested_by``: name and reason."""

    charge_id: str
    requested_by: str


class RefundAbandoned(_ForPayment, frozen=True):
    """An operator gives up the refund of this charge. ``requested_by``: name and reason."""

    charge_id: str
    requested_by: str


# -- restaurant ------------------------------------------------------------------------------------------------------


class TicketRequested(_ForTicket, frozen=True):
    """Send the ticket to the restaurant. The order's body is a separate row: the workflow adds ``placed``."""

    pos_url: str
    placed: Placed | None = None


class TicketReceived(_ForTicket, frozen=True):
    """The restaurant has received the ticket and will accept or reject it later."""


class PrepareFailed(_ForTicket, frozen=True):
    """The restaurant's point of sale answers unclearly. The call goes on."""

    reason: str


class PrepareRetried(_ForTicket, frozen=True):
    """An operator requests a retry of the call to the restaurant. ``requested_by``: name and reason."""

    requested_by: str
    pos_url: str
    placed: Placed | None = None


class PrepareAbandoned(_ForTicket, frozen=True):
    """An operator gives up the call to the restaurant. ``requested_by``: name and reason."""

    requested_by: str


class RestaurantAccepted(_ForOrder, frozen=True):
    """The restaurant has accepted the ticket."""


class RestaurantRejected(_ForOrder, frozen=True):
    """The restaurant has rejected the ticket."""

    reason: str


class RestaurantFinished(_ForOrder, frozen=True):
    """The food is ready."""


# -- delivery --------------------------------------------------------------------------------------------------------


class DeliveryStarted(_ForDelivery, frozen=True):
    """Find a driver and deliver the food from ``pickup`` to ``dropoff``."""

    order: str
    region: str
    restaurant: str
    pickup: Position
    dropoff: Position


class DeliveryAssigned(_ForOrder, frozen=True):
    """A driver is assigned, who reaches the customer at ``eta_ms`` (milliseconds since 1970)."""

    driver: str
    eta_ms: int


class DeliveryPickedUp(_ForOrder, frozen=True):
    """The driver has the food."""

    eta_ms: int


class DeliveryEtaChanged(_ForOrder, frozen=True):
    """The driver's ETA has changed."""

    eta_ms: int


class DeliveryCompleted(_ForOrder, frozen=True):
    """The customer has the food."""
