"""Types of PostgreSQL for the values of the query engine: OIDs, the text and binary forms of results and parameters.

Source: https://www.postgresql.org/docs/current/datatype.html, the send and receive functions of each type for the
binary form. Times are UTC. A value without a type of PostgreSQL (a struct, a map, a nested list) is JSON.
"""

import json
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

from msgspec import Struct

from streams.sql.interfaces import SqlError

BINARY = 1
"""Format code of the binary form; 0 is text."""

_EPOCH = datetime(2000, 1, 1)
_EPOCH_DAY = _EPOCH.date().toordinal()
_MICROSECOND = timedelta(microseconds=1)
_QUOTED = re.compile(r'[{}",\\\s]|^$|^null$', re.IGNORECASE)
"""An element of an array that needs quotes."""
_BASE = 10_000
"""Base of the digits of a binary numeric; each stands for 4 decimal digits."""
_NUMERIC = struct.Struct("!hhHh")
_EXACT = Context(prec=1000)
_NAN, _INFINITY, _MINUS_INFINITY = 0xC000, 0xD000, 0xF000
_MINUS = 0x4000
_ARRAY = struct.Struct("!iiI")
_ARRAY_SIZE = struct.Struct("!ii")
_LENGTH = struct.Struct("!i")

Encoder = Callable[[Any], bytes]


def as_text(value: Any) -> bytes:
    """Return the text form of a value that is not None."""
    return _TEXT.get(type(value), _other)(value)


def _string(value: str) -> bytes:
    return value.replace("\0", "").encode(errors="replace")


def _boolean(value: bool) -> bytes:
    return b"t" if value else b"f"


def _number(value: int | Decimal) -> bytes:
    return b"%d" % value if isinstance(value, int) else _decimal(value)


def _decimal(value: Decimal) -> bytes:
    return f"{value:f}".encode() if value.is_finite() else _float(float(value))


def _float(value: float) -> bytes:
    text = repr(value)
    return _FLOAT_NAMES.get(text, text).encode()


_FLOAT_NAMES: Mapping[str, str] = MappingProxyType({"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"})


def _datetime(value: datetime) -> bytes:
    if value.tzinfo is None:
        return value.isoformat(" ").encode()
    return value.astimezone(UTC).isoformat(" ").removesuffix(":00").encode()


def _day_or_time(value: date | time) -> bytes:
    return value.isoformat().encode()


def _interval(value: timedelta) -> bytes:
    clock = (datetime.min + timedelta(0, value.seconds, value.microseconds)).time()
    return f"{value.days} days {clock.isoformat()}".encode()


def _uuid(value: UUID) -> bytes:
    return str(value).encode()


