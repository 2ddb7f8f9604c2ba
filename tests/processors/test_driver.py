"""The machine of the driver."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from processors.decision import CancelTimer, Decision, Outcome, SetTimer
from processors.driver import (
    MAX_TIMER_LATE_MS,
    REQUESTS_REMEMBERED,
    TABLE,
    Assignment,
    Driver,
    FinishedDelivery,
    Stage,
    decide,
    with_trusted_time,
)
from processors.events import TimerDue
from processors.geography import cell_name, travel_ms
from processors.parameters import Parameters
from tests.processors import grid
from tests.processors.cases import DRIVER, HOME, KITCHEN, NOW, ORDER, STREET, P, later
from topics import deliveries
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved
from topics.drivers import Assign, Delivered, PickedUp, SetAvailable, SetUnavailable, Unassign
from topics.locations import Location
from topics.places import Position

ASSIGNED = Assignment(ORDER, 2, "lakshmi", KITCHEN, HOME)
LAST = Assignment("bites:1000", 1, "lakshmi", KITCHEN, HOME)
TO_KITCHEN, ON = travel_ms(STREET, KITCHEN, P), travel_ms(KITCHEN, HOME, P)


def at(stage: Stage) -> Driver:
    """Return a driver in this stage, in the fourth shift: busy with ASSIGNED, or idle after LAST."""
    busy = stage in (Stage.DELIVERING, Stage.PICKED_UP)
    seen = decide(decide(None, available("asha/available/4"), NOW, P).state, unavailable("asha/off/3"), NOW, P).state
    assert seen is not None
    return Driver(
        id=DRIVER,
        stage=stage,
        shift=4,
        region="fort",
        position=STREET,
        located_ms=NOW - 10_000,
        cell=cell_name(STREET, P.dispatch_resolution),
        seen_requests=seen.seen_requests,
        assignment=ASSIGNED if busy else None,
        last=FinishedDelivery(LAST.delivery, LAST.attempt),
        eta_ms=NOW - 10_000 + TO_KITCHEN + ON if busy else None,
        seen_ms=NOW - 10_000,
        timer_ms=NOW,
    )


def available(event_id: str, region: str = "fort") -> SetAvailable:
    return SetAvailable(id=event_id, driver=DRIVER, region=region, position=KITCHEN)


def unavailable(event_id: str) -> SetUnavailable:
    return SetUnavailable(id=event_id, driver=DRIVER)


def run(*events: SetAvailable | SetUnavailable) -> Decision[Driver]:
    """Return the last decision, with the state after it."""
    driver: Driver | None = None
    for event in events:
        decision = decide(driver, event, NOW, P)
        driver = decision.state or driver
    return msgspec.structs.replace(decision, state=driver)


def assign(shift: int, assignment: Assignment = ASSIGNED) -> Assign:
    return Assign(
        driver=DRIVER,
        shift=shift,
        delivery=assignment.delivery,
        attempt=assignment.attempt,
        restaurant=assignment.restaurant,
        pickup=assignment.pickup,
        dropoff=assignment.dropoff,
    )


def location(position: Position, seconds: float) -> Location:
    return Location(driver=DRIVER, position=position, at=later(seconds))


def seen(stage: Stage, before_ms: int, late_ms: int = 0) -> Driver:
    """Return a driver who was seen so long before the timer, which fires at NOW and so late."""
    return msgspec.structs.replace(at(stage), seen_ms=NOW - before_ms, timer_ms=NOW - late_ms)


STATES: dict[str, Driver | None] = {"-": None, **{stage.name: at(stage) for stage in Stage}}
EVENTS: dict[str, Any] = {
    "available": available("asha/available/5"),
    "available-again": available("asha/available/4"),
    "available-anonymously": available(""),
    "available-elsewhere": available("asha/available/5", "bandra"),
    "available-other-key": available("asha/available/4", "bandra"),
    "unavailable": unavailable("asha/off/4"),
    "unavailable-again": unavailable("asha/off/3"),
    "unavailable-anonymous": unavailable(""),
    "unavailable-other-key": unavailable("asha/available/4"),
    "assign": assign(4),
    "assign-late": assign(3),
    "assign-another": assign(4, Assignment("bites:1002", 1, "lakshmi", KITCHEN, HOME)),
    "assign-the-last": assign(3, LAST),
    "unassign": Unassign(driver=DRIVER, delivery=ORDER, attempt=2),
    "unassign-another": Unassign(driver=DRIVER, delivery=ORDER, attempt=1),
    "pick-up": PickedUp(driver=DRIVER, delivery=ORDER),
    "pick-up-the-last": PickedUp(driver=DRIVER, delivery=LAST.delivery),
    "pick-up-another": PickedUp(driver=DRIVER, delivery="bites:1002"),
    "deliver": Delivered(driver=DRIVER, delivery=ORDER),
    "deliver-the-last": Delivered(driver=DRIVER, delivery=LAST.delivery),
    "deliver-another": Delivered(driver=DRIVER, delivery="bites:1002"),
    "location": location(HOME, -1),
    "location-near": location(Position(STREET.lat + 0.00001, STREET.lon), -10 + 0.001),
    "location-old": location(HOME, -10),
    "location-of-nobody": location(Position(0.0, 0.0), -1),
    "location-far": location(Position(18.9322, 72.9), -1),
}
GRID = """
                      -                IDLE             WAITING_FOR_WORK DELIVERING       PICKED_UP
