"""Brings deliveries and waiting drivers of a region together.

Rules:
1. A delivery gets the nearest driver who waits, a driver the delivery that has waited longest; whoever finds nobody
   waits. Each is a row of its own, however many there are.
2. Whoever is matched waits no more: the row goes in the transaction that writes the assignment.
3. An attempt to find a driver is made once, however often it is asked for; what was asked is kept a day.
4. What a driver says carries the driver's shift, and counts only for the row of that shift.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from processors.decision import CancelTimer, Moment, Named, Outcome, SetTimer, Table, Transition
from processors.events import TimerDue
from processors.parameters import Parameters
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved, DriverRequested
from topics.drivers import Assign
from topics.places import Position
from topics.records import Record, instant

# -- rows ------------------------------------------------------------------------------------------------------------


class WaitingDriver(msgspec.Struct, frozen=True, kw_only=True):
    """Row `<region>/driver/<driver>`."""

    region: str
    driver: str
    shift: int
    position: Position


class PendingDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Row `<region>/pending/<since_ms>/<delivery>`: nobody was there to take it."""

    region: str
    delivery: str
    attempt: int
    since_ms: int
    """When it first asked: a further attempt does not lose its place."""
    restaurant: str
    pickup: Position
    dropoff: Position


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Row `<region>/asked/<delivery>`: the latest attempt, and when this row is forgotten."""

    region: str
    delivery: str
    attempt: int
    since_ms: int
    forgotten_ms: int


Row = WaitingDriver | PendingDelivery | Asked
_decoders: Mapping[str, Callable[[bytes], Row]] = {
    "driver": msgspec.json.Decoder(WaitingDriver).decode,
    "pending": msgspec.json.Decoder(PendingDelivery).decode,
    "asked": msgspec.json.Decoder(Asked).decode,
}


def driver_key(region: str, driver: str) -> str:
    """The row of a waiting driver."""
    return f"{region}/driver/{driver}"


def pending_key(region: str, since_ms: int, delivery: str) -> str:
    """The row of a pending delivery; such keys sort by age."""
    return f"{region}/pending/{since_ms:014d}/{delivery}"


def asked_key(region: str, delivery: str) -> str:
    """The row of what was asked, and the name of the timer that forgets it."""
    return f"{region}/asked/{delivery}"


def kind_of(key: str) -> str:
    """Which kind of row has this key: driver, pending or asked."""
    return key.split("/", 2)[1]


def decode_row(key: str, value: bytes) -> Row:
    """The row of this key, which is JSON; the key says which kind it is."""
    return _decoders[kind_of(key)](value)


# -- what is decided on ----------------------------------------------------------------------------------------------


class View(Protocol):
    """What a decision may look at: the committed rows and those not committed yet. See ``processors.waiting``."""

    def nearest(self, region: str, position: Position) -> WaitingDriver | None: ...
    def oldest_pending(self, region: str) -> PendingDelivery | None: ...
    def get(self, key: str) -> Row | None: ...


class Stage(Named):
    """Whether whoever comes finds somebody to be matched with."""

    FOUND = "somebody waits"
    NOBODY = "nobody waits"


class Situation(NamedTuple):
    """What an event meets with: the row its subject has already, and its match."""

    view: View
    own: Any = None
    match: Any = None

    @property
    def stage(self) -> Stage:
        """Whether there is a match."""
        return Stage.NOBODY if self.match is None else Stage.FOUND


class DispatchDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What follows: rows to write (None: delete), records, timers."""

    outcome: Outcome = Outcome.APPLIED
    rows: Mapping[str, Row | None] = {}
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()


# -- guards ----------------------------------------------------------------------------------------------------------


def seen_before(situation: Situation, event: DriverRequested, _: Moment) -> bool:
    """an attempt seen before"""
    return situation.own is not None and situation.own.attempt >= event.attempt


