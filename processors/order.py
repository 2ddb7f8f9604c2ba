"""The life of an order, until the customer has the food or has the money back.

Rules:
1. Events of the payment, the ticket and the delivery move the order. The order sends each of them an internal event
   when its work begins. ``TABLE`` below has every transition.
2. An order never waits without a timer (``WAITS``). The timer is deleted when its wait ends, so at most one is running.
   If a wait takes too long, the order asks for attention. The awaited event still counts if it arrives later.
3. A step is taken once: a repeated event is absorbed. No step is skipped: if the restaurant finishes before it accepts,
   the event is applied twice, first as the acceptance.
4. DELIVERED and REJECTED are final. After its retention the order leaves the tables. An order that needs attention (for
   example because a refund is due) stays until the attention is cleared, and for another retention. An order with an
   unanswered call also stays for another retention, because the answer may be about money.
5. Every public change is one record on `order-updates`, numbered without a gap.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from processors.call_kinds import CallKind, call_key
from processors.decision import (
    CancelTimer,
    Decision,
    DecisionContext,
    Rows,
    SetTimer,
    StageEnum,
    Table,
    ignore_duplicate,
    refused,
)
from processors.events import (
    OPERATOR,
    AttentionCleared,
    AttentionRaised,
    DeliveryAssigned,
    DeliveryCompleted,
    DeliveryEtaChanged,
    DeliveryPickedUp,
    DeliveryStarted,
    OperatorErased,
    OperatorSettled,
    OrderPlaced,
    PaymentCharged,
    PaymentDeclined,
    PaymentMismatched,
    PaymentRefunded,
    PaymentRequested,
    PreparationDue,
    RefundRequested,
    RestaurantAccepted,
    RestaurantFinished,
    RestaurantRejected,
    RetentionExpired,
    RetirementRequested,
    TicketRequested,
    WaitTimedOut,
)
from processors.geography import travel_ms
from processors.parameters import Parameters
from topics.order_updates import Attention, OrderStatus, OrderUpdated, Reason
from topics.orders import Placed
from topics.places import Position
from topics.records import epoch_ms, instant
from topics.restaurants import Restaurant
from topics.text import MAX_TEXT_LENGTH

RESTAURANT_CODES = {code.value: code for code in (Reason.SOLD_OUT, Reason.TOO_BUSY, Reason.CLOSED)}
"""Public reasons of a rejection, by what the restaurant answers. Any other answer is not public: it may name people."""
MAX_ATTENTION = 8
"""Limit of an order's attention items. Further ones are counted in one item, which only an operator can clear."""


class Stage(StageEnum):
    """Stage of an order. Finer than its public status: see ``Order.status``."""

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


STATUS = {
    Stage.CREATED: OrderStatus.CREATED,
    Stage.SCHEDULED: OrderStatus.SCHEDULED,
    Stage.ASKED: OrderStatus.SCHEDULED,
    Stage.IN_PREPARATION: OrderStatus.IN_PREPARATION,
    Stage.SCHEDULING_DELIVERY: OrderStatus.SCHEDULING_DELIVERY,
    Stage.WAITING_FOR_DRIVER: OrderStatus.WAITING_FOR_DRIVER,
    Stage.IN_DELIVERY: OrderStatus.IN_DELIVERY,
    Stage.DELIVERED: OrderStatus.DELIVERED,
    Stage.REFUND_DUE: OrderStatus.REJECTED,
    Stage.REJECTED: OrderStatus.REJECTED,
}
"""Public status of an order in each stage."""


class Timer(msgspec.Struct, frozen=True):
    """The running timer: its name and due time in milliseconds since 1970."""

    name: str
    due_ms: int


class AttentionItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reason why a person should look at the order."""

    wait: str
    """Name of the wait whose end clears the item."""
    waits_for: str
    """The awaited thing, for people: "the payment"."""
    since_ms: int
    others: int = 0
    """Number of further items that this one stands for."""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order. Its body, its payment, its ticket and its delivery are separate rows."""

    id: str
    stage: Stage
    version: int = 0
    """Version of the last record on `order-updates`."""
    journal: int = 0
    """Number of lines in the journal."""
    refusals: int = 0
    """Number of these lines that record a refusal."""
    last_refusal: str = ""
    """Hash of the last such line, as 16 hex digits: an identical refusal makes no new line."""
    body_hash: str
    placed_ms: int
    updated_ms: int
    """Time of the last record on `order-updates`."""

    restaurant: str
    region: str
    pos_url: str
    pickup: Position
    dropoff: Position
    preparation_ms: int
    """The restaurant's estimate at the time when the order was placed."""
    travel_ms: int
    """Travel time from the restaurant to the customer."""
    start_ms: int
    """Time at which the ticket is sent to the restaurant; if it is in the past, at once."""

    waits_since_ms: int = 0
    timer: Timer | None = None
    """Timer of the present wait; None if it has fired."""
    attention: tuple[AttentionItem, ...] = ()
    """Reasons why a person should look, oldest first."""
    eta_ms: int | None = None
    driver: str | None = None
    reason: Reason | None = None
    refunded: bool = False

    @property
    def status(self) -> OrderStatus:
        """Public status."""
        return STATUS[self.stage]


# -- waits -----------------------------------------------------------------------------------------------------------


class Wait(NamedTuple):
    """The wait of an order in some stage, with its timer."""

    name: str
    waits_for: str
    due_ms: Callable[[Order, DecisionContext], int]
    """Function that returns the due time of the timer of a wait that begins now, in milliseconds since 1970."""
    timer_event: type[PreparationDue | RetentionExpired | WaitTimedOut] = WaitTimedOut
    """Event of the timer: ``WaitTimedOut`` if it only limits the wait, another if the timer itself ends the wait."""

    def timer(self, order: Order, context: DecisionContext) -> Timer:
        """Return the timer of a wait that begins now."""
        suffix = "-wait" if self.timer_event is WaitTimedOut else ""
        return Timer(f"{order.id}/{self.name}{suffix}", self.due_ms(order, context))


def _at_most(seconds: Callable[[Parameters], float]) -> Callable[[Order, DecisionContext], int]:
    return lambda _, context: context.now_ms + context.parameters.wait_ms(seconds(context.parameters))


def _preparation(order: Order, context: DecisionContext) -> int:
    """Return the end of the restaurant's estimate plus a grace period."""
    return context.now_ms + order.preparation_ms + context.parameters.wait_ms(context.parameters.preparation_grace_s)


RETIREMENT = Wait(
    "retirement",
    "its retirement",
    lambda _, context: context.now_ms + round(context.parameters.retention_s * 1000),
    RetentionExpired,
)
WAITS = {
    Stage.CREATED: Wait("charge", "the payment", _at_most(lambda p: p.charge_wait_s)),
    Stage.SCHEDULED: Wait("start", "its time", lambda order, _: order.start_ms, PreparationDue),
    Stage.ASKED: Wait("acceptance", "the restaurant's answer", _at_most(lambda p: p.acceptance_wait_s)),
    Stage.IN_PREPARATION: Wait("preparation", "the food", _preparation),
    Stage.SCHEDULING_DELIVERY: Wait("driver", "a driver", _at_most(lambda p: p.driver_wait_s)),
    Stage.WAITING_FOR_DRIVER: Wait("pickup", "the driver to pick up", _at_most(lambda p: p.pickup_wait_s)),
    Stage.IN_DELIVERY: Wait("delivery", "the driver to deliver", _at_most(lambda p: p.delivery_wait_s)),
    Stage.REFUND_DUE: Wait("refund", "the refund", _at_most(lambda p: p.refund_wait_s)),
    Stage.DELIVERED: RETIREMENT,
    Stage.REJECTED: RETIREMENT,
}
"""Wait of each stage."""
STAGES_WITH_DEADLINE = tuple(stage for stage, wait in WAITS.items() if wait.timer_event is WaitTimedOut)
"""Stages that an event from outside has to end in time."""
FINAL_STAGES = tuple(stage for stage, wait in WAITS.items() if wait is RETIREMENT)
"""Stages that an order never leaves, except by its retirement."""


