"""Common fields of all records, and reading and writing of records as JSON.

A record is one JSON object:

| field | meaning |
|---|---|
| ``type`` | name of the record type |
| ``id`` | id of the event, by default derived from its cause: two records with one cause are one event |
| ``at`` | time of the event, RFC 3339 |
| others | as the record type defines them |

A new version may only add optional fields, so all records of earlier versions stay readable. Unknown fields are
ignored. An unknown type, a missing field or a value out of range raises :class:`Undecodable`, which names the field.
"""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Meta

from topics.advice import advice
from topics.patterns import LINE
from topics.shapes import pointer_to_surrogate
from topics.text import MAX_TEXT_LENGTH, plain

T = TypeVar("T")

Instant = Annotated[datetime, Meta(tz=True)]
"""A time with its time zone; RFC 3339 in JSON."""
EventId = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH, pattern=LINE)]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    """Base class of the records on topics. ``family`` is the family of topics that a subclass belongs to."""

    family: ClassVar[str]

    id: EventId = ""
    at: Instant | None = None

    @property
    def key(self) -> str:
        """Kafka key: the id of the record's owner. It decides the partition."""
        raise NotImplementedError

    @property
    def cause(self) -> str:
        """Source of the event's id if the sender gave none; empty if nothing distinguishes similar events."""
        return ""

    @property
    def event_id(self) -> str:
        """Id of the event, equal in all copies; empty if the record has neither `id` nor `cause`."""
        return self.id or (f"{self.key}/{self.cause}" if self.cause else "")


class Undecodable(ValueError):
    """The bytes are not a record of the topic. ``pointer`` is the JSON pointer (RFC 6901) of the wrong field."""

    def __init__(self, reason: str, pointer: str = "") -> None:
        self.reason = plain(reason)
        self.pointer = plain(pointer)
        super().__init__(f"{self.pointer}: {self.reason}" if pointer else self.reason)


class NotJson(Undecodable):
    """The bytes are not JSON at all."""


class Reader(Generic[T]):
    """Reader of JSON as one of several types. Its errors name the wrong field and the reason."""

    def __init__(self, types: Any) -> None:
        self.types = types
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(types)

    def read(self, data: bytes | None) -> T:
        """Return the decoded object. Raises :class:`Undecodable`."""
        if data is None:
            raise Undecodable("the value is null; a record is a JSON object")
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            reason, pointer = _locate(str(error))
            kind = self.types if pointer in ("", "/type") else None
            raise Undecodable(advice(reason, kind), pointer) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _surrogate(data) or NotJson(f"not JSON: {error}") from None
        except RecursionError:
            raise NotJson("the JSON is nested too deeply") from None


def write(record: msgspec.Struct) -> bytes:
    """Return the record as JSON, without fields that have their default."""
    return _encoder.encode(record)


def instant(epoch_ms: int) -> datetime:
    """Return the UTC time of a number of milliseconds since 1970."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def epoch_ms(moment: datetime) -> int:
    """Return a time in milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


_encoder = msgspec.json.Encoder()
_MISSING_FIELD = re.compile(r"Object missing required field `([^`]+)`")
_LOCATION = re.compile(r"(.*) - at `\$([^`]*)`", re.DOTALL)
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _locate(message: str) -> tuple[str, str]:
    """Split msgspec's message into the reason and a JSON pointer (`$.items[0].price` is `/items/0/price`)."""
    located = _LOCATION.fullmatch(message)
    reason, path = (located[1], located[2]) if located else (message, "")
    pointer = path.replace("[", ".").replace("]", "").replace(".", "/")
    if missing := _MISSING_FIELD.fullmatch(reason):
        pointer = f"{pointer}/{missing[1]}"
    return reason, pointer


def _surrogate(data: bytes) -> Undecodable | None:
    """Return the error for JSON with half of a surrogate pair; the decoder's message is about something else."""
    if not _ESCAPED_SURROGATE.search(data):
        return None
    try:
        pointer = pointer_to_surrogate(json.loads(data))
    except (ValueError, RecursionError):
        return None
    return None if pointer is None else Undecodable("the text has half of a surrogate pair: write UTF-8", pointer)
