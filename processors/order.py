"""An order's life, from the moment a provider places it until the customer has the food, or the money back.

Rules:
1. The order moves when its neighbours (payment, ticket, delivery) have got somewhere, and tells them when it is their
   turn. ``TABLE``, below, is the whole of it.
2. It never waits without a timer (``WAITS``). A timer is deleted with its wait, so at most one is running. When a wait
   takes too long a person is asked to look, and what was waited for still counts when it comes after all.
3. A step is taken once: an event that comes again is absorbed. No step is skipped: a restaurant that has finished
   before it accepted has accepted.
4. Where it ended it stays: DELIVERED or REJECTED. After its retention it leaves the tables, unless a person should look
   at it (a refund that is still due is such a case): then it stays until that is over, and for a retention more. While
   a call of it has no answer it stays for a retention more too: the answer may be about money.
5. Every change the world may know of is one record on `order-updates`, numbered without a gap.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from processors.decision import CancelTimer, Decision, Moment, Named, SetTimer, Table, Transition, absorb, refused
from processors.events import (
    OPERATOR,
    AttentionNeeded,
    AttentionOver,
    DeliveryAssigned,
    DeliveryDone,
    DeliveryEtaChanged,
    DeliveryPickedUp,
    DeliveryStarted,
    OperatorSettled,
    OrderPlaced,
    PaymentCharged,
    PaymentDeclined,
    PaymentDue,
    PaymentMismatched,
    PaymentRefunded,
    RefundDue,
    RestaurantAccepted,
    RestaurantFinished,
    RestaurantRefused,
    Retire,
    RetireDue,
    StartDue,
    TicketAsked,
    WaitedTooLong,
)
from processors.geography import travel_ms
from processors.parameters import Parameters
from topics.order_updates import Attention, OrderStatus, OrderUpdated
from topics.orders import Placed
from topics.places import Position
from topics.records import epoch_ms, instant
from topics.restaurants import Restaurant

LONGEST_TEXT = 200
"""Of ``topics.orders.Text``."""


class Stage(Named):
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


STATUS = {stage: OrderStatus(stage.value.partition(",")[0]) for stage in Stage}


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
    version: int = 0
    """Of the last record on `order-updates`."""
    journal: int = 0
    """How many lines the journal has."""
    refusals: int = 0
    """How many of them tell of a refusal."""
    last_refusal: str = ""
    """What the last of these tells, as 16 hex digits: the same again makes no line."""
    body_hash: str
    placed_ms: int
    updated_ms: int
    """When the last record on `order-updates` was made."""

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


# -- waits -----------------------------------------------------------------------------------------------------------


class Wait(NamedTuple):
    """What an order in some stage waits for, and the timer that goes with it."""

    name: str
    waits_for: str
    due_ms: Callable[[Order, Moment], int]
    """When the timer of the wait that begins now fires, in milliseconds since 1970."""
    fires: type[StartDue | RetireDue | WaitedTooLong] = WaitedTooLong
    """What the timer says: that it took too long, or, where the timer is itself what is waited for, that it is time."""

    def timer(self, order: Order, moment: Moment) -> Timer:
        """The timer of the wait that begins now."""
        suffix = "-wait" if self.fires is WaitedTooLong else ""
        return Timer(f"{order.id}/{self.name}{suffix}", self.due_ms(order, moment))


def _at_most(seconds: Callable[[Parameters], float]) -> Callable[[Order, Moment], int]:
    return lambda _, moment: moment.now_ms + moment.parameters.wait_ms(seconds(moment.parameters))


def _preparation(order: Order, moment: Moment) -> int:
    """The restaurant's estimate, and some grace."""
    return moment.now_ms + order.preparation_ms + moment.parameters.wait_ms(moment.parameters.preparation_grace_s)


