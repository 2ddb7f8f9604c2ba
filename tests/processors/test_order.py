"""The machine of the order."""

from typing import Any

import msgspec
import pytest

from processors.decision import CancelTimer, DecisionContext, Outcome, SetTimer
from processors.events import (
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
from processors.order import FINAL_STAGES, STAGES_WITH_DEADLINE, STATUS, TABLE, WAITS, Order, Stage, Timer, decide
from processors.parameters import Parameters
from tests.processors import grid
from tests.processors.cases import HOME, KITCHEN, NOW, ORDER, RESTAURANT, P, later, placed
from topics.order_updates import OrderStatus, OrderUpdated, Reason
from topics.records import instant, write


def created(**changes: Any) -> Order:
    state = decide(None, OrderPlaced(placed(**changes), RESTAURANT), NOW, P).state
    assert state is not None
    return state


def at(stage: Stage) -> Order:
    """Return an order in this stage, with the timer of its wait."""
    name = f"{ORDER}/{WAITS[stage].name}" + ("-wait" if stage in STAGES_WITH_DEADLINE else "")
    return msgspec.structs.replace(created(), stage=stage, timer=Timer(name, NOW + 60_000), waits_since_ms=NOW - 5)


STATES: dict[str, Order | None] = {"-": None, **{stage.name: at(stage) for stage in Stage}}
EVENTS = {
    "placed": OrderPlaced(placed(), RESTAURANT),
    "placed-otherwise": OrderPlaced(placed(tip=21, total=631), RESTAURANT),
    "charged": PaymentCharged(),
    "declined": PaymentDeclined("no funds"),
    "mismatched": PaymentMismatched("charged 1 INR"),
    "refunded": PaymentRefunded("refund of c1"),
    "start": PreparationDue(),
    "accepted": RestaurantAccepted(),
    "refused": RestaurantRejected("closed"),
    "finished": RestaurantFinished(),
    "assigned": DeliveryAssigned("asha", NOW + 900_000),
    "picked-up": DeliveryPickedUp(NOW + 600_000),
    "eta": DeliveryEtaChanged(NOW + 300_000),
    "done": DeliveryCompleted(),
    "timed-out": WaitTimedOut(),
    "retire": RetentionExpired(),
    "attention": AttentionRaised("an operator: odd", "operator"),
    "attention-here": AttentionRaised("the restaurant to make up its mind"),
    "cleared": AttentionCleared("operator"),
    "settled": OperatorSettled("by ana: told the bank"),
    "erased": OperatorErased("by ana: she asked for it"),
}
GRID = """
                 -       CREATED   SCHEDULED ASKED          IN_PREPARATION      SCHEDULING_DELIVERY WAITING_FOR_DRIVER IN_DELIVERY DELIVERED REFUND_DUE REJECTED
placed           CREATED =         =         =              =                   =                   =                  =           =         =          =
placed-otherwise CREATED x         x         x              x                   x                   x                  x           x         x          x
charged          x       ASKED     =         =              =                   =                   =                  =           =         x          x
declined         x       REJECTED  x         x              x                   x                   x                  x           x         =          =
mismatched       x       REFUND_DUE x        x              x                   x                   x                  x           x         x          x
refunded         x       x         x         x              x                   x                   x                  x           x         REJECTED   !
start            x       x         ASKED     x              x                   x                   x                  x           x         x          x
accepted         x       x         x         IN_PREPARATION =                   =                   =                  =           =         x          x
refused          x       x         x         REFUND_DUE     x                   x                   x                  x           x         =          =
finished         x       x         x         IN_PREPARATION SCHEDULING_DELIVERY =                   =                  =           =         x          x
assigned         x       x         x         x              x                   WAITING_FOR_DRIVER  =                  =           =         x          x
picked-up        x       x         x         x              x                   x                   IN_DELIVERY        =           =         x          x
eta              x       x         x         x              x                   x                   !                  !           =         x          x
done             x       x         x         x              x                   x                   x                  DELIVERED   =         x          x
timed-out        x       !         x         !              !                   !                   !                  !           x         !          x
retire           x       x         x         x              x                   x                   x                  x           !         x          !
attention        x       !         !         !              !                   !                   !                  !           !         !          !
attention-here   x       !         !         !              !                   !                   !                  !           =         !          =
cleared          x       =         =         =              =                   =                   =                  =           =         =          =
settled          x       =         =         =              =                   =                   =                  =           =         =          =
erased           x       x         x         x              x                   x                   x                  x           !         x          !
"""  # noqa: E501
LATER = created(deliver_at=later(7200))
WITH_ATTENTION = decide(at(Stage.ASKED), EVENTS["attention"], NOW, P).state
OVERDUE = decide(at(Stage.CREATED), WaitTimedOut(), NOW, P).state
DELIVERED_WITH_ATTENTION = decide(at(Stage.DELIVERED), EVENTS["attention"], NOW, P).state


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    guarded = {TABLE.find(LATER, PaymentCharged(), DecisionContext(NOW, P))}
    guarded.add(TABLE.find(WITH_ATTENTION, EVENTS["cleared"], DecisionContext(NOW, P)))
    guarded.add(TABLE.find(DELIVERED_WITH_ATTENTION, RetentionExpired(), DecisionContext(NOW, P)))
    guarded.add(TABLE.find(DELIVERED_WITH_ATTENTION, EVENTS["settled"], DecisionContext(NOW, P)))
    guarded.add(TABLE.find(DELIVERED_WITH_ATTENTION, EVENTS["erased"], DecisionContext(NOW, P)))
    guarded.add(TABLE.find(OVERDUE, EVENTS["settled"], DecisionContext(NOW, P)))
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == guarded


def test_every_stage_is_in_the_grid_reachable_and_timed() -> None:
    assert GRID.split("\n")[1].split() == ["-", *Stage.__members__]
    assert {row.to for row in TABLE} >= set(Stage)
    assert WAITS.keys() == set(Stage)
    assert set(FINAL_STAGES) == {stage for stage in Stage if STATUS[stage].ended} - {Stage.REFUND_DUE}


def test_every_stage_shows_a_public_status() -> None:
    assert {stage.name: STATUS[stage].value for stage in Stage if stage.name != STATUS[stage].value} == {
        "ASKED": "SCHEDULED",
        "REFUND_DUE": "REJECTED",
    }
    assert {STATUS[stage] for stage in Stage} == set(OrderStatus) - {OrderStatus.CANCELLED}


def test_new_order_requests_the_payment() -> None:
    decision = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, P)
    order = decision.state
    assert order is not None
    assert decision.internal_events == (PaymentRequested(ORDER, 630, "INR"),)
    assert decision.timers == (SetTimer(f"{ORDER}/charge-wait", NOW + 30_000),)
    assert (order.region, order.pickup, order.dropoff, order.preparation_ms) == ("fort", KITCHEN, HOME, 600_000)
    assert order.eta_ms == NOW + 600_000 + order.travel_ms
    assert 300_000 < order.travel_ms < 500_000