def known_shift(situation: Situation, event: DriverAvailable, _: Moment) -> bool:
    """the driver waits already, in this shift or a later one"""
    return situation.own is not None and situation.own.shift >= event.shift


def row_of_that_shift(situation: Situation, event: DriverMoved | DriverGone, _: Moment) -> bool:
    """the driver waits in that shift"""
    return situation.own is not None and situation.own.shift == event.shift


def still_pending(situation: Situation, _event: TimerDue, __: Moment) -> bool:
    """the delivery still waits"""
    asked = situation.own
    return (
        asked is not None and situation.view.get(pending_key(asked.region, asked.since_ms, asked.delivery)) is not None
    )


def to_be_forgotten(situation: Situation, _event: TimerDue, moment: Moment) -> bool:
    """its day is over"""
    return situation.own is not None and situation.own.forgotten_ms <= moment.now_ms


# -- effects ---------------------------------------------------------------------------------------------------------


def absorb(_situation: Situation, _event: object, _moment: Moment) -> DispatchDecision:
    """nothing: it is so already, or too late"""
    return DispatchDecision(outcome=Outcome.ABSORBED)


def assign_nearest(situation: Situation, event: DriverRequested, moment: Moment) -> DispatchDecision:
    """driver: Assign the nearest, who waits no more"""
    driver: WaitingDriver = situation.match
    asked, timers = _asked(situation.own, event, moment)
    waited = pending_key(event.region, asked.since_ms, event.delivery)
    rows: dict[str, Row | None] = {driver_key(event.region, driver.driver): None, _key(asked): asked}
    if situation.own is not None and situation.view.get(waited) is not None:
        rows[waited] = None
    return DispatchDecision(rows=rows, emit=(_assign(driver, event, moment),), timers=timers)


def let_delivery_wait(situation: Situation, event: DriverRequested, moment: Moment) -> DispatchDecision:
    """the delivery waits; an earlier attempt of it no more"""
    asked, timers = _asked(situation.own, event, moment)
    pending = PendingDelivery(
        region=event.region,
        delivery=event.delivery,
        attempt=event.attempt,
        since_ms=asked.since_ms,
        restaurant=event.restaurant,
        pickup=event.pickup,
        dropoff=event.dropoff,
    )
    waits = pending_key(event.region, asked.since_ms, event.delivery)
    rows: dict[str, Row | None] = {waits: pending, _key(asked): asked}
    return DispatchDecision(rows=rows, timers=timers)


def assign_oldest(situation: Situation, event: DriverAvailable, moment: Moment) -> DispatchDecision:
    """driver: Assign the delivery that has waited longest, which waits no more"""
    pending: PendingDelivery = situation.match
    rows: dict[str, Row | None] = {pending_key(event.region, pending.since_ms, pending.delivery): None}
    if situation.own is not None:
        rows[driver_key(event.region, event.driver)] = None
    return DispatchDecision(rows=rows, emit=(_assign(event, pending, moment),))


def let_driver_wait(_situation: Situation, event: DriverAvailable | DriverMoved, __: Moment) -> DispatchDecision:
    """the driver waits there"""
    row = WaitingDriver(region=event.region, driver=event.driver, shift=event.shift, position=event.position)
    return DispatchDecision(rows={driver_key(event.region, event.driver): row})


def let_driver_go(_situation: Situation, event: DriverGone, __: Moment) -> DispatchDecision:
    """the driver waits no more"""
    return DispatchDecision(rows={driver_key(event.region, event.driver): None})


def keep(situation: Situation, event: TimerDue, moment: Moment) -> DispatchDecision:
    """kept for another day"""
    forgotten_ms = _forgotten_ms(moment)
    asked = msgspec.structs.replace(situation.own, forgotten_ms=forgotten_ms)
    return DispatchDecision(rows={event.name: asked}, timers=(SetTimer(event.name, forgotten_ms),))


