"""Brings deliveries and waiting drivers of a region together."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec

from processors.decision import CancelTimer, Outcome, SetTimer
from processors.parameters import Parameters
from topics.places import Position
from topics.records import Record


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


def encode(row: Row) -> bytes:
    """A row as JSON."""
    raise NotImplementedError


def decode_row(key: str, value: bytes) -> Row:
    """The row of this key; the key says which kind it is."""
    raise NotImplementedError


class DispatchDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What follows: rows to write (None: delete), records, timers."""

    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    rows: Mapping[str, Row | None] = {}
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()


class View(Protocol):
    """What a decision may look at: the committed rows and those not committed yet."""

    def nearest(self, region: str, position: Position) -> WaitingDriver | None: ...
    def oldest_pending(self, region: str) -> PendingDelivery | None: ...
    def get(self, key: str) -> Row | None: ...


def decide(view: View, event: object, now_ms: int, parameters: Parameters) -> DispatchDecision:
    """What an event does to a region: records of topics.dispatch, and TimerDue of a row to be forgotten."""
    raise NotImplementedError


class DispatchIndex:
    """Who waits where, in memory, over the committed rows: an index of the engine's, made with the resolution.

    ``load`` and ``apply`` are the engine's: every committed row. ``write`` is for what a handler has just put and is
    not committed yet; call it last in the handler, so that nothing is left behind when the handler fails.
    """

    def __init__(self, resolution: int) -> None: ...
    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None: ...
    def apply(self, key: bytes, value: bytes | None) -> None: ...
    def write(self, rows: Mapping[str, Row | None]) -> None: ...


class Overlay:
    """The view of a task: the index, the rows not committed yet over it, and ``read`` (Task.get) for a row by key."""

    def __init__(self, index: DispatchIndex, read: Callable[[bytes], bytes | None]) -> None: ...
