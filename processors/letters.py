"""What is kept of a dead letter until somebody has seen to it, and what may be done with it.

Whatever bytes lie on the topic, by whomever they were written, make a letter: nothing here raises.
"""

from collections.abc import Collection, Sequence

import msgspec

from topics.dead_letters import BROKE_DOWN, CALL, CUT, NOTES, REASON, REQUEST, TIMER, TOPIC

LARGEST_ROW = 900_000
"""In bytes of JSON, where bytes are base64; Kafka takes 1 MiB. Of a larger letter only the beginning is kept."""
KEPT = 2_000
"""Bytes of each part, of a letter that is too large."""
OFFSET_DIGITS = 20
KEPT_MS = 4 * 7 * 24 * 3600 * 1000
"""As long as the topic keeps it."""

Header = tuple[str, bytes | None]


class Letter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Row `<partition>/<offset>` of the table `dead_letters`."""

    at_ms: int
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[Header, ...] = ()
    whole: bool = True
    """Nothing of it was cut off here."""

    def note(self, name: str) -> str:
        """A header as text, the last of that name: ours come after the record's own. Empty where there is none."""
        return (self._header(name) or b"").decode(errors="replace")

    def _header(self, name: str) -> bytes | None:
        return next((value for header, value in reversed(self.headers) if header == name), None)

    @property
    def request(self) -> bytes | None:
        """What was asked, where it is the answer to a call and that is kept."""
        return self._header(REQUEST)

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        if topic := self.origin_topic:
            return f"{topic}/{self.note('origin.partition')} at {self.note('origin.offset')}"
        if timer := self.note(TIMER):
            return f"the timer {timer}"
        return f"the answer to the call {self.note(CALL)}" if self.note(CALL) else ""

    @property
    def origin_topic(self) -> str:
        """The topic it comes from; empty if from none."""
        return self.note(TOPIC)

    @property
    def reason(self) -> str:
        """Why it lies here."""
        return self.note(REASON)

    def own_headers(self) -> list[Header]:
        """The headers that the record had when it came."""
        return [(name, value) for name, value in self.headers if not name.startswith(NOTES)]


def letter_key(partition: int, offset: int) -> str:
    """The row's key; such keys sort by offset."""
    return f"{partition}/{offset:0{OFFSET_DIGITS}d}"


def letter_of(at_ms: int, key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> Letter:
    """What is kept of a record on the topic of dead letters."""
    letter = Letter(at_ms=at_ms, key=key, value=value, headers=tuple(headers))
    if len(msgspec.json.encode(letter)) <= LARGEST_ROW:
        return letter
    notes = [(name, value) for name, value in headers if name.startswith(NOTES)][-20:]
    return Letter(
        at_ms=at_ms,
        key=_beginning(key),
        value=_beginning(value),
        headers=tuple((name[:KEPT], _beginning(value)) for name, value in notes),
        whole=False,
    )


def expires_ms(letter: Letter) -> int:
    """When it is forgotten, in milliseconds since 1970."""
    return letter.at_ms + KEPT_MS


def why_not_replayable(letter: Letter, inputs: Collection[str]) -> str:
    """Why it cannot be put back, and what helps instead; empty if it can: a record on its topic, one of `inputs`, a
    timer or the answer to a call to whom it was given before."""
    topic = letter.origin_topic
    if topic and (letter.note(CALL) or letter.note(TIMER)):
        return "it says that it came from a topic, and that it came from none: no task has written that"
    call = letter.note(CALL)
    whole = letter.whole and not letter.note(CUT) and letter.key is not None and letter.value is not None
    if call and not letter.note(BROKE_DOWN):
        return f"it is the answer to the call {call}, whose order had left by then: see to it with whoever was asked"
    if call and (not whole or letter.request is None):
        return f"it is the answer to a call, too large to be kept: have that made again, `dabbawala calls retry {call}`"
    if letter.note(TIMER) and not (letter.note(BROKE_DOWN) and whole):
        return "it is a timer that was not applied for a reason: see to the order that its key names"
    if call or letter.note(TIMER):
        return ""
    if not topic:
        return "it does not say which topic it came from"
    if topic not in inputs:
        return f"it came from {topic}, which nobody here reads"
    if not letter.whole or letter.note(CUT):
        return f"it is too large to be kept whole; the original lies on {letter.origin}"
    return ""


def _beginning(value: bytes | None) -> bytes | None:
    return None if value is None else value[:KEPT]
