"""Indexes that count committed rows by group, so that no scrape reads a table.

Each task keeps them as it keeps its other indexes (`exactly_once.task.indexes`): built when it opens, changed after
each commit, and gone with it.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from processors.driver import STATUS as DRIVER_STATUS
from processors.driver import Stage as DriverStage
from processors.order import FINAL_STAGES, Stage

UNKNOWN = "unknown"
"""Group of the rows that cannot be read."""


class RowCount:
    """Number of rows by group. ``group_of`` returns the group of a row from its key and value."""

    def __init__(self, group_of: Callable[[bytes, bytes], str]) -> None:
        self.counts = Counter[str]()
        self._group_of = group_of
        self._groups: dict[bytes, str] = {}

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Count every row."""
        for key, value in rows:
            self.apply(key, value)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Count a committed row; None deletes it."""
        before = self._groups.pop(key, None)
        if before is not None:
            self.counts[before] -= 1
        if value is not None:
            self._groups[key] = group = self._group(key, value)
            self.counts[group] += 1

    def _group(self, key: bytes, value: bytes) -> str:
        """Return the group of a row. One that another release wrote may be unreadable: it must not stop the task."""
        try:
            return self._group_of(key, value)
        except (ValueError, LookupError):
            return UNKNOWN


def call_kind(key: bytes, _: bytes) -> str:
    """Return the kind of a call from its idempotency key. Raises `LookupError` and `ValueError` for another key."""
    return key.split(b"/", 2)[1].decode()


class _DriverRow(msgspec.Struct):
    stage: DriverStage


_decode_driver = msgspec.json.Decoder(_DriverRow).decode


def driver_state(_: bytes, row: bytes) -> str:
    """Return the public state of a driver from the row."""
    return DRIVER_STATUS[_decode_driver(row).stage]


def any_row(_key: bytes, _: bytes) -> str:
    """Return one group for all rows."""
    return "all"


class Attention(msgspec.Struct, gc=False):
    """A reason why an order needs a person."""

    wait: str

    @property
    def waits_for(self) -> str:
        """Name of the wait. That of a refund ends with the id of its charge, which is left out."""
        return self.wait.split(" ", 1)[0]


class OrderRow(msgspec.Struct, gc=False):
    """The fields of an order's row that metrics need: decoding them alone takes half a microsecond."""

    stage: Stage
    placed_ms: int
    start_ms: int
    preparation_ms: int
    travel_ms: int
    waits_since_ms: int = 0
    attention: tuple[Attention, ...] = ()

    @property
    def promised_ms(self) -> int:
        """Time at which the food should arrive if nothing takes longer than planned."""
        return max(self.start_ms, self.placed_ms) + self.preparation_ms + self.travel_ms


_decode_order = msgspec.json.Decoder(OrderRow).decode


def _readable(value: bytes) -> OrderRow | None:
    """Return an order's row; None if another release wrote it, and this one cannot read it."""
    try:
        return _decode_order(value)
    except msgspec.MsgspecError:
        return None


Placed = Callable[[], None]
Moved = Callable[[OrderRow, OrderRow], None]
"""Called with the row of an order that leaves its stage, as it was and as it is."""


class OpenOrders:
    """The open orders of a task by stage, and their attention. Each change calls ``placed`` or ``moved``.

    A transaction that moves an order twice counts as one move. Orders that have ended are not kept.
    """

    def __init__(self, placed: Placed, moved: Moved) -> None:
        self.stages = Counter[Stage]()
        self.attention = Counter[str]()
        self._placed = placed
        self._moved = moved
        self._open: dict[bytes, OrderRow] = {}
        """Rows of the orders that have not ended or need a person."""

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Count every open order."""
        for key, value in rows:
            if (row := _readable(value)) is not None:
                self._keep(key, row)

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Count a committed order; None deletes it."""
        before = self._open.get(key)
        row = None if value is None else _readable(value)
        if row is None:
            if before is not None:
                self._forget(key, before)
            return
        if before is None:
            if row.stage not in FINAL_STAGES:
                self._placed()
        else:
            if row.stage is not before.stage:
                self._moved(before, row)
            elif row.attention == before.attention:
                return
            self._forget(key, before)
        self._keep(key, row)

    def _keep(self, key: bytes, row: OrderRow) -> None:
        if row.stage in FINAL_STAGES and not row.attention:
            return
        self._open[key] = row
        self.stages[row.stage] += 1
        for item in row.attention:
            self.attention[item.waits_for] += 1

    def _forget(self, key: bytes, row: OrderRow) -> None:
        del self._open[key]
        self.stages[row.stage] -= 1
        for item in row.attention:
            self.attention[item.waits_for] -= 1
