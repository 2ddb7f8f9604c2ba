"""The catalogue as a file: a JSON list of restaurants, each with the fields of the record in `topics.restaurants`."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from topics.party_urls import party_url_problem
from topics.records import Reader, Undecodable, write
from topics.restaurants import MAX_RESTAURANT_BYTES, MenuItem, Restaurant, zone
from topics.shapes import missing_fields, parts


class WrongCatalogue(ValueError):
    """The file cannot be used. The message lists each error with its JSON pointer, one a line."""


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
    inner = [error for name, part, of in parts(value, kind) for error in _errors(part, of, f"{pointer}/{name}")]
    inner += [f"{pointer}/{name}: the field is missing" for name in missing_fields(value, kind)]
    inner += _between(value, kind, pointer)
    if inner:
        yield from inner
        return
    try:
        Reader[Any](kind).read(msgspec.json.encode(value))
    except Undecodable as wrong:
        yield f"{pointer}{wrong.pointer}: {wrong.reason}"


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
        yield from _two_prices(value.get("modifiers"), f"{pointer}/modifiers")


def _unknown_zone(name: Any, pointer: str) -> Iterator[str]:
    try:
        if isinstance(name, str):
            zone(name)
    except ValueError as wrong:
        yield f"{pointer}: {str(wrong).removeprefix('time_zone: ')}"


def _two_prices(rows: Any, pointer: str) -> Iterator[str]:
    """Yield an error for each place of a modifier whose `pos_code` occurs with another price before."""
    prices: dict[str, Any] = {}
    for index, row in enumerate(rows if isinstance(rows, list) else ()):
        code, price = (row.get("pos_code"), row.get("price", 0)) if isinstance(row, dict) else (None, None)
        if isinstance(code, str) and price != prices.setdefault(code, price):
            yield f"{pointer}/{index}/price: {code!r} has the price {prices[code]} before: it needs one price"


def _repeated(rows: Any, pointer: str) -> Iterator[str]:
    """Yield an error for each place of a `pos_code` that occurs more than once."""
    codes = [row.get("pos_code") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else []
    times = Counter(code for code in codes if isinstance(code, str))
    for index, code in enumerate(codes):
        if isinstance(code, str) and times[code] > 1:
            yield f"{pointer}/{index}/pos_code: {code!r} is there {times[code]} times"
