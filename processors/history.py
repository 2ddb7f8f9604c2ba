"""The row that remains of an order after its retirement, for as long as the history topic keeps the order's records.

Rules:
1. An order that is placed again is absorbed, or refused if its body differs.
2. An operator may have it erased: its rows in the history topic are sealed, and their key is deleted.
3. Any other event comes too late and is refused. A driver whose assignment comes too late is unassigned and becomes
   available again.
"""

from collections.abc import Callable, Iterable

import msgspec

from processors.decision import (
    Decision,
    DecisionContext,
    Rows,
    SetTimer,
    StageEnum,
    Table,
    ignore_duplicate,
    refused,
)
from processors.delivery import refuse_and_unassign
from processors.event_names import event_name
from processors.events import HistoryExpired, OperatorErased, OrderPlaced, RetirementRequested
from processors.parameters import Parameters
from topics.deliveries import DriverAssigned
from topics.order_history import KeptRow, OrderRetired, RowKind
from topics.order_updates import OrderStatus
from topics.records import instant

MAX_PART_BYTES = 900_000
"""Limit of the rows in one record, in bytes; the engine accepts records of 1,000,000."""
ROW_OVERHEAD_BYTES = 40
"""Upper bound of the JSON around a row in its record, in bytes."""


class Stage(StageEnum):
    """The only stage: the order is in the history topic."""

    RETIRED = "RETIRED"


class Retired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts to recognise an order that is placed again, and to find its records in the history topic."""

    stage: Stage = Stage.RETIRED
    retired_ms: int
    placed_ms: int
    body_hash: str
    """Empty once the order is erased: it could confirm a guess of the body."""
    data_key: str = ""
    """Key that opens the order's rows in the history topic, in Base64. Empty once the order is erased."""
    erased_ms: int | None = None


def timer_name(order: str) -> str:
    """Return the name of the timer that deletes the row."""
    return f"{order}/history"


def records_of(
    order: str,
    status: OrderStatus,
    rows: Iterable[tuple[RowKind, msgspec.Struct]],
    now_ms: int,
    seal: Callable[[bytes], str],
) -> tuple[OrderRetired, ...]:
    """Return the records for the history topic: one, or as many as are needed to hold all rows.

    ``seal`` returns the sealed form of a row's JSON.
    """
    parts: list[list[KeptRow]] = [[]]
    size = 0
    for kind, row in rows:
        kept = KeptRow(kind=kind, row=seal(msgspec.json.encode(row)))
        row_bytes = len(kept.row) + ROW_OVERHEAD_BYTES
        if parts[-1] and size + row_bytes > MAX_PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(kept)
        size += row_bytes
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


def same_body(retired: Retired, event: OrderPlaced, _: DecisionContext) -> bool:
    """the body is the same"""
    return event.placed.body_hash() == retired.body_hash


def is_erased(retired: Retired, _event: OrderPlaced | OperatorErased, __: DecisionContext) -> bool:
    """the order is erased"""
    return retired.erased_ms is not None


# -- effects ---------------------------------------------------------------------------------------------------------


def record_retirement(_: None, event: RetirementRequested, context: DecisionContext) -> Decision[Retired]:
    """write the order's rows and journal to the history topic; set the timer `history`"""
    now_ms = context.now_ms
    retired = Retired(
        retired_ms=now_ms,
        placed_ms=event.placed_ms,
        body_hash=event.body_hash,
        erased_ms=now_ms if event.is_erased else None,
    )
    kept_until_ms = now_ms + round(context.parameters.history_s * 1000)
    return Decision(state=retired, timers=(SetTimer(timer_name(event.order), kept_until_ms),))


def refuse_other_body(_retired: Retired, event: OrderPlaced, __: DecisionContext) -> Decision[Retired]:
    """refuse: the id exists with another body"""
    return refused(f"the order {event.placed.key} exists with another body; use another id for a new order")


def refuse_erased(_retired: Retired, event: OrderPlaced, __: DecisionContext) -> Decision[Retired]:
    """refuse: the id is that of an erased order"""
    return refused(f"the order {event.placed.key} existed and was erased; use another id for a new order")


def erase(retired: Retired, event: OperatorErased, context: DecisionContext) -> Decision[Retired]:
    """delete the key of the order's rows in the history topic"""
    erased = msgspec.structs.replace(retired, body_hash="", data_key="", erased_ms=context.now_ms)
    return Decision(state=erased, reason=event.requested_by)


def refuse_late_driver(retired: Retired, event: DriverAssigned, context: DecisionContext) -> Decision[Retired]:
    """refuse: too late; unassign the driver"""
    return refuse_and_unassign(event, _too_late(retired, event), context)


def delete(_retired: Retired, _event: HistoryExpired, __: DecisionContext) -> Decision[Retired]:
    """delete the row: the id is free"""
    return Decision(deleted=True)


# -- the table -------------------------------------------------------------------------------------------------------

RETIRED = Stage.RETIRED

Event = RetirementRequested | OrderPlaced | OperatorErased | DriverAssigned | HistoryExpired
"""Union of the events of the table."""
row = Rows[Retired, Stage]()
ROWS = (
    row((None,), RetirementRequested, RETIRED, record_retirement),
    row((RETIRED,), OrderPlaced, None, refuse_erased, when=is_erased),
    row((RETIRED,), OrderPlaced, None, ignore_duplicate, when=same_body),
    row((RETIRED,), OrderPlaced, None, refuse_other_body),
    row((RETIRED,), OperatorErased, None, ignore_duplicate, when=is_erased),
    row((RETIRED,), OperatorErased, None, erase),
    row((RETIRED,), DriverAssigned, None, refuse_late_driver),
    row((RETIRED,), HistoryExpired, None, delete),
)
TABLE = Table[Retired, Stage, Event]("the history", ROWS)


def decide(retired: Retired | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Retired]:
    """Decide an event of a retired order: any event of an order, or ``HistoryExpired``."""
    context = DecisionContext(now_ms, parameters)
    row = TABLE.find(retired, event, context)
    if row is not None:
        return TABLE.apply(row, retired, event, context)
    return TABLE.refuse(retired, event) if retired is None else refused(_too_late(retired, event))


def _too_late(retired: Retired, event: object) -> str:
    when = instant(retired.retired_ms).isoformat(timespec="seconds")
    return f"{event_name(event)} comes too late: the order has ended and moved to the history at {when}"