# -- guards ----------------------------------------------------------------------------------------------------------


def same_body(order: Order, event: OrderPlaced, _: DecisionContext) -> bool:
    """the body is the same"""
    return event.placed.body_hash() == order.body_hash


def starts_later(order: Order, _event: PaymentCharged, context: DecisionContext) -> bool:
    """its start lies in the future"""
    return order.start_ms > context.now_ms


def is_new_attention(order: Order, event: AttentionRaised, _: DecisionContext) -> bool:
    """the reason is new, and the order waits or the event names a wait"""
    wait = event.wait or _wait_name(order)
    known = any((item.wait, item.waits_for) == (wait, event.waits_for) for item in order.attention)
    return bool(wait) and not known


def has_attention(order: Order, event: AttentionCleared, _: DecisionContext) -> bool:
    """the order has attention for it"""
    return any(item.wait == event.wait for item in order.attention)


def awaits_operator(order: Order, _event: OperatorSettled, __: DecisionContext) -> bool:
    """the order has attention that only an operator can clear"""
    return any(item.wait == OPERATOR for item in order.attention)


def needs_attention(order: Order, _event: OperatorSettled, __: DecisionContext) -> bool:
    """the order has other attention"""
    return bool(order.attention)


def may_retire(order: Order, event: RetentionExpired | OperatorErased, _: DecisionContext) -> bool:
    """the order needs no attention and has no open call"""
    return not order.attention and not event.has_open_call


# -- effects ---------------------------------------------------------------------------------------------------------


def create(_: None, event: OrderPlaced, context: DecisionContext) -> Decision[Order]:
    """request the payment; set the ETA"""
    placed, restaurant, (now_ms, parameters) = event.placed, event.restaurant, context
    assert restaurant is not None
    placed_ms = now_ms if placed.at is None else epoch_ms(placed.at)
    preparation = parameters.duration_ms(restaurant.preparation_s)
    travel = travel_ms(restaurant.position, placed.customer.position, parameters)
    start = start_ms(placed, restaurant, placed_ms, parameters)
    order = Order(
        id=placed.key,
        stage=Stage.CREATED,
        body_hash=placed.body_hash(),
        placed_ms=placed_ms,
        updated_ms=now_ms,
        restaurant=restaurant.restaurant,
        region=restaurant.region,
        pos_url=restaurant.pos_url,
        pickup=restaurant.position,
        dropoff=placed.customer.position,
        preparation_ms=preparation,
        travel_ms=travel,
        start_ms=start,
        eta_ms=max(start, now_ms) + preparation + travel,
    )
    return Decision(state=order, internal_events=(PaymentRequested(order.id, placed.total, placed.currency),))


def refuse_other_body(order: Order, _event: OrderPlaced, __: DecisionContext) -> Decision[Order]:
    """refuse: the id exists with another body"""
    return refused(f"the order {order.id} exists with another body; use another id for a new order")


def reject_unpaid(order: Order, event: PaymentDeclined | PaymentMismatched, _: DecisionContext) -> Decision[Order]:
    """end the order: not paid"""
    code = Reason.PAYMENT_DECLINED if isinstance(event, PaymentDeclined) else Reason.WRONG_CHARGE
    return Decision(state=_rejected(order, code), reason=event.reason)


def reject_by_restaurant(order: Order, event: RestaurantRejected, _: DecisionContext) -> Decision[Order]:
    """end the order: not cooked; request the refund"""
    code = RESTAURANT_CODES.get(event.reason.strip().lower().replace(" ", "_"), Reason.RESTAURANT_REJECTED)
    return Decision(state=_rejected(order, code), reason=event.reason, internal_events=(RefundRequested(),))


