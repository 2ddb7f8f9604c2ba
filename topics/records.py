"""The shape every record on a topic has, and how its bytes are read and written.

A record is one JSON object with ``type`` (which record), ``id`` (the event's id, derived from its cause: the same
cause twice is one event), ``at`` (RFC 3339, when it happened) and fields of its own. Fields are only ever added, and
only optional ones, so every record ever written stays readable. Unknown fields are ignored; an unknown type, a
missing field or a value out of range is :class:`Undecodable`, which names the field.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

Instant = Annotated[datetime, Meta(tz=True)]
"""A moment, with its time zone; RFC 3339 in JSON."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    """One thing that was said on a topic. Subclasses say which ``family`` of topics they belong to."""

    family: ClassVar[str]

    id: str = ""
    at: Instant | None = None

    @property
    def key(self) -> str:
        """The Kafka key: whose record it is. It decides the partition."""
        raise NotImplementedError

    @property
    def cause(self) -> str:
        """What the event's id is derived from where it was not given one; empty if nothing tells it from the next."""
        return ""

    @property
    def event_id(self) -> str:
        """The same for every copy of this event."""
        return self.id or (f"{self.key}/{self.cause}" if self.cause else "")


class Undecodable(ValueError):
    """These bytes are not a record of the topic. ``pointer`` is the JSON pointer (RFC 6901) of what is wrong."""

    def __init__(self, reason: str, pointer: str = "") -> None:
        super().__init__(f"{pointer}: {reason}" if pointer else reason)
        self.reason, self.pointer = reason, pointer


class Reader(Generic[T]):
    """Reads JSON as one of some types and says, where it cannot, which field is wrong and why."""

    def __init__(self, types: Any) -> None:
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(types)

    def read(self, data: bytes | None) -> T:
        """The object these bytes hold; :class:`Undecodable` where they hold none."""
        if data is None:
            raise Undecodable("the value is null; a record is a JSON object")
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            reason, pointer = _place(str(error))
            raise Undecodable(reason, pointer) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Undecodable(f"not JSON: {error}") from None
        except RecursionError:
            raise Undecodable("the JSON is nested too deeply") from None


def write(record: msgspec.Struct) -> bytes:
    """The record as JSON, defaults left out."""
    return _encoder.encode(record)


def instant(epoch_ms: int) -> datetime:
    """A moment given in milliseconds since 1970."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def epoch_ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return round(moment.timestamp() * 1000)


_encoder = msgspec.json.Encoder()
_MISSING_FIELD = re.compile(r"missing required field `([^`]+)`")


def _place(message: str) -> tuple[str, str]:
    """Split msgspec's message into the reason and a JSON pointer (`$.items[0].price` is `/items/0/price`)."""
    reason, _, path = message.partition(" - at `")
    path = path.rstrip("`").removeprefix("$").replace("[", ".").replace("]", "")
    pointer = path.replace(".", "/")
    if missing := _MISSING_FIELD.search(reason):
        return f"the field `{missing[1]}` is missing", f"{pointer}/{missing[1]}"
    return reason, pointer
