"""What remains of an order that has left the tables, until its record in the history topic is gone too.

Rules:
1. An order placed again is the same order: absorbed, or refused if the body is another.
2. Whatever else is said of it comes too late. A driver that comes too late is told so, and is free again.
"""

from collections.abc import Iterable

import msgspec

from processors.decision import Decision, Moment, Named, SetTimer, Table, Transition, absorb, refused
from processors.events import ForgetDue, OrderPlaced, Retire
from processors.parameters import Parameters
from topics.deliveries import DriverAssigned
from topics.drivers import Unassign
from topics.order_history import KeptRow, Kind, OrderRetired
from topics.order_updates import OrderStatus
from topics.records import instant

LARGEST_PART = 900_000
"""Bytes of the rows in one record; the engine takes records of 1,000,000."""
AROUND_A_ROW = 40
"""Bytes of JSON around a row in its record, at most."""


class Stage(Named):
    """Where the order is."""

    RETIRED = "RETIRED"


class Retired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is needed to know the order again, and to find its record in the history topic."""

    stage: Stage = Stage.RETIRED
    retired_ms: int
    placed_ms: int
    body_hash: str


def timer_name(order: str) -> str:
    """Of the timer that ends it."""
    return f"{order}/history"


def records_of(
    order: str, status: OrderStatus, rows: Iterable[tuple[Kind, msgspec.Struct]], now_ms: int
) -> tuple[OrderRetired, ...]:
    """The records for the history topic: one, or as many as it takes to hold every row."""
    parts: list[list[KeptRow]] = [[]]
    size = 0
    for kind, row in rows:
        kept = KeptRow(kind=kind, row=msgspec.Raw(msgspec.json.encode(row)))
        more = len(kept.row) + AROUND_A_ROW
        if parts[-1] and size + more > LARGEST_PART:
            parts.append([])
            size = 0
        parts[-1].append(kept)
        size += more
    return tuple(
        OrderRetired(
            id=f"{order}/retired/{part}",
            at=instant(now_ms),
            order=order,
            status=status,
            rows=tuple(kept_rows),
            part=part,
            parts=len(parts),
        )
        for part, kept_rows in enumerate(parts, 1)
    )


# -- guards ----------------------------------------------------------------------------------------------------------


def same_body(retired: Retired, event: OrderPlaced, _: Moment) -> bool:
    """the same body"""
    return event.placed.body_hash() == retired.body_hash


# -- effects ---------------------------------------------------------------------------------------------------------


def remember(_: None, event: Retire, moment: Moment) -> Decision[Retired]:
    """its rows and journal: to the history topic; timer: history"""
    now_ms = moment.now_ms
    retired = Retired(retired_ms=now_ms, placed_ms=event.placed_ms, body_hash=event.body_hash)
    kept_until_ms = now_ms + round(moment.parameters.history_s * 1000)
    return Decision(state=retired, timers=(SetTimer(timer_name(event.order), kept_until_ms),))


def refuse_other_body(_retired: Retired, event: OrderPlaced, __: Moment) -> Decision[Retired]:
    """refused"""
    return refused(f"the order {event.placed.key} exists with another body; a new order needs an id of its own")


def turn_away(retired: Retired, event: DriverAssigned, moment: Moment) -> Decision[Retired]:
    """refused; driver: Unassign"""
    unassign = Unassign(
        id=f"{event.order}/unassign/{event.attempt}/{event.driver}",
        at=instant(moment.now_ms),
        driver=event.driver,
        delivery=event.order,
        attempt=event.attempt,
    )
    return msgspec.structs.replace(_too_late(retired, event), emit=(unassign,))


def forget(_retired: Retired, _event: ForgetDue, __: Moment) -> Decision[Retired]:
    """forgotten"""
    return Decision(gone=True)


# -- the table -------------------------------------------------------------------------------------------------------

RETIRED = Stage.RETIRED

TABLE: Table[Retired] = Table(
    "the history",
    (
        Transition((None,), Retire, RETIRED, remember),
        Transition((RETIRED,), OrderPlaced, None, absorb, when=same_body),
        Transition((RETIRED,), OrderPlaced, None, refuse_other_body),
        Transition((RETIRED,), DriverAssigned, None, turn_away),
        Transition((RETIRED,), ForgetDue, None, forget),
    ),
)


def decide(retired: Retired | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Retired]:
    """What an event does to an order that was retired: everything that is said of an order, and ``ForgetDue``."""
    moment = Moment(now_ms, parameters)
    row = TABLE.find(retired, event, moment)
    if row is not None:
        return TABLE.apply(row, retired, event, moment)
    return TABLE.refuse(retired, event) if retired is None else _too_late(retired, event)


def _too_late(retired: Retired, event: object) -> Decision[Retired]:
    when = instant(retired.retired_ms).isoformat(timespec="seconds")
    return refused(f"{type(event).__name__} comes too late: the order ended, it left for the history at {when}")