def test_order_for_later_starts_in_time_to_arrive() -> None:
    decision = decide(LATER, PaymentCharged(), NOW, P)
    order = decision.state
    assert order is not None
    assert order.stage is Stage.SCHEDULED
    assert order.eta_ms == NOW + 7_200_000
    start = NOW + 7_200_000 - 600_000 - order.travel_ms
    assert decision.timers == (CancelTimer(f"{ORDER}/charge-wait", NOW + 30_000), SetTimer(f"{ORDER}/start", start))
    assert decision.internal_events == ()


@pytest.mark.parametrize("wished", [60, -1800], ids=["too soon", "past"])
def test_order_for_an_impossible_time_starts_at_once(wished: int) -> None:
    decision = decide(created(deliver_at=later(wished)), PaymentCharged(), NOW, P)
    assert decision.state is not None
    assert decision.state.stage is Stage.ASKED
    assert decision.internal_events == (TicketRequested(RESTAURANT.pos_url),)


def test_fired_start_timer_is_not_cancelled() -> None:
    decision = decide(at(Stage.SCHEDULED), PreparationDue(), NOW, P)
    assert decision.timers == (SetTimer(f"{ORDER}/acceptance-wait", NOW + 120_000),)
    assert decision.emit == ()


@pytest.mark.parametrize(
    ("stage", "event", "notified"),
    [
        (Stage.CREATED, "charged", (TicketRequested(RESTAURANT.pos_url),)),
        (Stage.ASKED, "refused", (RefundRequested(),)),
        (Stage.IN_PREPARATION, "finished", (DeliveryStarted(ORDER, "fort", "lakshmi", KITCHEN, HOME),)),
        (Stage.CREATED, "declined", ()),
        (Stage.IN_DELIVERY, "done", ()),
    ],
)
def test_next_machine_is_notified(stage: Stage, event: str, notified: tuple[Any, ...]) -> None:
    assert decide(at(stage), EVENTS[event], NOW, P).internal_events == notified


