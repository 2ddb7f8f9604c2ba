"""Causes in journals that the machines of an order wrote."""

from typing import Any

import msgspec

from processors import workflow
from processors.call_kinds import CallKind
from processors.causes import causes_of, emitter_of
from processors.decision import Outcome
from processors.events import CallAnswered, TimerDue
from processors.workflow import JournalLine, Workflow
from tests.processors.cases import NOW, ORDER, RESTAURANT, P, placed
from topics.deliveries import Delivered, DriverAssigned, DriverRefused, EtaChanged, PickedUp
from topics.orders import CallRetryRequested
from topics.pos import PreparationFinished, TicketRejected

CHARGED = CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, '{"charge_id": "c1", "amount": 630, "currency": "INR"}')
RECEIVED = CallAnswered(f"{ORDER}/prepare", CallKind.PREPARE, 202, "")
ACCEPTED = CallAnswered(f"{ORDER}/prepare", CallKind.PREPARE, 200, '{"status": "accepted"}')
RETRIED = CallRetryRequested(id=f"{ORDER}/retry/1", call=f"{ORDER}/prepare")
FINISHED = PreparationFinished(order=ORDER)
STEP_MS = 1000


def journal_of(*events: Any) -> list[JournalLine]:
    """Return the journal of an order to which these events came, one a second; a timer comes when it is due."""
    flow, lines, now_ms = Workflow(), list[JournalLine](), NOW
    for event in (placed(), *events):
        timer = flow.order.timer if flow.order is not None and isinstance(event, TimerDue) else None
        now_ms = now_ms + STEP_MS if timer is None else timer.due_ms
        step = workflow.decide_step(flow, event, now_ms, P, RESTAURANT)
        flow = step.workflow
        lines += step.journal
    return lines


def pairs(lines: list[JournalLine]) -> list[tuple[str, str]]:
    """Return the event of each line and that of its cause; empty for the root."""
    causes, events = causes_of(lines), {line.seq: line.event for line in lines}
    return [(line.event, events[causes[line.seq]] if line.seq in causes else "") for line in lines]


def assigned(attempt: int) -> DriverAssigned:
    return DriverAssigned(id=f"{ORDER}/assigned/{attempt}/asha", order=ORDER, driver="asha", attempt=attempt, eta_s=60)


def test_a_delivered_order_is_one_chain_of_steps() -> None:
    lines = journal_of(
        CHARGED,
        ACCEPTED,
        FINISHED,
        assigned(1),
        PickedUp(id="p", order=ORDER, driver="asha", attempt=1, eta_s=60),
        Delivered(id="d", order=ORDER, driver="asha", attempt=1),
    )
    assert pairs(lines) == [
        ("OrderPlaced", ""),
        ("PaymentRequested", "OrderPlaced"),
        ("Charged", "PaymentRequested"),
        ("PaymentCharged", "Charged"),
        ("TicketRequested", "Charged"),
        ("TicketAccepted", "TicketRequested"),
        ("RestaurantAccepted", "TicketAccepted"),
        ("PreparationFinished", "TicketAccepted"),
        ("RestaurantFinished", "PreparationFinished"),
        ("DeliveryStarted", "PreparationFinished"),
        ("DriverAssigned", "DeliveryStarted"),
        ("DeliveryAssigned", "DriverAssigned"),
        ("PickedUp", "DriverAssigned"),
        ("DeliveryPickedUp", "PickedUp"),
        ("Delivered", "PickedUp"),
        ("DeliveryCompleted", "Delivered"),
    ]


def test_an_answer_follows_from_the_latest_request() -> None:
    lines = journal_of(CHARGED, RECEIVED, RETRIED, ACCEPTED)
    assert pairs(lines)[5:] == [
        ("TicketReceived", "TicketRequested"),
        ("PrepareRetried", "TicketReceived"),
        ("TicketAccepted", "PrepareRetried"),
        ("RestaurantAccepted", "TicketAccepted"),
    ]