available             WAITING_FOR_WORK WAITING_FOR_WORK =                x                x
available-again       WAITING_FOR_WORK =                =                =                =
available-anonymously WAITING_FOR_WORK WAITING_FOR_WORK =                x                x
available-elsewhere   WAITING_FOR_WORK WAITING_FOR_WORK !                x                x
available-other-key   WAITING_FOR_WORK x                x                x                x
unavailable           ?                =                IDLE             x                x
unavailable-again     ?                =                =                =                =
unavailable-anonymous ?                =                IDLE             x                x
unavailable-other-key ?                x                x                x                x
assign                !                !                DELIVERING       =                =
assign-late           !                !                !                =                =
assign-another        !                !                DELIVERING       !                !
assign-the-last       !                =                =                =                =
unassign              =                =                =                WAITING_FOR_WORK x
unassign-another      =                =                =                =                x
pick-up               ?                x                x                PICKED_UP        =
pick-up-the-last      ?                =                =                =                =
pick-up-another       ?                x                x                x                x
deliver               ?                x                x                x                IDLE
deliver-the-last      ?                =                =                =                =
deliver-another       ?                x                x                x                x
location              ?                !                !                !                !
location-near         ?                !                !                !                !
location-old          ?                =                =                =                =
location-of-nobody    ?                =                =                =                =
location-far          ?                =                =                =                =
"""
SILENT_MS, GONE_MS = P.silence_ms, round(P.forget_driver_s * 1000)
TIMER = TimerDue("asha/silence")
TIMED_STATES = {
    **STATES,
    "silent": seen(Stage.WAITING_FOR_WORK, SILENT_MS),
    "silent-late": seen(Stage.WAITING_FOR_WORK, SILENT_MS, MAX_TIMER_LATE_MS + 1),
    "gone": seen(Stage.IDLE, GONE_MS),
    "gone-late": seen(Stage.IDLE, GONE_MS, MAX_TIMER_LATE_MS + 1),
    "early": seen(Stage.WAITING_FOR_WORK, SILENT_MS, -1),
}
TIMERS = {"timer": TIMER, "timer-of-another": TimerDue("ravi/silence")}
TIMER_GRID = """
                      - IDLE WAITING_FOR_WORK DELIVERING PICKED_UP silent silent-late gone gone-late early
