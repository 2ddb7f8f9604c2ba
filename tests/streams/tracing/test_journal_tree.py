"""The tree that is drawn from a journal."""

from typing import Any

from processors.call_kinds import CallKind
from processors.events import CallAnswered, TimerDue
from processors.workflow import JournalLine, Workflow, decide_step
from streams.tracing.ids import attempt_span, root_of, span_id
from streams.tracing.journal_tree import DrawnSpan, OpenCall, PendingTimer, drawn_trace, final_status, seconds
from tests.processors.cases import DRIVER, NOW, ORDER, RESTAURANT, P, placed
from topics.deliveries import Delivered, DriverAssigned, EtaChanged, PickedUp
from topics.orders import AttentionSettled
from topics.pos import PreparationFinished, TicketAccepted

CHARGED = CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, '{"charge_id": "c1", "amount": 630, "currency": "INR"}')
TAKEN = CallAnswered(f"{ORDER}/prepare", CallKind.PREPARE, 202, "")


def of_delivery(kind: type[Any], word: str, **more: Any) -> Any:
    return kind(id=f"{ORDER}/{word}/1/{DRIVER}", order=ORDER, driver=DRIVER, attempt=1, **more)


def journal(*events: Any, every_ms: int = 1_000) -> list[JournalLine]:
    """Return the journal of an order to which these events happened, one after the other."""
    flow, lines = Workflow(), list[JournalLine]()
    for number, event in enumerate(events):
        step = decide_step(flow, event, NOW + number * every_ms, P, RESTAURANT)
        flow = step.workflow
        lines += step.journal
    return lines


def edges(spans: list[DrawnSpan]) -> list[tuple[str, str]]:
    """Return (name, name of the parent) of each span."""
    names = {span.id: span.name for span in spans}
    return [(span.name, names.get(span.parent, "")) for span in spans]


def test_an_order_is_drawn_from_its_placing_to_its_end() -> None:
    lines = journal(
        placed(),
        CHARGED,
        TAKEN,
        TicketAccepted(order=ORDER),
        PreparationFinished(order=ORDER),
        of_delivery(DriverAssigned, "assigned", eta_s=60),
        of_delivery(PickedUp, "picked-up", eta_s=30),
        of_delivery(EtaChanged, "eta", eta_s=20),
        of_delivery(Delivered, "delivered"),
    )
    spans = drawn_trace(ORDER, lines, NOW)
    assert edges(spans) == [
        ("order placed", ""),
        ("call charge", "order placed"),
        ("answer Charged", "call charge"),
        ("call prepare", "answer Charged"),
        ("answer TicketReceived", "call prepare"),
        ("process TicketAccepted", "answer TicketReceived"),
        ("process PreparationFinished", "process TicketAccepted"),
        ("find a driver, attempt 1", "process PreparationFinished"),
        ("process DriverAssigned", "find a driver, attempt 1"),
        ("process PickedUp", "process DriverAssigned"),
        ("process Delivered", "process PickedUp"),
        ("order ended", "process Delivered"),
    ]
    named = {span.name: span for span in spans}
    assert named["call charge"].end_ms == NOW + 1_000
    assert named["find a driver, attempt 1"].id == f"{span_id(f'{ORDER}/driver/1'):016x}"
    assert named["order ended"].notes == ("DELIVERED after 8 s",)
    assert all(span.error == "" for span in spans)
    assert [span.depth for span in spans] == list(range(12))


def test_a_timer_is_below_the_root_and_shows_its_wait() -> None:
    lines = journal(placed(), TimerDue(f"{ORDER}/charge-wait"), every_ms=600_000)
    late = drawn_trace(ORDER, lines, NOW)[-1]
    assert (late.name, late.parent) == ("timer WaitTimedOut", f"{root_of(ORDER):016x}")
    assert late.notes[-1] == "waited 10 min"


def test_what_goes_on_has_no_end() -> None:
    call = OpenCall(f"{ORDER}/charge", 3, NOW + 9_000, "status 503")
    timer = PendingTimer(f"{ORDER}/charge-wait", NOW, NOW + 60_000)
    root, *others = drawn_trace(ORDER, journal(placed()), NOW, [call], timer)
    assert root.end_ms == NOW
    charge, wait = others
    assert (charge.id, charge.end_ms) == (f"{attempt_span(call.key, 1, root_of(ORDER)):016x}", None)
    assert (charge.attempts, charge.next_ms, charge.error) == (3, NOW + 9_000, "status 503")
    assert (wait.name, wait.end_ms, wait.next_ms) == ("wait for charge", None, NOW + 60_000)


def test_a_refused_event_is_an_error() -> None:
    spans = drawn_trace(ORDER, journal(placed(), PreparationFinished(order=ORDER), AttentionSettled(order=ORDER)), NOW)
    refused = next(span for span in spans if span.name == "process PreparationFinished")
    assert refused.error.startswith("refused: ")


def test_a_status_is_final_once() -> None:
    lines = journal(placed(), CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 402, '{"reason": "no"}'))
    assert final_status(lines) == "REJECTED"
    assert final_status(line for line in lines if line.before == "REJECTED") == ""


def test_durations_are_for_people() -> None:
    assert [seconds(ms) for ms in (0, 999, 1_500, 90_000, 7_200_000)] == ["0 ms", "999 ms", "1.5 s", "1.5 min", "2 h"]
