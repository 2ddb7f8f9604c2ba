"""The catalogue as a file: a JSON list of restaurants, each as the record in `topics.restaurants` has it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from topics.records import Reader, Undecodable, write
from topics.restaurants import LARGEST_RESTAURANT, MenuItem, Restaurant, zone


class WrongCatalogue(ValueError):
    """The file cannot be used; the message says everything that is wrong, and where."""


def read_catalogue(file: Path) -> list[Restaurant]:
    """The restaurants of a file; :class:`WrongCatalogue` unless all of them can be used."""
    try:
        entries = msgspec.json.decode(file.read_bytes(), type=list[Any])
    except OSError as error:
        raise WrongCatalogue(f"{file}: {error.strerror}; name a catalogue, a JSON list of restaurants.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongCatalogue(f"{file} is not a JSON list of restaurants: {error}") from None
    if wrong := list(_wrong(entries)):
        raise WrongCatalogue("\n".join([f"{file} cannot be used:", *wrong]))
    return msgspec.convert(entries, list[Restaurant])


def _wrong(entries: list[Any]) -> Iterator[str]:
    """Everything that is wrong with the entries of a file: JSON pointer and reason."""
    names = Counter(entry["restaurant"] for entry in entries if _has_name(entry))
    for index, entry in enumerate(entries):
        places = list(_places(entry, Restaurant, f"/{index}"))
        yield from places
        if not places and (size := len(write(msgspec.convert(entry, Restaurant)))) > LARGEST_RESTAURANT:
            yield f"/{index}: the restaurant has {size} bytes of JSON, and may have {LARGEST_RESTAURANT}"
        if _has_name(entry) and names[entry["restaurant"]] > 1:
            yield f"/{index}/restaurant: {entry['restaurant']!r} is there {names[entry['restaurant']]} times"


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("restaurant"), str)


def _places(value: Any, kind: Any, pointer: str) -> Iterator[str]:
    """What is wrong with a value: in its parts and between them, if it is there, else with the whole of it."""
    inner = [place for name, part, of in _parts(value, kind) for place in _places(part, of, f"{pointer}/{name}")]
    inner += [f"{pointer}/{name}: the field is missing" for name in _missing(value, kind)]
    inner += _between(value, kind, pointer)
    if inner:
        yield from inner
        return
    try:
        Reader[Any](kind).read(msgspec.json.encode(value))
    except Undecodable as wrong:
        yield f"{pointer}{wrong.pointer}: {wrong.reason}"


def _between(value: Any, kind: Any, pointer: str) -> Iterator[str]:
    """What the types of the fields do not say. A restaurant tells only the first of it, and only if its fields are
    good."""
    if not isinstance(value, dict):
        return
    if kind is Restaurant:
        yield from _unknown_zone(value.get("time_zone"), f"{pointer}/time_zone")
        if value.get("menu") and value.get("currency") is None:
            yield f"{pointer}/currency: the menu has prices, so say in which currency"
        yield from _repeated(value.get("menu"), f"{pointer}/menu")
    elif kind is MenuItem:
        yield from _repeated(value.get("modifiers"), f"{pointer}/modifiers")


def _unknown_zone(name: Any, pointer: str) -> Iterator[str]:
    try:
        if isinstance(name, str):
            zone(name)
    except ValueError as wrong:
        yield f"{pointer}: {str(wrong).removeprefix('time_zone: ')}"


def _repeated(rows: Any, pointer: str) -> Iterator[str]:
    """Every place of a code that is there more than once."""
    codes = [row.get("pos_code") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else []
    times = Counter(code for code in codes if isinstance(code, str))
    for index, code in enumerate(codes):
        if isinstance(code, str) and times[code] > 1:
            yield f"{pointer}/{index}/pos_code: {code!r} is there {times[code]} times"


def _parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, part, its type) of what a JSON object or list consists of, where it is one as it should be."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if isinstance(value, list) and get_origin(kind) is tuple:
        yield from ((str(index), part, get_args(kind)[0]) for index, part in enumerate(value))
    if isinstance(value, dict) and _is_struct(kind):
        yield from (
            (field.encode_name, value[field.encode_name], field.type)
            for field in msgspec.structs.fields(kind)
            if field.encode_name in value
        )


def _missing(value: Any, kind: Any) -> list[str]:
    if not isinstance(value, dict) or not _is_struct(kind):
        return []
    return [f.encode_name for f in msgspec.structs.fields(kind) if f.required and f.encode_name not in value]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
