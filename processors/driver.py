"""A driver's twin: what the driver does for us, and where the driver is.

Rules:
1. Becoming available begins a *shift*. What dispatch says carries the shift it knows, and counts only in that one.
2. A driver has at most one delivery. Whoever assigns another is told that the driver refuses.
3. A request that is sent again is absorbed and answered like the first one, however late: the last few are
   remembered. Under the id of another request it is refused.
4. Where the driver is matters to dispatch while waiting, by the cell, and to the delivery while delivering, by the
   time of arrival. A location older than the last is absorbed.
"""

from hashlib import sha256

import msgspec

from processors.decision import Decision, Moment, Named, Outcome, Table, Transition, absorb, refused
from processors.geography import cell_name, travel_ms
from processors.parameters import Parameters
from topics import deliveries
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved
from topics.drivers import Assign, Delivered, PickedUp, SetAvailable, SetUnavailable, Unassign
from topics.locations import Location
from topics.places import Position
from topics.records import Record, epoch_ms, instant

HEARD = 8
"""How many requests a driver's row remembers."""


class Stage(Named):
    """What a driver does. Finer than the public status: see ``Driver.status``."""

    IDLE = "IDLE"
    WAITING_FOR_WORK = "WAITING_FOR_WORK"
    DELIVERING = "DELIVERING"
    PICKED_UP = "DELIVERING, picked up"


class Assignment(msgspec.Struct, frozen=True):
    """The delivery a driver has, or had last."""

    delivery: str
    attempt: int
    restaurant: str
    pickup: Position
    dropoff: Position


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """A request to work or not to, that was taken."""

    id: str
    """16 hex digits of the SHA-256 of its id: ids may be long."""
    region: str
    """Where the driver wanted to work; empty: nowhere."""


