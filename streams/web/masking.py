"""Personal data in records and rows, and the masks under which views show it.

`PERSONAL` and `OPEN` decide on the texts, places and bytes of every record and row, and a test demands the decision.
Texts with a pattern for ids or formats are open: operators need them. So are reasons, which are sentences of
parties and operators about an order; `order-updates` publishes them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import msgspec
from msgspec import Struct

from processors.dead_letters import DeadLetter, Header
from processors.delivery import Delivery
from processors.dispatch import DriverRequestSeen, PendingDelivery, WaitingDriver
from processors.driver import Assignment, Driver, FinishedDelivery, SeenRequest
from processors.history import Retired
from processors.order import AttentionItem, Order, Timer
from processors.payment import Payment, Refund
from processors.ticket import Ticket
from processors.used_keys import UsedKey
from processors.workflow import JournalLine
from streams.calls.http_performer import ROWS
from streams.calls.http_performer import Row as CallRow
from topics.audit import OperatorActed
from topics.dead_letters import BROKE_DOWN, NOTES, REASON, REQUEST
from topics.deliveries import DriverRefused
from topics.dispatch import DriverAvailable, DriverMoved, DriverRequested
from topics.drivers import Assign, SetAvailable
from topics.locations import Location
from topics.order_history import KeptRow
from topics.order_updates import Attention, OrderUpdated
from topics.orders import (
    AttentionSettled,
    CallAbandonRequested,
    CallRetryRequested,
    Customer,
    ErasureRequested,
    Fee,
    Item,
    Modifier,
    Placed,
)
from topics.patterns import ROW_KEY
from topics.payments import Declined
from topics.places import Position
from topics.pos import TicketRejected
from topics.records import Reader, Record
from topics.restaurants import MenuItem, MenuModifier, Restaurant

Mask = Callable[[Any], Any]
"""Function that returns the value to show in place of a personal one, which may be of another type."""

HIDDEN = "***"
PLACE_DIGITS = 2
"""Decimals of a degree in a masked place: about a kilometre."""
MIN_PHONE_LENGTH = 5
"""Shorter numbers are hidden whole."""
SECRET_NOTES = frozenset({REQUEST, "exception.message", "exception.stack"})
"""Headers of a task in a dead letter that may quote the record or the request."""
_ROW_KEY = re.compile(ROW_KEY)


# -- masks -----------------------------------------------------------------------------------------------------------


def name(value: str) -> str:
    """Return the first letter of a name: `R***`."""
    return value[:1] + HIDDEN if value else ""


def phone(value: str) -> str:
    """Return the last two digits of a phone number: `***17`."""
    return HIDDEN + value[-2:] if len(value) >= MIN_PHONE_LENGTH else hidden(value)


def hidden(value: object) -> str:
    """Return a sign that there is a value."""
    return HIDDEN if value else ""


def place(value: Position) -> Position:
    """Return a place to about a kilometre."""
    return Position(round(value.lat, PLACE_DIGITS), round(value.lon, PLACE_DIGITS))


def size(value: bytes) -> dict[str, int]:
    """Return the size of bytes that may hold anything."""
    return {"hidden_bytes": len(value)}


def row_key(value: bytes) -> bytes | dict[str, int]:
    """Return the key of a record if it looks like the id of an order, driver or region; else its size."""
    return value if _ROW_KEY.fullmatch(value.decode(errors="replace")) else size(value)


def headers(value: tuple[Header, ...]) -> tuple[tuple[str, Any], ...]:
    """Return the headers of a dead letter that a task wrote; of others, and of what may quote the record, the size."""
    failed = dict(value).get(BROKE_DOWN)
    return tuple(_header(name, content, failed) for name, content in value)


def _header(name: str, content: bytes | None, failed: bytes | None) -> tuple[str, Any]:
    if name == REASON and failed is not None:  # an exception may quote the record
        return name, failed
    if name.startswith(NOTES) and name not in SECRET_NOTES:
        return name, content
    return name if name.startswith(NOTES) else HIDDEN, None if content is None else size(content)


# -- decisions -------------------------------------------------------------------------------------------------------

PERSONAL: Mapping[type[Struct], Mapping[str, Mask]] = {
    Customer: {"name": name, "address": hidden, "position": place, "phone": phone, "note": hidden},
    Item: {"note": hidden},
    SetAvailable: {"position": place},
    Assign: {"dropoff": place},
    DriverRequested: {"dropoff": place},
    DriverAvailable: {"position": place},
    DriverMoved: {"position": place},
    Location: {"position": place},
    KeptRow: {"row": hidden},
    Order: {"dropoff": place},
    Delivery: {"dropoff": place},
    Driver: {"position": place, "cell": hidden},
    Assignment: {"dropoff": place},
    WaitingDriver: {"position": place},
    PendingDelivery: {"dropoff": place},
    CallRow: {"body": hidden},
    Retired: {"data_key": hidden},
    DeadLetter: {"key": row_key, "value": size, "headers": headers},
}
"""Type -> field with personal data -> its mask."""
OPEN: Mapping[type[Struct], str] = {
    Record: "id",
    Placed: "display_number",
    Item: "id name pos_code",
    Modifier: "name pos_code",
    Fee: "name",
    CallRetryRequested: "by reason",
    CallAbandonRequested: "by reason",
    AttentionSettled: "by reason",
    ErasureRequested: "by reason",
    Declined: "reason",
    TicketRejected: "reason",
    DriverRefused: "reason",
    Assign: "pickup",
    DriverRequested: "pickup",
    OrderUpdated: "reason",
    Attention: "waits_for",
    Restaurant: "name position",
    MenuItem: "name pos_code",
    MenuModifier: "name pos_code",
    OperatorActed: "by role action thing reason address outcome",
    Order: "id last_refusal body_hash restaurant region pos_url pickup driver reason",
    Timer: "name",
    AttentionItem: "wait waits_for",
    Payment: "order currency charge_id reported",
    Refund: "charge_id currency",
    Ticket: "order restaurant reason",
    Delivery: "order region restaurant pickup driver",
    JournalLine: "machine event event_id before after reason emitted",
    Retired: "body_hash",
    Driver: "id region",
    Assignment: "delivery restaurant pickup",
    SeenRequest: "id region",
    FinishedDelivery: "delivery",
    WaitingDriver: "region driver",
    PendingDelivery: "region delivery restaurant pickup",
    DriverRequestSeen: "region delivery",
    CallRow: "restaurant pos_url span",
    UsedKey: "order",
}
"""Type -> its texts, places and bytes that are not personal."""


# -- masking ---------------------------------------------------------------------------------------------------------


def masked(value: Any) -> Any:
    """Return a record or row with masks over its personal fields, to be written as JSON; other values as they are."""
    if isinstance(value, tuple):
        return tuple(masked(each) for each in value)
    if not isinstance(value, Struct) or isinstance(value, Position):
        return value
    shown = {field: masked_field(type(value), field, getattr(value, field)) for field in value.__struct_fields__}
    return msgspec.structs.replace(value, **shown)


def masked_call(row: bytes) -> dict[str, Any]:
    """Return the row of a call, with a mask over the body of its request."""
    found: dict[str, Any] = msgspec.json.decode(row)
    return {**found, "request": masked(ROWS.decode(msgspec.json.encode(found.get("request"))))}


def masked_fields(reader: Reader[Any], value: bytes | None) -> dict[str, Any]:
    """Return the fields in the JSON of a record that have their types, masked, also if other fields are wrong."""
    try:
        found = msgspec.json.decode(value or b"", type=dict[str, msgspec.Raw])
        tag = msgspec.json.decode(found.get("type", b""), type=str)
    except (ValueError, RecursionError):
        return {}
    kind = next((each for each in _types(reader.types) if each.__struct_config__.tag == tag), None)
    shown: dict[str, Any] = {}
    for field in () if kind is None else msgspec.structs.fields(kind):
        try:
            content = msgspec.json.decode(found[field.encode_name], type=field.type)
        except (KeyError, ValueError, RecursionError):
            continue
        shown[field.encode_name] = masked_field(kind, field.name, content)
    return {"type": tag, **shown} if kind else {}


def masked_field(kind: type[Struct] | None, field: str, value: Any) -> Any:
    """Return the value of a field of this type with masks over what is personal in it."""
    mask = PERSONAL.get(kind, {}).get(field, masked) if kind else masked
    return None if value is None else mask(value)


def is_personal(kind: type[Struct], field: str) -> bool:
    """Return whether a field is personal, or has parts that are."""
    if field in PERSONAL.get(kind, {}):
        return True
    [annotation] = [each.type for each in msgspec.structs.fields(kind) if each.name == field]
    return any(is_personal(part, each) for part in _structs(annotation) for each in part.__struct_fields__)


def _structs(annotation: Any) -> set[type[Struct]]:
    """Return the types of records within the type of a field."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return {annotation}
    return {found for part in get_args(annotation) for found in _structs(part)}


def _types(union: Any) -> tuple[type[Struct], ...]:
    return get_args(union) or (union,)
