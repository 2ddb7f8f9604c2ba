"""Rows of a table as a reader sends them: the fields that a statement needs, as JSON, many rows at a time.

The answer is lines of JSON. The first one has `expected`, the partitions that follow. Before the rows of a partition
comes a line with `partition`, `worker` and `as_of_ms`, after them one with `count`, the number of rows. A line in
between has `rows`: each field, with its values in the order of the rows. A line with `failed` ends an answer that is
not complete.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw, Struct

from streams.sql.tables import KEY, TABLES, Field, Table

CHUNK_ROWS = 8000
MAX_CHUNK_BYTES = 4 << 20
"""Bytes of rows after which a chunk ends. One row may be as large as a record in Kafka."""
ROWS_PREFIX = b'{"rows":'
"""Beginning of a line with rows: the query engine does not decode it itself."""

Row = tuple[bytes, bytes]
Chunk = Callable[[Sequence[Row]], bytes]


class Expected(Struct, frozen=True):
    """First line: the partitions whose rows follow. An answer without the `count` of each of them is not complete."""

    expected: list[int]


class Opened(Struct, frozen=True, kw_only=True):
    """Line before the rows of a partition."""

    partition: int
    worker: str
    as_of_ms: int
    """Time at which the worker certainly had the partition: the rows are as of then, or newer."""


class Counted(Struct, frozen=True):
    """Line after the rows of a partition."""

    count: int


class Failed(Struct, frozen=True):
    """Last line of an answer that is not complete: the reason."""

    failed: str


def line(content: object) -> bytes:
    """Return a line of the answer."""
    return _encode(content) + b"\n"


_encode = msgspec.json.Encoder().encode


def lines_of(
    opened: Opened, table: Table, fields: Sequence[str], rows: Iterable[Row], *, is_masked: bool, limit: int | None
) -> Iterator[bytes]:
    """Yield the lines of one partition. ``limit`` is the number of rows that are enough."""
    yield line(opened)
    count, chunk = 0, chunk_writer(table.name, tuple(fields), is_masked)
    for part in _parts(islice(rows, limit)):
        count += len(part)
        if fields:
            yield chunk(part)
    yield line(Counted(count))


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield lists of rows, none of which is much larger than `MAX_CHUNK_BYTES`."""
    part: list[Row] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row[1])
        if len(part) == CHUNK_ROWS or size >= MAX_CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


@lru_cache(maxsize=100)
def chunk_writer(table: str, fields: tuple[str, ...], is_masked: bool) -> Chunk:
    """Return the function that makes a line of rows. It decodes no field that the line does not have.

    A field without a mask is copied as it is, and a default takes the place of a missing one.
    """
    known = TABLES[table]
    wanted = [known.fields[name] for name in fields if name != KEY]
    masks = {} if known.reshape or not is_masked else {f.name: f.mask for f in wanted if f.mask is not None}
    projected = msgspec.defstruct("Projected", [_member(field, field.name in masks) for field in wanted])
    decode = msgspec.json.Decoder(list[projected]).decode  # type: ignore[valid-type]
    has_key = KEY in fields

    def write(rows: Sequence[Row]) -> bytes:
        if known.reshape is not None:
            shaped = [known.reshape(key, value, is_masked) for key, value in rows]
            keys, values = [key for key, _ in shaped], [value for _, value in shaped]
        else:
            keys = [key.decode(errors="replace") for key, _ in rows] if has_key else []
            values = [value for _, value in rows]
        content: dict[str, list[Any]] = {KEY: keys} if has_key else {}
        if wanted:
            decoded = decode(b"[" + b",".join(values) + b"]")
            for field in wanted:
                column = [getattr(row, field.name) for row in decoded]
                mask = masks.get(field.name)
                content[field.name] = column if mask is None else [_masked(mask, value) for value in column]
        return ROWS_PREFIX + _encode(content) + b"}\n"

    return write


def _masked(mask: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else mask(value)


def _member(field: Field, is_masked: bool) -> tuple[str, Any, Any]:
    """Return a field of the type that rows are decoded to: its name, type and default."""
    if not is_masked:
        return field.name, Raw, Raw(field.default)
    default = msgspec.json.decode(field.default)
    return (
        field.name,
        field.annotation | None,
        default if default is None else msgspec.field(default_factory=lambda: default),
    )
