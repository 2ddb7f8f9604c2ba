"""Retirement of an order: the row that remains, and the records in the history topic."""

from base64 import b64decode, b64encode
from typing import Any

import msgspec
import pytest

from processors import history, workflow
from processors.call_kinds import CallKind
from processors.decision import CancelTimer, DecisionContext, Outcome, SetTimer
from processors.event_names import event_name
from processors.events import CallAnswered, HistoryExpired, OperatorErased, OrderPlaced, RetirementRequested, TimerDue
from processors.history import MAX_PART_BYTES, TABLE, Retired, Stage, decide, records_of
from processors.workflow import JournalLine, Workflow
from tests.processors import grid
from tests.processors.cases import NOW, ORDER, RESTAURANT, P, later, placed
from topics.deliveries import Delivered, DriverAssigned
from topics.drivers import Unassign
from topics.order_history import OrderRetired, RowKind
from topics.order_updates import OrderStatus
from topics.orders import ErasureRequested
from topics.payments import Charged
from topics.pos import PreparationFinished
from topics.records import instant, write

DAY_MS = 24 * 3_600_000
RETIRES = NOW + 1 + 30 * DAY_MS
RETIRED = Retired(retired_ms=NOW, placed_ms=NOW - 5, body_hash=placed().body_hash())
STATES = {"-": None, "RETIRED": RETIRED}
EVENTS = {
    "retire": RetirementRequested(ORDER, NOW - 5, placed().body_hash()),
    "placed": OrderPlaced(placed(), None),
    "placed-otherwise": OrderPlaced(placed(tip=21, total=631), RESTAURANT),
    "assigned": DriverAssigned(id="a", order=ORDER, driver="asha", attempt=2, eta_s=60),
    "delivered": Delivered(order=ORDER, driver="asha", attempt=1),
    "charged": Charged(order=ORDER, charge_id="c1", amount=630, currency="INR"),
    "finished": PreparationFinished(order=ORDER),
    "answered": CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 200, "{}"),
    "forget": HistoryExpired(),
    "erase": OperatorErased("by ana: she asked for it"),
}
GRID = """
                 -       RETIRED
retire           RETIRED x
placed           x       =
placed-otherwise x       x
assigned         x       x
delivered        x       x
charged          x       x
finished         x       x
answered         x       x
forget           x       !
erase            x       !
"""
ERASED = decide(RETIRED, EVENTS["erase"], NOW + 7, P).state


@grid.parameters(GRID)
def test_every_event_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    again = {TABLE.find(ERASED, EVENTS[event], DecisionContext(NOW, P)) for event in ("placed", "erase")}
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == again


def erasure(flow: Workflow, now_ms: int, *, has_open_call: bool = False) -> workflow.Step:
    request = ErasureRequested(id="e1", order=ORDER, by="ana", reason="she asked for it")
    return workflow.decide_step(flow, request, now_ms, P, has_open_call=has_open_call)


def test_an_erased_order_leaves_the_tables_at_once() -> None:
    before = rejected()
    step = erasure(before, NOW + 2)
    remains = Retired(retired_ms=NOW + 2, placed_ms=NOW, body_hash="", erased_ms=NOW + 2)
    assert (step.outcome, step.retire) == (Outcome.APPLIED, True)
    assert step.changed == {"order": None, "placed": None, "payment": None, "history": remains}
    assert before.order is not None
    assert before.order.timer is not None
    assert CancelTimer(before.order.timer.name, before.order.timer.due_ms) in step.timers
    assert erasure(step.workflow, NOW + 3).outcome is Outcome.ABSORBED
    again = workflow.decide_step(step.workflow, placed(), NOW + 3, P, RESTAURANT)
    assert (again.outcome, again.changed) == (Outcome.REFUSED, {})
    assert again.reason == f"the order {ORDER} existed and was erased; use another id for a new order"


def test_erasing_a_retired_order_deletes_its_key() -> None:
    flow = Workflow(history=msgspec.structs.replace(RETIRED, data_key="key"))
    step = erasure(flow, NOW + 2)
    assert (step.outcome, step.retire, step.emit, step.timers) == (Outcome.APPLIED, False, (), ())
    erased = msgspec.structs.replace(RETIRED, body_hash="", data_key="", erased_ms=NOW + 2)
    assert step.changed == {"history": erased}
    assert step.workflow.history == erased


def test_an_order_that_is_needed_is_not_erased() -> None:
    on_its_way = workflow.decide_step(Workflow(), placed(), NOW, P, RESTAURANT).workflow
    for flow, has_open_call, why in (
        (on_its_way, False, "the order has not ended"),
        (rejected(), True, "the order waits for the answer to a call"),
    ):
        step = erasure(flow, NOW + 2, has_open_call=has_open_call)
        assert (step.outcome, step.retire) == (Outcome.REFUSED, False)
        assert step.reason.startswith(why)


def rejected() -> Workflow:
    flow = workflow.decide_step(Workflow(), placed(), NOW, P, RESTAURANT).workflow
    declined = CallAnswered(f"{ORDER}/charge", CallKind.CHARGE, 402, '{"reason": "no funds"}')
    return workflow.decide_step(flow, declined, NOW + 1, P).workflow


def retired() -> Workflow:
    return workflow.decide_step(rejected(), TimerDue(f"{ORDER}/retirement"), RETIRES, P).workflow


