"""The machine of the payment."""

from typing import Any

import msgspec
import pytest

from processors.call_kinds import CallKind, parse_call_key
from processors.decision import Call, Outcome
from processors.events import (
    AttentionCleared,
    AttentionRaised,
    ChargeAbandoned,
    ChargeFailed,
    ChargeRetried,
    PaymentCharged,
    PaymentDeclined,
    PaymentMismatched,
    PaymentRefunded,
    PaymentReported,
    PaymentRequested,
    RefundAbandoned,
    RefundFailed,
    RefundRequested,
    RefundRetried,
)
from processors.payment import MAX_REFUNDS, TABLE, Payment, Refund, Stage, charge_of, decide
from processors.requests import ChargeRequest, RefundRequest
from tests.processors import grid
from tests.processors.cases import NOW, ORDER, P
from topics.orders import CallKey
from topics.payments import Charged, Declined, Refunded

DUE = Payment(order=ORDER, stage=Stage.DUE, amount=630, currency="INR")
REFUND = Refund(charge_id="c1", amount=630, currency="INR")
SURPLUS = Refund(charge_id="c2", amount=630, currency="INR")
CHARGED = msgspec.structs.replace(DUE, stage=Stage.CHARGED, charge_id="c1")
REFUND_DUE = msgspec.structs.replace(CHARGED, stage=Stage.REFUND_DUE, refunds=(REFUND,))
STATES: dict[str, Payment | None] = {
    "-": None,
    "DUE": DUE,
    "CHARGED": CHARGED,
    "CHARGED+c2": msgspec.structs.replace(CHARGED, refunds=(SURPLUS,)),
    "DUE,unclear": msgspec.structs.replace(DUE, unclear=True),
    "DUE,reported": msgspec.structs.replace(DUE, reported="c1"),
    "CHARGED,full": msgspec.structs.replace(
        CHARGED, refunds=tuple(Refund(charge_id=f"x{n}", amount=1, currency="INR") for n in range(MAX_REFUNDS))
    ),
    "CHARGED,contradicted": msgspec.structs.replace(CHARGED, contradicted=True),
    "DECLINED": msgspec.structs.replace(DUE, stage=Stage.DECLINED, declined=True),
    "REFUND_DUE": REFUND_DUE,
    "REFUND_DUE,declined": msgspec.structs.replace(REFUND_DUE, declined=True),
    "REFUND_DUE,unclear": msgspec.structs.replace(REFUND_DUE, refunds=(msgspec.structs.replace(REFUND, unclear=True),)),
    "REFUNDED": msgspec.structs.replace(
        REFUND_DUE, stage=Stage.REFUNDED, refunds=(msgspec.structs.replace(REFUND, done=True),)
    ),
    "FREE": Payment(order=ORDER, stage=Stage.CHARGED, amount=0, currency="INR"),
}
EVENTS = {
    "due": PaymentRequested(ORDER, 630, "INR"),
    "charged-c1": Charged(order=ORDER, charge_id="c1", amount=630, currency="INR"),
    "charged-c2": Charged(order=ORDER, charge_id="c2", amount=630, currency="INR"),
    "charged-much": Charged(order=ORDER, charge_id="c3", amount=6300, currency="INR"),
    "charged-euros": Charged(order=ORDER, charge_id="c3", amount=630, currency="EUR"),
    "declined": Declined(order=ORDER, reason="no funds"),
    "refund-due": RefundRequested(),
    "refunded-c1": Refunded(order=ORDER, charge_id="c1", refund_id="r1"),
    "refunded-c2": Refunded(order=ORDER, charge_id="c2", refund_id="r2"),
    "charge-failed": ChargeFailed("answered 400"),
    "refund-failed-c1": RefundFailed("c1", "answered 400"),
    "refund-failed-c2": RefundFailed("c2", "answered 400"),
    "says-charged-c1": PaymentReported(Charged(order=ORDER, charge_id="c1", amount=630, currency="INR")),
    "says-charged-c2": PaymentReported(Charged(order=ORDER, charge_id="c2", amount=630, currency="INR")),
    "says-declined": PaymentReported(Declined(order=ORDER, reason="no funds")),
    "says-refunded-c1": PaymentReported(Refunded(order=ORDER, charge_id="c1")),
    "says-refunded-c2": PaymentReported(Refunded(order=ORDER, charge_id="c2")),
    "retry-charge": ChargeRetried("by ana"),
    "abandon-charge": ChargeAbandoned("by ana"),
    "retry-refund-c1": RefundRetried("c1", "by ana"),
    "abandon-refund-c1": RefundAbandoned("c1", "by ana"),
    "retry-refund-c2": RefundRetried("c2", "by ana"),
    "due-free": PaymentRequested(ORDER, 0, "INR"),
}
GRID = """
                  -       DUE        DUE,unclear DUE,reported CHARGED    CHARGED+c2 CHARGED,full CHARGED,contradicted DECLINED   REFUND_DUE REFUND_DUE,declined REFUND_DUE,unclear REFUNDED FREE
retry-charge      x       !          !           !            x          x          x            x                    x          x          x                   x                  x        x
abandon-charge    x       !          !           !            x          x          x            x                    x          x          x                   x                  x        x
retry-refund-c1   x       x          x           x            x          x          x            x                    x          !          !                   !                  x        x
abandon-refund-c1 x       x          x           x            x          x          x            x                    x          !          !                   !                  x        x
retry-refund-c2   x       x          x           x            x          !          x            x                    x          x          x                   x                  x        x
due               DUE     x          x           x            x          x          x            x                    x          x          x                   x                  x        x
charged-c1        x       CHARGED    CHARGED     CHARGED      =          =          =            =                    REFUND_DUE =          =                   =                  =        !
charged-c2        x       CHARGED    CHARGED     CHARGED      !          =          !            !                    REFUND_DUE !          !                   !                  !        !
charged-much      x       REFUND_DUE REFUND_DUE  REFUND_DUE   !          !          !            !                    REFUND_DUE !          !                   !                  !        !
charged-euros     x       REFUND_DUE REFUND_DUE  REFUND_DUE   !          !          !            !                    REFUND_DUE !          !                   !                  !        !
declined          x       DECLINED   DECLINED    DECLINED     x          x          x            x                    =          x          =                   x                  x        x
refund-due        x       x          x           x            REFUND_DUE REFUND_DUE REFUND_DUE   REFUND_DUE           x          x          x                   x                  x        REFUNDED
refunded-c1       x       x          x           x            x          x          x            x                    x          REFUNDED   REFUNDED            REFUNDED           =        x
refunded-c2       x       x          x           x            x          !          x            x                    x          x          x                   x                  x        x
charge-failed     x       !          =           !            =          =          =            =                    =          =          =                   =                  =        =
refund-failed-c1  x       x          x           x            x          x          x            x                    x          !          !                   =                  =        x
refund-failed-c2  x       x          x           x            x          !          x            x                    x          x          x                   x                  x        x
says-charged-c1   x       !          !           =            =          =          =            =                    !          =          =                   =                  =        !
says-charged-c2   x       !          !           =            !          =          !            =                    !          !          !                   !                  !        !
says-declined     x       =          =           =            !          !          !            =                    =          !          =                   !                  !        !
says-refunded-c1  x       !          !           !            !          !          !            =                    !          =          =                   =                  =        !
says-refunded-c2  x       !          !           !            !          =          !            =                    !          !          !                   !                  !        !
due-free          CHARGED x          x           x            x          x          x            x                    x          x          x                   x                  x        x
"""  # noqa: E501


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == set()


