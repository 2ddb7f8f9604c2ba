"""The catalogue as a file: a JSON list of restaurants, each with the fields of the record in `topics.restaurants`."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from topics.party_urls import SHAPE, party_url_problem
from topics.records import Reader, Undecodable, write
from topics.restaurants import MAX_RESTAURANT_BYTES, MenuItem, Restaurant, zone


class WrongCatalogue(ValueError):
    """The file cannot be used. The message lists each error with its JSON pointer, one a line."""


KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
"""Type as msgspec names it -> its name in an error."""
COMPARISONS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}
PATTERNS = {
    "[0-5][0-9]": "it must be a time of day, such as 11:30",
    "https?://": SHAPE,
    "[A-Z]{3}": "it must be three capital letters, such as INR",
}
"""Part of a regular expression -> the error for a text that does not match it."""
WRONG_ID = "it must be 1 to 64 letters, digits, dots, dashes, tildes or underscores, and begin with a letter or digit"


def read_catalogue(file: Path, *, allow_http: bool = False) -> list[Restaurant]:
    """Return the restaurants of a file. Raises `WrongCatalogue` unless all of them can be used.

    ``allow_http`` admits points of sale with an http address outside this machine.
    """
    try:
        entries = msgspec.json.decode(file.read_bytes(), type=list[Any])
    except OSError as error:
        raise WrongCatalogue(f"{file}: {error.strerror}; name a catalogue, a JSON list of restaurants.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongCatalogue(f"{file} is not a JSON list of restaurants: {error}") from None
    wrong = list(_all_errors(entries))
    restaurants = [] if wrong else msgspec.convert(entries, list[Restaurant])
    for index, restaurant in enumerate(restaurants):
        if problem := party_url_problem(restaurant.pos_url, allow_http=allow_http):
            wrong.append(f"/{index}/pos_url: {problem}")
    if wrong:
        raise WrongCatalogue("\n".join([f"{file} cannot be used:", *(_with_name(line, entries) for line in wrong)]))
    return restaurants


def _all_errors(entries: list[Any]) -> Iterator[str]:
    """Yield each error of the entries of a file, as JSON pointer and reason."""
    names = Counter(entry["restaurant"] for entry in entries if _has_name(entry))
    for index, entry in enumerate(entries):
        errors = list(_errors(entry, Restaurant, f"/{index}"))
        yield from errors
        if not errors and (size := len(write(msgspec.convert(entry, Restaurant)))) > MAX_RESTAURANT_BYTES:
            yield f"/{index}: the restaurant has {size} bytes of JSON, and may have {MAX_RESTAURANT_BYTES}"
        if _has_name(entry) and names[entry["restaurant"]] > 1:
            yield f"/{index}/restaurant: {entry['restaurant']!r} is there {names[entry['restaurant']]} times"


def _with_name(line: str, entries: list[Any]) -> str:
    """Put the restaurant's id before an error that begins with `/INDEX`."""
    entry = entries[int(re.split("[/:]", line)[1])]
    return f"restaurant {entry['restaurant']} {line}" if _has_name(entry) else line


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("restaurant"), str)


def _errors(value: Any, kind: Any, pointer: str) -> Iterator[str]:
    """Yield the errors in and between the parts of a value; if there are none, the error of the value as a whole."""
    inner = [error for name, part, of in _parts(value, kind) for error in _errors(part, of, f"{pointer}/{name}")]
    inner += [f"{pointer}/{name}: the field is missing" for name in _missing(value, kind)]
    inner += _between(value, kind, pointer)
    if inner:
        yield from inner
        return
    try:
        Reader[Any](kind).read(msgspec.json.encode(value))
    except Undecodable as wrong:
        yield f"{pointer}{wrong.pointer}: {_sentence(wrong.reason, kind)}"


def _sentence(reason: str, kind: Any) -> str:
    """Return msgspec's reason as a plain sentence; ``kind`` is the type of the value."""
    if wrong := re.fullmatch(r"Expected `(\w+)`, got `(\w+)`", reason):
        return f"it must be {KINDS.get(wrong[1], wrong[1])}, not {KINDS.get(wrong[2], wrong[2])}"
    if wrong := re.fullmatch(r"Expected `\w+` (<=|>=|<|>) (\S+)", reason):
        return f"it must be {COMPARISONS[wrong[1]]} {float(wrong[2]):g}"
    if wrong := re.fullmatch(r"Object contains unknown field `(.+)`", reason):
        fields = ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) if _is_struct(kind) else ""
        return f"there is no field `{wrong[1]}`" + (f"; the fields are {fields}" if fields else "")
    if "matching regex" in reason:
        return next((sentence for part, sentence in PATTERNS.items() if part in reason), WRONG_ID)
    return reason


def _between(value: Any, kind: Any, pointer: str) -> Iterator[str]:
    """Yield the errors between fields, which the types of the fields cannot express.

    `Restaurant` checks them too. But it reports only the first one, and only if every field is valid by itself.
    """
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
    """Yield an error for each place of a `pos_code` that occurs more than once."""
    codes = [row.get("pos_code") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else []
    times = Counter(code for code in codes if isinstance(code, str))
    for index, code in enumerate(codes):
        if isinstance(code, str) and times[code] > 1:
            yield f"{pointer}/{index}/pos_code: {code!r} is there {times[code]} times"


def _parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, part, type of the part) of a JSON object or list; nothing if the value has another shape."""
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