RETIREMENT = Wait(
    "retirement",
    "its retirement",
    lambda _, moment: moment.now_ms + round(moment.parameters.retention_s * 1000),
    RetireDue,
)
WAITS = {
    Stage.CREATED: Wait("charge", "the payment", _at_most(lambda p: p.charge_wait_s)),
    Stage.SCHEDULED: Wait("start", "its time", lambda order, _: order.start_ms, StartDue),
    Stage.ASKED: Wait("acceptance", "the restaurant's answer", _at_most(lambda p: p.acceptance_wait_s)),
    Stage.IN_PREPARATION: Wait("preparation", "the food", _preparation),
    Stage.SCHEDULING_DELIVERY: Wait("driver", "a driver", _at_most(lambda p: p.driver_wait_s)),
    Stage.WAITING_FOR_DRIVER: Wait("pickup", "the driver to pick up", _at_most(lambda p: p.pickup_wait_s)),
    Stage.IN_DELIVERY: Wait("delivery", "the driver to deliver", _at_most(lambda p: p.delivery_wait_s)),
    Stage.REFUND_DUE: Wait("refund", "the refund", _at_most(lambda p: p.refund_wait_s)),
    Stage.DELIVERED: RETIREMENT,
    Stage.REJECTED: RETIREMENT,
}
"""Every stage is a wait with a timer."""
OTHERS_TURN = tuple(stage for stage, wait in WAITS.items() if wait.fires is WaitedTooLong)
"""The stages that something from outside has to end."""
ENDED = tuple(stage for stage, wait in WAITS.items() if wait is RETIREMENT)
"""The stages that nothing moves an order on from."""


# -- guards ----------------------------------------------------------------------------------------------------------


def same_body(order: Order, event: OrderPlaced, _: Moment) -> bool:
    """the same body"""
    return event.placed.body_hash() == order.body_hash


def starts_later(order: Order, _event: PaymentCharged, moment: Moment) -> bool:
    """its time has not come"""
    return order.start_ms > moment.now_ms


def is_news(order: Order, event: AttentionNeeded, _: Moment) -> bool:
    """news; to an ended order, of its own wait"""
    wait = event.wait or _wait_name(order)
    known = any((concern.wait, concern.waits_for) == (wait, event.waits_for) for concern in order.concerns)
    return bool(wait) and not known


def concerned(order: Order, event: AttentionOver, _: Moment) -> bool:
    """a person was asked to look at it"""
    return any(concern.wait == event.wait for concern in order.concerns)


def operator_looks(order: Order, _event: OperatorSettled, __: Moment) -> bool:
    """an operator was asked to look at it"""
    return any(concern.wait == OPERATOR for concern in order.concerns)


def somebody_looks(order: Order, _event: OperatorSettled, __: Moment) -> bool:
    """a person was asked to look at something else"""
    return bool(order.concerns)


def nobody_looks(order: Order, event: RetireDue, _: Moment) -> bool:
    """nobody has to look at it, no call is open"""
    return not order.concerns and not event.asking


# -- effects ---------------------------------------------------------------------------------------------------------


def create(_: None, event: OrderPlaced, moment: Moment) -> Decision[Order]:
    """payment: due"""
    placed, restaurant, (now_ms, parameters) = event.placed, event.restaurant, moment
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
    return Decision(state=order, tell=(PaymentDue(order.id, placed.total, placed.currency),))


def refuse_other_body(order: Order, _event: OrderPlaced, __: Moment) -> Decision[Order]:
    """refused"""
    return refused(f"the order {order.id} exists with another body; a new order needs an id of its own")


def reject_unpaid(order: Order, event: PaymentDeclined | PaymentMismatched, _: Moment) -> Decision[Order]:
    """the order ends: not paid"""
    return Decision(state=_rejected(order, f"payment: {event.reason}"))


def reject_uncooked(order: Order, event: RestaurantRefused, _: Moment) -> Decision[Order]:
    """the order ends: not cooked; payment: refund"""
    return Decision(state=_rejected(order, f"restaurant: {event.reason}"), tell=(RefundDue(),))


