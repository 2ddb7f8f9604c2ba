"""Walks over decoded JSON along the record type that it should have, to find what the decoder does not report."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec


class UnknownField(NamedTuple):
    """A field that the record type lacks: its JSON pointer, and the name of the most similar field; "" if none is."""

    pointer: str
    nearest: str


def is_struct(kind: Any) -> bool:
    """Return whether a type is a record type or a part of one."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def parts(value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, part, type of the part) of a JSON object or list; nothing if the value has another shape."""
    kind = bare(kind)
    if isinstance(value, list) and get_origin(kind) is tuple:
        yield from ((str(index), part, get_args(kind)[0]) for index, part in enumerate(value))
    if isinstance(value, dict) and is_struct(kind):
        yield from ((name, value[name], of) for name, of in _types(kind).items() if name in value)


def missing_fields(value: Any, kind: Any) -> list[str]:
    """Return the names of the required fields that a JSON object lacks."""
    kind = bare(kind)
    if not isinstance(value, dict) or not is_struct(kind):
        return []
    return [f.encode_name for f in msgspec.structs.fields(kind) if f.required and f.encode_name not in value]


def unknown_fields(value: Any, kind: Any, pointer: str = "") -> Iterator[UnknownField]:
    """Yield the fields of a JSON object and of its parts that the type does not have, in the order of the object."""
    kind = bare(kind)
    if isinstance(value, dict) and is_struct(kind):
        known = _types(kind)
        for name, part in value.items():
            if name in known:
                if isinstance(part, dict | list):
                    yield from unknown_fields(part, known[name], f"{pointer}/{name}")
            elif name != kind.__struct_config__.tag_field:
                escaped = name.replace("~", "~0").replace("/", "~1")  # RFC 6901
                yield UnknownField(f"{pointer}/{escaped}", next(iter(get_close_matches(name[:100], known, 1)), ""))
    elif isinstance(value, list) and get_origin(kind) is tuple:
        for index, part in enumerate(value):
            yield from unknown_fields(part, get_args(kind)[0], f"{pointer}/{index}")


def pointer_to_surrogate(value: Any, pointer: str = "") -> str | None:
    """Return the JSON pointer of the first text with half of a surrogate pair; None if there is none."""
    if isinstance(value, str):
        return None if _is_unicode(value) else pointer
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in entries:
        if not _is_unicode(str(name)):
            return pointer
        if (found := pointer_to_surrogate(part, f"{pointer}/{name}")) is not None:
            return found
    return None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the types of the fields by name, in the order of the fields."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


@cache
def bare(kind: Any) -> Any:
    """Return the type without its constraints, and without None as an alternative."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return next((bare(part) for part in get_args(kind) if part is not type(None)), kind)
    return kind