WAIT_S = {"charge": 30, "acceptance": 120, "preparation": 1200, "driver": 300, "pickup": 900, "delivery": 3600}


@pytest.mark.parametrize(
    ("stage", "event", "wait"),
    [
        (Stage.CREATED, "charged", "acceptance"),
        (Stage.ASKED, "accepted", "preparation"),
        (Stage.IN_PREPARATION, "finished", "driver"),
        (Stage.SCHEDULING_DELIVERY, "assigned", "pickup"),
        (Stage.WAITING_FOR_DRIVER, "picked-up", "delivery"),
    ],
)
def test_new_stage_cancels_the_old_timer_and_sets_its_own(stage: Stage, event: str, wait: str) -> None:
    before = at(stage)
    assert before.timer is not None
    assert decide(before, EVENTS[event], NOW, P).timers == (
        CancelTimer(before.timer.name, before.timer.due_ms),
        SetTimer(f"{ORDER}/{wait}-wait", NOW + WAIT_S[wait] * 1000),
    )


@pytest.mark.parametrize("event", ["done", "declined", "refunded"])
def test_ended_order_has_only_its_retirement_timer_and_no_eta(event: str) -> None:
    stage = {"done": Stage.IN_DELIVERY, "declined": Stage.CREATED, "refunded": Stage.REFUND_DUE}[event]
    before = at(stage)
    if stage is Stage.REFUND_DUE:
        before = msgspec.structs.replace(before, eta_ms=None)
    decision = decide(before, EVENTS[event], NOW, P)
    assert decision.state is not None
    assert decision.state.status.ended
    assert decision.state.eta_ms is None
    retirement = SetTimer(f"{ORDER}/retirement", NOW + 30 * 24 * 3_600_000)
    assert before.timer is not None
    assert decision.timers == (CancelTimer(before.timer.name, before.timer.due_ms), retirement)
    assert decision.state.timer == Timer(retirement.name, retirement.due_ms)


@pytest.mark.parametrize("stage", FINAL_STAGES, ids=lambda stage: stage.name)
def test_retirement_publishes_no_update(stage: Stage) -> None:
    ended = at(stage)
    decision = decide(ended, RetentionExpired(), NOW, P)
    assert (decision.deleted, decision.emit, decision.timers) == (True, (), ())
    assert decision.internal_events == (RetirementRequested(ORDER, ended.placed_ms, ended.body_hash),)


