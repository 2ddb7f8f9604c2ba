"""One driver: shift, assignment and position.

Rules:
1. Becoming available begins a *shift*. An assignment carries the shift that dispatch knows, and counts only in it.
2. A driver has at most one delivery. Any other assignment is answered with a refusal (``DriverRefused``).
3. A repeated request is absorbed and answered like the first one: the row remembers the last few requests. A request
   with the id of another request is refused.
4. While a driver waits, dispatch gets the position when the cell changes. While a driver delivers, the delivery gets
   the ETA when it changes. A location that is older than the last one is absorbed.
5. The time of a location counts if it is near the broker's time of the record; otherwise the broker's time counts. A
   phone's clock may be wrong.
6. A location that the driver cannot have reached since the last one is absorbed, and so is latitude 0, longitude 0.
7. A waiting driver whose app sends nothing for ``silence_ms`` is off duty. A driver who is off duty and silent for
   ``forget_driver_s`` is forgotten. A driver with a delivery stays: the order asks for attention.
8. At most one timer of a driver runs. No event moves it: when it fires, it compares ``Driver.seen_ms`` and is set
   again for the rest of the time. A timer that fires late means that no worker ran, and that events may still be on
   their way: the driver gets the time again.
9. The shifts of a driver who was forgotten count on, so that no event of an earlier shift counts in a later one.
"""

from hashlib import sha256

import msgspec

from processors.decision import (
    CancelTimer,
    Decision,
    DecisionContext,
    Outcome,
    Rows,
    SetTimer,
    StageEnum,
    Table,
    ignore_duplicate,
    refused,
)
from processors.events import TimerDue
from processors.geography import cell_name, distance_m, travel_ms
from processors.parameters import Parameters
from topics import deliveries
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved
from topics.drivers import Assign, Delivered, PickedUp, SetAvailable, SetUnavailable, Unassign
from topics.locations import Location
from topics.places import Position
from topics.records import Record, epoch_ms, instant

MAX_CLOCK_BEHIND_MS, MAX_CLOCK_AHEAD_MS = 10 * 60_000, 2 * 60_000
"""Bounds on the time of a location, around the broker's time of its record."""
MAX_SPEED_M_S = 300
"""Speed of a driver above which a location is wrong. A helicopter is slower."""
MAX_ERROR_M = 1_000
"""Error of a location that is no jump."""
MAX_JUMPS = 2
"""Jumps in a row that are ignored. At one more, the position before them must be the wrong one."""
REQUESTS_REMEMBERED = 8
"""Number of requests that a driver's row remembers."""
MAX_TIMER_LATE_MS = 10_000
"""Time by which a timer may fire late while workers run."""
SEEN_STEPS = 5
"""An absorbed location is written down as a sign of life only if ``silence_ms`` divided by this has passed."""


class Stage(StageEnum):
    """Stage of a driver. Finer than the public status: see ``Driver.status``."""

    IDLE = "IDLE"
    WAITING_FOR_WORK = "WAITING_FOR_WORK"
    DELIVERING = "DELIVERING"
    PICKED_UP = "DELIVERING, picked up"


STATUS = {
    Stage.IDLE: "IDLE",
    Stage.WAITING_FOR_WORK: "WAITING_FOR_WORK",
    Stage.DELIVERING: "DELIVERING",
    Stage.PICKED_UP: "DELIVERING",
}
"""Public status of a driver in each stage."""


class Assignment(msgspec.Struct, frozen=True):
    """Present delivery of a driver."""

    delivery: str
    attempt: int
    restaurant: str
    pickup: Position
    dropoff: Position


class FinishedDelivery(msgspec.Struct, frozen=True, array_like=True):
    """Delivery that a driver has finished. It has no places: an order may be erased."""

    delivery: str
    attempt: int


class SeenRequest(msgspec.Struct, frozen=True, array_like=True):
    """Request to become available or unavailable that was applied or absorbed."""

    id: str
    """First 32 hex digits of the SHA-256 of the request's id: ids may be long."""
    region: str
    """Region of a request to become available; "" for unavailable."""