timer                 = !    !                !          !         IDLE   !           !    !         =
timer-of-another      = =    =                =          =         =      =           =    =         =
"""


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


@grid.parameters(TIMER_GRID)
def test_every_timer_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, TIMED_STATES, TIMERS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    missed = grid.rows_missed(GRID, TABLE, STATES, EVENTS) & grid.rows_missed(TIMER_GRID, TABLE, TIMED_STATES, TIMERS)
    assert missed == set()


def test_driver_silent_for_five_minutes_leaves_dispatch() -> None:
    decision = decide(TIMED_STATES["silent"], TIMER, NOW, P)
    [left] = decision.emit
    assert isinstance(left, DriverGone)
    assert (left.region, left.shift) == ("fort", 4)
    assert decision.timers == (SetTimer("asha/silence", NOW - SILENT_MS + GONE_MS),)


def test_sign_of_life_makes_the_timer_wait_on() -> None:
    driver = decide(None, available("k"), NOW, P).state
    for seconds in (100, 299):
        decision = decide(driver, location(STREET, seconds), NOW + seconds * 1000, P)
        assert decision.timers == ()
        driver = decision.state
    on = decide(driver, TIMER, NOW + SILENT_MS, P)
    assert on.state is not None
    assert (on.state.stage, on.timers) == (
        Stage.WAITING_FOR_WORK,
        (SetTimer("asha/silence", NOW + 299_000 + SILENT_MS),),
    )
    assert decide(on.state, TIMER, NOW + 299_000 + SILENT_MS, P).state.stage is Stage.IDLE  # type: ignore[union-attr]


def test_wrong_clock_of_a_phone_is_no_silence() -> None:
    """A phone that repeats its last position with its old time, or has a clock behind the worker's, is not silent."""
    driver = decide(None, available("k"), NOW, P).state
    for minute in range(1, 10):
        now_ms = NOW + minute * 60_000
        driver = decide(driver, location(STREET, -60), now_ms, P).state or driver
        driver = decide(driver, location(Position(0.0, 0.0), minute), now_ms, P).state or driver
        assert driver is not None
        if driver.timer_ms <= now_ms:
            driver = decide(driver, TIMER, now_ms, P).state
    assert driver is not None
    assert driver.stage is Stage.WAITING_FOR_WORK


def test_copies_of_a_location_cost_no_write() -> None:
    assert decide(STATES["WAITING_FOR_WORK"], EVENTS["location-old"], NOW, P).state is None


def test_driver_with_a_delivery_is_never_silent() -> None:
    for stage in ("DELIVERING", "PICKED_UP"):
        decision = decide(STATES[stage], TIMER, NOW, P)
        assert decision.state is not None
        assert (decision.state.timer_ms, decision.timers, decision.emit) == (0, (), ())
    delivered = decide(msgspec.structs.replace(at(Stage.PICKED_UP), timer_ms=0), EVENTS["deliver"], NOW, P)
    assert delivered.timers == (SetTimer("asha/silence", NOW + SILENT_MS),)


def test_next_shift_replaces_the_timer_of_the_time_off_duty() -> None:
    resting = msgspec.structs.replace(at(Stage.IDLE), timer_ms=NOW + GONE_MS)
    assert decide(resting, EVENTS["available"], NOW, P).timers == (
        CancelTimer("asha/silence", NOW + GONE_MS),
        SetTimer("asha/silence", NOW + SILENT_MS),
    )
    assert decide(resting, location(HOME, -1), NOW, P).timers == ()


def test_driver_gone_for_a_month_is_forgotten() -> None:
    decision = decide(TIMED_STATES["gone"], TIMER, NOW, P)
    assert (decision.deleted, decision.state, decision.timers) == (True, None, ())
    assert decide(None, TIMER, NOW, P).outcome is Outcome.ABSORBED


