"""Names of events for people: the reason of a refusal uses them instead of the names of classes."""

from collections.abc import Mapping

from processors import events
from topics import deliveries, drivers, locations, orders, payments, pos

EVENT_NAMES: Mapping[type, str] = {
    # from outside
    orders.Placed: "an order",
    orders.CallRetryRequested: "a retry of a call",
    orders.CallAbandonRequested: "giving up a call",
    orders.KeyUsed: "the use of an idempotency key",
    orders.AttentionSettled: "settling what needs a person",
    orders.ErasureRequested: "the erasure",
    payments.Charged: "a charge",
    payments.Declined: "a decline of the payment",
    payments.Refunded: "a refund",
    pos.TicketAccepted: "an acceptance by the restaurant",
    pos.TicketRejected: "a rejection by the restaurant",
    pos.PreparationFinished: "the end of the preparation",
    deliveries.DriverAssigned: "an assignment of a driver",
    deliveries.DriverRefused: "a driver's refusal",
    deliveries.PickedUp: "a pickup",
    deliveries.EtaChanged: "a new ETA",
    deliveries.Delivered: "the delivery to the customer",
    drivers.SetAvailable: "the start of a shift",
    drivers.SetUnavailable: "the end of a shift",
    drivers.Assign: "an assignment",
    drivers.Unassign: "the withdrawal of an assignment",
    drivers.PickedUp: "a pickup",
    drivers.Delivered: "the delivery to the customer",
    locations.Location: "a location",
    # timers and answers to calls
    events.TimerDue: "a timer",
    events.CallAnswered: "the answer to a call",
    events.PreparationDue: "the start of the preparation",
    events.WaitTimedOut: "the end of a wait",
    events.RetentionExpired: "the end of the retention",
    events.HistoryExpired: "the end of the history",
    events.ChargeFailed: "a failed charge",
    events.RefundFailed: "a failed refund",
    events.PrepareFailed: "a failed call to the restaurant",
    events.TicketReceived: "the receipt of the ticket",
    # from the other machines of the order
    events.OrderPlaced: "an order",
    events.PaymentReported: "a report of the payment provider",
    events.PaymentRequested: "a request for the payment",
    events.PaymentCharged: "a payment",
    events.PaymentDeclined: "a decline of the payment",
    events.PaymentMismatched: "a wrong charge",
    events.PaymentRefunded: "a refund",
    events.RefundRequested: "a request for a refund",
    events.TicketRequested: "a request to cook",
    events.RestaurantAccepted: "an acceptance by the restaurant",
    events.RestaurantRejected: "a rejection by the restaurant",
    events.RestaurantFinished: "the end of the preparation",
    events.DeliveryStarted: "a request for a delivery",
    events.DeliveryAssigned: "an assignment of a driver",
    events.DeliveryPickedUp: "a pickup",
    events.DeliveryEtaChanged: "a new ETA",
    events.DeliveryCompleted: "the delivery to the customer",
    events.RetirementRequested: "the move to the history",
    events.AttentionRaised: "a request for attention",
    events.AttentionCleared: "the end of a request for attention",
    # from operators
    events.OperatorErased: "the erasure",
    events.OperatorSettled: "settling what needs a person",
    events.ChargeRetried: "a retry of the charge",
    events.ChargeAbandoned: "giving up the charge",
    events.RefundRetried: "a retry of this refund",
    events.RefundAbandoned: "giving up this refund",
    events.PrepareRetried: "a retry of the call to the restaurant",
    events.PrepareAbandoned: "giving up the call to the restaurant",
}
"""Noun phrase for each event. A test compares the keys with the events of all machines."""


def event_name(event: object) -> str:
    """Return the name of an event for people; the name of its class if it is no event of a machine."""
    return EVENT_NAMES.get(type(event), type(event).__name__)