class Driver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One driver."""

    id: str
    stage: Stage
    shift: int
    """Number of times that the driver became available."""
    region: str
    position: Position
    located_ms: int
    """Time of the last ``Location``; older ones are absorbed."""
    cell: str
    """H3 cell of ``position``. While the driver waits, dispatch knows the driver in this cell."""
    seen_requests: tuple[SeenRequest, ...] = ()
    """Last requests, newest last. A late copy of a request must not undo a newer one."""
    assignment: Assignment | None = None
    last: FinishedDelivery | None = None
    eta_ms: int | None = None
    """Arrival at the customer's, as last sent to the delivery, in milliseconds since 1970."""
    seen_ms: int = 0
    """Time of the last event from the driver's app, by the worker's clock: a phone's clock may be wrong."""
    timer_ms: int = 0
    """Due time of the running timer in milliseconds since 1970; 0 without one."""
    jumps: int = 0
    """Number of locations in a row that were too far from ``position``."""
    jumped_ms: int = 0
    """Time of the last of them; a copy counts once."""

    @property
    def status(self) -> str:
        """Public status: IDLE, WAITING_FOR_WORK or DELIVERING."""
        return STATUS[self.stage]

    @property
    def picked_up(self) -> bool:
        """True if the driver has the food."""
        return self.stage is Stage.PICKED_UP


class ForgottenShift(msgspec.Struct, frozen=True, kw_only=True):
    """Highest shift of a partition's drivers that were forgotten: their rows are deleted, so one number has to do."""

    shift: int


# -- guards ----------------------------------------------------------------------------------------------------------


def is_duplicate(driver: Driver, event: SetAvailable | SetUnavailable, _: DecisionContext) -> bool:
    """the request is a repeat (same id)"""
    return bool(event.id) and _seen_request(event) in driver.seen_requests


def is_id_reused(driver: Driver, event: SetAvailable | SetUnavailable, _: DecisionContext) -> bool:
    """the id belongs to another request"""
    return bool(event.id) and _seen_request(event).id in [seen.id for seen in driver.seen_requests]


def is_same_region(driver: Driver, event: SetAvailable, _: DecisionContext) -> bool:
    """the region is the same"""
    return event.region == driver.region


def is_this_shift(driver: Driver, event: Assign, _: DecisionContext) -> bool:
    """the shift is the current one"""
    return event.shift == driver.shift


def is_finished(driver: Driver, event: Assign, _: DecisionContext) -> bool:
    """the driver has finished it already"""
    return driver.last is not None and (event.delivery, event.attempt) == (driver.last.delivery, driver.last.attempt)


def is_current_assignment(driver: Driver, event: Assign | Unassign, _: DecisionContext) -> bool:
    """the driver has this assignment"""
    current = driver.assignment
    return current is not None and (event.delivery, event.attempt) == (current.delivery, current.attempt)


def is_own_delivery(driver: Driver, event: PickedUp | Delivered, _: DecisionContext) -> bool:
    """the driver has this delivery"""
    return driver.assignment is not None and event.delivery == driver.assignment.delivery


def is_last_delivery(driver: Driver, event: PickedUp | Delivered, _: DecisionContext) -> bool:
    """the driver has finished this delivery last"""
    return driver.last is not None and event.delivery == driver.last.delivery


def is_outdated(driver: Driver, event: Location, context: DecisionContext) -> bool:
    """the location is not newer than the last"""
    return _event_time_ms(event, context) <= driver.located_ms


def is_impossible(driver: Driver, event: Location, context: DecisionContext) -> bool:
    """the location is latitude 0, longitude 0, or for the first or second time too far from the last"""
    if event.position.is_null:
        return True
    at_ms = _event_time_ms(event, context)
    is_believed = driver.jumps >= MAX_JUMPS and at_ms > driver.jumped_ms
    if is_believed or not context.parameters.speed_up:
        return False
    elapsed_s = (at_ms - driver.located_ms) / 1000
    reach_m = MAX_ERROR_M + MAX_SPEED_M_S * context.parameters.speed_up * elapsed_s
    return distance_m(driver.position, event.position) > reach_m


def is_in_new_cell(driver: Driver, event: Location, context: DecisionContext) -> bool:
    """the cell has changed"""
    return cell_name(event.position, context.parameters.dispatch_resolution) != driver.cell