def note_refund(order: Order, event: PaymentRefunded, _: Moment) -> Decision[Order]:
    """refunded"""
    return Decision(state=msgspec.structs.replace(order, refunded=True, concerns=_without(order, event.wait)))


def schedule(_order: Order, _event: PaymentCharged, __: Moment) -> Decision[Order]:
    """timer: start"""
    return Decision()


def ask_restaurant(order: Order, _event: PaymentCharged | StartDue, moment: Moment) -> Decision[Order]:
    """restaurant: ask"""
    eta_ms = moment.now_ms + order.preparation_ms + order.travel_ms
    return Decision(state=msgspec.structs.replace(order, eta_ms=eta_ms), tell=(TicketAsked(order.pos_url),))


def cook(order: Order, _event: RestaurantAccepted | RestaurantFinished, moment: Moment) -> Decision[Order]:
    """the restaurant cooks"""
    return Decision(state=msgspec.structs.replace(order, eta_ms=moment.now_ms + order.preparation_ms + order.travel_ms))


def start_delivery(order: Order, _event: RestaurantFinished, moment: Moment) -> Decision[Order]:
    """delivery: start"""
    start = DeliveryStarted(order.id, order.region, order.restaurant, order.pickup, order.dropoff)
    return Decision(state=msgspec.structs.replace(order, eta_ms=moment.now_ms + order.travel_ms), tell=(start,))


def expect_driver(order: Order, event: DeliveryAssigned, _: Moment) -> Decision[Order]:
    """a driver comes"""
    return Decision(state=msgspec.structs.replace(order, driver=event.driver, eta_ms=event.eta_ms))


def expect_food(order: Order, event: DeliveryPickedUp | DeliveryEtaChanged, _: Moment) -> Decision[Order]:
    """ETA"""
    return Decision(state=msgspec.structs.replace(order, eta_ms=event.eta_ms))


def finish(order: Order, _event: DeliveryDone, __: Moment) -> Decision[Order]:
    """the order ends: delivered"""
    return Decision(state=msgspec.structs.replace(order, eta_ms=None))


def complain(order: Order, _event: WaitedTooLong, __: Moment) -> Decision[Order]:
    """attention: what it waits for and since when, unless why is known already"""
    wait = WAITS[order.stage]
    if not any(concern.wait == wait.name for concern in order.concerns):
        order = _concerned(order, Concern(wait.name, wait.waits_for, order.waits_since_ms))
    return Decision(state=msgspec.structs.replace(order, timer=None))


def take_notice(order: Order, event: AttentionNeeded, moment: Moment) -> Decision[Order]:
    """attention"""
    wait = event.wait or _wait_name(order)
    return Decision(state=_concerned(order, Concern(wait, event.waits_for[:LONGEST_TEXT], moment.now_ms)))


def be_at_ease(order: Order, event: AttentionOver, _: Moment) -> Decision[Order]:
    """attention cleared"""
    return Decision(state=msgspec.structs.replace(order, concerns=_without(order, event.wait)))


def settle(order: Order, event: OperatorSettled, _: Moment) -> Decision[Order]:
    """attention cleared"""
    settled = msgspec.structs.replace(order, concerns=_without(order, OPERATOR))
    return Decision(state=settled, reason=event.asked)


def refuse_settling(order: Order, _event: OperatorSettled, __: Moment) -> Decision[Order]:
    """refused"""
    waits_for = order.concerns[0].waits_for
    return refused(f"nothing is there for an operator to settle: attention is over when this is: {waits_for}")


def retire(order: Order, _event: RetireDue, __: Moment) -> Decision[Order]:
    """history: retire; the order leaves the tables"""
    return Decision(gone=True, tell=(Retire(order.id, order.placed_ms, order.body_hash),))


def stay(order: Order, _event: RetireDue, __: Moment) -> Decision[Order]:
    """it stays; timer: retirement, once nobody has to look at it"""
    return Decision(state=msgspec.structs.replace(order, timer=None))


# -- the table -------------------------------------------------------------------------------------------------------