class Driver(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One driver."""

    id: str
    stage: Stage
    shift: int
    """How often the driver became available."""
    region: str
    position: Position
    located_ms: int
    """Of when the last ``Location`` is, by the clock of the driver's app: older ones are absorbed."""
    cell: str
    """The H3 cell of ``position``; that which dispatch knows the driver in, while waiting."""
    heard: tuple[Heard, ...] = ()
    """The last requests that were taken or absorbed, the latest last: a late copy must not undo what came after."""
    assignment: Assignment | None = None
    last: Assignment | None = None
    """The assignment that was finished last."""
    eta_ms: int | None = None
    """When the driver will be at the customer's, as the delivery was told."""

    @property
    def status(self) -> str:
        """IDLE, WAITING_FOR_WORK or DELIVERING."""
        return self.stage.value.partition(",")[0]

    @property
    def picked_up(self) -> bool:
        """Whether the driver has the food."""
        return self.stage is Stage.PICKED_UP


# -- guards ----------------------------------------------------------------------------------------------------------


def heard_already(driver: Driver, event: SetAvailable | SetUnavailable, _: Moment) -> bool:
    """heard already (same id)"""
    return bool(event.id) and _heard(event) in driver.heard


def id_of_another(driver: Driver, event: SetAvailable | SetUnavailable, _: Moment) -> bool:
    """its id is another request's"""
    return bool(event.id) and _heard(event).id in [heard.id for heard in driver.heard]


def same_region(driver: Driver, event: SetAvailable, _: Moment) -> bool:
    """the same region"""
    return event.region == driver.region


def this_shift(driver: Driver, event: Assign, _: Moment) -> bool:
    """of this shift"""
    return event.shift == driver.shift


def finished_already(driver: Driver, event: Assign, _: Moment) -> bool:
    """finished already"""
    return driver.last is not None and (event.delivery, event.attempt) == (driver.last.delivery, driver.last.attempt)


def has_it(driver: Driver, event: Assign | Unassign, _: Moment) -> bool:
    """the one the driver has"""
    has = driver.assignment
    return has is not None and (event.delivery, event.attempt) == (has.delivery, has.attempt)


def own_delivery(driver: Driver, event: PickedUp | Delivered, _: Moment) -> bool:
    """the driver's delivery"""
    return driver.assignment is not None and event.delivery == driver.assignment.delivery


def last_delivery(driver: Driver, event: PickedUp | Delivered, _: Moment) -> bool:
    """the delivery finished last"""
    return driver.last is not None and event.delivery == driver.last.delivery


def out_of_date(driver: Driver, event: Location, moment: Moment) -> bool:
    """not newer than the last"""
    return _said_ms(event, moment) <= driver.located_ms


def in_new_cell(driver: Driver, event: Location, moment: Moment) -> bool:
    """in another cell"""
    return cell_name(event.position, moment.parameters.dispatch_resolution) != driver.cell


def moves_eta(driver: Driver, event: Location, moment: Moment) -> bool:
    """moves the ETA"""
    step_ms = moment.parameters.wait_ms(moment.parameters.eta_step_s)
    return abs(_eta_ms(driver, event, moment) - (driver.eta_ms or 0)) >= step_ms


# -- effects ---------------------------------------------------------------------------------------------------------


def sign_on(driver: Driver | None, event: SetAvailable, moment: Moment) -> Decision[Driver]:
    """a new shift; dispatch: DriverAvailable"""
    known = driver or Driver(
        id=event.driver,
        stage=Stage.IDLE,
        shift=0,
        region=event.region,
        position=event.position,
        located_ms=0,
        cell="",
    )
    on = _new_shift(_at(known, event.position, known.located_ms, moment))
    on = _remember(msgspec.structs.replace(on, region=event.region), event)
    return Decision(state=on, emit=(_available(on, moment),))


def change_region(driver: Driver, event: SetAvailable, moment: Moment) -> Decision[Driver]:
    """dispatch: DriverGone (old region), DriverAvailable (new)"""
    decision = sign_on(driver, event, moment)
    return msgspec.structs.replace(decision, emit=(_gone(driver, moment), *decision.emit))


def sign_off(driver: Driver, event: SetUnavailable, moment: Moment) -> Decision[Driver]:
    """dispatch: DriverGone"""
    return Decision(state=_remember(driver, event), emit=(_gone(driver, moment),))


def remember(driver: Driver, event: SetAvailable | SetUnavailable, _: Moment) -> Decision[Driver]:
    """nothing: it is so already; the request is remembered"""
    return Decision(outcome=Outcome.ABSORBED, state=_remember(driver, event))


def take(driver: Driver, event: Assign, moment: Moment) -> Decision[Driver]:
    """delivery: DriverAssigned"""
    assignment = Assignment(event.delivery, event.attempt, event.restaurant, event.pickup, event.dropoff)
    eta_ms = moment.now_ms + _to_pickup_and_on(driver.position, assignment, moment.parameters)
    assigned = deliveries.DriverAssigned(
        id=f"{event.delivery}/assigned/{event.attempt}/{driver.id}",
        at=instant(moment.now_ms),
        order=event.delivery,
        driver=driver.id,
        attempt=event.attempt,
        eta_s=_seconds(eta_ms - moment.now_ms),
    )
    return Decision(state=msgspec.structs.replace(driver, assignment=assignment, eta_ms=eta_ms), emit=(assigned,))


def decline(driver: Driver | None, event: Assign, moment: Moment) -> Decision[Driver]:
    """delivery: DriverRefused"""
    doing = "unknown" if driver is None else f"{driver.status} in shift {driver.shift}"
    refusal = deliveries.DriverRefused(
        id=f"{event.delivery}/refused/{event.attempt}/{event.driver}",
        at=instant(moment.now_ms),
        order=event.delivery,
        driver=event.driver,
        attempt=event.attempt,
        reason=f"the driver is {doing}, wanted in shift {event.shift}",
    )
    return Decision(emit=(refusal,))


def let_go(driver: Driver, _event: Unassign, moment: Moment) -> Decision[Driver]:
    """a new shift; dispatch: DriverAvailable"""
    free = _new_shift(msgspec.structs.replace(driver, assignment=None, eta_ms=None))
    return Decision(state=free, emit=(_available(free, moment),))


def pick_up(driver: Driver, _event: PickedUp, moment: Moment) -> Decision[Driver]:
    """delivery: PickedUp"""
    has = _assignment(driver)
    eta_ms = moment.now_ms + travel_ms(has.pickup, has.dropoff, moment.parameters)
    picked_up = deliveries.PickedUp(
        id=f"{has.delivery}/picked-up/{has.attempt}/{driver.id}",
        at=instant(moment.now_ms),
        order=has.delivery,
        driver=driver.id,
        attempt=has.attempt,
        eta_s=_seconds(eta_ms - moment.now_ms),
    )
    return Decision(state=msgspec.structs.replace(driver, eta_ms=eta_ms), emit=(picked_up,))


def deliver(driver: Driver, _event: Delivered, moment: Moment) -> Decision[Driver]:
    """delivery: Delivered"""
    has = _assignment(driver)
    delivered = deliveries.Delivered(
        id=f"{has.delivery}/delivered/{has.attempt}/{driver.id}",
        at=instant(moment.now_ms),
        order=has.delivery,
        driver=driver.id,
        attempt=has.attempt,
    )
    return Decision(state=msgspec.structs.replace(driver, assignment=None, last=has, eta_ms=None), emit=(delivered,))


def move(driver: Driver, event: Location, moment: Moment) -> Decision[Driver]:
    """the position is noted"""
    return Decision(state=_at(driver, event.position, _said_ms(event, moment), moment))


def change_cell(driver: Driver, event: Location, moment: Moment) -> Decision[Driver]:
    """dispatch: DriverMoved"""
    at_ms = _said_ms(event, moment)
    moved = _at(driver, event.position, at_ms, moment)
    record = DriverMoved(
        id=f"{driver.id}/moved/{driver.shift}/{at_ms}",
        at=instant(moment.now_ms),
        region=driver.region,
        driver=driver.id,
        shift=driver.shift,
        position=event.position,
    )
    return Decision(state=moved, emit=(record,))


def change_eta(driver: Driver, event: Location, moment: Moment) -> Decision[Driver]:
    """delivery: EtaChanged"""
    has, at_ms, eta_ms = _assignment(driver), _said_ms(event, moment), _eta_ms(driver, event, moment)
    moved = msgspec.structs.replace(_at(driver, event.position, at_ms, moment), eta_ms=eta_ms)
    changed = deliveries.EtaChanged(
        id=f"{has.delivery}/eta/{has.attempt}/{driver.id}/{at_ms}",
        at=instant(at_ms),
        order=has.delivery,
        driver=driver.id,
        attempt=has.attempt,
        eta_s=_seconds(eta_ms - at_ms),
    )
    return Decision(state=moved, emit=(changed,))


def nobody(_: None, event: Record, __: Moment) -> Decision[Driver]:
    """unknown (404)"""
    return Decision(
        outcome=Outcome.UNKNOWN, reason=f"there is no driver {event.key}: nobody of that id was available yet"
    )


def refuse_break(_driver: Driver, _event: SetUnavailable, __: Moment) -> Decision[Driver]:
    """refused"""
    return refused("the driver has a delivery: deliver it first")


def refuse_shift(_driver: Driver, _event: SetAvailable, __: Moment) -> Decision[Driver]:
    """refused"""
    return refused("the driver has a delivery, and is available when it is delivered")


def refuse_id(_driver: Driver, event: SetAvailable | SetUnavailable, __: Moment) -> Decision[Driver]:
    """refused"""
    return refused(f"the key {event.id[:200]!r} was used for another request: a new request needs a key of its own")


def refuse_delivery(driver: Driver, event: PickedUp | Delivered, _: Moment) -> Decision[Driver]:
    """refused"""
    has = driver.assignment
    whose = f"has {has.delivery}" if has else "has no delivery"
    early = " and has not picked it up" if has and has.delivery == event.delivery else f", not {event.delivery}"
    return refused(f"the driver {whose}{early}")


# -- the table -------------------------------------------------------------------------------------------------------

IDLE, WAITING, DELIVERING, CARRYING = Stage.IDLE, Stage.WAITING_FOR_WORK, Stage.DELIVERING, Stage.PICKED_UP
FREE, BUSY = (IDLE, WAITING), (DELIVERING, CARRYING)
KNOWN = (*FREE, *BUSY)

TABLE: Table[Driver] = Table(
    "the driver",
    (
        # shifts
        Transition((None,), SetAvailable, WAITING, sign_on),
        Transition(KNOWN, SetAvailable, None, absorb, when=heard_already),
        Transition(KNOWN, SetAvailable, None, refuse_id, when=id_of_another),
        Transition((IDLE,), SetAvailable, WAITING, sign_on),
        Transition((WAITING,), SetAvailable, None, remember, when=same_region),
        Transition((WAITING,), SetAvailable, None, change_region),
        Transition(BUSY, SetAvailable, None, refuse_shift),
        Transition(KNOWN, SetUnavailable, None, absorb, when=heard_already),
        Transition(KNOWN, SetUnavailable, None, refuse_id, when=id_of_another),
        Transition((WAITING,), SetUnavailable, IDLE, sign_off),
        Transition((IDLE,), SetUnavailable, None, remember),
        Transition(BUSY, SetUnavailable, None, refuse_break),
        # deliveries
        Transition(KNOWN, Assign, None, absorb, when=finished_already),
        Transition((WAITING,), Assign, DELIVERING, take, when=this_shift),
        Transition(BUSY, Assign, None, absorb, when=has_it),
        Transition((None, *KNOWN), Assign, None, decline),
        Transition((DELIVERING,), Unassign, WAITING, let_go, when=has_it),
        Transition((None, *FREE, DELIVERING), Unassign, None, absorb),
        Transition((DELIVERING,), PickedUp, CARRYING, pick_up, when=own_delivery),
        Transition((CARRYING,), PickedUp, None, absorb, when=own_delivery),
        Transition((CARRYING,), Delivered, IDLE, deliver, when=own_delivery),
        Transition(KNOWN, PickedUp, None, absorb, when=last_delivery),
        Transition(KNOWN, Delivered, None, absorb, when=last_delivery),
        Transition(KNOWN, PickedUp, None, refuse_delivery),
        Transition(KNOWN, Delivered, None, refuse_delivery),
        # where the driver is
        Transition(KNOWN, Location, None, absorb, when=out_of_date),
        Transition((WAITING,), Location, None, change_cell, when=in_new_cell),
        Transition(BUSY, Location, None, change_eta, when=moves_eta),
        Transition(KNOWN, Location, None, move),
        # nobody
        Transition((None,), SetUnavailable, None, nobody),
        Transition((None,), PickedUp, None, nobody),
        Transition((None,), Delivered, None, nobody),
        Transition((None,), Location, None, nobody),
    ),
)


def decide(driver: Driver | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Driver]:
    """What an event does to a driver: records of topics.drivers, and Location. Outcome UNKNOWN: no such driver."""
    return TABLE.decide(driver, event, now_ms, parameters)


def _said_ms(event: Location, moment: Moment) -> int:
    """When the driver was there. A clock that is ahead counts as ours: or all that follows would be out of date."""
    return moment.now_ms if event.at is None else min(epoch_ms(event.at), moment.now_ms)


def _at(driver: Driver, position: Position, at_ms: int, moment: Moment) -> Driver:
    where = cell_name(position, moment.parameters.dispatch_resolution)
    return msgspec.structs.replace(driver, position=position, located_ms=at_ms, cell=where)


def _heard(event: SetAvailable | SetUnavailable) -> Heard:
    region = event.region if isinstance(event, SetAvailable) else ""
    return Heard(sha256(event.id.encode()).hexdigest()[:16], region)


def _remember(driver: Driver, event: SetAvailable | SetUnavailable) -> Driver:
    """A request without an id cannot be told from the next one."""
    if not event.id:
        return driver
    return msgspec.structs.replace(driver, heard=(*driver.heard, _heard(event))[-HEARD:])


def _new_shift(driver: Driver) -> Driver:
    return msgspec.structs.replace(driver, shift=driver.shift + 1)


def _assignment(driver: Driver) -> Assignment:
    assert driver.assignment is not None
    return driver.assignment


def _to_pickup_and_on(position: Position, has: Assignment, parameters: Parameters) -> int:
    """From a position by the restaurant to the customer, in milliseconds."""
    return travel_ms(position, has.pickup, parameters) + travel_ms(has.pickup, has.dropoff, parameters)


def _eta_ms(driver: Driver, event: Location, moment: Moment) -> int:
    """When the driver who is there now will be at the customer's."""
    has, parameters = _assignment(driver), moment.parameters
    if driver.picked_up:
        left_ms = travel_ms(event.position, has.dropoff, parameters)
    else:
        left_ms = _to_pickup_and_on(event.position, has, parameters)
    return _said_ms(event, moment) + left_ms


def _seconds(duration_ms: int) -> int:
    return max(0, round(duration_ms / 1000))


def _available(driver: Driver, moment: Moment) -> DriverAvailable:
    return DriverAvailable(
        id=f"{driver.id}/available/{driver.shift}",
        at=instant(moment.now_ms),
        region=driver.region,
        driver=driver.id,
        shift=driver.shift,
        position=driver.position,
    )


def _gone(driver: Driver, moment: Moment) -> DriverGone:
    return DriverGone(
        id=f"{driver.id}/gone/{driver.shift}",
        at=instant(moment.now_ms),
        region=driver.region,
        driver=driver.id,
        shift=driver.shift,
    )
