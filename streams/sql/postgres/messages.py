"""Messages of PostgreSQL's protocol 3: the bytes of each, without I/O.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html. A message is a type (1 byte), a length
(4 bytes, with itself) and fields. The first packet of a connection has no type.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from msgspec import Struct

from streams.sql.interfaces import SqlError
from streams.sql.postgres.types import PgType

PROTOCOL = 3 << 16
"""Version 3.0, the newest that the server speaks."""
MAX_STARTUP_BYTES = 10_000
"""Length of a message before the client is authenticated; PostgreSQL has the same limit."""
MAX_MESSAGE_BYTES = 1 << 20
"""Length of a message: far above a statement that a person writes, with room for long lists of parameters."""
MAX_FIELDS = 0x7FFF

_INT16 = struct.Struct("!h")
_UINT16 = struct.Struct("!H")
_INT32 = struct.Struct("!i")
_UINT32 = struct.Struct("!I")
_HEADER = struct.Struct("!ci")
_COLUMN = struct.Struct("!IhIhih")


class ProtocolViolation(Exception):
    """The bytes are no message that the server expects now. The connection ends."""


class StartupCode(IntEnum):
    """First number of a connection's first packet, if it is no version."""

    CANCEL = 80877102
    SSL = 80877103
    GSS_ENCRYPTION = 80877104


class Fields:
    """The fields of a message, read from first to last. Every method raises `ProtocolViolation`."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def int16(self) -> int:
        """Read a signed number of 2 bytes."""
        return int(_INT16.unpack(self.take(2))[0])

    def count(self) -> int:
        """Read an unsigned number of 2 bytes."""
        return int(_UINT16.unpack(self.take(2))[0])

    def int32(self) -> int:
        """Read a signed number of 4 bytes."""
        return int(_INT32.unpack(self.take(4))[0])

    def oid(self) -> int:
        """Read an unsigned number of 4 bytes."""
        return int(_UINT32.unpack(self.take(4))[0])

    def take(self, length: int) -> bytes:
        """Read so many bytes."""
        end = self._at + length
        if length < 0 or end > len(self._payload):
            raise ProtocolViolation("the message is shorter than its fields")
        taken = self._payload[self._at : end]
        self._at = end
        return taken

    def text(self) -> str:
        """Read a text that ends with a zero byte. Raises `SqlError` if it is not UTF-8."""
        end = self._payload.find(b"\0", self._at)
        if end < 0:
            raise ProtocolViolation("a text in the message has no end")
        taken = self._payload[self._at : end]
        self._at = end + 1
        return decoded(taken)

    def value(self) -> bytes | None:
        """Read a length and so many bytes; a length of -1 stands for NULL."""
        length = self.int32()
        return None if length == -1 else self.take(length)

    def rest(self) -> bytes:
        """Read everything that is left."""
        return self.take(len(self._payload) - self._at)

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._payload):
            raise ProtocolViolation("the message is longer than its fields")


def decoded(text: bytes) -> str:
    """Return a text of the client. Raises `SqlError`."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise SqlError("The text is not valid UTF-8: set client_encoding to UTF8.", "22021") from None


class Startup(Struct, frozen=True):
    """The first packet of a connection that asks for a session."""

    version: int
    options: dict[str, str]


class Parse(Struct, frozen=True):
    """A request to prepare a statement."""

    name: str
    sql: str
    oids: tuple[int, ...]
    """Types of the first parameters; 0 if the client leaves it open."""


