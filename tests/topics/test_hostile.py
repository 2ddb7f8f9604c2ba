"""Values that strangers send, in every field of every record type: refused with the field's name, or harmless."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
import pytest

from processors import call_results, dispatch, driver, payment, ticket
from processors.spatial_index import DispatchIndex, Overlay
from processors.workflow import Workflow, decide_step
from streams.views import calls, drivers, pos
from tests.processors.cases import NOW, RESTAURANT, P
from tests.support.stack import ROOT
from topics import dispatch as dispatch_topic
from topics import drivers as driver_topic
from topics import locations, orders, patterns
from topics import payments as payment_topic
from topics import pos as pos_topic
from topics.families import FAMILIES
from topics.records import Reader, Undecodable, instant
from topics.text import plain

READERS: dict[str, Reader[Any]] = {family.name: family.reader for family in FAMILIES if family.reader is not None}
READERS |= {
    "http order": orders.PLACED,
    "http note": calls.OPERATOR_NOTE,
    "http ticket": pos._reader,
    "http available": drivers._availability,
    "http delivery": drivers._delivery_ref,
    "http location": drivers._location_report,
    "answer": call_results._charges,
}
MATCHING = {
    patterns.PROVIDER: "my-shop",
    patterns.NAME: "n-1",
    patterns.ORDER: "my-shop:1",
    patterns.CHARGE: "ch/1",
    patterns.OPTIONAL_CHARGE: "r-1",
    patterns.CALL: "my-shop:1/charge",
    patterns.KEY_ID: "ik-" + "0" * 32,
    patterns.CURRENCY: "INR",
    patterns.CURRENCY_OF_ANSWER: "inr",
    patterns.TIME_OF_DAY: "11:30",
    patterns.TIME_ZONE: "Asia/Kolkata",
    patterns.HTTP_URL: "http://pos.example/x",
    patterns.PARTY_URL: "https://pos.example/orders",
    patterns.LINE: "text",
    patterns.NOTE: "a\nnote",
}
TEXTS = {
    "newline": "x\n",
    "only newline": "\n",
    "NUL": "\0",
    "ESC": "\x1b[2J\x1b]52;c;eA==\x07",
    "DEL": "\x7f",
    "C1": "\x9b2J",
    "override": "\u202egpj.exe",
    "isolate": "\u2066x\u2069",
    "braces": "{0.__class__}%s%n${x}",
    "markup": "[bold]x[/] <script>",
    "empty": "",
    "long": "x" * (1 << 20),
    "surrogate": "\ud800",
    "two surrogates": "\udfff\ud800",
}
OTHERS = {
    "huge": 10**40,
    "negative": -1,
    "64 bits": 2**62,
    "fraction": 1e308,
    "true": True,
    "null": None,
    "text": "1",
    "list": [],
    "object": {},
    "deep": json.loads("[" * 500 + "]" * 500),
}
ALLOWED_IN_NOTES = re.compile(r"[\t\n]")


class Field(NamedTuple):
    """A field of a record type: its path in the example of the type."""

    reader: str
    example: Any
    path: tuple[str | int, ...]

    @property
    def pointer(self) -> str:
        return "".join(f"/{part}" for part in self.path)

    def with_value(self, value: Any) -> bytes:
        """Return the example as JSON with this value in the field."""
        record = json.loads(json.dumps(self.example))
        inner = record
        for part in self.path[:-1]:
            inner = inner[part]
        inner[self.path[-1]] = value
        return json.dumps(record).encode()


def struct_types(kind: Any) -> list[type[msgspec.Struct]]:
    return [part for part in (get_args(kind) or (kind,)) if isinstance(part, type)]


def example(kind: Any, meta: tuple[msgspec.Meta, ...] = ()) -> Any:
    """Return JSON that a type accepts, with every field."""
    if get_origin(kind) is Annotated:
        inner, *more = get_args(kind)
        return example(inner, (*meta, *(each for each in more if isinstance(each, msgspec.Meta))))
    if get_origin(kind) in (Union, UnionType):
        return example(next(part for part in get_args(kind) if part is not type(None)), meta)
    if get_origin(kind) is tuple:
        return [example(get_args(kind)[0])]
    if kind is str:
        return next((MATCHING[each.pattern] for each in meta if each.pattern), "text")
    if kind is bool:
        return True
    if kind in (int, float):
        return next((each.ge for each in meta if each.ge is not None and each.ge > 0), 1)
    if kind is datetime:
        return "2026-01-02T12:30:00Z"
    if kind is msgspec.Raw:
        return {}
    if issubclass(kind, Enum):
        return next(iter(kind)).value
    fields = {field.encode_name: example(field.type) for field in msgspec.structs.fields(kind)}
    return {"type": kind.__struct_config__.tag} | fields if kind.__struct_config__.tag_field else fields


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from paths(part, (*path, name))


FIELDS = [
    Field(name, made, path)
    for name, reader in READERS.items()
    for kind in struct_types(reader.types)
    for made in [example(kind)]
    for path in paths(made)
    if "row" not in path  # a row of a retired order, which only a task writes
]


def name_of(field: Any) -> str:
    return f"{field.reader} {field.example.get('type', '')}{field.pointer}"


def texts_of(value: Any) -> Iterator[str]:
    """Yield all texts of a decoded record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)