def moves_eta(driver: Driver, event: Location, context: DecisionContext) -> bool:
    """the ETA moves by a step or more"""
    step_ms = context.parameters.wait_ms(context.parameters.eta_step_s)
    return abs(_eta_ms(driver, event, context) - (driver.eta_ms or 0)) >= step_ms


def is_other_timer(driver: Driver, event: TimerDue, context: DecisionContext) -> bool:
    """the running timer is not due"""
    return event.name != timer_name(driver.id) or not 0 < driver.timer_ms <= context.now_ms


def is_late(driver: Driver, _event: TimerDue, context: DecisionContext) -> bool:
    """the timer fires late, because no worker ran"""
    return context.now_ms - driver.timer_ms > MAX_TIMER_LATE_MS


def is_silent(driver: Driver, _event: TimerDue, context: DecisionContext) -> bool:
    """the app has sent nothing for 5 minutes"""
    return context.now_ms - driver.seen_ms >= context.parameters.silence_ms


def is_long_gone(driver: Driver, _event: TimerDue, context: DecisionContext) -> bool:
    """the app has sent nothing for 30 days"""
    return context.now_ms >= _forget_ms(driver, context)


# -- effects ---------------------------------------------------------------------------------------------------------


def go_available(driver: Driver | None, event: SetAvailable, context: DecisionContext) -> Decision[Driver]:
    """begin a shift; send dispatch DriverAvailable"""
    known = driver or _new_driver(event, 0)
    available = _new_shift(_at(known, event.position, known.located_ms, context))
    available = _remember_request(msgspec.structs.replace(available, region=event.region), event)
    return Decision(state=available, emit=(_available(available, context),))


def change_region(driver: Driver, event: SetAvailable, context: DecisionContext) -> Decision[Driver]:
    """begin a shift; send dispatch DriverGone (old region) and DriverAvailable (new region)"""
    decision = go_available(driver, event, context)
    return msgspec.structs.replace(decision, emit=(_gone(driver, context), *decision.emit))


def go_unavailable(driver: Driver, event: SetUnavailable, context: DecisionContext) -> Decision[Driver]:
    """send dispatch DriverGone"""
    return Decision(state=_remember_request(driver, event), emit=(_gone(driver, context),))


def remember_request(driver: Driver, event: SetAvailable | SetUnavailable, _: DecisionContext) -> Decision[Driver]:
    """ignore: it changes nothing; remember the request"""
    return Decision(outcome=Outcome.ABSORBED, state=_remember_request(driver, event))


def assign(driver: Driver, event: Assign, context: DecisionContext) -> Decision[Driver]:
    """record the assignment; send the delivery DriverAssigned with the ETA"""
    assignment = Assignment(event.delivery, event.attempt, event.restaurant, event.pickup, event.dropoff)
    eta_ms = context.now_ms + _via_pickup_ms(driver.position, assignment, context.parameters)
    assigned = deliveries.DriverAssigned(
        id=f"{event.delivery}/assigned/{event.attempt}/{driver.id}",
        at=instant(context.now_ms),
        order=event.delivery,
        driver=driver.id,
        attempt=event.attempt,
        eta_s=_seconds(eta_ms - context.now_ms),
    )
    return Decision(state=msgspec.structs.replace(driver, assignment=assignment, eta_ms=eta_ms), emit=(assigned,))


def refuse_assignment(driver: Driver | None, event: Assign, context: DecisionContext) -> Decision[Driver]:
    """send the delivery DriverRefused"""
    present = "unknown" if driver is None else f"{driver.status} in shift {driver.shift}"
    refusal = deliveries.DriverRefused(
        id=f"{event.delivery}/refused/{event.attempt}/{event.driver}",
        at=instant(context.now_ms),
        order=event.delivery,
        driver=event.driver,
        attempt=event.attempt,
        reason=f"the driver is {present}; the assignment is for shift {event.shift}",
    )
    return Decision(emit=(refusal,))


def unassign(driver: Driver, _event: Unassign, context: DecisionContext) -> Decision[Driver]:
    """begin a shift; send dispatch DriverAvailable"""
    free = _new_shift(msgspec.structs.replace(driver, assignment=None, eta_ms=None))
    return Decision(state=free, emit=(_available(free, context),))


