"""Reasons that an order does not go on: the party that it waits for, the next thing to happen, and the remedy.

Everything follows from the order's committed rows and its open calls. Nothing here changes an order.
"""

from collections.abc import Container, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from processors import payment, ticket
from processors.events import OPERATOR, PreparationDue
from processors.order import RETIREMENT, WAITS, Order, Stage
from processors.workflow import Workflow


class WaitsOn(StrEnum):
    """The one who has to act before an order goes on."""

    PAYMENT = "payment"
    RESTAURANT = "restaurant"
    DRIVER = "driver"
    TIMER = "timer"
    OPERATOR = "operator"
    """A person: no event and no open call will end the wait."""


PARTIES: Mapping[Stage, WaitsOn] = {
    Stage.CREATED: WaitsOn.PAYMENT,
    Stage.SCHEDULED: WaitsOn.TIMER,
    Stage.ASKED: WaitsOn.RESTAURANT,
    Stage.IN_PREPARATION: WaitsOn.RESTAURANT,
    Stage.SCHEDULING_DELIVERY: WaitsOn.DRIVER,
    Stage.WAITING_FOR_DRIVER: WaitsOn.DRIVER,
    Stage.IN_DELIVERY: WaitsOn.DRIVER,
    Stage.REFUND_DUE: WaitsOn.PAYMENT,
}
"""The party of each stage in which an order is under way."""


class Waiting(NamedTuple):
    """The wait of an order under way."""

    on: tuple[WaitsOn, ...]
    """The party of the stage, and the operator if the order needs a person."""
    waits_for: str
    """The awaited thing, for people: "the payment"."""
    since_ms: int


class OpenCall(NamedTuple):
    """A call of the order without an answer."""

    key: str
    attempts: int
    """Number of attempts that have failed."""
    due_ms: int
    """Time of the next attempt."""
    held_back: str | None = None
    """The reason that its destination makes it wait; None if it does not."""


class Upcoming(NamedTuple):
    """A thing that will happen by itself."""

    at_ms: int
    happens: str


class Remedy(NamedTuple):
    """A command of `dabbawala` for the order as it is, and its effect."""

    command: str
    effect: str


def is_under_way(order: Order) -> bool:
    """Return whether an order still waits for somebody: it has not ended, or it needs attention."""
    return order.stage in PARTIES or bool(order.attention)


def since_ms(order: Order) -> int:
    """Return the time at which the wait of an order under way began."""
    if order.stage not in PARTIES and order.attention:
        return order.attention[0].since_ms
    return order.waits_since_ms


def waiting_of(flow: Workflow, open_calls: Container[str] = ()) -> Waiting | None:
    """Return the wait of an order; None if it has ended and needs no attention.

    ``open_calls`` are the keys of the order's calls without an answer. Without attention no call is given up, so the
    order's row is enough.
    """
    order = flow.order
    if order is None or not is_under_way(order):
        return None
    on = [PARTIES[order.stage]] if order.stage in PARTIES else []
    if order.stage not in PARTIES and any(item.wait != OPERATOR for item in order.attention):
        on = [WaitsOn.PAYMENT]  # an ended order waits for refunds alone
    if any(item.wait == OPERATOR for item in order.attention) or calls_given_up(flow, open_calls):
        on.append(WaitsOn.OPERATOR)
    waits_for = WAITS[order.stage].waits_for if order.stage in PARTIES else order.attention[0].waits_for
    return Waiting(tuple(on), waits_for, since_ms(order))


def calls_needed(flow: Workflow) -> tuple[str, ...]:
    """Return the keys of the calls whose answers would move the payment or the ticket."""
    keys: list[str] = []
    if flow.payment is not None:
        if flow.payment.stage is payment.Stage.DUE:
            keys.append(payment.charge_key(flow.payment.order))
        due = (refund for refund in flow.payment.refunds if not refund.done)
        keys += [payment.refund_key(flow.payment.order, refund.charge_id) for refund in due]
    if flow.ticket is not None and flow.ticket.stage is ticket.Stage.ASKED:
        keys.append(ticket.prepare_key(flow.ticket.order))
    return tuple(keys)


def calls_given_up(flow: Workflow, open_calls: Container[str]) -> tuple[str, ...]:
    """Return the keys of the calls that the order needs and that are not open.

    An operator gave them up, or the answer could not be applied and is a dead letter.
    """
    return tuple(key for key in calls_needed(flow) if key not in open_calls)


def upcoming(flow: Workflow, open_calls: Sequence[OpenCall], now_ms: int) -> tuple[Upcoming, ...]:
    """Return what will happen to an order by itself, the next thing first."""
    assert flow.order is not None
    found = [_attempt(call, now_ms) for call in open_calls]
    if flow.order.timer is not None:
        found.append(Upcoming(flow.order.timer.due_ms, _effect_of_timer(flow.order)))
    return tuple(sorted(found))


def _attempt(call: OpenCall, now_ms: int) -> Upcoming:
    held_back = f", held back: {call.held_back}" if call.held_back else ""
    return Upcoming(max(call.due_ms, now_ms), f"attempt {call.attempts + 1} of the call {call.key}{held_back}")


def _effect_of_timer(order: Order) -> str:
    wait = WAITS[order.stage]
    if wait is RETIREMENT:
        return "the order moves to the history, unless it needs attention or has an open call"
    if wait.timer_event is PreparationDue:
        return "the ticket goes to the restaurant"
    return f"the order asks for attention if {wait.waits_for} has not come"


def remedies(flow: Workflow, open_calls: Sequence[OpenCall]) -> tuple[Remedy, ...]:
    """Return the commands that help an order, the most useful one first; none if it needs no help."""
    order = flow.order
    assert order is not None
    waiting = waiting_of(flow, {call.key for call in open_calls})
    if waiting is None:
        return ()
    given_up = [
        Remedy(
            f"dabbawala calls retry {key}",
            "makes the call again, which is not open any longer",
        )
        for key in calls_given_up(flow, {call.key for call in open_calls})
    ]
    needed = calls_needed(flow)
    retries = [_retry(call) for call in open_calls if call.key in needed]
    settled = Remedy(
        f"dabbawala orders settle {order.id} --reason TEXT",
        "clears the attention, once you have resolved its cause with the party",
    )
    settles = [settled] if any(item.wait == OPERATOR for item in order.attention) else []
    return (*given_up, *retries, *settles, *_of_stage(flow))


def _retry(call: OpenCall) -> Remedy:
    held_back = " once the circuit breaker of its destination lets it through" if call.held_back else ""
    return Remedy(f"dabbawala calls retry {call.key}", f"makes the next attempt now{held_back}")


def _of_stage(flow: Workflow) -> list[Remedy]:
    """Return the commands for an order that waits for a report of a party, which no call asks for."""
    order = flow.order
    assert order is not None
    match order.stage:
        case Stage.ASKED if flow.ticket is not None and flow.ticket.stage is ticket.Stage.RECEIVED:
            return [Remedy(f"dabbawala calls retry {ticket.prepare_key(order.id)}", "asks the restaurant again")]
        case Stage.IN_PREPARATION:
            shown = f"dabbawala catalogue get {order.restaurant}"
            return [Remedy(shown, "shows the restaurant: ask there, its report moves the order")]
        case Stage.SCHEDULING_DELIVERY:
            return [Remedy(f"dabbawala regions get {order.region}", "shows the waiting drivers and deliveries")]
        case Stage.WAITING_FOR_DRIVER | Stage.IN_DELIVERY if order.driver is not None:
            return [Remedy(f"dabbawala drivers get {order.driver}", "shows the driver, whose report moves the order")]
    return []