@pytest.mark.parametrize("reader", READERS)
def test_example_of_every_type_is_accepted(reader: str) -> None:
    for kind in struct_types(READERS[reader].types):
        READERS[reader].read(json.dumps(example(kind)).encode())


@pytest.mark.parametrize("field", FIELDS, ids=name_of)
def test_hostile_value_is_refused_by_name_or_harmless(field: Field) -> None:
    for what, value in (TEXTS | OTHERS).items():
        read = read_or_refusal(field, value)
        if isinstance(read, Undecodable):
            check_refusal(read, field, what)
        else:
            check_harmless(read, what)


def read_or_refusal(field: Field, value: Any) -> Any:
    try:
        return READERS[field.reader].read(field.with_value(value))
    except Undecodable as refused:
        return refused


def check_refusal(refused: Undecodable, field: Field, what: str) -> None:
    """Check that a refusal names the field, or a part of it or the object that it is in, in harmless plain words."""
    named, wrong = refused.pointer + "/", field.pointer + "/"
    assert named.startswith(wrong) or wrong.startswith(named), (what, str(refused))
    assert refused.pointer or "type" in refused.reason or ":" in refused.reason, (what, str(refused))
    assert plain(str(refused)) == str(refused), what
    assert len(refused.reason) < 1000, what
    assert not re.search(r"regex|Expected|Invalid|msgspec|Struct", refused.reason), (what, refused.reason)


def check_harmless(record: Any, what: str) -> None:
    """Check that the texts of a record are harmless, and that its machine can decide on it."""
    for text in texts_of(json.loads(msgspec.json.encode(record))):
        shown = ALLOWED_IN_NOTES.sub("", text)
        assert plain(shown) == shown, (what, text[:100])
        assert len(text) <= 2100, what
    decide(record)


def decide(record: Any) -> None:
    """Let the machine that takes this record decide on it; the machine must not fail."""
    match record:
        case orders.Placed():
            known = msgspec.structs.replace(RESTAURANT, restaurant=record.restaurant)
            timed = msgspec.structs.replace(record, at=record.at or instant(NOW))
            for restaurant in (None, known):
                decide_step(Workflow(), timed, NOW, P, restaurant)
        case locations.Location():
            for state in (None, DRIVER):
                driver.decide(state, record, NOW, P)
        case _ if isinstance(record, driver_topic.DriverRecord):
            for state in (None, DRIVER):
                driver.decide(state, record, NOW, P)
        case _ if isinstance(record, dispatch_topic.DispatchRecord):
            dispatch.decide(Overlay(DispatchIndex(), lambda _: None), record, NOW, P)
        case _ if isinstance(record, payment_topic.PaymentRecord):
            due = payment.Payment(order=record.order, stage=payment.Stage.DUE, amount=1, currency="INR")
            payment.decide(due, record, NOW, P)
        case _ if isinstance(record, pos_topic.PosRecord):
            ticket.decide(None, record, NOW, P)


DRIVER = driver.decide(
    None, driver_topic.SetAvailable(driver="n-1", region="r", position=RESTAURANT.position), NOW, P
).state


def metas(kind: Any) -> Iterator[msgspec.Meta]:
    """Yield the constraints in a type and in its parts."""
    if isinstance(kind, msgspec.Meta):
        yield kind
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield from metas(field.type)
    else:
        for part in get_args(kind):
            yield from metas(part)


PATTERNS = sorted({each.pattern for reader in READERS.values() for each in metas(reader.types) if each.pattern})


@pytest.mark.parametrize("field", ["attempt", "shift"])
def test_huge_number_of_an_attempt_or_a_shift_is_refused(field: str) -> None:
    kinds = [kind for kind in struct_types(dispatch_topic.READER.types) if field in kind.__struct_fields__]
    for kind in kinds:
        forged = json.dumps(example(kind) | {field: 1_000_001}).encode()
        with pytest.raises(Undecodable, match=f"/{field}: it must be at most 1000000"):
            dispatch_topic.READER.read(forged)
    assert kinds


def test_patterns_have_one_place() -> None:
    packages = ("topics", "processors", "streams", "simulators", "oracle")
    literal = re.compile(r"pattern=r?[\"']")
    found = [path for name in packages for path in (ROOT / name).rglob("*.py") if literal.search(path.read_text())]
    assert not found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_pattern_matches_a_newline_after_a_value(pattern: str) -> None:
    assert re.search(pattern, MATCHING[pattern])
    assert not re.search(pattern, MATCHING[pattern] + "\n") or pattern == patterns.NOTE
    assert pattern in patterns.ADVICE
