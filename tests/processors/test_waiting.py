"""The party that an order waits for, what happens next, and the commands that help."""

from typing import Any

import pytest

from processors import workflow
from processors.call_kinds import CallKind
from processors.events import CallAnswered, TimerDue
from processors.order import FINAL_STAGES, Stage
from processors.waiting import (
    PARTIES,
    OpenCall,
    Upcoming,
    WaitsOn,
    calls_given_up,
    is_under_way,
    remedies,
    since_ms,
    upcoming,
    waiting_of,
)
from processors.workflow import Workflow
from tests.processors.cases import NOW, ORDER, REGION, RESTAURANT, P, later, placed
from topics.deliveries import Delivered, DriverAssigned, PickedUp
from topics.orders import CallAbandonRequested
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected

CHARGE, PREPARE, REFUND = (f"{ORDER}/{purpose}" for purpose in ("charge", "prepare", "refund/c1"))
CHARGED = CallAnswered(CHARGE, CallKind.CHARGE, 200, '{"charge_id": "c1", "amount": 630, "currency": "INR"}')
RECEIVED = CallAnswered(PREPARE, CallKind.PREPARE, 202, "")
ACCEPTED = CallAnswered(PREPARE, CallKind.PREPARE, 200, '{"status": "accepted"}')
REJECTED = TicketRejected(order=ORDER, reason="sold out")
REFUNDED = CallAnswered(REFUND, CallKind.REFUND, 200, "{}")
FINISHED = PreparationFinished(order=ORDER)
ASSIGNED = DriverAssigned(id="a", order=ORDER, driver="asha", attempt=1, eta_s=60)
PICKED_UP = PickedUp(id="p", order=ORDER, driver="asha", attempt=1, eta_s=60)
DELIVERED = Delivered(id="d", order=ORDER, driver="asha", attempt=1)
COOKS_A_REJECTED_TICKET = TicketAccepted(order=ORDER)

PAYMENT, KITCHEN, DRIVER, TIMER, OPERATOR = WaitsOn


def after(*events: Any, order: Any = None) -> tuple[Workflow, set[str]]:
    """Return an order after these events, and the keys of its open calls."""
    flow, calls = Workflow(), set[str]()
    for event in (order or placed(), *events):
        if isinstance(event, TimerDue):
            assert flow.order is not None
            assert flow.order.timer is not None
            step = workflow.decide_step(flow, event, flow.order.timer.due_ms, P)
        else:
            step = workflow.decide_step(flow, event, NOW, P, RESTAURANT)
        if isinstance(event, CallAnswered):
            calls.discard(event.key)
        calls = (calls | {call.key for call in step.calls}) - set(step.cancel_calls)
        flow = step.workflow
    return flow, calls


def abandoned(key: str) -> CallAbandonRequested:
    return CallAbandonRequested(id=f"{ORDER}/abandon/1", call=key, by="ana")


def test_every_stage_under_way_has_a_party() -> None:
    assert set(PARTIES) == set(Stage) - set(FINAL_STAGES)


@pytest.mark.parametrize(
    ("events", "on", "waits_for"),
    [
        ((), (PAYMENT,), "the payment"),
        ((CHARGED,), (KITCHEN,), "the restaurant's answer"),
        ((CHARGED, RECEIVED), (KITCHEN,), "the restaurant's answer"),
        ((CHARGED, ACCEPTED), (KITCHEN,), "the food"),
        ((CHARGED, ACCEPTED, FINISHED), (DRIVER,), "a driver"),
        ((CHARGED, ACCEPTED, FINISHED, ASSIGNED), (DRIVER,), "the driver to pick up"),
        ((CHARGED, ACCEPTED, FINISHED, ASSIGNED, PICKED_UP), (DRIVER,), "the driver to deliver"),
        ((CHARGED, REJECTED), (PAYMENT,), "the refund"),
        ((abandoned(CHARGE),), (PAYMENT, OPERATOR), "the payment"),
        ((CHARGED, abandoned(PREPARE)), (KITCHEN, OPERATOR), "the restaurant's answer"),
        ((CHARGED, REJECTED, abandoned(REFUND)), (PAYMENT, OPERATOR), "the refund"),
        ((CHARGED, TimerDue(f"{ORDER}/acceptance-wait")), (KITCHEN,), "the restaurant's answer"),
        (
            (CHARGED, REJECTED, REFUNDED, COOKS_A_REJECTED_TICKET),
            (OPERATOR,),
            "an operator: the restaurant cooks a ticket that is REJECTED",
        ),
    ],
)
def test_an_order_waits_for_the_one_who_has_to_act(events: Any, on: tuple[WaitsOn, ...], waits_for: str) -> None:
    flow, calls = after(*events)
    waiting = waiting_of(flow, calls)
    assert waiting is not None
    assert flow.order is not None
    assert (waiting.on, waiting.waits_for) == (on, waits_for)
    assert waiting.since_ms == since_ms(flow.order)
    assert is_under_way(flow.order)


