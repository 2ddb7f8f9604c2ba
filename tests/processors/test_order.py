"""The order's machine, alone."""

from typing import Any

import msgspec
import pytest

from processors.decision import CancelTimer, Moment, Outcome, SetTimer
from processors.events import (
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
from processors.order import ENDED, OTHERS_TURN, STATUS, TABLE, WAITS, Order, Stage, Timer, decide
from processors.parameters import Parameters
from tests.processors import grid
from tests.processors.cases import HOME, KITCHEN, NOW, ORDER, RESTAURANT, P, later, placed
from topics.order_updates import OrderStatus, OrderUpdated
from topics.records import instant


def created(**changes: Any) -> Order:
    state = decide(None, OrderPlaced(placed(**changes), RESTAURANT), NOW, P).state
    assert state is not None
    return state


def at(stage: Stage) -> Order:
    """An order in this stage, with the timer of its wait."""
    name = f"{ORDER}/{WAITS[stage].name}" + ("-wait" if stage in OTHERS_TURN else "")
    return msgspec.structs.replace(created(), stage=stage, timer=Timer(name, NOW + 60_000), waits_since_ms=NOW - 5)


STATES: dict[str, Order | None] = {"-": None, **{stage.name: at(stage) for stage in Stage}}
EVENTS = {
    "placed": OrderPlaced(placed(), RESTAURANT),
    "placed-otherwise": OrderPlaced(placed(tip=21, total=631), RESTAURANT),
    "charged": PaymentCharged(),
    "declined": PaymentDeclined("no funds"),
    "mismatched": PaymentMismatched("charged 1 INR"),
    "refunded": PaymentRefunded("refund of c1"),
    "start": StartDue(),
    "accepted": RestaurantAccepted(),
    "refused": RestaurantRefused("closed"),
    "finished": RestaurantFinished(),
    "assigned": DeliveryAssigned("asha", NOW + 900_000),
    "picked-up": DeliveryPickedUp(NOW + 600_000),
    "eta": DeliveryEtaChanged(NOW + 300_000),
    "done": DeliveryDone(),
    "too-long": WaitedTooLong(),
    "retire": RetireDue(),
    "attention": AttentionNeeded("an operator: odd", "operator"),
    "attention-here": AttentionNeeded("the restaurant to make up its mind"),
    "at-ease": AttentionOver("operator"),
    "settled": OperatorSettled("by ana: told the bank"),
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
too-long         x       !         x         !              !                   !                   !                  !           x         !          x
retire           x       x         x         x              x                   x                   x                  x           !         x          !
attention        x       !         !         !              !                   !                   !                  !           !         !          !
attention-here   x       !         !         !              !                   !                   !                  !           =         !          =
at-ease          x       =         =         =              =                   =                   =                  =           =         =          =
settled          x       =         =         =              =                   =                   =                  =           =         =          =
"""  # noqa: E501
LATER = created(deliver_at=later(7200))
CONCERNED = decide(at(Stage.ASKED), EVENTS["attention"], NOW, P).state
WORRIED = decide(at(Stage.CREATED), WaitedTooLong(), NOW, P).state
LOOKED_AT = decide(at(Stage.DELIVERED), EVENTS["attention"], NOW, P).state


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    guarded = {TABLE.find(LATER, PaymentCharged(), Moment(NOW, P))}
    guarded.add(TABLE.find(CONCERNED, EVENTS["at-ease"], Moment(NOW, P)))
    guarded.add(TABLE.find(LOOKED_AT, RetireDue(), Moment(NOW, P)))
    guarded.add(TABLE.find(LOOKED_AT, EVENTS["settled"], Moment(NOW, P)))
    guarded.add(TABLE.find(WORRIED, EVENTS["settled"], Moment(NOW, P)))
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == guarded


def test_every_stage_is_in_the_grid_can_be_reached_and_has_a_timer() -> None:
    assert GRID.split("\n")[1].split() == ["-", *Stage.__members__]
    assert {row.to for row in TABLE} >= set(Stage)
    assert WAITS.keys() == set(Stage)
    assert set(ENDED) == {stage for stage in Stage if STATUS[stage].ended} - {Stage.REFUND_DUE}


def test_every_stage_shows_a_public_status() -> None:
    assert {stage.name: STATUS[stage].value for stage in Stage if stage.name != STATUS[stage].value} == {
        "ASKED": "SCHEDULED",
        "REFUND_DUE": "REJECTED",
    }
    assert {STATUS[stage] for stage in Stage} == set(OrderStatus) - {OrderStatus.CANCELLED}


def test_a_new_order_is_to_be_paid_and_carries_what_it_was_decided_by() -> None:
    decision = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, P)
    order = decision.state
    assert order is not None
    assert decision.tell == (PaymentDue(ORDER, 630, "INR"),)
    assert decision.timers == (SetTimer(f"{ORDER}/charge-wait", NOW + 30_000),)
    assert (order.region, order.pickup, order.dropoff, order.preparation_ms) == ("fort", KITCHEN, HOME, 600_000)
    assert order.eta_ms == NOW + 600_000 + order.travel_ms
    assert 300_000 < order.travel_ms < 500_000


def test_an_order_for_later_starts_so_that_it_arrives_then() -> None:
    decision = decide(LATER, PaymentCharged(), NOW, P)
    order = decision.state
    assert order is not None
    assert order.stage is Stage.SCHEDULED
    assert order.eta_ms == NOW + 7_200_000
    start = NOW + 7_200_000 - 600_000 - order.travel_ms
    assert decision.timers == (CancelTimer(f"{ORDER}/charge-wait", NOW + 30_000), SetTimer(f"{ORDER}/start", start))
    assert decision.tell == ()


@pytest.mark.parametrize("wished", [60, -1800], ids=["too soon to make", "past already"])
def test_an_order_for_a_time_that_cannot_be_kept_starts_at_once(wished: int) -> None:
    decision = decide(created(deliver_at=later(wished)), PaymentCharged(), NOW, P)
    assert decision.state is not None
    assert decision.state.stage is Stage.ASKED
    assert decision.tell == (TicketAsked(RESTAURANT.pos_url),)


def test_the_start_fires_its_own_timer_and_does_not_delete_it_again() -> None:
    decision = decide(at(Stage.SCHEDULED), StartDue(), NOW, P)
    assert decision.timers == (SetTimer(f"{ORDER}/acceptance-wait", NOW + 120_000),)
    assert decision.emit == ()


@pytest.mark.parametrize(
    ("stage", "event", "told"),
    [
        (Stage.CREATED, "charged", (TicketAsked(RESTAURANT.pos_url),)),
        (Stage.ASKED, "refused", (RefundDue(),)),
        (Stage.IN_PREPARATION, "finished", (DeliveryStarted(ORDER, "fort", "lakshmi", KITCHEN, HOME),)),
        (Stage.CREATED, "declined", ()),
        (Stage.IN_DELIVERY, "done", ()),
    ],
)
def test_the_neighbour_whose_turn_it_is_is_told(stage: Stage, event: str, told: tuple[Any, ...]) -> None:
    assert decide(at(stage), EVENTS[event], NOW, P).tell == told


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
def test_a_stage_ends_the_timer_of_the_one_before_and_begins_its_own(stage: Stage, event: str, wait: str) -> None:
    before = at(stage)
    assert before.timer is not None
    assert decide(before, EVENTS[event], NOW, P).timers == (
        CancelTimer(before.timer.name, before.timer.due_ms),
        SetTimer(f"{ORDER}/{wait}-wait", NOW + WAIT_S[wait] * 1000),
    )


@pytest.mark.parametrize("event", ["done", "declined", "refunded"])
def test_an_order_that_has_ended_waits_for_its_retirement_alone_and_has_no_eta(event: str) -> None:
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


@pytest.mark.parametrize("stage", ENDED, ids=lambda stage: stage.name)
def test_an_order_that_nobody_has_to_look_at_is_retired_without_a_word_to_the_world(stage: Stage) -> None:
    ended = at(stage)
    decision = decide(ended, RetireDue(), NOW, P)
    assert (decision.gone, decision.emit, decision.timers) == (True, (), ())
    assert decision.tell == (Retire(ORDER, ended.placed_ms, ended.body_hash),)


@pytest.mark.parametrize(
    ("stage", "concern", "settled"),
    [
        (Stage.DELIVERED, EVENTS["attention"], EVENTS["at-ease"]),
        (Stage.REJECTED, AttentionNeeded("the refund of c1: a second charge", "refund of c1"), EVENTS["refunded"]),
    ],
    ids=["attention", "a refund that is due"],
)
def test_an_order_that_a_person_should_look_at_stays_until_that_is_over_and_a_retention_more(
    stage: Stage, concern: Any, settled: Any
) -> None:
    looked_at = decide(at(stage), concern, NOW, P).state
    stays = decide(looked_at, RetireDue(), NOW, P)
    assert stays.state is not None
    assert (stays.gone, stays.state.timer, stays.timers) == (False, None, ())
    over = decide(stays.state, settled, NOW + 7, P)
    assert over.timers == (SetTimer(f"{ORDER}/retirement", NOW + 7 + 30 * 24 * 3_600_000),)
    assert decide(over.state, RetireDue(), NOW, P).gone


def test_an_operator_settles_what_no_event_does_and_the_order_can_leave() -> None:
    stays = decide(LOOKED_AT, RetireDue(), NOW, P)
    settled = decide(stays.state, EVENTS["settled"], NOW + 7, P)
    assert settled.state is not None
    assert (settled.state.concerns, settled.reason) == ((), "by ana: told the bank")
    assert settled.timers == (SetTimer(f"{ORDER}/retirement", NOW + 7 + 30 * 24 * 3_600_000),)
    [update] = settled.emit
    assert isinstance(update, OrderUpdated)
    assert update.attention is None
    assert decide(settled.state, RetireDue(), NOW, P).gone


def test_an_operator_does_not_settle_what_the_order_still_waits_for() -> None:
    decision = decide(WORRIED, EVENTS["settled"], NOW, P)
    assert (decision.outcome, decision.state) == (Outcome.REFUSED, None)
    assert decision.reason.endswith(": the payment")


def test_what_is_settled_before_the_retention_is_over_does_not_make_it_longer() -> None:
    over = decide(LOOKED_AT, EVENTS["at-ease"], NOW + 7, P)
    assert over.state is not None
    assert (over.timers, over.state.timer) == ((), at(Stage.DELIVERED).timer)


def test_the_retention_is_as_long_in_a_fast_world() -> None:
    for speed in (0, 1, 300):
        decision = decide(at(Stage.IN_DELIVERY), DeliveryDone(), NOW, Parameters(speed_up=speed, retention_s=7.5))
        assert decision.timers[-1] == SetTimer(f"{ORDER}/retirement", NOW + 7_500)


def test_food_that_is_ready_before_it_was_accepted_was_accepted() -> None:
    first = decide(at(Stage.ASKED), RestaurantFinished(), NOW, P)
    assert first.state is not None
    assert (first.state.stage, first.again) == (Stage.IN_PREPARATION, True)
    second = decide(first.state, RestaurantFinished(), NOW, P)
    assert second.state is not None
    assert (second.state.stage, second.again) == (Stage.SCHEDULING_DELIVERY, False)
    assert [update.status for update in (*first.emit, *second.emit) if isinstance(update, OrderUpdated)] == [
        OrderStatus.IN_PREPARATION,
        OrderStatus.SCHEDULING_DELIVERY,
    ]


@pytest.mark.parametrize("stage", OTHERS_TURN, ids=lambda stage: stage.name)
def test_a_wait_that_takes_too_long_asks_a_person_and_its_end_clears_that(stage: Stage) -> None:
    before = at(stage)
    worried = decide(before, WaitedTooLong(), NOW, P)
    assert worried.state is not None
    assert (worried.state.stage, worried.state.timer) == (stage, None)
    [update] = worried.emit
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
    [relieved] = decide(worried.state, EVENTS[ends[stage]], NOW + 9, P).emit
    assert isinstance(relieved, OrderUpdated)
    assert relieved.attention is None
    assert relieved.version == update.version + 1


def test_a_wait_that_takes_too_long_does_not_hide_why_it_does() -> None:
    known = decide(at(Stage.CREATED), AttentionNeeded("the charge: answered 400 (card number is wrong)"), NOW, P).state
    worried = decide(known, WaitedTooLong(), NOW + 30_000, P).state
    assert known is not None
    assert worried is not None
    assert (worried.concerns, worried.timer) == (known.concerns, None)


def test_a_second_worry_of_the_same_wait_keeps_its_time_and_says_what_is_new() -> None:
    first = decide(at(Stage.CREATED), AttentionNeeded("the charge: answered 400"), NOW, P).state
    second = decide(first, AttentionNeeded("the charge: answered 401"), NOW + 1000, P).state
    assert second is not None
    assert [(one.waits_for, one.since_ms) for one in second.concerns] == [("the charge: answered 401", NOW)]


def test_worries_of_different_kinds_are_shown_one_after_the_other() -> None:
    order = decide(CONCERNED, AttentionNeeded("the restaurant's answer: 400"), NOW + 1, P).state
    assert order is not None
    cleared = decide(order, AttentionOver("operator"), NOW + 2, P)
    [update] = cleared.emit
    assert isinstance(update, OrderUpdated)
    assert update.attention is not None
    assert update.attention.waits_for == "the restaurant's answer: 400"


def test_what_no_event_settles_stays_when_the_order_moves_on() -> None:
    order = decide(CONCERNED, RestaurantAccepted(), NOW, P).state
    assert order is not None
    assert [concern.wait for concern in order.concerns] == ["operator"]


def test_updates_say_why_and_who_and_when() -> None:
    [rejected] = decide(at(Stage.CREATED), PaymentDeclined("x" * 300), NOW, P).emit
    assert isinstance(rejected, OrderUpdated)
    assert rejected.reason == "payment: " + "x" * 191
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


def test_speed_divides_waits_and_estimates_and_a_world_without_delays_still_waits() -> None:
    fast = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, Parameters(speed_up=60))
    assert fast.state is not None
    assert (fast.state.preparation_ms, fast.timers) == (10_000, (SetTimer(f"{ORDER}/charge-wait", NOW + 500),))
    instantly = decide(None, OrderPlaced(placed(), RESTAURANT), NOW, Parameters(speed_up=0))
    assert instantly.state is not None
    assert (instantly.state.preparation_ms, instantly.state.travel_ms, instantly.state.eta_ms) == (0, 0, NOW)
    assert instantly.timers == (SetTimer(f"{ORDER}/charge-wait", NOW + 30_000),)
