"""Page of the topics, made from ``topics/``: each family's key, writers, readers, settings and records."""

import inspect
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from topics.families import FAMILIES, INPUTS, Family
from topics.records import Record

DAY_MS = 24 * 3600 * 1000
INTRODUCTION = """# Topics

Topics are called `<prefix>.<family>`; the prefix is `dabbawala` unless `DABBAWALA_TOPIC_PREFIX` changes it. Keys are
UTF-8 ids, partitioned by murmur2 as Java's clients do; librdkafka needs `partitioner=murmur2_random`. All topics have
the same number of partitions.

A record is one JSON object with `type` (the name below), `id` (the event's id; optional if it follows from the
fields), `at` (RFC 3339) and its fields. `?` marks an optional field. Readers ignore unknown fields. Later versions add
optional fields only, and may add a status of orders. [asyncapi.json](asyncapi.json) is this page for programs. A worker
serves it at `/asyncapi.json`, a page at `/docs/events`, and JSON Schemas at `/schemas/orders.Placed.json`.
"""


def render() -> str:
    """Return the page of topics."""
    return "\n".join([INTRODUCTION, *(_family(family) for family in FAMILIES)])


def _family(family: Family) -> str:
    module = inspect.getmodule(sys.modules[f"topics.{family.name.replace('-', '_')}"])
    assert module is not None
    text = inspect.cleandoc(module.__doc__ or "").replace("``", "`")
    kind = "input" if family in INPUTS else "output" if family.reader else "both"
    parts = [f"## {family.name}", f"Module `topics/{family.name.replace('-', '_')}.py`, {kind}. {_kept(family)}", text]
    if family.reader is not None:
        parts.append("\n".join(_records(_members(family.reader.types))))
    return "\n\n".join(parts) + "\n"


def _kept(family: Family) -> str:
    if family.config.get("cleanup.policy") == "compact":
        return "Compacted: the newest record of each key is kept."
    return f"Records are kept for {int(family.config['retention.ms']) // DAY_MS} days by default."


def _members(types_read: Any) -> Iterable[type[msgspec.Struct]]:
    """List the record types that a reader accepts."""
    return get_args(types_read) if get_origin(types_read) in (Union, types.UnionType) else (types_read,)


def _records(records: Iterable[type[msgspec.Struct]]) -> Iterator[str]:
    yield "| record | fields | meaning |"
    yield "|---|---|---|"
    for record in records:
        meaning = " ".join(inspect.cleandoc(record.__doc__ or "").partition("\n\n")[0].split()).replace("``", "`")
        yield f"| `{record.__name__}` | {', '.join(_fields(record))} | {meaning} |"


def _fields(record: type[msgspec.Struct]) -> Iterator[str]:
    common = Record.__struct_fields__ if issubclass(record, Record) else ()
    for field in msgspec.structs.fields(record):
        if field.name not in common:
            yield f"`{field.encode_name}{'' if field.required else '?'}`: {_type(field.type)}"


def _type(annotation: Any) -> str:
    """Return the name of a type in JSON."""
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type(member) for member in get_args(annotation) if member is not types.NoneType)
    if get_origin(annotation) in (tuple, list):
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"object of {_type(get_args(annotation)[1])}"
    name = getattr(annotation, "__name__", None) or re.sub(r"typing\.|[\[\]']", " ", str(annotation)).strip()
    return {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "datetime": "time"}.get(name, name)