def record_refund(order: Order, event: PaymentRefunded, _: DecisionContext) -> Decision[Order]:
    """record the refund; clear its attention"""
    return Decision(
        state=msgspec.structs.replace(order, refunded=True, attention=_without_attention(order, event.wait))
    )


def schedule(_order: Order, _event: PaymentCharged, __: DecisionContext) -> Decision[Order]:
    """set the timer `start`"""
    return Decision()


def ask_restaurant(order: Order, _event: PaymentCharged | PreparationDue, context: DecisionContext) -> Decision[Order]:
    """send the ticket to the restaurant; set the ETA"""
    eta_ms = context.now_ms + order.preparation_ms + order.travel_ms
    return Decision(
        state=msgspec.structs.replace(order, eta_ms=eta_ms), internal_events=(TicketRequested(order.pos_url),)
    )


def start_preparation(
    order: Order, _event: RestaurantAccepted | RestaurantFinished, context: DecisionContext
) -> Decision[Order]:
    """set the ETA: preparation and travel begin now"""
    return Decision(
        state=msgspec.structs.replace(order, eta_ms=context.now_ms + order.preparation_ms + order.travel_ms)
    )


def start_delivery(order: Order, _event: RestaurantFinished, context: DecisionContext) -> Decision[Order]:
    """start the delivery; set the ETA"""
    start = DeliveryStarted(order.id, order.region, order.restaurant, order.pickup, order.dropoff)
    return Decision(
        state=msgspec.structs.replace(order, eta_ms=context.now_ms + order.travel_ms), internal_events=(start,)
    )


def set_driver(order: Order, event: DeliveryAssigned, _: DecisionContext) -> Decision[Order]:
    """record the driver; set the ETA"""
    return Decision(state=msgspec.structs.replace(order, driver=event.driver, eta_ms=event.eta_ms))


def update_eta(order: Order, event: DeliveryPickedUp | DeliveryEtaChanged, _: DecisionContext) -> Decision[Order]:
    """set the ETA"""
    return Decision(state=msgspec.structs.replace(order, eta_ms=event.eta_ms))


def finish(order: Order, _event: DeliveryCompleted, __: DecisionContext) -> Decision[Order]:
    """end the order: delivered"""
    return Decision(state=msgspec.structs.replace(order, eta_ms=None))


def flag_overdue(order: Order, _event: WaitTimedOut, __: DecisionContext) -> Decision[Order]:
    """raise attention for the wait, unless it has attention with a reason"""
    wait = WAITS[order.stage]
    if not any(item.wait == wait.name for item in order.attention):
        order = _with_attention(order, AttentionItem(wait.name, wait.waits_for, order.waits_since_ms))
    return Decision(state=msgspec.structs.replace(order, timer=None))


def raise_attention(order: Order, event: AttentionRaised, context: DecisionContext) -> Decision[Order]:
    """raise attention"""
    wait = event.wait or _wait_name(order)
    return Decision(
        state=_with_attention(order, AttentionItem(wait, event.waits_for[:MAX_TEXT_LENGTH], context.now_ms))
    )


def clear_attention(order: Order, event: AttentionCleared, _: DecisionContext) -> Decision[Order]:
    """clear that attention"""
    return Decision(state=msgspec.structs.replace(order, attention=_without_attention(order, event.wait)))


def clear_operator_attention(order: Order, event: OperatorSettled, _: DecisionContext) -> Decision[Order]:
    """clear that attention"""
    settled = msgspec.structs.replace(order, attention=_without_attention(order, OPERATOR))
    return Decision(state=settled, reason=event.requested_by)


def refuse_settlement(order: Order, _event: OperatorSettled, __: DecisionContext) -> Decision[Order]:
    """refuse: an event clears this attention, not an operator"""
    return refused(f"the order does not wait for an operator, but for {order.attention[0].waits_for}")