def _bytea(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _array(value: list[Any]) -> bytes:
    return b"{" + b",".join(map(_element, value)) + b"}"


def _element(value: Any) -> bytes:
    if value is None:
        return b"NULL"
    text = as_text(value).decode()
    if isinstance(value, list) or not _QUOTED.search(text):
        return text.encode()
    return b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'


def as_json(value: Any) -> bytes:
    """Return a value as JSON; a string is JSON already."""
    if isinstance(value, str):
        return _string(value)
    return json.dumps(_plain(value), ensure_ascii=False, default=lambda one: as_text(one).decode()).encode()


def _plain(value: Any) -> Any:
    """Return a value whose maps have texts as keys, because JSON has no others."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else as_text(key).decode(): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _other(value: Any) -> bytes:
    for kind, encoder in _TEXT.items():
        if isinstance(value, kind):
            return encoder(value)
    return _string(str(value))


_TEXT: Mapping[type, Encoder] = MappingProxyType(
    {
        str: _string,
        bool: _boolean,
        int: _number,
        float: _float,
        Decimal: _decimal,
        datetime: _datetime,
        date: _day_or_time,
        time: _day_or_time,
        timedelta: _interval,
        UUID: _uuid,
        bytes: _bytea,
        list: _array,
        dict: as_json,
        tuple: as_json,
    }
)
"""Type of a value -> its text form."""


def _packed(layout: str) -> Encoder:
    return struct.Struct(layout).pack


def _microseconds(value: datetime) -> bytes:
    plain = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    return struct.pack("!q", (plain - _EPOCH) // _MICROSECOND)


def _days(value: date) -> bytes:
    return struct.pack("!i", value.toordinal() - _EPOCH_DAY)


def _clock(value: time) -> bytes:
    return struct.pack("!q", ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond)


def _binary_interval(value: timedelta) -> bytes:
    return struct.pack("!qii", value.seconds * 1_000_000 + value.microseconds, value.days, 0)


def _binary_numeric(value: Decimal | int) -> bytes:
    number = Decimal(value)
    if not number.is_finite():
        sign = _NAN if number.is_nan() else _MINUS_INFINITY if number < 0 else _INFINITY
        return _NUMERIC.pack(0, 0, sign, 0)
    negative, digits, exponent = number.as_tuple()
    scale = max(-int(exponent), 0)
    text = ("".join(map(str, digits)) + "0" * max(int(exponent), 0)).zfill(scale)
    whole, fraction = text[: len(text) - scale], text[len(text) - scale :]
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole) + len(fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    head = _NUMERIC.pack(len(groups), weight if groups else 0, _MINUS if negative else 0, scale)
    return head + struct.pack(f"!{len(groups)}H", *groups)


class PgType(Struct, frozen=True):
    """A type of PostgreSQL, and the forms of its values."""

    oid: int
    name: str
    title: str
    """Its name in messages to people, as `format_type` has it."""
    length: int = -1
    """Bytes of a value; -1 if they differ."""
    category: str = "U"
    binary: Encoder = as_text
    text: Encoder = as_text
    array: int = 0
    """OID of the type of its arrays; 0 if none."""
    element: int = 0
    """OID of the type of its elements; 0 if it is no array."""
    modifier: int = -1

    def encoder(self, format_: int) -> Encoder:
        """Return the function that encodes a value in a format."""
        return self.binary if format_ == BINARY else self.text


BOOL = PgType(16, "bool", "boolean", 1, "B", _packed("!?"), array=1000)
BYTEA = PgType(17, "bytea", "bytea", binary=bytes, array=1001)
INT8 = PgType(20, "int8", "bigint", 8, "N", _packed("!q"), array=1016)
INT2 = PgType(21, "int2", "smallint", 2, "N", _packed("!h"), array=1005)
INT4 = PgType(23, "int4", "integer", 4, "N", _packed("!i"), array=1007)
TEXT = PgType(25, "text", "text", category="S", array=1009)
JSON = PgType(114, "json", "json", binary=as_json, text=as_json, array=199)
FLOAT4 = PgType(700, "float4", "real", 4, "N", _packed("!f"), array=1021)
FLOAT8 = PgType(701, "float8", "double precision", 8, "N", _packed("!d"), array=1022)
DATE = PgType(1082, "date", "date", 4, "D", _days, array=1182)
TIME = PgType(1083, "time", "time without time zone", 8, "D", _clock, array=1183)
TIMESTAMP = PgType(1114, "timestamp", "timestamp without time zone", 8, "D", _microseconds, array=1115)
TIMESTAMPTZ = PgType(1184, "timestamptz", "timestamp with time zone", 8, "D", _microseconds, array=1185)
INTERVAL = PgType(1186, "interval", "interval", 16, "T", _binary_interval, array=1187)
NUMERIC = PgType(1700, "numeric", "numeric", category="N", binary=_binary_numeric, array=1231)
UUID_TYPE = PgType(2950, "uuid", "uuid", 16, binary=lambda value: value.bytes, array=2951)

SCALARS: tuple[PgType, ...] = (
    *(BOOL, BYTEA, INT8, INT2, INT4, TEXT, JSON, FLOAT4, FLOAT8),
    *(DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL, NUMERIC, UUID_TYPE),
)
"""Types of results, without arrays."""

DUCKDB: Mapping[str, PgType] = MappingProxyType(
    {
        "BOOLEAN": BOOL,
        "TINYINT": INT2,
        "SMALLINT": INT2,
        "UTINYINT": INT2,
        "INTEGER": INT4,
        "USMALLINT": INT4,
        "BIGINT": INT8,
        "UINTEGER": INT8,
        "UBIGINT": NUMERIC,
        "HUGEINT": NUMERIC,
        "UHUGEINT": NUMERIC,
        "FLOAT": FLOAT4,
        "DOUBLE": FLOAT8,
        "DATE": DATE,
        "TIME": TIME,
        "TIMESTAMP": TIMESTAMP,
        "TIMESTAMP_S": TIMESTAMP,
        "TIMESTAMP_MS": TIMESTAMP,
        "TIMESTAMP_NS": TIMESTAMP,
        "TIMESTAMP WITH TIME ZONE": TIMESTAMPTZ,
        "INTERVAL": INTERVAL,
        "UUID": UUID_TYPE,
        "BLOB": BYTEA,
        "JSON": JSON,
    }
)
"""Type of the query engine -> type of PostgreSQL; text for any other."""


def array_of(element: PgType) -> PgType:
    """Return the type of arrays of a scalar type."""
    return PgType(
        element.array,
        f"_{element.name}",
        f"{element.title}[]",
        category="A",
        binary=lambda values: _binary_array(element, values),
        element=element.oid,
    )


def _binary_array(element: PgType, values: list[Any]) -> bytes:
    if not values:
        return _ARRAY.pack(0, 0, element.oid)
    parts = [_ARRAY.pack(1, int(None in values), element.oid), _ARRAY_SIZE.pack(len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_LENGTH.pack(-1))
        else:
            encoded = element.binary(value)
            parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


ALL: Mapping[int, PgType] = MappingProxyType(
    {kind.oid: kind for scalar in SCALARS for kind in (scalar, array_of(scalar))}
)
"""OID -> type."""


def type_of(duckdb: str) -> PgType:
    """Return the type for a type of the query engine, such as `DECIMAL(18,2)` or `VARCHAR[]`."""
    if duckdb.endswith("]"):
        element = type_of(duckdb[: duckdb.rindex("[")])
        return JSON if element.element or element is JSON else ALL[element.array]
    if duckdb.startswith(("STRUCT(", "MAP(", "UNION(")):
        return JSON
    if duckdb.startswith("DECIMAL("):
        return NUMERIC
    return DUCKDB.get(duckdb, TEXT)


def _from_boolean(text: str) -> bool:
    value = text.strip().lower()
    if value not in ("t", "true", "1", "yes", "on", "f", "false", "0", "no", "off"):
        raise ValueError(text)
    return value in ("t", "true", "1", "yes", "on")


def _from_bytea(text: str) -> bytes:
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    return _ESCAPED.sub(lambda found: b"\\" if found[1] == b"\\" else bytes([int(found[1], 8)]), text.encode())


_ESCAPED = re.compile(rb"\\(\\|[0-3][0-7]{2})")
"""A byte in the older text form of bytea."""


def _from_array(text: str) -> list[str | None]:
    """Return the elements of a flat array in text form."""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(text)
    body, at = text[1:-1], 0
    elements: list[str | None] = []
    while at < len(body):
        found = _ELEMENT.match(body, at)
        if found is None:
            raise ValueError(text)
        quoted, plain = found.group("quoted", "plain")
        if quoted is not None:
            elements.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        else:
            elements.append(None if plain.lower() == "null" else plain)
        at = found.end()
        if found["comma"] and at == len(body):
            raise ValueError(text)
    return elements


_ELEMENT = re.compile(
    r'[ \t-\r]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^{}",\\ \t-\r]+))[ \t-\r]*(?:(?P<comma>,)|\Z)',
    re.DOTALL,
)


def _unpacked(layout: str) -> Callable[[bytes], Any]:
    packed = struct.Struct(layout)
    return lambda data: packed.unpack(data)[0]


def _to_timestamp(data: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=_to_int8(data))


def _to_timestamptz(data: bytes) -> datetime:
    return _to_timestamp(data).replace(tzinfo=UTC)


def _to_date(data: bytes) -> date:
    return date.fromordinal(struct.unpack("!i", data)[0] + _EPOCH_DAY)


def _to_numeric(data: bytes) -> Decimal:
    count, weight, sign, scale = _NUMERIC.unpack_from(data)
    if sign in (_NAN, _INFINITY, _MINUS_INFINITY):
        return Decimal({_NAN: "NaN", _INFINITY: "Infinity", _MINUS_INFINITY: "-Infinity"}[sign])
    value = 0
    for digit in struct.unpack(f"!{count}H", data[_NUMERIC.size :]):
        value = value * _BASE + digit
    number = Decimal(f"{'-' if sign else ''}{value}e{4 * (weight - count + 1)}")
    # The engine infers the scale of its DECIMAL from the exponent.
    return number.quantize(Decimal(f"1e-{scale}"), context=_EXACT)


def _to_jsonb(data: bytes) -> str:
    if not data.startswith(b"\x01"):
        raise ValueError("version")
    return data[1:].decode()


_to_int8 = _unpacked("!q")


class _Parameter(Struct, frozen=True):
    """Both forms of a type's parameters."""

    from_text: Callable[[str], Any]
    from_binary: Callable[[bytes], Any]


_STRING = _Parameter(str, bytes.decode)
_PARAMETERS: Mapping[int, _Parameter] = MappingProxyType(
    {
        0: _STRING,
        BOOL.oid: _Parameter(_from_boolean, _unpacked("!?")),
        BYTEA.oid: _Parameter(_from_bytea, bytes),
        18: _STRING,  # "char"
        19: _STRING,  # name
        INT8.oid: _Parameter(int, _to_int8),
        INT2.oid: _Parameter(int, _unpacked("!h")),
        INT4.oid: _Parameter(int, _unpacked("!i")),
        TEXT.oid: _STRING,
        26: _Parameter(int, _unpacked("!I")),  # oid
        JSON.oid: _STRING,
        FLOAT4.oid: _Parameter(float, _unpacked("!f")),
        FLOAT8.oid: _Parameter(float, _unpacked("!d")),
        705: _STRING,  # unknown
        1042: _STRING,  # bpchar
        1043: _STRING,  # varchar
        DATE.oid: _Parameter(date.fromisoformat, _to_date),
        TIMESTAMP.oid: _Parameter(datetime.fromisoformat, _to_timestamp),
        TIMESTAMPTZ.oid: _Parameter(datetime.fromisoformat, _to_timestamptz),
        NUMERIC.oid: _Parameter(Decimal, _to_numeric),
        UUID_TYPE.oid: _Parameter(UUID, lambda data: UUID(bytes=data)),
        3802: _Parameter(str, _to_jsonb),
    }
)
"""OID -> forms of a parameter, for the types without arrays."""
_ELEMENTS: Mapping[int, int] = MappingProxyType(
    {kind.array: kind.oid for kind in SCALARS if kind.oid in _PARAMETERS} | {1015: TEXT.oid, 1014: TEXT.oid}
)
"""OID of an array -> OID of its elements."""


def parameter(data: bytes | None, oid: int, format_: int, number: int) -> object:
    """Return the value of parameter ``number``. Raises `SqlError`."""
    if data is None:
        return None
    try:
        return _binary_parameter(data, oid) if format_ == BINARY else _text_parameter(data.decode(), oid)
    except KeyError:
        raise SqlError(
            f"The type of parameter ${number} (OID {oid}) is not supported: send it as text, and cast it in the "
            f"statement.",
            "0A000",
        ) from None
    except (ValueError, ArithmeticError, struct.error):
        raise SqlError(
            f"The value of parameter ${number} is no valid {_title(oid)}: correct it.",
            "22P03" if format_ == BINARY else "22P02",
        ) from None


def _title(oid: int) -> str:
    known = ALL.get(oid)
    return known.title if known else "text in UTF-8"


def _text_parameter(text: str, oid: int) -> object:
    if oid in _ELEMENTS:
        read = _PARAMETERS[_ELEMENTS[oid]].from_text
        return [None if one is None else read(one) for one in _from_array(text)]
    return _PARAMETERS.get(oid, _STRING).from_text(text)


def _binary_parameter(data: bytes, oid: int) -> object:
    if oid not in _ELEMENTS:
        return _PARAMETERS[oid].from_binary(data)
    dimensions, _, element = _ARRAY.unpack_from(data)
    read = _PARAMETERS[element].from_binary
    if dimensions == 0:
        return []
    if dimensions != 1:
        raise ValueError("dimensions")
    return list(_elements(data, read))


def _elements(data: bytes, read: Callable[[bytes], Any]) -> list[Any]:
    count, _ = _ARRAY_SIZE.unpack_from(data, _ARRAY.size)
    at, values = _ARRAY.size + _ARRAY_SIZE.size, []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        values.append(None if length == -1 else read(data[at : at + length]))
        if length > 0:
            at += length
    return values
