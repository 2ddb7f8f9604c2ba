"""Values that strangers send, and every field of every record type in which they may stand."""

import json
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from processors import call_results
from streams.views import drivers, pos
from streams.web import operators
from topics import orders, patterns
from topics.families import FAMILIES
from topics.records import Reader

READERS: dict[str, Reader[Any]] = {family.name: family.reader for family in FAMILIES if family.reader is not None}
READERS |= {
    "http order": orders.PLACED,
    "http note": operators.OPERATOR_NOTE,
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