def retire(order: Order, _event: RetentionExpired, __: DecisionContext) -> Decision[Order]:
    """move the order to the history; delete its rows; cancel the call to the restaurant"""
    retired = RetirementRequested(order.id, order.placed_ms, order.body_hash)
    return Decision(deleted=True, internal_events=(retired,), cancel_calls=(call_key(order.id, CallKind.PREPARE),))


def erase(order: Order, event: OperatorErased, _: DecisionContext) -> Decision[Order]:
    """move the order to the history, unreadable; delete its rows; cancel the call to the restaurant"""
    retired = RetirementRequested(order.id, order.placed_ms, "", is_erased=True)
    cancelled = () if order.timer is None else (CancelTimer(order.timer.name, order.timer.due_ms),)
    prepare = call_key(order.id, CallKind.PREPARE)
    return Decision(deleted=True, internal_events=(retired,), timers=cancelled, cancel_calls=(prepare,))


def refuse_erasure(order: Order, _event: OperatorErased, __: DecisionContext) -> Decision[Order]:
    """refuse: the order needs a person, or has an open call"""
    waits = order.attention[0].waits_for if order.attention else "the answer to a call"
    return refused(f"the order waits for {waits}: settle that first, then erase the order")


def refuse_early_erasure(order: Order, _event: OperatorErased, __: DecisionContext) -> Decision[Order]:
    """refuse: the order has not ended"""
    return refused("the order has not ended: its data is needed; erase it when it is DELIVERED or REJECTED")


def postpone_retirement(order: Order, _event: RetentionExpired, __: DecisionContext) -> Decision[Order]:
    """keep the order; set the timer `retirement` once it needs no attention"""
    return Decision(state=msgspec.structs.replace(order, timer=None))


# -- the table -------------------------------------------------------------------------------------------------------

CREATED, SCHEDULED, ASKED = Stage.CREATED, Stage.SCHEDULED, Stage.ASKED
IN_PREPARATION, SCHEDULING_DELIVERY = Stage.IN_PREPARATION, Stage.SCHEDULING_DELIVERY
WAITING_FOR_DRIVER, IN_DELIVERY, DELIVERED = Stage.WAITING_FOR_DRIVER, Stage.IN_DELIVERY, Stage.DELIVERED
REFUND_DUE, REJECTED = Stage.REFUND_DUE, Stage.REJECTED
ANY = tuple(Stage)
FOOD_READY = (SCHEDULING_DELIVERY, WAITING_FOR_DRIVER, IN_DELIVERY, DELIVERED)

