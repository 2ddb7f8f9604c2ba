"""Rows of dead letters, and the decision whether a letter can be replayed.

Any record on the topic becomes a row, even one that another program wrote: nothing here raises.
"""

from collections.abc import Collection, Sequence

import msgspec

from topics.dead_letters import BROKE_DOWN, CALL, CUT, NOTES, REASON, REQUEST, TIMER, TOPIC

MAX_ROW_BYTES = 900_000
"""Limit of a row in bytes of JSON, in which bytes are base64; Kafka accepts 1 MiB. A larger letter is truncated."""
TRUNCATED_BYTES = 2_000
"""Bytes of each part that are kept of a truncated letter."""
OFFSET_DIGITS = 20
RETENTION_MS = 4 * 7 * 24 * 3600 * 1000
"""Retention of a row; the topic's retention is the same."""

Header = tuple[str, bytes | None]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Row `<partition>/<offset>` of the table `dead_letters`."""

    at_ms: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()
    signed: bool = False
    """True if its signature proves that a task wrote it."""
    complete: bool = True
    """False if the row is truncated."""

    def header_text(self, name: str) -> str:
        """Return the last header of this name as text, "" if there is none.

        The task appends its headers after those of the record, so the last one is the task's.
        """
        return (self._header(name) or b"").decode(errors="replace")

    def _header(self, name: str) -> bytes | None:
        return next((value for header, value in reversed(self.headers) if header == name), None)

    @property
    def request(self) -> bytes | None:
        """Request of the call, if the letter is the answer to a call and the request was kept."""
        return self._header(REQUEST)

    @property
    def origin(self) -> str:
        """Origin of the letter, for people."""
        if topic := self.origin_topic:
            return f"{topic}/{self.header_text('origin.partition')} at {self.header_text('origin.offset')}"
        if timer := self.header_text(TIMER):
            return f"the timer {timer}"
        return f"the answer to the call {self.header_text(CALL)}" if self.header_text(CALL) else ""

    @property
    def origin_topic(self) -> str:
        """Topic of the original record; "" if the letter is a timer or the answer to a call."""
        return self.header_text(TOPIC)

    @property
    def reason(self) -> str:
        """Reason why the record could not be applied."""
        return self.header_text(REASON)

    def own_headers(self) -> list[Header]:
        """Return the headers of the original record."""
        return [(name, value) for name, value in self.headers if not name.startswith(NOTES)]


def dead_letter_key(partition: int, offset: int) -> str:
    """Return the key of a row; the keys of a partition sort by offset."""
    return f"{partition}/{offset:0{OFFSET_DIGITS}d}"


def dead_letter_from(
    at_ms: int, key: bytes | None, value: bytes | None, headers: Sequence[Header], *, signed: bool
) -> DeadLetter:
    """Return the row for a record on the topic of dead letters; truncated if it is too large."""
    letter = DeadLetter(at_ms=at_ms, key=key, value=value, headers=tuple(headers), signed=signed)
    if len(msgspec.json.encode(letter)) <= MAX_ROW_BYTES:
        return letter
    notes = [(name, value) for name, value in headers if name.startswith(NOTES)][-20:]
    return DeadLetter(
        at_ms=at_ms,
        key=_truncated(key),
        value=_truncated(value),
        headers=tuple((name[:TRUNCATED_BYTES], _truncated(value)) for name, value in notes),
        signed=signed,
        complete=False,
    )


def expires_ms(letter: DeadLetter) -> int:
    """Return the time at which the row is deleted, in milliseconds since 1970."""
    return letter.at_ms + RETENTION_MS


def replay_obstacle(letter: DeadLetter, inputs: Collection[str]) -> str:
    """Return the reason why a letter cannot be replayed, with a remedy; "" if it can.

    A record can be replayed to its topic if that is one of ``inputs``. A timer or the answer to a call can be replayed
    to its handler.
    """
    if not letter.signed:
        return "it has no valid signature, so a task did not write it: discard it, and see who may write to the topic"
    topic = letter.origin_topic
    call = letter.header_text(CALL)
    whole = letter.complete and not letter.header_text(CUT) and letter.key is not None and letter.value is not None
    if call and not letter.header_text(BROKE_DOWN):
        return f"it is the answer to the call {call}, whose order had left the tables: ask the party that was called"
    if call and (not whole or letter.request is None):
        return f"it is the answer to a call and too large to be kept: retry the call, `dabbawala calls retry {call}`"
    if letter.header_text(TIMER) and not (letter.header_text(BROKE_DOWN) and whole):
        return "it is a timer that was refused or is not kept whole: look at the order that its key names"
    if call or letter.header_text(TIMER):
        return ""
    if not topic:
        return "its headers do not name the topic of its origin"
    if topic not in inputs:
        return f"it came from {topic}, which no worker reads"
    if not letter.complete or letter.header_text(CUT):
        return f"it is too large to be kept whole; the original is on {letter.origin}"
    return ""


def _truncated(value: bytes | None) -> bytes | None:
    return None if value is None else value[:TRUNCATED_BYTES]
