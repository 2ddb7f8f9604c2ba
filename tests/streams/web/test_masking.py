"""Masks over personal data: each field is decided on, and no mask lets a customer's words through."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest
from msgspec import Meta, Struct

from exactly_once.calls.rows import Call, encode_call
from processors.call_kinds import CallKind
from processors.dead_letters import DeadLetter
from processors.delivery import Delivery
from processors.dispatch import DriverRequestSeen, PendingDelivery, WaitingDriver
from processors.driver import Driver
from processors.history import Retired
from processors.order import Order
from processors.payment import Payment
from processors.ticket import Ticket
from processors.used_keys import UsedKey
from processors.workflow import JournalLine
from streams.calls.http_performer import Row as CallRow
from streams.web.masking import OPEN, PERSONAL, masked, masked_call, masked_fields, name, phone, place
from tests.support.services import unconnected_services
from topics.families import FAMILIES
from topics.orders import READER, Customer, Item, Placed
from topics.patterns import LINE, NOTE
from topics.places import Position
from topics.records import write

ROWS: dict[str, tuple[type[Struct], ...]] = {
    "orders": (Order,),
    "payments": (Payment,),
    "tickets": (Ticket,),
    "deliveries": (Delivery,),
    "bodies": (Placed,),
    "journal": (JournalLine,),
    "history": (Retired,),
    "drivers": (Driver,),
    "dispatch": (WaitingDriver, PendingDelivery, DriverRequestSeen),
    "dead_letters": (DeadLetter,),
    "calls": (CallRow,),
    "used_keys": (UsedKey,),
}
"""Table -> the types of its rows."""
WITHOUT_TEXTS = {"timers", "positions", "restaurants", "forgotten_shifts"}
"""Tables with names of timers, with offsets, and with the records of the catalogue."""
LEAVES = (str, bytes, msgspec.Raw, Position)
MARK = "Zquark"
CUSTOMER = Customer(
    name=f"{MARK} Rao",
    address=f"12 {MARK} Road",
    position=Position(18.93799, 72.83599),
    phone=f"{MARK}17",
    note=f"ring {MARK}",
)
PLACED = Placed(
    provider="my-shop",
    external_id="1",
    restaurant="tiffin",
    items=(Item(id="1", name="Thali", quantity=1, unit_price=1, note=f"for {MARK}"),),
    total=1,
    currency="INR",
    customer=CUSTOMER,
)


def parts(annotation: Any) -> Iterator[tuple[Any, str]]:
    """Yield the types that a field is made of, with the pattern of a text."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        patterns = [meta.pattern for meta in arguments[1:] if isinstance(meta, Meta) and meta.pattern]
        yield from ((kind, patterns[0] if patterns else pattern) for kind, pattern in parts(arguments[0]))
    elif origin in (Union, types.UnionType, tuple, list, dict):
        for argument in arguments:
            yield from parts(argument)
    else:
        yield annotation, ""


def all_types() -> dict[type[Struct], None]:
    """Return every type of a record or row, and the types of their fields."""
    found: dict[type[Struct], None] = {}
    waiting: list[Any] = [kind for kinds in ROWS.values() for kind in kinds]
    waiting += [kind for family in FAMILIES if family.reader for kind, _ in parts(family.reader.types)]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, Struct) and kind is not Position and kind not in found:
            found[kind] = None
            waiting += [part for field in msgspec.structs.fields(kind) for part, _ in parts(field.type)]
    return found


def is_open(kind: type[Struct], field: str) -> bool:
    """Return whether the tables decide that a field is not personal, for the type or a base of it."""
    return any(field in OPEN.get(base, "").split() for base in kind.__mro__)