def test_total_of_nothing_is_paid_and_given_back_without_a_call() -> None:
    paid = decide(None, EVENTS["due-free"], NOW, P)
    refunded = decide(paid.state, EVENTS["refund-due"], NOW, P)
    assert (paid.internal_events, paid.calls) == ((PaymentCharged(),), ())
    assert (refunded.internal_events, refunded.calls) == ((PaymentRefunded("a refund of nothing"),), ())


@pytest.mark.parametrize("charge_id", ["c1", "a/b", "~" + "0" * 32, "x" * 255, "ch_1:2=3?#%"])
def test_refund_of_any_charge_has_a_short_key(charge_id: str) -> None:
    due = decide(DUE, Charged(order=ORDER, charge_id=charge_id, amount=6300, currency="inr"), NOW, P)
    [call] = due.calls
    assert isinstance(call.request, RefundRequest)
    assert (call.request.charge_id, call.request.currency) == (charge_id, "INR")
    assert msgspec.convert(call.key, CallKey) == call.key
    assert len(call.key) <= 255
    assert charge_of(due.state, parse_call_key(call.key)[1]) == charge_id


def test_currency_of_a_charge_may_be_in_small_letters() -> None:
    assert decide(DUE, Charged(order=ORDER, charge_id="c1", amount=630, currency="inr"), NOW, P).internal_events == (
        PaymentCharged(),
    )