CREATED, SCHEDULED, ASKED = Stage.CREATED, Stage.SCHEDULED, Stage.ASKED
IN_PREPARATION, SCHEDULING_DELIVERY = Stage.IN_PREPARATION, Stage.SCHEDULING_DELIVERY
WAITING_FOR_DRIVER, IN_DELIVERY, DELIVERED = Stage.WAITING_FOR_DRIVER, Stage.IN_DELIVERY, Stage.DELIVERED
REFUND_DUE, REJECTED = Stage.REFUND_DUE, Stage.REJECTED
ANY = tuple(Stage)
COOKED = (SCHEDULING_DELIVERY, WAITING_FOR_DRIVER, IN_DELIVERY, DELIVERED)

TABLE: Table[Order] = Table(
    "the order",
    (
        Transition((None,), OrderPlaced, CREATED, create, update=True),
        Transition((CREATED,), PaymentDeclined, REJECTED, reject_unpaid, update=True),
        Transition((CREATED,), PaymentMismatched, REFUND_DUE, reject_unpaid, update=True),
        Transition((CREATED,), PaymentCharged, SCHEDULED, schedule, when=starts_later, update=True),
        Transition((CREATED,), PaymentCharged, ASKED, ask_restaurant, update=True),
        Transition((SCHEDULED,), StartDue, ASKED, ask_restaurant),
        Transition((ASKED,), RestaurantAccepted, IN_PREPARATION, cook, update=True),
        Transition((ASKED,), RestaurantFinished, IN_PREPARATION, cook, update=True, again=True),
        Transition((ASKED,), RestaurantRefused, REFUND_DUE, reject_uncooked, update=True),
        Transition((IN_PREPARATION,), RestaurantFinished, SCHEDULING_DELIVERY, start_delivery, update=True),
        Transition((SCHEDULING_DELIVERY,), DeliveryAssigned, WAITING_FOR_DRIVER, expect_driver, update=True),
        Transition((WAITING_FOR_DRIVER,), DeliveryPickedUp, IN_DELIVERY, expect_food, update=True),
        Transition((WAITING_FOR_DRIVER, IN_DELIVERY), DeliveryEtaChanged, None, expect_food, update=True),
        Transition((IN_DELIVERY,), DeliveryDone, DELIVERED, finish, update=True),
        Transition((REFUND_DUE,), PaymentRefunded, REJECTED, note_refund, update=True),
        Transition((REJECTED,), PaymentRefunded, None, note_refund, update=True),
        Transition(ENDED, RetireDue, None, retire, when=nobody_looks),
        Transition(ENDED, RetireDue, None, stay),
        # what takes too long, or cannot be right
        Transition(OTHERS_TURN, WaitedTooLong, None, complain, update=True),
        Transition(ANY, AttentionNeeded, None, take_notice, when=is_news, update=True),
        Transition(ANY, AttentionNeeded, None, absorb),
        Transition(ANY, AttentionOver, None, be_at_ease, when=concerned, update=True),
        Transition(ANY, AttentionOver, None, absorb),
        Transition(ANY, OperatorSettled, None, settle, when=operator_looks, update=True),
        Transition(ANY, OperatorSettled, None, refuse_settling, when=somebody_looks),
        Transition(ANY, OperatorSettled, None, absorb),
        # what has been before
        Transition(ANY, OrderPlaced, None, absorb, when=same_body),
        Transition(ANY, OrderPlaced, None, refuse_other_body),
        Transition((SCHEDULED, ASKED, IN_PREPARATION, *COOKED), PaymentCharged, None, absorb),
        Transition((IN_PREPARATION, *COOKED), RestaurantAccepted, None, absorb),
        Transition(COOKED, RestaurantFinished, None, absorb),
        Transition((WAITING_FOR_DRIVER, IN_DELIVERY, DELIVERED), DeliveryAssigned, None, absorb),
        Transition((IN_DELIVERY, DELIVERED), DeliveryPickedUp, None, absorb),
        Transition((DELIVERED,), DeliveryEtaChanged, None, absorb),
        Transition((DELIVERED,), DeliveryDone, None, absorb),
        Transition((REFUND_DUE, REJECTED), PaymentDeclined, None, absorb),
        Transition((REFUND_DUE, REJECTED), RestaurantRefused, None, absorb),
    ),
)