def test_retirement_is_one_transaction() -> None:
    before = rejected()
    step = workflow.decide_step(before, TimerDue(f"{ORDER}/retirement"), RETIRES, P)
    assert (step.outcome, step.retire, step.journal, step.emit) == (Outcome.APPLIED, True, (), ())
    assert before.order is not None
    remains = Retired(retired_ms=RETIRES, placed_ms=NOW, body_hash=before.order.body_hash)
    assert step.changed == {"order": None, "placed": None, "payment": None, "history": remains}
    assert step.workflow == Workflow(history=remains)
    assert step.timers == (SetTimer(f"{ORDER}/history", RETIRES + 365 * DAY_MS),)
    assert len(msgspec.json.encode(remains)) < 110


def test_retired_order_absorbs_its_repeat() -> None:
    again = workflow.decide_step(retired(), placed(at=later(99)), RETIRES + DAY_MS, P, None)
    assert (again.outcome, again.changed, again.workflow) == (Outcome.ABSORBED, {}, retired())
    other = workflow.decide_step(retired(), placed(tip=21, total=631), RETIRES + DAY_MS, P, RESTAURANT)
    assert (other.outcome, other.changed) == (Outcome.REFUSED, {})
    assert "exists with another body" in other.reason


@pytest.mark.parametrize("event", ["charged", "finished", "delivered", "answered", "assigned"])
def test_event_after_the_retirement_is_refused(event: str) -> None:
    late: Any = EVENTS[event]
    step = workflow.decide_step(retired(), late, RETIRES + DAY_MS, P)
    assert (step.outcome, step.changed, step.journal) == (Outcome.REFUSED, {}, ())
    assert step.reason.startswith(f"{event_name(late)} comes too late: the order has ended")


def test_driver_assigned_after_retirement_is_unassigned() -> None:
    [unassign] = workflow.decide_step(retired(), EVENTS["assigned"], RETIRES + DAY_MS, P).emit
    assert isinstance(unassign, Unassign)
    assert (unassign.driver, unassign.delivery, unassign.attempt) == ("asha", ORDER, 2)


def test_id_is_free_after_the_history_has_expired() -> None:
    step = workflow.decide_step(retired(), TimerDue(f"{ORDER}/history"), RETIRES + 365 * DAY_MS, P)
    assert (step.changed, step.workflow) == ({"history": None}, Workflow())
    now_ms = RETIRES + 365 * DAY_MS
    again = placed(at=instant(now_ms))
    assert workflow.decide_step(step.workflow, again, now_ms, P, RESTAURANT).outcome is Outcome.APPLIED


def test_replayed_timer_does_not_end_the_history() -> None:
    step = workflow.decide_step(retired(), TimerDue(f"{ORDER}/charge-wait"), RETIRES + DAY_MS, P)
    assert (step.outcome, step.changed) == (Outcome.REFUSED, {})


def kept(parts: tuple[OrderRetired, ...]) -> list[tuple[str, Any]]:
    """Return the rows in the records, decoded from their bytes."""
    records = [msgspec.json.decode(write(part), type=OrderRetired) for part in parts]
    assert [(part.part, part.parts) for part in records] == [(n, len(parts)) for n in range(1, len(parts) + 1)]
    return [(kept.kind, msgspec.json.decode(b64decode(kept.row))) for part in records for kept in part.rows]


def seal(row: bytes) -> str:
    return b64encode(row).decode()


def line(seq: int, reason: str = "") -> JournalLine:
    return JournalLine(seq=seq, at_ms=NOW, machine="order", event="DeliveryEtaChanged", event_id="e", reason=reason)


def test_the_history_keeps_every_row_as_it_was() -> None:
    flow = rejected()
    assert flow.order is not None
    assert flow.placed is not None
    assert flow.payment is not None
    [record] = parts = records_of(
        ORDER,
        OrderStatus.REJECTED,
        [
            (RowKind.ORDER, flow.order),
            (RowKind.PLACED, flow.placed),
            (RowKind.PAYMENT, flow.payment),
            (RowKind.JOURNAL, line(1)),
        ],
        NOW,
        seal,
    )
    assert (record.key, record.id, record.status) == (ORDER, f"{ORDER}/retired/1", OrderStatus.REJECTED)
    assert kept(parts) == [
        ("order", msgspec.to_builtins(flow.order)),
        ("placed", msgspec.json.decode(write(flow.placed))),
        ("payment", msgspec.to_builtins(flow.payment)),
        ("journal", msgspec.to_builtins(line(1))),
    ]


@pytest.mark.parametrize(("lines", "reason"), [(20_000, ""), (3000, "x" * 1000), (10, "x" * 200_000)])
def test_long_journal_is_split_into_several_records(lines: int, reason: str) -> None:
    journal = [line(seq, reason) for seq in range(1, lines + 1)]
    parts = records_of(ORDER, OrderStatus.DELIVERED, [(RowKind.JOURNAL, each) for each in journal], NOW, seal)
    assert len(parts) > 1
    assert all(len(write(part)) < MAX_PART_BYTES + 1000 for part in parts)
    assert [row for _, row in kept(parts)] == [msgspec.to_builtins(each) for each in journal]
    assert len({part.id for part in parts}) == len(parts)


def test_refusal_of_a_late_event_gives_the_retirement_time() -> None:
    decision = history.decide(RETIRED, EVENTS["finished"], NOW, P)
    assert decision.reason == (
        "the end of the preparation comes too late: "
        "the order has ended and moved to the history at 2027-01-15T08:00:00+00:00"
    )
    assert TABLE.find(RETIRED, EVENTS["finished"], DecisionContext(NOW, P)) is None