@pytest.mark.parametrize(
    ("stage", "attention", "cleared"),
    [
        (Stage.DELIVERED, EVENTS["attention"], EVENTS["cleared"]),
        (Stage.REJECTED, AttentionRaised("the refund of c1: a second charge", "refund of c1"), EVENTS["refunded"]),
    ],
    ids=["attention", "a refund that is due"],
)
def test_order_with_attention_is_retired_one_retention_later(stage: Stage, attention: Any, cleared: Any) -> None:
    before = decide(at(stage), attention, NOW, P).state
    stays = decide(before, RetentionExpired(), NOW, P)
    assert stays.state is not None
    assert (stays.deleted, stays.state.timer, stays.timers) == (False, None, ())
    over = decide(stays.state, cleared, NOW + 7, P)
    assert over.timers == (SetTimer(f"{ORDER}/retirement", NOW + 7 + 30 * 24 * 3_600_000),)
    assert decide(over.state, RetentionExpired(), NOW, P).deleted


def test_operator_settles_attention_and_the_order_is_retired() -> None:
    stays = decide(DELIVERED_WITH_ATTENTION, RetentionExpired(), NOW, P)
    settled = decide(stays.state, EVENTS["settled"], NOW + 7, P)
    assert settled.state is not None
    assert (settled.state.attention, settled.reason) == ((), "by ana: told the bank")
    assert settled.timers == (SetTimer(f"{ORDER}/retirement", NOW + 7 + 30 * 24 * 3_600_000),)
    [update] = settled.emit
    assert isinstance(update, OrderUpdated)
    assert update.attention is None
    assert decide(settled.state, RetentionExpired(), NOW, P).deleted


def test_operator_cannot_settle_a_wait_of_the_order() -> None:
    decision = decide(OVERDUE, EVENTS["settled"], NOW, P)
    assert (decision.outcome, decision.state) == (Outcome.REFUSED, None)
    assert decision.reason == "the order does not wait for an operator, but for the payment"


def test_attention_cleared_early_does_not_extend_the_retention() -> None:
    over = decide(DELIVERED_WITH_ATTENTION, EVENTS["cleared"], NOW + 7, P)
    assert over.state is not None
    assert (over.timers, over.state.timer) == ((), at(Stage.DELIVERED).timer)


def test_retention_is_independent_of_the_speed_up() -> None:
    for speed in (0, 1, 300):
        decision = decide(at(Stage.IN_DELIVERY), DeliveryCompleted(), NOW, Parameters(speed_up=speed, retention_s=7.5))
        assert decision.timers[-1] == SetTimer(f"{ORDER}/retirement", NOW + 7_500)


def test_finish_before_acceptance_counts_as_both() -> None:
    first = decide(at(Stage.ASKED), RestaurantFinished(), NOW, P)
    assert first.state is not None
    assert (first.state.stage, first.reapply) == (Stage.IN_PREPARATION, True)
    second = decide(first.state, RestaurantFinished(), NOW, P)
    assert second.state is not None
    assert (second.state.stage, second.reapply) == (Stage.SCHEDULING_DELIVERY, False)
    assert [update.status for update in (*first.emit, *second.emit) if isinstance(update, OrderUpdated)] == [
        OrderStatus.IN_PREPARATION,
        OrderStatus.SCHEDULING_DELIVERY,
    ]


@pytest.mark.parametrize("stage", STAGES_WITH_DEADLINE, ids=lambda stage: stage.name)
def test_overdue_wait_raises_attention_until_its_end(stage: Stage) -> None:
    before = at(stage)
    overdue = decide(before, WaitTimedOut(), NOW, P)
    assert overdue.state is not None
    assert (overdue.state.stage, overdue.state.timer) == (stage, None)
    [update] = overdue.emit
    assert isinstance(update, OrderUpdated)
    assert update.attention is not None
    assert (update.attention.waits_for, update.attention.since) == (WAITS[stage].waits_for, instant(NOW - 5))
    ends = {
        Stage.CREATED: "charged",
        Stage.ASKED: "accepted",
        Stage.IN_PREPARATION: "finished",
        Stage.SCHEDULING_DELIVERY: "assigned",
        Stage.WAITING_FOR_DRIVER: "picked-up",
        Stage.IN_DELIVERY: "done",
        Stage.REFUND_DUE: "refunded",
    }
    [cleared] = decide(overdue.state, EVENTS[ends[stage]], NOW + 9, P).emit
    assert isinstance(cleared, OrderUpdated)
    assert cleared.attention is None
    assert cleared.version == update.version + 1