def decide(order: Order | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Order]:
    """What an event does to an order. Events: the order's in ``events``."""
    moment = Moment(now_ms, parameters)
    row = TABLE.find(order, event, moment)
    if row is None:
        return TABLE.refuse(order, event)
    decision = TABLE.apply(row, order, event, moment)
    after = decision.state
    if after is None:
        return decision
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    if order is None or after.stage is not order.stage:
        after, timers = _enter(order, after, event, moment)
    elif after.stage in ENDED and after.timer is None and not after.concerns:
        after, timers = _wait_anew(after, moment)
    if not row.update:
        return msgspec.structs.replace(decision, state=after, timers=timers)
    after = msgspec.structs.replace(after, version=after.version + 1, updated_ms=now_ms)
    return msgspec.structs.replace(decision, state=after, timers=timers, emit=(last_update(after),))


def _enter(
    before: Order | None, after: Order, event: object, moment: Moment
) -> tuple[Order, tuple[SetTimer | CancelTimer, ...]]:
    """The wait of the stage left ends, with its timer and what a person was to look at; the next one begins."""
    ended: tuple[CancelTimer, ...] = ()
    if before is not None and before.timer is not None and not isinstance(event, WAITS[before.stage].fires):
        ended = (CancelTimer(before.timer.name, before.timer.due_ms),)  # one that has fired is no more
    if before is not None and after.concerns:
        after = msgspec.structs.replace(after, concerns=_without(after, _wait_name(before)))
    waits, begun = _wait_anew(after, moment)
    return waits, (*ended, *begun)


def _wait_anew(order: Order, moment: Moment) -> tuple[Order, tuple[SetTimer]]:
    """The wait of its stage begins, with its timer."""
    timer = WAITS[order.stage].timer(order, moment)
    waits = msgspec.structs.replace(order, timer=timer, waits_since_ms=moment.now_ms)
    return waits, (SetTimer(timer.name, timer.due_ms),)


def start_ms(placed: Placed, restaurant: Restaurant, placed_ms: int, parameters: Parameters) -> int:
    """When the restaurant is to be asked, in milliseconds since 1970; in the past: at once."""
    if placed.deliver_at is None:
        return placed_ms
    travel = travel_ms(restaurant.position, placed.customer.position, parameters)
    return epoch_ms(placed.deliver_at) - parameters.duration_ms(restaurant.preparation_s) - travel


def _wait_name(order: Order) -> str:
    """Of the wait that a person may be asked to look at; an order that has ended has none."""
    return "" if order.stage in ENDED else WAITS[order.stage].name


def _rejected(order: Order, reason: str) -> Order:
    return msgspec.structs.replace(order, reason=reason[:LONGEST_TEXT], eta_ms=None)


def _concerned(order: Order, concern: Concern) -> Order:
    """With this concern; one of the same wait keeps its place and its time."""
    known = next((index for index, other in enumerate(order.concerns) if other.wait == concern.wait), None)
    if known is None:
        return msgspec.structs.replace(order, concerns=(*order.concerns, concern))
    concerns = list(order.concerns)
    concerns[known] = msgspec.structs.replace(concern, since_ms=concerns[known].since_ms)
    return msgspec.structs.replace(order, concerns=tuple(concerns))


def _without(order: Order, wait: str) -> tuple[Concern, ...]:
    return tuple(concern for concern in order.concerns if concern.wait != wait)


def last_update(order: Order) -> OrderUpdated:
    """The record on `order-updates` that says how the order stands."""
    concern = order.concerns[0] if order.concerns else None
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
        attention=None if concern is None else Attention(waits_for=concern.waits_for, since=instant(concern.since_ms)),
    )