class Bind(Struct, frozen=True):
    """A request to make a portal of a prepared statement and its parameters."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]


def read_startup(payload: bytes) -> Startup:
    """Decode the first packet. Raises `ProtocolViolation` and `SqlError`."""
    fields = Fields(payload)
    version = fields.int32()
    options = {}
    while name := fields.text():
        options[name] = fields.text()
    fields.end()
    return Startup(version, options)


def read_query(payload: bytes) -> str:
    """Decode a Query message. Raises `ProtocolViolation` and `SqlError`."""
    fields = Fields(payload)
    sql = fields.text()
    fields.end()
    return sql


def read_parse(payload: bytes) -> Parse:
    """Decode a Parse message. Raises `ProtocolViolation` and `SqlError`."""
    fields = Fields(payload)
    message = Parse(fields.text(), fields.text(), tuple(fields.oid() for _ in range(fields.count())))
    fields.end()
    return message


def read_bind(payload: bytes) -> Bind:
    """Decode a Bind message. Raises `ProtocolViolation` and `SqlError`."""
    fields = Fields(payload)
    message = Bind(
        fields.text(),
        fields.text(),
        tuple(fields.int16() for _ in range(fields.count())),
        tuple(fields.value() for _ in range(fields.count())),
        tuple(fields.int16() for _ in range(fields.count())),
    )
    fields.end()
    return message


def read_target(payload: bytes) -> tuple[str, str]:
    """Decode a Describe or Close message: `S` or `P`, and the name of the statement or portal."""
    fields = Fields(payload)
    kind, name = fields.take(1), fields.text()
    fields.end()
    if kind not in (b"S", b"P"):
        raise ProtocolViolation("a message names neither a statement nor a portal")
    return kind.decode(), name


def read_execute(payload: bytes) -> tuple[str, int]:
    """Decode an Execute message: the name of the portal, and the limit of rows (0: none)."""
    fields = Fields(payload)
    name, limit = fields.text(), fields.int32()
    fields.end()
    return name, max(limit, 0)


def message(kind: bytes, *parts: bytes) -> bytes:
    """Return a message of the server."""
    payload = b"".join(parts)
    return _HEADER.pack(kind, len(payload) + 4) + payload


def text(value: str) -> bytes:
    """Return a text field. A NUL would end it too early."""
    return value.replace("\0", "").encode(errors="replace") + b"\0"


def int16(value: int) -> bytes:
    """Return a field of 2 bytes."""
    return _INT16.pack(value)


def int32(value: int) -> bytes:
    """Return a field of 4 bytes."""
    return _INT32.pack(value)


AUTHENTICATION_OK = message(b"R", int32(0))
PARSE_COMPLETE = message(b"1")
BIND_COMPLETE = message(b"2")
CLOSE_COMPLETE = message(b"3")
NO_DATA = message(b"n")
EMPTY_QUERY = message(b"I")
PORTAL_SUSPENDED = message(b"s")


def sasl_mechanisms(*names: str) -> bytes:
    """Return the request to authenticate by one of these mechanisms."""
    return message(b"R", int32(10), *map(text, names), b"\0")


def sasl_continue(data: bytes) -> bytes:
    """Return the server's challenge."""
    return message(b"R", int32(11), data)


def sasl_final(data: bytes) -> bytes:
    """Return the server's proof."""
    return message(b"R", int32(12), data)


def negotiate_version(unknown: Iterable[str]) -> bytes:
    """Return the newest version that the server speaks, and the client's options that it does not have."""
    names = [text(name) for name in unknown]
    return message(b"v", int32(PROTOCOL), int32(len(names)), *names)


def parameter_status(name: str, value: str) -> bytes:
    """Return a setting of the server."""
    return message(b"S", text(name), text(value))


def backend_key(process: int, secret: bytes) -> bytes:
    """Return the key by which the client may cancel a statement."""
    return message(b"K", int32(process), secret)


def ready(status: str) -> bytes:
    """Return the end of an answer, with the state of the transaction: `I`, `T` or `E`."""
    return message(b"Z", status.encode())


def command_complete(tag: str) -> bytes:
    """Return the end of a statement."""
    return message(b"C", text(tag))


def parameter_description(oids: Sequence[int]) -> bytes:
    """Return the types of the parameters of a statement."""
    return message(b"t", _UINT16.pack(len(oids)), *map(_UINT32.pack, oids))


def row_description(columns: Iterable[tuple[str, PgType, int]]) -> bytes:
    """Return the columns of a result: name, type and format of each."""
    fields = [
        text(name) + _COLUMN.pack(0, 0, kind.oid, kind.length, kind.modifier, format_)
        for name, kind, format_ in columns
    ]
    return message(b"T", int16(len(fields)), *fields)


def data_row(values: Sequence[bytes | None]) -> bytes:
    """Return a row."""
    parts = [_INT16.pack(len(values))]
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts += (_INT32.pack(len(value)), value)
    payload = b"".join(parts)
    return _HEADER.pack(b"D", len(payload) + 4) + payload


def error(message_text: str, sqlstate: str, severity: str = "ERROR", position: int | None = None) -> bytes:
    """Return an error; ``position`` counts the characters of the statement from 1."""
    return _report(b"E", severity, sqlstate, message_text, position)


def notice(message_text: str, sqlstate: str = "00000") -> bytes:
    """Return a notice, which clients show beside the result."""
    return _report(b"N", "NOTICE", sqlstate, message_text, None)


def _report(kind: bytes, severity: str, sqlstate: str, message_text: str, position: int | None) -> bytes:
    fields: Mapping[bytes, str] = {b"S": severity, b"V": severity, b"C": sqlstate, b"M": message_text}
    place = b"" if position is None else b"P" + text(str(position))
    return message(kind, *(code + text(value) for code, value in fields.items()), place, b"\0")