Event = (
    OrderPlaced
    | PaymentDeclined
    | PaymentMismatched
    | PaymentCharged
    | PreparationDue
    | RestaurantAccepted
    | RestaurantFinished
    | RestaurantRejected
    | DeliveryAssigned
    | DeliveryPickedUp
    | DeliveryEtaChanged
    | DeliveryCompleted
    | PaymentRefunded
    | RetentionExpired
    | WaitTimedOut
    | AttentionRaised
    | AttentionCleared
    | OperatorSettled
    | OperatorErased
)
"""Union of the events of the table."""
row = Rows[Order, Stage]()
ROWS = (
    row((None,), OrderPlaced, CREATED, create, update=True),
    row((CREATED,), PaymentDeclined, REJECTED, reject_unpaid, update=True),
    row((CREATED,), PaymentMismatched, REFUND_DUE, reject_unpaid, update=True),
    row((CREATED,), PaymentCharged, SCHEDULED, schedule, when=starts_later, update=True),
    row((CREATED,), PaymentCharged, ASKED, ask_restaurant, update=True),
    row((SCHEDULED,), PreparationDue, ASKED, ask_restaurant),
    row((ASKED,), RestaurantAccepted, IN_PREPARATION, start_preparation, update=True),
    row((ASKED,), RestaurantFinished, IN_PREPARATION, start_preparation, update=True, reapply=True),
    row((ASKED,), RestaurantRejected, REFUND_DUE, reject_by_restaurant, update=True),
    row((IN_PREPARATION,), RestaurantFinished, SCHEDULING_DELIVERY, start_delivery, update=True),
    row((SCHEDULING_DELIVERY,), DeliveryAssigned, WAITING_FOR_DRIVER, set_driver, update=True),
    row((WAITING_FOR_DRIVER,), DeliveryPickedUp, IN_DELIVERY, update_eta, update=True),
    row((WAITING_FOR_DRIVER, IN_DELIVERY), DeliveryEtaChanged, None, update_eta, update=True),
    row((IN_DELIVERY,), DeliveryCompleted, DELIVERED, finish, update=True),
    row((REFUND_DUE,), PaymentRefunded, REJECTED, record_refund, update=True),
    row((REJECTED,), PaymentRefunded, None, record_refund, update=True),
    row(FINAL_STAGES, RetentionExpired, None, retire, when=may_retire),
    row(FINAL_STAGES, RetentionExpired, None, postpone_retirement),
    row(FINAL_STAGES, OperatorErased, None, erase, when=may_retire),
    row(FINAL_STAGES, OperatorErased, None, refuse_erasure),
    row(ANY, OperatorErased, None, refuse_early_erasure),
    # waits that time out, and attention
    row(STAGES_WITH_DEADLINE, WaitTimedOut, None, flag_overdue, update=True),
    row(ANY, AttentionRaised, None, raise_attention, when=is_new_attention, update=True),
    row(ANY, AttentionRaised, None, ignore_duplicate),
    row(ANY, AttentionCleared, None, clear_attention, when=has_attention, update=True),
    row(ANY, AttentionCleared, None, ignore_duplicate),
    row(ANY, OperatorSettled, None, clear_operator_attention, when=awaits_operator, update=True),
    row(ANY, OperatorSettled, None, refuse_settlement, when=needs_attention),
    row(ANY, OperatorSettled, None, ignore_duplicate),
    # repeated events
    row(ANY, OrderPlaced, None, ignore_duplicate, when=same_body),
    row(ANY, OrderPlaced, None, refuse_other_body),
    row((SCHEDULED, ASKED, IN_PREPARATION, *FOOD_READY), PaymentCharged, None, ignore_duplicate),
    row((IN_PREPARATION, *FOOD_READY), RestaurantAccepted, None, ignore_duplicate),
    row(FOOD_READY, RestaurantFinished, None, ignore_duplicate),
    row((WAITING_FOR_DRIVER, IN_DELIVERY, DELIVERED), DeliveryAssigned, None, ignore_duplicate),
    row((IN_DELIVERY, DELIVERED), DeliveryPickedUp, None, ignore_duplicate),
    row((DELIVERED,), DeliveryEtaChanged, None, ignore_duplicate),
    row((DELIVERED,), DeliveryCompleted, None, ignore_duplicate),
    row((REFUND_DUE, REJECTED), PaymentDeclined, None, ignore_duplicate),
    row((REFUND_DUE, REJECTED), RestaurantRejected, None, ignore_duplicate),
)
TABLE = Table[Order, Stage, Event]("the order", ROWS)


def decide(order: Order | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Order]:
    """Decide an event of an order: an event for the order in ``events``."""
    context = DecisionContext(now_ms, parameters)
    row = TABLE.find(order, event, context)
    if row is None:
        return TABLE.refuse(order, event)
    decision = TABLE.apply(row, order, event, context)
    after = decision.state
    if after is None:
        return decision
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    if order is None or after.stage is not order.stage:
        after, timers = _enter_stage(order, after, event, context)
    elif after.stage in FINAL_STAGES and after.timer is None and not after.attention:
        after, timers = _start_wait(after, context)
    if not row.update:
        return msgspec.structs.replace(decision, state=after, timers=timers)
    after = msgspec.structs.replace(after, version=after.version + 1, updated_ms=now_ms)
    return msgspec.structs.replace(decision, state=after, timers=timers, emit=(last_update(after),))