def test_shifts_count_on_after_a_driver_is_forgotten() -> None:
    """Otherwise dispatch would take the new shift for an old one, and the driver an old assignment for a new one."""
    again = decide(None, EVENTS["available"], NOW, P, forgotten_shift=4)
    [there] = again.emit
    assert isinstance(there, DriverAvailable)
    assert there.shift == 5
    assert again.state is not None
    late = decide(again.state, assign(4), NOW, P)
    assert isinstance(late.emit[0], deliveries.DriverRefused)
    assert late.state is None


@pytest.mark.parametrize(("speed_up", "seconds"), [(0, 300), (1, 300), (2, 150), (60, 60), (10_000, 60)])
def test_silence_is_a_minute_at_least_at_any_speed(speed_up: float, seconds: int) -> None:
    assert Parameters(speed_up=speed_up).silence_ms == seconds * 1000


def test_every_shift_has_another_number() -> None:
    first = decide(None, EVENTS["available"], NOW, P)
    assert first.emit == (
        DriverAvailable(id="asha/available/1", at=later(0), region="fort", driver=DRIVER, shift=1, position=KITCHEN),
    )
    [next_one] = decide(STATES["IDLE"], EVENTS["available"], NOW, P).emit
    assert isinstance(next_one, DriverAvailable)
    assert next_one.shift == 5


def test_repeated_request_begins_no_new_shift() -> None:
    for stage in ("IDLE", "WAITING_FOR_WORK", "DELIVERING", "PICKED_UP"):
        assert decide(STATES[stage], EVENTS["available-again"], NOW, P).emit == ()


K1, K2, U1, U2 = available("k1"), available("k2"), unavailable("u1"), unavailable("u2")


@pytest.mark.parametrize(
    ("before", "late", "stage"),
    [
        pytest.param((K1, U1, K2), U1, Stage.WAITING_FOR_WORK, id="the sign-off before this shift"),
        pytest.param((K1, U1, U2, K2), U2, Stage.WAITING_FOR_WORK, id="a sign-off that changed nothing"),
        pytest.param((K1, U1, K2, U2), K1, Stage.IDLE, id="the sign-on of an earlier shift"),
        pytest.param((K1, K2, U1), K2, Stage.IDLE, id="a sign-on that changed nothing"),
    ],
)
def test_late_copy_of_a_request_does_not_undo_newer_ones(
    before: tuple[SetAvailable | SetUnavailable, ...], late: SetAvailable | SetUnavailable, stage: Stage
) -> None:
    decision = run(*before, late)
    assert (decision.outcome, decision.emit) == (Outcome.ABSORBED, ())
    assert decision.state is not None
    assert decision.state.stage is stage


def test_request_with_the_key_of_another_is_refused() -> None:
    for other in (available("k1", "bandra"), unavailable("k1")):
        decision = run(K1, other)
        assert decision.outcome is Outcome.REFUSED
        assert decision.reason == "the key 'k1' was used for another request: use another key for a new request"


def test_driver_row_does_not_grow_with_requests() -> None:
    requests = [(available if number % 2 else unavailable)(f"{number}/" + "x" * 100_000) for number in range(1, 30)]
    driver = run(*requests).state
    assert driver is not None
    assert len(driver.seen_requests) == REQUESTS_REMEMBERED
    assert len(msgspec.json.encode(driver)) < 1000
    assert run(*requests, requests[-REQUESTS_REMEMBERED]).outcome is Outcome.ABSORBED


def test_changing_region_leaves_the_old_one() -> None:
    decision = decide(STATES["WAITING_FOR_WORK"], EVENTS["available-elsewhere"], NOW, P)
    gone, there = decision.emit
    assert isinstance(gone, DriverGone)
    assert isinstance(there, DriverAvailable)
    assert (gone.region, gone.shift, there.region, there.shift) == ("fort", 4, "bandra", 5)
    assert decision.state is not None
    assert decision.state.region == "bandra"


def test_unavailable_driver_leaves_dispatch() -> None:
    [gone] = decide(STATES["WAITING_FOR_WORK"], EVENTS["unavailable"], NOW, P).emit
    assert isinstance(gone, DriverGone)
    assert gone.shift == 4