def test_an_order_for_later_waits_for_its_timer() -> None:
    flow, calls = after(CHARGED, order=placed(deliver_at=later(7200)))
    waiting = waiting_of(flow, calls)
    assert waiting is not None
    assert waiting.on == (TIMER,)
    assert flow.order is not None
    assert upcoming(flow, [], NOW) == (Upcoming(flow.order.start_ms, "the ticket goes to the restaurant"),)
    assert remedies(flow, []) == ()


def test_an_ended_order_waits_for_nobody() -> None:
    flow, calls = after(CHARGED, ACCEPTED, FINISHED, ASSIGNED, PICKED_UP, DELIVERED)
    assert flow.order is not None
    assert not is_under_way(flow.order)
    assert waiting_of(flow, calls) is None
    assert remedies(flow, []) == ()
    assert [each.happens for each in upcoming(flow, [], NOW)] == [
        "the order moves to the history, unless it needs attention or has an open call"
    ]


def test_an_ended_order_with_a_due_refund_waits_for_the_payment() -> None:
    second = CHARGED.__class__(CHARGE, CallKind.CHARGE, 200, '{"charge_id": "c2", "amount": 630, "currency": "INR"}')
    flow, calls = after(CHARGED, ACCEPTED, FINISHED, ASSIGNED, PICKED_UP, DELIVERED, second)
    waiting = waiting_of(flow, calls)
    assert waiting is not None
    assert waiting.on == (PAYMENT,)
    assert waiting.waits_for.startswith("the refund of c2")
    assert calls_given_up(flow, calls) == ()
    assert calls_given_up(flow, ()) == (f"{ORDER}/refund/c2",)


def test_next_are_the_attempt_and_the_timer() -> None:
    flow, _ = after(CHARGED)
    call = OpenCall(PREPARE, 3, NOW + 4000, "its party failed 5 times in a row and is not called for 9 s")
    assert [(each.at_ms - NOW, each.happens) for each in upcoming(flow, [call], NOW)] == [
        (
            4000,
            f"attempt 4 of the call {PREPARE}, held back: its party failed 5 times in a row and is not called for 9 s",
        ),
        (120_000, "the order asks for attention if the restaurant's answer has not come"),
    ]
    overdue, _ = after(CHARGED, TimerDue(f"{ORDER}/acceptance-wait"))
    assert [each.at_ms for each in upcoming(overdue, [OpenCall(PREPARE, 3, NOW - 1)], NOW)] == [NOW]


@pytest.mark.parametrize(
    ("events", "command"),
    [
        ((), f"dabbawala calls retry {CHARGE}"),
        ((CHARGED,), f"dabbawala calls retry {PREPARE}"),
        ((CHARGED, RECEIVED), f"dabbawala calls retry {PREPARE}"),
        ((CHARGED, abandoned(PREPARE)), f"dabbawala calls retry {PREPARE}"),
        ((CHARGED, ACCEPTED), f"dabbawala catalogue get {RESTAURANT.restaurant}"),
        ((CHARGED, ACCEPTED, FINISHED), f"dabbawala regions get {REGION}"),
        ((CHARGED, ACCEPTED, FINISHED, ASSIGNED), "dabbawala drivers get asha"),
        ((CHARGED, ACCEPTED, FINISHED, ASSIGNED, PICKED_UP), "dabbawala drivers get asha"),
        ((CHARGED, REJECTED), f"dabbawala calls retry {REFUND}"),
        ((CHARGED, REJECTED, REFUNDED, COOKS_A_REJECTED_TICKET), f"dabbawala orders settle {ORDER} --reason TEXT"),
    ],
)
def test_a_stuck_order_has_the_command_that_helps(events: Any, command: str) -> None:
    flow, calls = after(*events)
    assert [remedy.command for remedy in remedies(flow, [OpenCall(key, 1, NOW) for key in calls])] == [command]


def test_a_call_that_is_held_back_says_so() -> None:
    flow, _ = after(CHARGED)
    [remedy] = remedies(flow, [OpenCall(PREPARE, 5, NOW, "its party failed 5 times in a row")])
    assert remedy.effect == "makes the next attempt now once the circuit breaker of its destination lets it through"
    [remedy] = remedies(flow, [])
    assert "is not open" in remedy.effect