def test_a_timer_follows_from_the_line_that_set_it() -> None:
    lines = journal_of(CHARGED, TimerDue(f"{ORDER}/acceptance-wait"))
    assert pairs(lines)[-1] == ("WaitTimedOut", "PaymentCharged")


def test_a_second_driver_follows_from_the_second_request() -> None:
    refused = DriverRefused(id="r", order=ORDER, driver="ravi", attempt=1, reason="gone")
    lines = journal_of(CHARGED, ACCEPTED, FINISHED, refused, assigned(2))
    assert pairs(lines)[-3:] == [
        ("DriverRefused", "DeliveryStarted"),
        ("DriverAssigned", "DriverRefused"),
        ("DeliveryAssigned", "DriverAssigned"),
    ]


def test_a_refused_event_causes_nothing_later() -> None:
    late = TicketRejected(order=ORDER, reason="sold out")
    lines = journal_of(CHARGED, ACCEPTED, late, FINISHED)
    refused = next(line for line in lines if line.outcome is Outcome.REFUSED)
    assert ("TicketRejected", "TicketAccepted") in pairs(lines)
    assert [pair for pair in pairs(lines) if pair[0] == "PreparationFinished"] == [
        ("PreparationFinished", "TicketAccepted")
    ]
    assert {line.event for line in lines if causes_of(lines).get(line.seq) == refused.seq} == {"AttentionRaised"}


def test_changes_of_the_eta_cause_nothing_later() -> None:
    eta = EtaChanged(id="e", order=ORDER, driver="asha", attempt=1, eta_s=30)
    lines = journal_of(
        CHARGED,
        ACCEPTED,
        FINISHED,
        assigned(1),
        eta,
        PickedUp(id="p", order=ORDER, driver="asha", attempt=1, eta_s=9),
    )
    assert ("EtaChanged", "DriverAssigned") in pairs(lines)
    assert ("PickedUp", "DriverAssigned") in pairs(lines)


def a_line(seq: int, machine: str = "payment", event_id: str = "", **more: Any) -> JournalLine:
    """Return a line of a step by itself."""
    return JournalLine(seq=seq, at_ms=seq, machine=machine, event="E", event_id=event_id or f"e{seq}", **more)


def test_an_answer_follows_from_its_own_request() -> None:
    lines = [
        a_line(1, "order"),
        a_line(2, emitted=("first",)),
        a_line(3, emitted=("second",)),
        a_line(4, event_id="first"),
    ]
    assert causes_of(lines)[4] == 2


def test_a_refusal_that_emits_causes_nothing_later() -> None:
    late = a_line(3, "delivery", outcome=Outcome.REFUSED, emitted=(f"{ORDER}/unassign/1/asha",))
    lines = [a_line(1, "order"), a_line(2, "delivery", after="REQUESTED"), late, a_line(4, "delivery")]
    assert causes_of(lines)[4] == 2


def test_an_update_of_the_order_causes_nothing_later() -> None:
    update = a_line(3, "order", emitted=(f"{ORDER}/update/2",))
    assert causes_of([a_line(1, "order", after="CREATED"), a_line(2), update, a_line(4, "order")])[4] == 1


def test_first_event_of_a_machine_follows_from_the_root() -> None:
    assert causes_of([a_line(1, "order"), a_line(2, "ticket")]) == {2: 1}
    assert causes_of([]) == {}


def test_two_answers_under_one_key_are_two_steps() -> None:
    answer = JournalLine(seq=1, at_ms=1, machine="payment", event="ChargeFailed", event_id="k", before="A", after="B")
    again = msgspec.structs.replace(answer, seq=2, at_ms=2, machine="ticket", event="Charged")
    asked = JournalLine(seq=3, at_ms=2, machine="order", event="C", event_id="k")
    assert causes_of([answer, again, asked]) == {2: 1, 3: 2}


def test_the_latest_line_that_asked_is_the_emitter() -> None:
    lines = journal_of(CHARGED, RECEIVED, RETRIED)
    retried = next(line.seq for line in lines if line.event == "PrepareRetried")
    assert emitter_of(lines, f"{ORDER}/prepare") == retried
    assert emitter_of(lines, f"{ORDER}/refund/c1") is None