def pick_up(driver: Driver, _event: PickedUp, context: DecisionContext) -> Decision[Driver]:
    """send the delivery PickedUp with the ETA"""
    current = _assignment(driver)
    eta_ms = context.now_ms + travel_ms(current.pickup, current.dropoff, context.parameters)
    picked_up = deliveries.PickedUp(
        id=f"{current.delivery}/picked-up/{current.attempt}/{driver.id}",
        at=instant(context.now_ms),
        order=current.delivery,
        driver=driver.id,
        attempt=current.attempt,
        eta_s=_seconds(eta_ms - context.now_ms),
    )
    return Decision(state=msgspec.structs.replace(driver, eta_ms=eta_ms), emit=(picked_up,))


def deliver(driver: Driver, _event: Delivered, context: DecisionContext) -> Decision[Driver]:
    """send the delivery Delivered"""
    current = _assignment(driver)
    delivered = deliveries.Delivered(
        id=f"{current.delivery}/delivered/{current.attempt}/{driver.id}",
        at=instant(context.now_ms),
        order=current.delivery,
        driver=driver.id,
        attempt=current.attempt,
    )
    idle = msgspec.structs.replace(
        driver, assignment=None, last=FinishedDelivery(current.delivery, current.attempt), eta_ms=None
    )
    return Decision(state=idle, emit=(delivered,))


def ignore_impossible(driver: Driver, event: Location, context: DecisionContext) -> Decision[Driver]:
    """ignore: the driver cannot be there"""
    place = f"{event.position.lat:g}, {event.position.lon:g}"
    reason = f"the driver cannot be at {place} now: the location is ignored"
    at_ms = _event_time_ms(event, context)
    if event.position.is_null or at_ms <= driver.jumped_ms:
        return Decision(outcome=Outcome.ABSORBED, reason=reason, state=_sign_of_life(driver, context))
    jumped = msgspec.structs.replace(_seen(driver, context), jumps=driver.jumps + 1, jumped_ms=at_ms)
    return Decision(outcome=Outcome.ABSORBED, reason=reason, state=jumped)


def ignore_outdated(driver: Driver, _event: Location, context: DecisionContext) -> Decision[Driver]:
    """ignore: the position stays"""
    return Decision(outcome=Outcome.ABSORBED, state=_sign_of_life(driver, context))


def go_silent(driver: Driver, _event: TimerDue, context: DecisionContext) -> Decision[Driver]:
    """send dispatch DriverGone; set the timer"""
    decision = _set_timer(driver, _forget_ms(driver, context))
    return msgspec.structs.replace(decision, emit=(_gone(driver, context),))


def forget(_driver: Driver, _event: TimerDue, __: DecisionContext) -> Decision[Driver]:
    """delete the driver"""
    return Decision(deleted=True)


def stop_timer(driver: Driver, _event: TimerDue, _: DecisionContext) -> Decision[Driver]:
    """set no timer before the delivery ends"""
    return Decision(state=msgspec.structs.replace(driver, timer_ms=0))


def wait_again(driver: Driver, _event: TimerDue, context: DecisionContext) -> Decision[Driver]:
    """set the timer: the whole time"""
    return _set_timer(driver, context.now_ms + context.parameters.silence_ms)


def wait_on(driver: Driver, _event: TimerDue, context: DecisionContext) -> Decision[Driver]:
    """set the timer: the rest of the time"""
    is_waiting = driver.stage is Stage.WAITING_FOR_WORK
    silence_ends_ms = driver.seen_ms + context.parameters.silence_ms
    return _set_timer(driver, silence_ends_ms if is_waiting else _forget_ms(driver, context))


def move(driver: Driver, event: Location, context: DecisionContext) -> Decision[Driver]:
    """record the position"""
    return Decision(state=_at(driver, event.position, _event_time_ms(event, context), context))


def change_cell(driver: Driver, event: Location, context: DecisionContext) -> Decision[Driver]:
    """record the position; send dispatch DriverMoved"""
    at_ms = _event_time_ms(event, context)
    moved = _at(driver, event.position, at_ms, context)
    record = DriverMoved(
        id=f"{driver.id}/moved/{driver.shift}/{at_ms}",
        at=instant(context.now_ms),
        region=driver.region,
        driver=driver.id,
        shift=driver.shift,
        position=event.position,
    )
    return Decision(state=moved, emit=(record,))