def _enter_stage(
    before: Order | None, after: Order, event: object, context: DecisionContext
) -> tuple[Order, tuple[SetTimer | CancelTimer, ...]]:
    """End the wait of the previous stage, with its timer and its attention; start the wait of the new stage."""
    ended: tuple[CancelTimer, ...] = ()
    if before is not None and before.timer is not None and not isinstance(event, WAITS[before.stage].timer_event):
        ended = (CancelTimer(before.timer.name, before.timer.due_ms),)  # a timer that has fired is already deleted
    if before is not None and after.attention:
        after = msgspec.structs.replace(after, attention=_without_attention(after, _wait_name(before)))
    waiting, started = _start_wait(after, context)
    return waiting, (*ended, *started)


def _start_wait(order: Order, context: DecisionContext) -> tuple[Order, tuple[SetTimer]]:
    """Start the wait of the order's stage, with its timer."""
    timer = WAITS[order.stage].timer(order, context)
    waiting = msgspec.structs.replace(order, timer=timer, waits_since_ms=context.now_ms)
    return waiting, (SetTimer(timer.name, timer.due_ms),)


def start_ms(placed: Placed, restaurant: Restaurant, placed_ms: int, parameters: Parameters) -> int:
    """Return the time at which the ticket is sent to the restaurant, in milliseconds since 1970; may be past."""
    if placed.deliver_at is None:
        return placed_ms
    travel = travel_ms(restaurant.position, placed.customer.position, parameters)
    return epoch_ms(placed.deliver_at) - parameters.duration_ms(restaurant.preparation_s) - travel


def _wait_name(order: Order) -> str:
    """Return the name of the wait that attention may be about; "" for an order that has ended."""
    return "" if order.stage in FINAL_STAGES else WAITS[order.stage].name


def _rejected(order: Order, reason: Reason) -> Order:
    return msgspec.structs.replace(order, reason=reason, eta_ms=None)


def _with_attention(order: Order, item: AttentionItem) -> Order:
    """Add an item; if the wait has one already, replace it and keep its place and time.

    An item beyond the limit becomes an operator's: it may wait for anything, so only a person can clear it.
    """
    if len(order.attention) >= MAX_ATTENTION and not any(other.wait == item.wait for other in order.attention):
        operators = next((other for other in order.attention if other.wait == OPERATOR), None)
        others = 1 if operators is None else operators.others + 1
        waits_for = f"an operator: the journal has {others} more"
        item = AttentionItem(OPERATOR, waits_for, item.since_ms, others)
    known = next((index for index, other in enumerate(order.attention) if other.wait == item.wait), None)
    if known is None:
        return msgspec.structs.replace(order, attention=(*order.attention, item))
    items = list(order.attention)
    items[known] = msgspec.structs.replace(item, since_ms=items[known].since_ms)
    return msgspec.structs.replace(order, attention=tuple(items))


def _without_attention(order: Order, wait: str) -> tuple[AttentionItem, ...]:
    return tuple(item for item in order.attention if item.wait != wait)


def last_update(order: Order) -> OrderUpdated:
    """Return the record on `order-updates` with the order's present state and its oldest attention."""
    item = order.attention[0] if order.attention else None
    return OrderUpdated(
        id=f"{order.id}/update/{order.version}",
        at=instant(order.updated_ms),
        order=order.id,
        version=order.version,
        status=order.status,
        restaurant=order.restaurant,
        reason=order.reason,
        driver=order.driver,
        eta=None if order.eta_ms is None else instant(order.eta_ms),
        refunded=order.refunded,
        attention=None if item is None else Attention(waits_for=item.waits_for, since=instant(item.since_ms)),
    )
