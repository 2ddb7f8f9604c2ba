"""Plain sentences for the errors of the decoder: each says what the value must be."""

import re
from collections.abc import Callable, Iterable
from typing import Any, get_args

import msgspec

from topics.patterns import ADVICE
from topics.shapes import bare, is_struct

MAX_REASON_LENGTH = 500
"""Characters of a reason; the reason may quote the sender's value."""
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "datetime": "a time such as 2026-01-02T12:30:00Z",
}
"""Type as msgspec names it -> its name in an error."""
UNITS = {"str": "characters", "array": "entries", "object": "fields"}
COMPARISONS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}
PLAIN = {
    "Invalid RFC3339 encoded datetime": "it must be a time of RFC 3339, such as 2026-01-02T12:30:00Z",
    "Expected `datetime` with a timezone component": "the time has no time zone: write it like 2026-01-02T12:30:00Z",
    "Integer value out of range": "the number is too large",
    "Number out of range": "the number is too large",
    **{f"Expected `str` matching regex {pattern!r}": advice for pattern, advice in ADVICE.items()},
}
"""Error of msgspec -> sentence."""

Sentence = Callable[[re.Match[str], Any], str]


def advice(error: str, kind: Any) -> str:
    """Return an error of msgspec as a sentence; ``kind`` is the type, or union of types, that was read."""
    if error in PLAIN:
        return PLAIN[error]
    for pattern, sentence in SENTENCES:
        if found := pattern.fullmatch(error):
            return sentence(found, kind)[:MAX_REASON_LENGTH]
    return error[:MAX_REASON_LENGTH]


def _wrong_kind(found: re.Match[str], _: Any) -> str:
    return f"it must be {_named(found[1])}, not {_named(found[2])}"


def _named(kinds: str) -> str:
    return " or ".join(KINDS.get(kind, kind) for kind in kinds.split(" | "))


def _out_of_range(found: re.Match[str], _: Any) -> str:
    return f"it must be {COMPARISONS[found[1]]} {found[2].removesuffix('.0')}"


def _wrong_length(found: re.Match[str], _: Any) -> str:
    return f"it must have {COMPARISONS[found[2]]} {found[3]} {UNITS[found[1]]}"


def _unknown_field(found: re.Match[str], kind: Any) -> str:
    kind = bare(kind)
    fields = ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) if is_struct(kind) else ""
    return f"there is no field `{found[1][:100]}`" + (f"; the fields are {fields}" if fields else "")


def _unknown_type(found: re.Match[str], kind: Any) -> str:
    return f"there is no type {found[1][:100]} here; the types are {', '.join(_tags(kind))}"


def _tags(kind: Any) -> Iterable[str]:
    return (str(part.__struct_config__.tag) for part in (get_args(kind) or (kind,)) if is_struct(part))


SENTENCES: tuple[tuple[re.Pattern[str], Sentence], ...] = (
    (re.compile(r"Expected `([\w |]+)`, got `([\w |]+)`"), _wrong_kind),
    (re.compile(r"Expected `\w+` (<=|>=|<|>) (\S+)"), _out_of_range),
    (re.compile(r"Expected `(str|array|object)` of length (<=|>=) (\d+)"), _wrong_length),
    (re.compile(r"Object missing required field `(\w+)`"), lambda found, _: f"the field `{found[1]}` is missing"),
    (re.compile(r"Object contains unknown field `(.*)`", re.DOTALL), _unknown_field),
    (re.compile(r"Invalid value (.*)", re.DOTALL), _unknown_type),
    (re.compile(r"Invalid enum value (.*)", re.DOTALL), lambda found, _: f"{found[1][:100]} is not one of its values"),
    (re.compile(r"Expected `(\w+)`"), lambda found, _: f"it must be {_named(found[1])}"),
)
"""Error of msgspec, and the function that returns its sentence."""
