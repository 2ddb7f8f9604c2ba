"""JSON Schemas of the types, as msgspec makes them, with the meaning of each field from its docstring."""

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect as shapes

from topics.families import FAMILIES, Family
from topics.patterns import in_ecmascript

DIALECT = "https://json-schema.org/draft/2020-12/schema"
COMPONENTS = "#/components/schemas/{name}"
"""References to the schemas of OpenAPI and AsyncAPI documents."""
LOCAL = "#/$defs/{name}"


class Schemas(NamedTuple):
    """Schemas of some types, in their order, and of the types that they refer to, by name."""

    of: tuple[dict[str, Any], ...]
    components: dict[str, Any]


def schemas_of(types: Iterable[Any], references: str = COMPONENTS) -> Schemas:
    """Return the schemas of types. ``references`` is the form of a reference to a component."""
    types = tuple(types)
    found, components = msgspec.json.schema_components(types, ref_template=references)
    structs = _structs(shapes.multi_type_info(types))
    named = {name: kind for kind in structs for name in (f"{kind.__module__}.{kind.__qualname__}", kind.__name__)}
    for name, schema in components.items():
        for field, meaning in _meanings(named[name]).items() if name in named else ():
            if field in schema.get("properties", {}):
                schema["properties"][field].setdefault("description", meaning)
    return Schemas(tuple(_plain(schema) for schema in found), _plain(components))


def records_of(family: Family) -> tuple[type[msgspec.Struct], ...]:
    """Return the record types of a family; none if it has records of any bytes."""
    if family.reader is None:
        return ()
    return tuple(_structs(shapes.multi_type_info([family.reader.types]), parts=False))


@cache
def record_types() -> Mapping[str, type[msgspec.Struct]]:
    """Return the record types of all topics by name, such as `orders.Placed`."""
    found = {f"{family.name}.{record.__name__}": record for family in FAMILIES for record in records_of(family)}
    return MappingProxyType(found)


@cache
def record_schema(name: str) -> bytes:
    """Return the JSON Schema of a record type, a document that refers to no other. Raises `LookupError`."""
    [schema], components = schemas_of([record_types()[name]], LOCAL)
    return msgspec.json.encode({"$schema": DIALECT, "title": name, **schema, "$defs": components})


def _structs(node: Any, *, parts: bool = True) -> dict[type[msgspec.Struct], None]:
    """Return the record types that a description of types has, with those of their fields if ``parts`` is true."""
    found: dict[type[msgspec.Struct], None] = {}
    waiting = [node]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, shapes.StructType):
            if each.cls in found:
                continue
            found[each.cls] = None
            if not parts:
                continue
        if isinstance(each, shapes.Type | shapes.Field):
            waiting += [getattr(each, name) for name in each.__struct_fields__]
        elif isinstance(each, tuple):
            waiting += each
    return found


def _meanings(kind: type[msgspec.Struct]) -> Mapping[str, str]:
    """Return the docstrings of the fields of a type and its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found.update(_docstrings(base.__module__).get(base.__qualname__, {}))
    return found


@cache
def _docstrings(module: str) -> Mapping[str, Mapping[str, str]]:
    """Return class -> field -> docstring of a module; nothing without its source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {node.name: dict(_documented(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _documented(definition: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        match text:
            case ast.Expr(value=ast.Constant(value=str(meaning))):
                yield field.target.id, " ".join(meaning.split())


def _plain(schema: Any) -> Any:
    """Return a schema with patterns of ECMA 262, as JSON Schema wants them, and descriptions in Markdown."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(part) for name, part in schema.items()}
    if isinstance(plain.get("pattern"), str):
        plain["pattern"] = in_ecmascript(plain["pattern"])
    if isinstance(plain.get("description"), str):
        plain["description"] = inspect.cleandoc(plain["description"]).replace("``", "`")
    return plain