def change_eta(driver: Driver, event: Location, context: DecisionContext) -> Decision[Driver]:
    """record the position; send the delivery EtaChanged"""
    current = _assignment(driver)
    at_ms = _event_time_ms(event, context)
    eta_ms = _eta_ms(driver, event, context)
    moved = msgspec.structs.replace(_at(driver, event.position, at_ms, context), eta_ms=eta_ms)
    changed = deliveries.EtaChanged(
        id=f"{current.delivery}/eta/{current.attempt}/{driver.id}/{at_ms}",
        at=instant(at_ms),
        order=current.delivery,
        driver=driver.id,
        attempt=current.attempt,
        eta_s=_seconds(eta_ms - at_ms),
    )
    return Decision(state=moved, emit=(changed,))


def unknown_driver(_: None, event: Record, __: DecisionContext) -> Decision[Driver]:
    """answer: unknown driver (404)"""
    return Decision(
        outcome=Outcome.NOT_FOUND,
        reason=f"there is no driver {event.key}: a driver is known once it has become available",
    )


def refuse_unavailable_while_delivering(
    _driver: Driver, _event: SetUnavailable, __: DecisionContext
) -> Decision[Driver]:
    """refuse: the driver has a delivery"""
    return refused("the driver has a delivery: deliver it first")


def refuse_available_while_delivering(_driver: Driver, _event: SetAvailable, __: DecisionContext) -> Decision[Driver]:
    """refuse: the driver has a delivery"""
    return refused("the driver has a delivery: deliver it first, then become available")


def refuse_reused_id(_driver: Driver, event: SetAvailable | SetUnavailable, __: DecisionContext) -> Decision[Driver]:
    """refuse: the id belongs to another request"""
    return refused(f"the key {event.id[:200]!r} was used for another request: use another key for a new request")


def refuse_delivery_step(driver: Driver, event: PickedUp | Delivered, _: DecisionContext) -> Decision[Driver]:
    """refuse: the driver has another delivery, or none, or has not picked it up"""
    current = driver.assignment
    present = f"has {current.delivery}" if current else "has no delivery"
    early = " and has not picked it up" if current and current.delivery == event.delivery else f", not {event.delivery}"
    return refused(f"the driver {present}{early}")


# -- the table -------------------------------------------------------------------------------------------------------

IDLE, WAITING, DELIVERING, PICKED_UP = Stage.IDLE, Stage.WAITING_FOR_WORK, Stage.DELIVERING, Stage.PICKED_UP
FREE, BUSY = (IDLE, WAITING), (DELIVERING, PICKED_UP)
KNOWN = (*FREE, *BUSY)