def forget(_situation: Situation, event: TimerDue, __: Moment) -> DispatchDecision:
    """forgotten"""
    return DispatchDecision(rows={event.name: None})


# -- the table -------------------------------------------------------------------------------------------------------

FOUND, NOBODY = Stage.FOUND, Stage.NOBODY
ANY = (FOUND, NOBODY)

TABLE: Table[Any] = Table(
    "dispatch",
    (
        Transition(ANY, DriverRequested, None, absorb, when=seen_before),
        Transition((FOUND,), DriverRequested, None, assign_nearest),
        Transition((NOBODY,), DriverRequested, None, let_delivery_wait),
        Transition(ANY, DriverAvailable, None, absorb, when=known_shift),
        Transition((FOUND,), DriverAvailable, None, assign_oldest),
        Transition((NOBODY,), DriverAvailable, None, let_driver_wait),
        Transition(ANY, DriverMoved, None, let_driver_wait, when=row_of_that_shift),
        Transition(ANY, DriverMoved, None, absorb),
        Transition(ANY, DriverGone, None, let_driver_go, when=row_of_that_shift),
        Transition(ANY, DriverGone, None, absorb),
        Transition(ANY, TimerDue, None, keep, when=still_pending),
        Transition(ANY, TimerDue, None, forget, when=to_be_forgotten),
        Transition(ANY, TimerDue, None, absorb),
    ),
)


def decide(view: View, event: object, now_ms: int, parameters: Parameters) -> DispatchDecision:
    """What an event does to a region: records of topics.dispatch, and TimerDue of a row to be forgotten."""
    moment, met = Moment(now_ms, parameters), situation(view, event)
    row = TABLE.find(met, event, moment)
    assert row is not None, "the table has a row for every event"
    decision: DispatchDecision = row.does(met, event, moment)
    return decision


def situation(view: View, event: object) -> Situation:
    """What an event meets with."""
    match event:
        case DriverRequested():
            asked = view.get(asked_key(event.region, event.delivery))
            return Situation(view, asked, view.nearest(event.region, event.pickup))
        case DriverAvailable():
            own = view.get(driver_key(event.region, event.driver))
            return Situation(view, own, view.oldest_pending(event.region))
        case DriverMoved() | DriverGone():
            return Situation(view, view.get(driver_key(event.region, event.driver)))
        case TimerDue():
            return Situation(view, view.get(event.name))
    raise TypeError(f"dispatch has no use for {type(event).__name__}")


def _asked(
    before: Asked | None, event: DriverRequested, moment: Moment
) -> tuple[Asked, tuple[SetTimer | CancelTimer, ...]]:
    """The row that remembers this attempt, and the timers that go with it."""
    asked = Asked(
        region=event.region,
        delivery=event.delivery,
        attempt=event.attempt,
        since_ms=moment.now_ms if before is None else before.since_ms,
        forgotten_ms=_forgotten_ms(moment),
    )
    remember = SetTimer(_key(asked), asked.forgotten_ms)
    if before is None or before.forgotten_ms == asked.forgotten_ms:
        return asked, (remember,)
    return asked, (CancelTimer(_key(asked), before.forgotten_ms), remember)


def _key(asked: Asked) -> str:
    return asked_key(asked.region, asked.delivery)


def _forgotten_ms(moment: Moment) -> int:
    return moment.now_ms + round(moment.parameters.asked_kept_s * 1000)


def _assign(
    driver: WaitingDriver | DriverAvailable, delivery: PendingDelivery | DriverRequested, moment: Moment
) -> Assign:
    return Assign(
        id=f"{delivery.delivery}/assign/{delivery.attempt}",
        at=instant(moment.now_ms),
        driver=driver.driver,
        shift=driver.shift,
        delivery=delivery.delivery,
        attempt=delivery.attempt,
        restaurant=delivery.restaurant,
        pickup=delivery.pickup,
        dropoff=delivery.dropoff,
    )