def test_charge_uses_the_order_s_key() -> None:
    request = ChargeRequest(order=ORDER, amount=630, currency="INR")
    assert decide(None, EVENTS["due"], NOW, P).calls == (Call(f"{ORDER}/charge", CallKind.CHARGE, request),)


def test_order_is_notified_of_payment_or_decline() -> None:
    assert decide(DUE, EVENTS["charged-c1"], NOW, P).internal_events == (PaymentCharged(),)
    assert decide(DUE, EVENTS["declined"], NOW, P).internal_events == (PaymentDeclined("no funds"),)


def test_wrong_charge_is_refunded_with_attention() -> None:
    decision = decide(DUE, EVENTS["charged-much"], NOW, P)
    wrong = "charged 6300 INR, the order's total is 630 INR"
    assert decision.internal_events == (
        PaymentMismatched(wrong),
        AttentionRaised(f"the refund of c3: {wrong}", "refund of c3"),
    )
    request = RefundRequest(order=ORDER, charge_id="c3", amount=6300, currency="INR")
    assert decision.calls == (Call(f"{ORDER}/refund/c3", CallKind.REFUND, request),)
    refunded = decide(decision.state, Refunded(order=ORDER, charge_id="c3"), NOW, P)
    assert refunded.internal_events == (PaymentRefunded("refund of c3"),)


def test_charge_after_decline_is_refunded_with_attention() -> None:
    decision = decide(STATES["DECLINED"], EVENTS["charged-c1"], NOW, P)
    assert [call.key for call in decision.calls] == [f"{ORDER}/refund/c1"]
    assert decision.internal_events == (
        AttentionRaised("the refund of c1: charged after it was declined", "refund of c1"),
    )


def test_second_charge_is_refunded() -> None:
    decision = decide(CHARGED, EVENTS["charged-c2"], NOW, P)
    assert [call.key for call in decision.calls] == [f"{ORDER}/refund/c2"]
    assert decision.internal_events == (AttentionRaised("the refund of c2: a second charge", "refund of c2"),)
    back = decide(decision.state, EVENTS["refunded-c2"], NOW, P)
    assert back.internal_events == (AttentionCleared("refund of c2"),)
    assert back.state is not None
    assert (back.state.stage, back.state.charge_id) == (Stage.CHARGED, "c1")


def test_first_charge_is_refunded_while_the_second_is_due() -> None:
    both = decide(STATES["CHARGED+c2"], RefundRequested(), NOW, P)
    assert [call.key for call in both.calls] == [f"{ORDER}/refund/c1"]
    first = decide(both.state, EVENTS["refunded-c1"], NOW, P).state
    second = decide(first, EVENTS["refunded-c2"], NOW, P).state
    assert second is not None
    assert (second.stage, [refund.done for refund in second.refunds]) == (Stage.REFUNDED, [True, True])


def test_contradicting_answers_raise_attention_for_an_operator() -> None:
    for event in ("declined", "refunded-c1"):
        [needed] = decide(CHARGED, EVENTS[event], NOW, P).internal_events
        assert isinstance(needed, AttentionRaised)
        assert needed.wait == "operator"


@pytest.mark.parametrize("answer", ["charged-c1", "charged-much", "declined"])
def test_answer_ends_the_charge_call(answer: str) -> None:
    assert decide(DUE, EVENTS[answer], NOW, P).cancel_calls == (f"{ORDER}/charge",)


@pytest.mark.parametrize("state", [name for name in STATES if name != "-"])
@pytest.mark.parametrize("report", [name for name in EVENTS if name.startswith("says-")])
def test_no_report_moves_money_or_cancels_a_call(state: str, report: str) -> None:
    decision = decide(STATES[state], EVENTS[report], NOW, P)
    assert (decision.calls, decision.cancel_calls) == ((), ())
    assert all(isinstance(event, AttentionRaised) for event in decision.internal_events)


@pytest.mark.parametrize("report", ["says-charged-c1", "says-charged-c2", "says-declined"])
def test_report_of_a_charge_has_the_open_call_made_again(report: str) -> None:
    decision = decide(DUE, EVENTS[report], NOW, P)
    assert (decision.wake_calls, decision.internal_events) == ((f"{ORDER}/charge",), ())