Event = SetAvailable | SetUnavailable | Assign | Unassign | PickedUp | Delivered | Location | TimerDue
"""Union of the events of the table."""
row = Rows[Driver, Stage]()
ROWS = (
    # shifts
    row((None,), SetAvailable, WAITING, go_available),
    row(KNOWN, SetAvailable, None, ignore_duplicate, when=is_duplicate),
    row(KNOWN, SetAvailable, None, refuse_reused_id, when=is_id_reused),
    row((IDLE,), SetAvailable, WAITING, go_available),
    row((WAITING,), SetAvailable, None, remember_request, when=is_same_region),
    row((WAITING,), SetAvailable, None, change_region),
    row(BUSY, SetAvailable, None, refuse_available_while_delivering),
    row(KNOWN, SetUnavailable, None, ignore_duplicate, when=is_duplicate),
    row(KNOWN, SetUnavailable, None, refuse_reused_id, when=is_id_reused),
    row((WAITING,), SetUnavailable, IDLE, go_unavailable),
    row((IDLE,), SetUnavailable, None, remember_request),
    row(BUSY, SetUnavailable, None, refuse_unavailable_while_delivering),
    # deliveries
    row(KNOWN, Assign, None, ignore_duplicate, when=is_finished),
    row((WAITING,), Assign, DELIVERING, assign, when=is_this_shift),
    row(BUSY, Assign, None, ignore_duplicate, when=is_current_assignment),
    row((None, *KNOWN), Assign, None, refuse_assignment),
    row((DELIVERING,), Unassign, WAITING, unassign, when=is_current_assignment),
    row((None, *FREE, DELIVERING), Unassign, None, ignore_duplicate),
    row((DELIVERING,), PickedUp, PICKED_UP, pick_up, when=is_own_delivery),
    row((PICKED_UP,), PickedUp, None, ignore_duplicate, when=is_own_delivery),
    row((PICKED_UP,), Delivered, IDLE, deliver, when=is_own_delivery),
    row(KNOWN, PickedUp, None, ignore_duplicate, when=is_last_delivery),
    row(KNOWN, Delivered, None, ignore_duplicate, when=is_last_delivery),
    row(KNOWN, PickedUp, None, refuse_delivery_step),
    row(KNOWN, Delivered, None, refuse_delivery_step),
    # locations
    row(KNOWN, Location, None, ignore_outdated, when=is_outdated),
    row(KNOWN, Location, None, ignore_impossible, when=is_impossible),
    row((WAITING,), Location, None, change_cell, when=is_in_new_cell),
    row(BUSY, Location, None, change_eta, when=moves_eta),
    row(KNOWN, Location, None, move),
    # silence
    row(KNOWN, TimerDue, None, ignore_duplicate, when=is_other_timer),
    row(BUSY, TimerDue, None, stop_timer),
    row(FREE, TimerDue, None, wait_again, when=is_late),
    row((WAITING,), TimerDue, IDLE, go_silent, when=is_silent),
    row((IDLE,), TimerDue, None, forget, when=is_long_gone),
    row(FREE, TimerDue, None, wait_on),
    row((None,), TimerDue, None, ignore_duplicate),
    # unknown drivers
    row((None,), SetUnavailable, None, unknown_driver),
    row((None,), PickedUp, None, unknown_driver),
    row((None,), Delivered, None, unknown_driver),
    row((None,), Location, None, unknown_driver),
)
TABLE = Table[Driver, Stage, Event]("the driver", ROWS)


def with_trusted_time(location: Location, recorded_ms: int) -> Location:
    """Return a location with a time that counts; ``recorded_ms`` is the broker's time of the record."""
    at_ms = recorded_ms if location.at is None else epoch_ms(location.at)
    if location.at is not None and -MAX_CLOCK_BEHIND_MS <= at_ms - recorded_ms <= MAX_CLOCK_AHEAD_MS:
        return location
    return msgspec.structs.replace(location, at=instant(recorded_ms))


def decide(
    driver: Driver | None, event: object, now_ms: int, parameters: Parameters, forgotten_shift: int = 0
) -> Decision[Driver]:
    """Decide an event of a driver: a record of ``topics.drivers`` or ``topics.locations``, or ``TimerDue``.

    ``forgotten_shift`` is the highest shift of the drivers that were forgotten: the shifts of a new one come after it.
    The outcome is NOT_FOUND for a driver who has never been available.
    """
    if driver is None and forgotten_shift and isinstance(event, SetAvailable):
        driver = _new_driver(event, forgotten_shift)
    decision = TABLE.decide(driver, event, now_ms, parameters)
    if decision.state is None or isinstance(event, TimerDue):
        return decision
    context = DecisionContext(now_ms, parameters)
    state = decision.state if isinstance(event, Assign | Unassign) else _seen(decision.state, context)
    return _with_timer(msgspec.structs.replace(decision, state=state), state, context)


def timer_name(driver: str) -> str:
    """Return the name of a driver's timer."""
    return f"{driver}/silence"


def _with_timer(decision: Decision[Driver], driver: Driver, context: DecisionContext) -> Decision[Driver]:
    """Have a timer run for a driver without a delivery; for a waiting one, a timer that is due in time.

    A driver off duty keeps the timer of the wait, which fires once in vain: most are available again before that.
    """
    due_ms = context.now_ms + context.parameters.silence_ms
    is_running = driver.timer_ms > context.now_ms - MAX_TIMER_LATE_MS  # a broken one never fires
    is_in_time = is_running and (driver.timer_ms <= due_ms or driver.stage is Stage.IDLE)
    if driver.stage in BUSY or is_in_time:
        return decision
    cancelled = (CancelTimer(timer_name(driver.id), driver.timer_ms),) if driver.timer_ms else ()
    timed = _set_timer(driver, due_ms)
    return msgspec.structs.replace(decision, state=timed.state, timers=(*cancelled, *timed.timers))