def test_assignment_is_answered_with_the_eta() -> None:
    decision = decide(STATES["WAITING_FOR_WORK"], EVENTS["assign"], NOW, P)
    [assigned] = decision.emit
    assert isinstance(assigned, deliveries.DriverAssigned)
    assert assigned.eta_s == round((TO_KITCHEN + ON) / 1000)
    assert decision.state is not None
    assert decision.state.assignment == ASSIGNED


def test_impossible_assignment_is_answered_with_a_refusal() -> None:
    for stage, event in (
        ("-", "assign"),
        ("IDLE", "assign"),
        ("WAITING_FOR_WORK", "assign-late"),
        ("DELIVERING", "assign-another"),
        ("PICKED_UP", "assign-another"),
    ):
        decision = decide(STATES[stage], EVENTS[event], NOW, P)
        [refusal] = decision.emit
        assert isinstance(refusal, deliveries.DriverRefused), (stage, event)
        assert (refusal.order, refusal.attempt) == (EVENTS[event].delivery, EVENTS[event].attempt)
        assert decision.state is None


def test_unassigned_driver_begins_a_new_shift() -> None:
    decision = decide(STATES["DELIVERING"], EVENTS["unassign"], NOW, P)
    [there] = decision.emit
    assert isinstance(there, DriverAvailable)
    assert (there.shift, there.position) == (5, STREET)
    assert decision.state is not None
    assert (decision.state.assignment, decision.state.eta_ms) == (None, None)


def test_delivery_gets_pickup_and_handover() -> None:
    picked_up = decide(STATES["DELIVERING"], EVENTS["pick-up"], NOW, P)
    [record] = picked_up.emit
    assert isinstance(record, deliveries.PickedUp)
    assert (record.order, record.attempt, record.eta_s) == (ORDER, 2, round(ON / 1000))
    delivered = decide(picked_up.state, EVENTS["deliver"], NOW, P)
    [done] = delivered.emit
    assert isinstance(done, deliveries.Delivered)
    assert delivered.state is not None
    assert (delivered.state.assignment, delivered.state.last) == (
        None,
        FinishedDelivery(ASSIGNED.delivery, ASSIGNED.attempt),
    )


def test_waiting_driver_moves_by_cell_for_dispatch() -> None:
    [moved] = decide(STATES["WAITING_FOR_WORK"], EVENTS["location"], NOW, P).emit
    assert isinstance(moved, DriverMoved)
    assert (moved.position, moved.shift) == (HOME, 4)
    assert decide(STATES["WAITING_FOR_WORK"], EVENTS["location-near"], NOW, P).emit == ()
    assert decide(STATES["IDLE"], EVENTS["location"], NOW, P).emit == ()


def test_eta_change_of_five_seconds_is_sent() -> None:
    for stage, left in (("DELIVERING", ON), ("PICKED_UP", travel_ms(KITCHEN, HOME, P))):
        [changed] = decide(STATES[stage], location(KITCHEN, -1), NOW, P).emit
        assert isinstance(changed, deliveries.EtaChanged)
        assert (changed.eta_s, changed.at) == (round(left / 1000), later(-1))
        assert decide(STATES["DELIVERING"], EVENTS["location-near"], NOW, P).emit == ()


def test_slow_change_of_the_eta_is_sent_every_five_seconds() -> None:
    driver: Driver | None = STATES["DELIVERING"]
    sent = 0
    for second in range(12):
        decision = decide(driver, location(STREET, second - 9.5), NOW + 60_000, P)
        driver = decision.state
        sent += len(decision.emit)
    assert sent == 2


def test_location_from_the_future_does_not_block_later_ones() -> None:
    ahead = decide(STATES["IDLE"], location(HOME, 3600), NOW, P).state
    assert ahead is not None
    moved = decide(ahead, location(KITCHEN, 3610), NOW + 10_000, P).state
    assert moved is not None
    assert moved.position == KITCHEN