@pytest.mark.parametrize("kind", all_types(), ids=lambda kind: kind.__name__)
def test_each_text_and_place_is_decided_on(kind: type[Struct]) -> None:
    for field in msgspec.structs.fields(kind):
        found = [(part, pattern) for part, pattern in parts(field.type) if part in LEAVES]
        needs = any(part is not str or pattern in ("", LINE, NOTE) for part, pattern in found)
        decided = is_open(kind, field.name) + (field.name in PERSONAL.get(kind, {}))
        assert decided <= 1, f"{field.name} is both personal and open"
        assert decided or not needs, f"{kind.__name__}.{field.name}: add it to PERSONAL or OPEN of streams.web.masking"


def test_the_decisions_are_about_fields_that_exist() -> None:
    for kind, fields in [*PERSONAL.items(), *((kind, names.split()) for kind, names in OPEN.items())]:
        assert set(fields) <= set(kind.__struct_fields__), kind


def test_every_table_has_its_types_here() -> None:
    assert set(unconnected_services().app.tables) == ROWS.keys() | WITHOUT_TEXTS


def test_masks_keep_what_helps_to_recognise() -> None:
    assert [name("Ravi Kumar"), name("")] == ["R***", ""]
    assert [phone("+91 22 5550 1217"), phone("17"), phone("")] == ["***17", "***", ""]
    assert place(Position(18.93799, -72.83599)) == Position(18.94, -72.84)


def test_a_masked_order_has_no_word_of_the_customer() -> None:
    shown = masked(PLACED)
    assert MARK not in write(shown).decode()
    assert msgspec.to_builtins(shown)["customer"] == {
        "name": "Z***",
        "address": "***",
        "position": {"lat": 18.94, "lon": 72.84},
        "phone": "***17",
        "note": "***",
    }
    assert (shown.key, shown.items[0].name) == (PLACED.key, "Thali"), "the rest stays"


def test_a_masked_call_has_no_body() -> None:
    body = msgspec.Raw(msgspec.json.encode({"note": MARK}))
    row = CallRow(kind=next(iter(CallKind)), body=body, restaurant="tiffin")
    shown = masked_call(encode_call(Call(msgspec.json.encode(row))))
    assert MARK not in msgspec.json.encode(shown).decode()
    assert shown["request"].restaurant == "tiffin"


@pytest.mark.parametrize("wrong", [{"total": MARK}, {"customer": MARK}, {"items": [{"name": MARK}]}, {MARK: MARK}])
def test_a_malformed_record_shows_its_decoded_fields(wrong: dict[str, object]) -> None:
    body = {**msgspec.to_builtins(PLACED), **wrong}
    shown = msgspec.to_builtins(masked_fields(READER, msgspec.json.encode(body)))
    assert MARK not in msgspec.json.encode(shown).decode()
    assert (shown["type"], shown["provider"], shown["restaurant"]) == ("Placed", "my-shop", "tiffin")


@pytest.mark.parametrize("value", [b"", MARK.encode(), b"[1]", b"\xff", b'{"type": "Zquark"}', b'{"type": 1}', None])
def test_what_is_no_record_shows_nothing(value: bytes | None) -> None:
    assert masked_fields(READER, value) == {}


def test_a_masked_letter_shows_only_what_the_task_wrote() -> None:
    letter = DeadLetter(
        at_ms=1,
        key=MARK.encode() + b" Rao",
        value=MARK.encode(),
        headers=(
            (MARK, MARK.encode()),
            ("origin.topic", b"orders"),
            ("origin.request", MARK.encode()),
            ("dead-letter.reason", b"KeyError: " + MARK.encode()),
            ("exception.class", b"builtins.KeyError"),
            ("exception.message", MARK.encode()),
            ("exception.stack", MARK.encode()),
        ),
    )
    shown = masked(letter)
    assert MARK not in msgspec.json.encode(shown).decode()
    assert (shown.origin_topic, shown.reason) == ("orders", "builtins.KeyError")
    assert shown.value == {"hidden_bytes": len(MARK)}
    assert masked(DeadLetter(at_ms=1, key=b"my-shop:1/charge")).key == b"my-shop:1/charge", "an id stays"