def _set_timer(driver: Driver, due_ms: int) -> Decision[Driver]:
    timed = msgspec.structs.replace(driver, timer_ms=due_ms)
    return Decision(state=timed, timers=(SetTimer(timer_name(driver.id), due_ms),))


def _forget_ms(driver: Driver, context: DecisionContext) -> int:
    return driver.seen_ms + round(context.parameters.forget_driver_s * 1000)


def _seen(driver: Driver, context: DecisionContext) -> Driver:
    return msgspec.structs.replace(driver, seen_ms=context.now_ms)


def _sign_of_life(driver: Driver, context: DecisionContext) -> Driver | None:
    """Return the driver as seen now; None if it was seen a short time ago, so that copies cost no write."""
    is_due = context.now_ms - driver.seen_ms >= context.parameters.silence_ms // SEEN_STEPS
    return _seen(driver, context) if is_due else None


def _new_driver(event: SetAvailable, last_shift: int) -> Driver:
    """Return a driver off duty; ``last_shift`` is the number before that of the first shift."""
    return Driver(
        id=event.driver,
        stage=Stage.IDLE,
        shift=last_shift,
        region=event.region,
        position=event.position,
        located_ms=0,
        cell="",
    )


def _event_time_ms(event: Location, context: DecisionContext) -> int:
    """Return the time of a location. A time in the future counts as now; otherwise all later ones would be outdated."""
    return context.now_ms if event.at is None else min(epoch_ms(event.at), context.now_ms)


def _at(driver: Driver, position: Position, at_ms: int, context: DecisionContext) -> Driver:
    cell = cell_name(position, context.parameters.dispatch_resolution)
    return msgspec.structs.replace(driver, position=position, located_ms=at_ms, cell=cell, jumps=0)


def _seen_request(event: SetAvailable | SetUnavailable) -> SeenRequest:
    region = event.region if isinstance(event, SetAvailable) else ""
    return SeenRequest(sha256(event.id.encode()).hexdigest()[:32], region)


def _remember_request(driver: Driver, event: SetAvailable | SetUnavailable) -> Driver:
    """Remember a request by its id; a request without an id cannot be recognised and is not remembered."""
    if not event.id:
        return driver
    return msgspec.structs.replace(
        driver, seen_requests=(*driver.seen_requests, _seen_request(event))[-REQUESTS_REMEMBERED:]
    )


def _new_shift(driver: Driver) -> Driver:
    return msgspec.structs.replace(driver, shift=driver.shift + 1)


def _assignment(driver: Driver) -> Assignment:
    assert driver.assignment is not None
    return driver.assignment


def _via_pickup_ms(position: Position, assignment: Assignment, parameters: Parameters) -> int:
    """Return the travel time from a position to the restaurant and on to the customer, in milliseconds."""
    pickup, dropoff = assignment.pickup, assignment.dropoff
    return travel_ms(position, pickup, parameters) + travel_ms(pickup, dropoff, parameters)


def _eta_ms(driver: Driver, event: Location, context: DecisionContext) -> int:
    """Return the arrival at the customer's from this location, in milliseconds since 1970; never before now."""
    current, parameters = _assignment(driver), context.parameters
    if driver.picked_up:
        remaining_ms = travel_ms(event.position, current.dropoff, parameters)
    else:
        remaining_ms = _via_pickup_ms(event.position, current, parameters)
    arrival_ms = _event_time_ms(event, context) + remaining_ms
    return max(context.now_ms, arrival_ms) if parameters.speed_up else arrival_ms


def _seconds(duration_ms: int) -> int:
    return max(0, round(duration_ms / 1000))


def _available(driver: Driver, context: DecisionContext) -> DriverAvailable:
    return DriverAvailable(
        id=f"{driver.id}/available/{driver.shift}",
        at=instant(context.now_ms),
        region=driver.region,
        driver=driver.id,
        shift=driver.shift,
        position=driver.position,
    )


def _gone(driver: Driver, context: DecisionContext) -> DriverGone:
    return DriverGone(
        id=f"{driver.id}/gone/{driver.shift}",
        at=instant(context.now_ms),
        region=driver.region,
        driver=driver.id,
        shift=driver.shift,
    )