def test_later_place_is_possible_after_the_ride() -> None:
    far = Position(18.9322, 72.9)
    assert decide(STATES["IDLE"], location(far, -1), NOW, P).reason
    moved = decide(STATES["IDLE"], location(far, 30), NOW + 30_000, P).state
    assert moved is not None
    assert moved.position == far


@pytest.mark.parametrize(
    ("seconds", "counts"), [(-86_400, False), (-601, False), (-600, True), (0, True), (120, True), (121, False)]
)
def test_time_of_a_phone_counts_near_the_broker_s_time(seconds: float, counts: bool) -> None:
    report = location(HOME, seconds)
    assert with_trusted_time(report, NOW) == (report if counts else location(HOME, 0))


@pytest.mark.parametrize("year", [1, 1970, 9999])
def test_time_of_a_phone_may_be_anything(year: int) -> None:
    report = Location(driver=DRIVER, position=HOME, at=datetime(year, 1, 1, tzinfo=UTC))
    assert with_trusted_time(report, NOW) == location(HOME, 0)


def test_wrong_clock_does_not_hide_later_places() -> None:
    driver: Driver | None = at(Stage.DELIVERING)
    for second, wrong_s in enumerate((3600, -3600, 0, 0)):
        now_ms = NOW + second * 1000
        report = with_trusted_time(location(STREET if second % 2 else HOME, second + wrong_s), now_ms)
        driver = decide(driver, report, now_ms, P).state
        assert driver is not None
        assert driver.position == report.position
        assert driver.located_ms == now_ms


def test_eta_is_never_before_now() -> None:
    behind = decide(at(Stage.PICKED_UP), location(HOME, 1), NOW + 500_000, P)
    [changed] = behind.emit
    assert isinstance(changed, deliveries.EtaChanged)
    assert changed.at is not None
    assert changed.at + timedelta(seconds=changed.eta_s) >= later(500)


def test_third_jump_in_a_row_corrects_a_wrong_position() -> None:
    """A phone without a fix began the shift at latitude 0, longitude 0, or its first location was wrong."""
    driver = msgspec.structs.replace(at(Stage.WAITING_FOR_WORK), position=Position(0.0, 0.0))
    for second, is_believed in ((1, False), (1, False), (2, False), (2, False), (3, True)):
        decision = decide(driver, location(STREET, second), NOW + second * 1000, P)
        driver = decision.state or driver
        assert (driver.position == STREET) == is_believed == (not decision.reason), second
    assert decide(driver, location(Position(0.0, 0.0), 4), NOW + 4_000, P).reason
    assert decide(driver, location(Position(19.9, 72.8), 4), NOW + 4_000, P).reason, "the count begins at 0 again"


def test_single_jumps_are_never_believed() -> None:
    driver = at(Stage.WAITING_FOR_WORK)
    for second in range(1, 20):
        place = Position(19.9, 72.8) if second % 2 else STREET
        driver = decide(driver, location(place, second), NOW + second * 1000, P).state or driver
        assert driver.position == STREET


def test_becoming_available_does_not_outdate_locations() -> None:
    driver = decide(None, EVENTS["available"], NOW, P).state
    behind = decide(driver, location(STREET, -60), NOW, P).state
    assert behind is not None
    assert behind.position == STREET


def test_public_status_after_pickup_is_delivering() -> None:
    assert [at(stage).status for stage in Stage] == ["IDLE", "WAITING_FOR_WORK", "DELIVERING", "DELIVERING"]
    assert [at(stage).picked_up for stage in Stage] == [False, False, False, True]


def test_location_changes_no_eta_in_a_world_without_delays() -> None:
    instantly = Parameters(speed_up=0)
    driver = msgspec.structs.replace(at(Stage.PICKED_UP), eta_ms=NOW)
    assert decide(driver, location(HOME, 1), NOW + 60_000, instantly).emit == ()