@pytest.mark.parametrize(("state", "charge"), [("REFUND_DUE", "c1"), ("CHARGED+c2", "c2")])
def test_report_of_a_due_refund_has_the_open_call_made_again(state: str, charge: str) -> None:
    assert decide(STATES[state], EVENTS[f"says-refunded-{charge}"], NOW, P).wake_calls == (f"{ORDER}/refund/{charge}",)


@pytest.mark.parametrize("report", ["says-charged-c2", "says-declined", "says-refunded-c2"])
def test_reports_that_no_answer_shows_raise_attention_once(report: str) -> None:
    payment: Payment | None = CHARGED
    raised: list[Any] = []
    for number in range(50):
        event = EVENTS[report]
        if report == "says-charged-c2":
            event = PaymentReported(Charged(order=ORDER, charge_id=f"x{number}", amount=630, currency="INR"))
        decision = decide(payment, event, NOW, P)
        raised += decision.internal_events
        payment = decision.state or payment
    assert [event.wait for event in raised if isinstance(event, AttentionRaised)] == ["operator"]
    assert payment == msgspec.structs.replace(CHARGED, contradicted=True), "the row does not grow"


@pytest.mark.parametrize("answer", ["charged-c2", "charged-much", "declined"])
def test_report_of_another_charge_raises_attention(answer: str) -> None:
    reported = decide(DUE, EVENTS["says-charged-c1"], NOW, P).state
    events = decide(reported, EVENTS[answer], NOW, P).internal_events
    assert [event.wait for event in events if isinstance(event, AttentionRaised)][-1:] == ["operator"]
    agreed = decide(reported, EVENTS["charged-c1"], NOW, P)
    assert agreed.internal_events == (PaymentCharged(),)


def test_refunds_of_a_row_are_bounded() -> None:
    payment: Payment | None = CHARGED
    calls: list[Any] = []
    raised: list[Any] = []
    for number in range(MAX_REFUNDS + 20):
        charged = Charged(order=ORDER, charge_id=f"x{number}", amount=630, currency="INR")
        decision = decide(payment, charged, NOW, P)
        calls += decision.calls
        raised += decision.internal_events[-1:]
        payment = decision.state
    assert payment is not None
    assert (len(calls), len(payment.refunds), payment.surplus) == (MAX_REFUNDS, MAX_REFUNDS, 20)
    assert len(set(raised)) == MAX_REFUNDS + 1
    assert decide(payment, EVENTS["refund-due"], NOW, P).calls, "the order's own charge is refunded all the same"


def test_answered_call_cannot_be_given_up() -> None:
    charge = decide(CHARGED, EVENTS["abandon-charge"], NOW, P)
    assert charge.reason == "the payment is CHARGED: giving up the charge is not possible"
    refund = decide(STATES["REFUNDED"], EVENTS["abandon-refund-c1"], NOW, P)
    assert (refund.outcome, refund.cancel_calls) == (Outcome.REFUSED, ())


def test_operator_retries_a_call_under_the_same_key() -> None:
    assert decide(DUE, EVENTS["retry-charge"], NOW, P).calls == decide(None, EVENTS["due"], NOW, P).calls
    refunding = decide(CHARGED, EVENTS["refund-due"], NOW, P)
    assert decide(REFUND_DUE, EVENTS["retry-refund-c1"], NOW, P).calls == refunding.calls


def test_given_up_call_is_cancelled_and_raises_attention() -> None:
    charge = decide(DUE, EVENTS["abandon-charge"], NOW, P)
    assert charge.cancel_calls == (f"{ORDER}/charge",)
    assert charge.internal_events == (AttentionRaised("the charge, given up by ana"),)
    refund = decide(REFUND_DUE, EVENTS["abandon-refund-c1"], NOW, P)
    assert refund.cancel_calls == (f"{ORDER}/refund/c1",)
    assert refund.internal_events == (AttentionRaised("the refund of c1, given up by ana", "refund of c1"),)


def test_unclear_answer_raises_attention_and_leaves_the_call() -> None:
    assert decide(DUE, EVENTS["charge-failed"], NOW, P).internal_events == (
        AttentionRaised("the charge: answered 400"),
    )
    assert decide(REFUND_DUE, EVENTS["refund-failed-c1"], NOW, P).internal_events == (
        AttentionRaised("the refund of c1: answered 400", "refund of c1"),
    )