def test_overdue_wait_keeps_a_known_reason() -> None:
    known = decide(at(Stage.CREATED), AttentionRaised("the charge: answered 400 (card number is wrong)"), NOW, P).state
    overdue = decide(known, WaitTimedOut(), NOW + 30_000, P).state
    assert known is not None
    assert overdue is not None
    assert (overdue.attention, overdue.timer) == (known.attention, None)


def test_second_attention_of_a_wait_keeps_the_first_time() -> None:
    first = decide(at(Stage.CREATED), AttentionRaised("the charge: answered 400"), NOW, P).state
    second = decide(first, AttentionRaised("the charge: answered 401"), NOW + 1000, P).state
    assert second is not None
    assert [(one.waits_for, one.since_ms) for one in second.attention] == [("the charge: answered 401", NOW)]


def test_oldest_attention_is_published_first() -> None:
    order = decide(WITH_ATTENTION, AttentionRaised("the restaurant's answer: 400"), NOW + 1, P).state
    assert order is not None
    cleared = decide(order, AttentionCleared("operator"), NOW + 2, P)
    [update] = cleared.emit
    assert isinstance(update, OrderUpdated)
    assert update.attention is not None
    assert update.attention.waits_for == "the restaurant's answer: 400"


def test_operator_attention_survives_the_next_stage() -> None:
    order = decide(WITH_ATTENTION, RestaurantAccepted(), NOW, P).state
    assert order is not None
    assert [item.wait for item in order.attention] == ["operator"]


@pytest.mark.parametrize(
    ("stage", "event", "code"),
    [
        (Stage.CREATED, PaymentDeclined("the card of A. Mehta"), Reason.PAYMENT_DECLINED),
        (Stage.CREATED, PaymentMismatched("charged 1 INR"), Reason.WRONG_CHARGE),
        (Stage.ASKED, RestaurantRejected("ask for Asha"), Reason.RESTAURANT_REJECTED),
        (Stage.ASKED, RestaurantRejected("Sold out"), Reason.SOLD_OUT),
    ],
)
def test_public_reason_is_a_code_and_the_text_stays_inside(stage: Stage, event: Any, code: Reason) -> None:
    decision = decide(at(stage), event, NOW, P)
    [rejected] = decision.emit
    assert isinstance(rejected, OrderUpdated)
    assert rejected.reason is code
    assert decision.reason == event.reason
    assert event.reason.encode() not in write(rejected)


def test_updates_have_driver_and_eta() -> None:
    [assigned] = decide(at(Stage.SCHEDULING_DELIVERY), EVENTS["assigned"], NOW, P).emit
    assert isinstance(assigned, OrderUpdated)
    assert (assigned.driver, assigned.eta) == ("asha", instant(NOW + 900_000))
    assert (assigned.id, assigned.version) == (f"{ORDER}/update/2", 2)


def test_an_eta_follows_the_driver() -> None:
    order = at(Stage.IN_DELIVERY)
    for eta in (NOW + 500_000, NOW + 400_000, NOW + 450_000):
        decided = decide(order, DeliveryEtaChanged(eta), NOW, P)
        assert decided.state is not None
        order = decided.state
        assert order.eta_ms == eta


def test_speed_up_divides_waits_and_estimates() -> None:
    fast = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, Parameters(speed_up=60))
    assert fast.state is not None
    assert (fast.state.preparation_ms, fast.timers) == (10_000, (SetTimer(f"{ORDER}/charge-wait", NOW + 500),))
    instantly = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, Parameters(speed_up=0))
    assert instantly.state is not None
    assert (instantly.state.preparation_ms, instantly.state.travel_ms, instantly.state.eta_ms) == (0, 0, NOW)
    assert instantly.timers == (SetTimer(f"{ORDER}/charge-wait", NOW + 30_000),)
