"""The machines of one order, moved together by one event."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors import workflow
from processors.call_kinds import CallKind
from processors.decision import CancelTimer, Outcome, SetTimer
from processors.events import CallAnswered, TimerDue
from processors.order import MAX_ATTENTION, AttentionItem, Order
from processors.order_validation import MAX_ORDER_BYTES
from processors.requests import PrepareRequest
from processors.workflow import MAX_JOURNAL_LINES, MAX_JOURNALLED_REFUSALS, JournalLine, Step, Workflow, journal_key
from tests.processors.cases import NOW, ORDER, RESTAURANT, P, later, placed
from topics.deliveries import DriverAssigned, EtaChanged, PickedUp
from topics.order_updates import OrderStatus, OrderUpdated, Reason
from topics.orders import AttentionSettled, CallAbandonRequested, CallRetryRequested
from topics.payments import Charged, Declined, Refunded
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected

CHARGED = CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, '{"charge_id": "c1", "amount": 630, "currency": "INR"}')
DECLINED = CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 402, '{"reason": "no funds"}')
ACCEPTED = CallAnswered(f"{ORDER}/prepare", CallKind.PREPARE, 200, '{"status": "accepted"}')
FINISHED = PreparationFinished(order=ORDER)
ASSIGNED = DriverAssigned(id="a", order=ORDER, driver="asha", attempt=1, eta_s=60)

END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def apply(flow: Workflow, event: Any) -> Step:
    """Apply a timer when it is due, any other event now."""
    timer = flow.order.timer if flow.order is not None and isinstance(event, TimerDue) else None
    return workflow.decide_step(flow, event, NOW if timer is None else timer.due_ms, P, RESTAURANT)


def after(*events: Any) -> Workflow:
    flow = Workflow()
    for event in events:
        step = apply(flow, event)
        assert step.outcome is Outcome.APPLIED, step.reason
        flow = step.workflow
    return flow


def order_of(flow: Workflow) -> Order:
    assert flow.order is not None
    return flow.order


def moves(step: Step) -> list[tuple[str, str, str, str]]:
    return [(line.machine, line.event, line.before, line.after) for line in step.journal]


def test_placing_and_charging_are_one_transaction() -> None:
    step = apply(Workflow(), placed())
    assert moves(step) == [("order", "OrderPlaced", "", "CREATED"), ("payment", "PaymentRequested", "", "DUE")]
    assert set(step.changed) == {"order", "placed", "payment"}
    assert [call.key for call in step.calls] == [f"{ORDER}/charge"]


def test_charge_and_call_to_the_restaurant_are_one_transaction() -> None:
    step = apply(after(placed()), CHARGED)
    assert moves(step) == [
        ("payment", "Charged", "DUE", "CHARGED"),
        ("order", "PaymentCharged", "CREATED", "SCHEDULED, asked"),
        ("ticket", "TicketRequested", "", "ASKED"),
    ]
    assert set(step.changed) == {"order", "payment", "ticket"}
    [call] = step.calls
    assert isinstance(call.request, PrepareRequest)
    assert [item.name for item in call.request.items] == ["Thali"]


def test_answer_to_a_refund_finds_its_charge_by_hash() -> None:
    charge_id = "ch/" + "x" * 200
    charge = msgspec.json.encode({"charge_id": charge_id, "amount": 1, "currency": "INR"}).decode()
    wrong = apply(after(placed()), CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, charge))
    [call] = wrong.calls
    refunded = apply(wrong.workflow, CallAnswered(call.key, CallKind.REFUND, 200, "{}"))
    assert refunded.workflow.payment is not None
    assert refunded.workflow.payment.refunds[0].done


def test_finish_and_driver_request_are_one_transaction() -> None:
    step = apply(after(placed(), CHARGED, ACCEPTED), FINISHED)
    assert moves(step) == [
        ("ticket", "PreparationFinished", "ACCEPTED", "FINISHED"),
        ("order", "RestaurantFinished", "IN_PREPARATION", "SCHEDULING_DELIVERY"),
        ("delivery", "DeliveryStarted", "", "REQUESTED"),
    ]
    assert [type(record).__name__ for record in step.emit] == ["OrderUpdated", "DriverRequested"]
    assert step.journal[2].emitted == (f"{ORDER}/driver/1",)


def test_finish_before_acceptance_is_journalled_as_both() -> None:
    step = apply(after(placed(), CHARGED), FINISHED)
    assert moves(step)[1:3] == [
        ("order", "RestaurantFinished", "SCHEDULED, asked", "IN_PREPARATION"),
        ("order", "RestaurantFinished", "IN_PREPARATION", "SCHEDULING_DELIVERY"),
    ]
    updates = [record for record in step.emit if isinstance(record, OrderUpdated)]
    assert [(update.version, update.status) for update in updates] == [
        (3, OrderStatus.IN_PREPARATION),
        (4, OrderStatus.SCHEDULING_DELIVERY),
    ]
    late = apply(step.workflow, TicketAccepted(order=ORDER))
    assert late.outcome is Outcome.ABSORBED


def test_pickup_before_assignment_is_journalled_as_both() -> None:
    flow = after(placed(), CHARGED, ACCEPTED, FINISHED)
    step = apply(flow, PickedUp(id="p", order=ORDER, driver="asha", attempt=1, eta_s=60))
    assert moves(step) == [
        ("delivery", "PickedUp", "REQUESTED", "ASSIGNED"),
        ("delivery", "PickedUp", "ASSIGNED", "PICKED_UP"),
        ("order", "DeliveryAssigned", "SCHEDULING_DELIVERY", "WAITING_FOR_DRIVER"),
        ("order", "DeliveryPickedUp", "WAITING_FOR_DRIVER", "IN_DELIVERY"),
    ]


def test_rejection_and_refund_are_one_transaction() -> None:
    step = apply(after(placed(), CHARGED), TicketRejected(order=ORDER, reason="closed"))
    assert [call.key for call in step.calls] == [f"{ORDER}/refund/c1"]
    assert step.cancel_calls == ()
    assert step.workflow.order is not None
    assert step.workflow.order.status is OrderStatus.REJECTED
    refunded = apply(step.workflow, CallAnswered(f"{ORDER}/refund/c1", CallKind.REFUND, 200, "{}"))
    [update] = refunded.emit
    assert isinstance(update, OrderUpdated)
    assert (update.refunded, update.reason) == (True, Reason.CLOSED)


def test_wrong_charge_rejects_the_order_and_raises_attention() -> None:
    body = '{"charge_id": "c1", "amount": 63, "currency": "INR"}'
    step = apply(after(placed()), CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, body))
    assert step.workflow.order is not None
    assert step.workflow.order.status is OrderStatus.REJECTED
    assert [call.key for call in step.calls] == [f"{ORDER}/refund/c1"]
    *_, update = step.emit
    assert isinstance(update, OrderUpdated)
    assert update.attention is not None
    refunded = apply(step.workflow, CallAnswered(f"{ORDER}/refund/c1", CallKind.REFUND, 200, "{}"))
    [update] = refunded.emit
    assert isinstance(update, OrderUpdated)
    assert (update.attention, update.refunded) == (None, True)


def test_late_charge_is_refunded_because_the_order_stays() -> None:
    declined = apply(after(placed()), DECLINED).workflow
    stays = apply(declined, TimerDue(f"{ORDER}/retirement", has_open_call=True))
    assert (stays.outcome, stays.retire) == (Outcome.APPLIED, False)
    assert [timer.name for timer in stays.timers] == [f"{ORDER}/retirement"]
    assert [call.key for call in apply(stays.workflow, CHARGED).calls] == [f"{ORDER}/refund/c1"]
    assert apply(stays.workflow, TimerDue(f"{ORDER}/retirement")).retire


def test_operator_request_is_journalled_with_name_and_reason() -> None:
    call = f"{ORDER}/charge"
    request = CallAbandonRequested(id="w1", call=call, by="ana", reason="the bank is closed")
    abandoned = apply(after(placed()), request)
    [line, attention] = abandoned.journal
    assert (line.event, line.event_id, line.reason) == ("ChargeAbandoned", "w1", "by ana: the bank is closed")
    assert attention.event == "AttentionRaised"
    assert abandoned.cancel_calls == (call,)
    retried = apply(abandoned.workflow, CallRetryRequested(id="w2", call=call))
    assert [line.reason for line in retried.journal] == ["by an operator"]
    assert [call.key for call in retried.calls] == [call]


def test_settlement_is_journalled_with_name_and_reason() -> None:
    flow = apply(after(placed(), CHARGED), Declined(order=ORDER, reason="no")).workflow
    assert [item.wait for item in order_of(flow).attention] == ["operator"]
    settled = apply(flow, AttentionSettled(id="s1", order=ORDER, by="ana", reason="the bank was wrong"))
    [line] = settled.journal
    assert (line.event, line.event_id, line.reason) == ("OperatorSettled", "s1", "by ana: the bank was wrong")
    assert order_of(settled.workflow).attention == ()
    again = apply(settled.workflow, AttentionSettled(id="s1", order=ORDER, by="ana"))
    assert again.outcome is Outcome.ABSORBED


def test_retry_sends_the_same_ticket() -> None:
    [first] = apply(after(placed()), CHARGED).calls
    [again] = apply(after(placed(), CHARGED), CallRetryRequested(id="w1", call=f"{ORDER}/prepare")).calls
    assert again == first


@pytest.mark.parametrize("event", [FINISHED, Declined(order=ORDER), ASSIGNED, CHARGED, TimerDue(f"{ORDER}/start")])
def test_event_of_an_unknown_order_changes_nothing(event: Any) -> None:
    assert apply(Workflow(), event) == Step(
        outcome=Outcome.NOT_FOUND, reason="there is no such order", workflow=Workflow()
    )


def test_invalid_order_changes_nothing_and_names_its_problems() -> None:
    step = apply(Workflow(), placed(total=1))
    assert (step.outcome, step.changed, step.journal) == (Outcome.REFUSED, {}, ())
    assert [problem.pointer for problem in step.problems] == ["/total"]
    assert step.reason.startswith("/total: the total is 1")


def test_repeated_order_is_absorbed_without_its_restaurant() -> None:
    step = workflow.decide_step(after(placed()), placed(at=later(60)), NOW, P, None)
    assert (step.outcome, step.changed, step.journal) == (Outcome.ABSORBED, {}, ())


def test_repeated_order_with_another_body_is_refused() -> None:
    step = apply(after(placed()), placed(tip=21, total=631))
    assert step.outcome is Outcome.REFUSED
    assert [(line.outcome, line.reason) for line in step.journal] == [(Outcome.REFUSED, step.reason)]
    assert step.workflow.placed == placed()


@pytest.mark.parametrize("event", [TicketAccepted(order=ORDER), FINISHED, ASSIGNED])
def test_unrequested_event_is_refused_and_journalled(event: Any) -> None:
    step = apply(after(placed()), event)
    assert step.outcome is Outcome.REFUSED
    [line] = step.journal
    assert (line.seq, line.outcome, line.event) == (3, Outcome.REFUSED, type(event).__name__)
    assert set(step.changed) == {"order"}


def apply_all(flow: Workflow, events: Iterable[Any]) -> tuple[Workflow, list[JournalLine]]:
    """Return the order after all these events, and the journal lines that they made."""
    lines: list[JournalLine] = []
    for event in events:
        step = apply(flow, event)
        flow = step.workflow
        lines += step.journal
    return flow, lines


def test_identical_refusal_makes_no_line() -> None:
    flow, lines = apply_all(after(placed()), [placed(tip=21, total=631)] * 3)
    assert [line.event for line in lines] == ["OrderPlaced"]
    again = apply(flow, placed(tip=21, total=631))
    assert (again.outcome, again.changed) == (Outcome.REFUSED, {})
    assert "exists with another body" in again.reason


def report_elsewhere(number: int) -> TicketAccepted:
    return TicketAccepted(order=ORDER, restaurant=f"other-{number}")


@given(numbers=st.lists(st.integers(0, 3), max_size=60))
def test_journal_of_refusals_is_bounded(numbers: list[int]) -> None:
    full = msgspec.structs.replace(order_of(after(placed(), CHARGED)), refusals=MAX_JOURNALLED_REFUSALS - 5)
    flow = msgspec.structs.replace(after(placed(), CHARGED), order=full)
    flow, lines = apply_all(flow, map(report_elsewhere, numbers))
    assert sum(line.outcome is Outcome.REFUSED for line in lines) <= 5
    assert len(lines) <= 10 + 1
    assert order_of(flow).journal == full.journal + len(lines)


def test_refusal_above_the_limit_raises_the_first_attention() -> None:
    full = msgspec.structs.replace(order_of(after(placed(), CHARGED, ACCEPTED)), refusals=MAX_JOURNALLED_REFUSALS)
    rejected = [TicketRejected(order=ORDER, reason=f"no {number}") for number in range(99)]
    flow, lines = apply_all(msgspec.structs.replace(after(placed(), CHARGED, ACCEPTED), order=full), rejected)
    assert [line.event for line in lines] == ["AttentionRaised"]
    assert len(order_of(flow).attention) == 1


def test_long_journal_records_only_changes_of_stage() -> None:
    flow = after(placed(), CHARGED, ACCEPTED, FINISHED, ASSIGNED)
    flow = msgspec.structs.replace(flow, order=msgspec.structs.replace(order_of(flow), journal=MAX_JOURNAL_LINES))
    etas = (
        EtaChanged(id=f"e{n}", order=ORDER, driver="asha", attempt=1, eta_s=30 + n, at=later(n)) for n in range(1, 9)
    )
    flow, lines = apply_all(flow, etas)
    assert (lines, order_of(flow).version > 5) == ([], True)
    picked_up = apply(flow, PickedUp(id="p", order=ORDER, driver="asha", attempt=1, eta_s=60))
    assert [(line.seq, line.machine) for line in picked_up.journal] == [
        (MAX_JOURNAL_LINES + 1, "delivery"),
        (MAX_JOURNAL_LINES + 2, "order"),
    ]


def test_overdue_wait_continues() -> None:
    [wait] = [timer for timer in apply(Workflow(), placed()).timers if isinstance(timer, SetTimer)]
    step = apply(after(placed()), TimerDue(wait.name))
    assert moves(step) == [("order", "WaitTimedOut", "CREATED", "CREATED")]
    assert apply(step.workflow, CHARGED).outcome is Outcome.APPLIED


def test_timer_that_is_not_running_is_refused() -> None:
    flow = after(placed(), CHARGED)
    step = apply(flow, TimerDue(f"{ORDER}/charge-wait"))
    assert (step.outcome, step.workflow) == (Outcome.REFUSED, flow)


def test_a_timer_that_is_not_due_yet_is_refused() -> None:
    """An operator has replayed an earlier timer of that name."""
    flow = after(placed(deliver_at=later(7200)), CHARGED)
    start = order_of(flow).timer
    assert start is not None
    early, due = (workflow.decide_step(flow, TimerDue(start.name), start.due_ms + ms, P) for ms in (-1, 0))
    assert (early.outcome, early.workflow) == (Outcome.REFUSED, flow)
    assert due.outcome is Outcome.APPLIED


def test_an_order_for_later_waits_for_its_start() -> None:
    flow = after(placed(deliver_at=later(7200)), CHARGED)
    assert flow.ticket is None
    step = apply(flow, TimerDue(f"{ORDER}/start"))
    assert moves(step)[0] == ("order", "PreparationDue", "SCHEDULED", "SCHEDULED, asked")
    assert not [timer for timer in step.timers if isinstance(timer, CancelTimer)]
    assert [call.key for call in step.calls] == [f"{ORDER}/prepare"]


def test_answer_202_changes_nothing() -> None:
    flow = after(placed())
    step = apply(flow, CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 202, "{}"))
    assert (step.outcome, step.changed, step.workflow) == (Outcome.APPLIED, {}, flow)


def test_answer_counts_after_an_unclear_one() -> None:
    step = apply(after(placed()), CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 400, ""))
    assert step.workflow.order is not None
    [item] = step.workflow.order.attention
    assert (item.wait, item.waits_for) == ("charge", "the charge: answered 400")
    paid = apply(step.workflow, CHARGED)
    assert paid.workflow.order is not None
    assert paid.workflow.order.attention == ()


CHARGE_REPORT = Charged(order=ORDER, charge_id="c1", amount=630, currency="INR")


def test_reported_charge_pays_nothing() -> None:
    step = apply(after(placed()), CHARGE_REPORT)
    assert (step.wake_calls, step.cancel_calls, step.calls) == ((f"{ORDER}/charge",), (), ())
    assert order_of(step.workflow).status is OrderStatus.CREATED
    again = apply(step.workflow, CHARGE_REPORT)
    assert (again.outcome, again.wake_calls) == (Outcome.ABSORBED, (f"{ORDER}/charge",))


def reports(number: int) -> list[Charged | Declined | Refunded]:
    return [
        Charged(order=ORDER, charge_id=f"x{number}", amount=99_000_000, currency="INR"),
        Declined(order=ORDER, reason=f"no {number}"),
        Refunded(order=ORDER, charge_id=f"x{number}"),
    ]


@pytest.mark.parametrize(
    "events", [(placed(),), (placed(), CHARGED), (placed(), CHARGED, ACCEPTED), (placed(), DECLINED)]
)
def test_any_number_of_reports_grows_no_row_and_makes_no_call(events: tuple[Any, ...]) -> None:
    flow = after(*events)
    calls: list[Any] = []
    updates: list[Any] = []
    sizes = []
    for number in range(300):
        for report in reports(number):
            step = apply(flow, report)
            flow = step.workflow
            calls += step.calls
            updates += step.emit
        sizes.append(len(msgspec.json.encode(flow)))
    assert not calls
    assert len(updates) <= 1
    assert sizes[-1] - sizes[0] <= 20, "the counts may get longer"


def test_restaurant_that_cooks_a_rejected_order_reaches_a_person() -> None:
    rejected = after(placed(), CHARGED, TicketRejected(order=ORDER, reason="closed"))
    step = apply(rejected, FINISHED)
    assert step.outcome is Outcome.REFUSED
    assert [item.wait for item in order_of(step.workflow).attention] == ["operator"]


def test_attention_beyond_the_limit_is_counted_in_one_item() -> None:
    flow = after(placed(), CHARGED, ACCEPTED)
    items = tuple(AttentionItem(f"refund of x{number}", "a refund", NOW) for number in range(MAX_ATTENTION))
    flow = msgspec.structs.replace(flow, order=msgspec.structs.replace(order_of(flow), attention=items))
    for number in range(5):
        flow = apply(flow, TicketRejected(order=ORDER, reason=f"no {number}")).workflow
    *kept, last = order_of(flow).attention
    assert tuple(kept) == items
    assert (last.wait, last.waits_for, last.others) == ("operator", "an operator: the journal has 5 more", 5)


def test_journal_lines_have_the_id_of_the_outside_event() -> None:
    flow = after(placed(), CHARGED, ACCEPTED, FINISHED, ASSIGNED)
    step = apply(flow, EtaChanged(id="e", order=ORDER, driver="asha", attempt=1, eta_s=30, at=later(1)))
    assert [(line.seq, line.event_id) for line in step.journal] == [(13, "e"), (14, "e")]
    assert {line.event_id for line in apply(Workflow(), placed()).journal} == {placed().event_id}
    assert {line.event_id for line in apply(after(placed()), CHARGED).journal} == {f"{ORDER}/charge"}


def test_journal_keys_sort_by_number() -> None:
    keys = [journal_key(ORDER, seq) for seq in (1, 9, 10, 100, 99_999)]
    assert keys == sorted(keys)
    assert keys[0] == f"{ORDER}/000001"


def test_same_events_make_the_same_bytes() -> None:
    events = (placed(), CHARGED, ACCEPTED, FINISHED, ASSIGNED)
    assert msgspec.json.encode(after(*events)) == msgspec.json.encode(after(*events))


def test_rows_and_lines_survive_json() -> None:
    flow = Workflow()
    for event in (placed(), CHARGED, FINISHED, ASSIGNED, TicketRejected(order=ORDER)):
        step = apply(flow, event)
        flow = step.workflow
        for row in step.changed.values():
            assert msgspec.json.decode(msgspec.json.encode(row), type=type(row)) == row
        for line in step.journal:
            assert msgspec.json.decode(msgspec.json.encode(line), type=JournalLine) == line


@pytest.mark.parametrize("wished", [None, later(3600)])
def test_order_time_in_the_future_counts_as_now(wished: datetime | None) -> None:
    step = apply(Workflow(), placed(at=END_OF_TIME, deliver_at=wished))
    assert step.workflow.order is not None
    assert step.workflow.order.placed_ms == NOW


def test_order_time_in_the_future_does_not_extend_the_limit() -> None:
    step = apply(Workflow(), placed(at=END_OF_TIME, deliver_at=END_OF_TIME))
    assert (step.outcome, [problem.pointer for problem in step.problems]) == (Outcome.REFUSED, ["/deliver_at"])


@pytest.mark.parametrize("year", [1, 1969, 2026])
def test_order_for_now_of_long_ago_is_refused(year: int) -> None:
    step = apply(Workflow(), placed(at=datetime(year, 1, 1, tzinfo=timezone(timedelta(hours=14)))))
    assert (step.outcome, step.problems[0].pointer) == (Outcome.REFUSED, "/at")
    assert "days old" in step.reason


def test_problem_of_the_whole_order_has_no_pointer() -> None:
    step = apply(Workflow(), placed(display_number="n" * MAX_ORDER_BYTES))
    assert step.outcome is Outcome.REFUSED
    assert step.reason.startswith("the order has ")
