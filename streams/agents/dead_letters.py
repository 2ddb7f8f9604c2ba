"""The `dead-letters` topic: each letter is a row until somebody has seen to it or the topic keeps it no longer.

What operators want done with a letter comes on the same topic, so it is done in the transaction that deletes the row:
once, however often it is asked for. Whatever lies on the topic is taken; nothing here raises, for the letter of a
letter would go round in circles. Only the handler to which a timer or the answer to a call is given once more may: the
engine makes no letter of that.
"""

from typing import NamedTuple

from processors.decision import Outcome
from processors.letters import Letter, expires_ms, letter_key, letter_of, why_not_replayable
from streams import tables
from streams.app import dead_letters as topic
from streams.app import engine, topic_of
from streams.engine import Record, Task
from streams.workflow import REQUEST, Told, request_of
from topics.dead_letters import COMMAND, LETTER, REASON, Command
from topics.families import INPUTS
from topics.identity import owner_of

TIMER: bytes = b"dead-letter"
"""Marks the timers of dead letters among those of the task."""
LONGEST_OFFSET = 19
"""Digits of the largest there can be."""
REPLAYED = "dead_letters_replayed"
input_topics = frozenset(topic_of(family) for family in INPUTS)


class Wish(NamedTuple):
    """What is to become of the letter at this offset."""

    command: Command
    offset: int


@engine.agent(topic)
def dead_letters(task: Task, record: Record) -> None:
    """Keep letters; put one back where it came from, or throw it away, where that is asked for."""
    wish = _wish(record)
    if wish is None:
        _keep(task, record)
        return
    request = request_of(record)
    task.answer_if_undone(request, lambda reason: Told(Outcome.REFUSED, reason, failed=True))
    task.answer(request, _fulfil(task, wish, record))


def timer_due(task: Task, key: str) -> None:
    """Forget a letter that the topic keeps no longer."""
    tables.dead_letters.put(task, key, None)


def _keep(task: Task, record: Record) -> None:
    at_ms = min(max(0, record.timestamp), task.now_ms)  # the sender's word, in any amount
    letter = letter_of(at_ms, record.key, record.value, record.headers)
    key = letter_key(task.partition, record.offset)
    tables.dead_letters.put(task, key, letter)
    task.set_timer(expires_ms(letter), key.encode(), TIMER)


def _fulfil(task: Task, wish: Wish, record: Record) -> Told:
    key = letter_key(task.partition, wish.offset)
    letter = tables.dead_letters.get(task, key)
    if letter is None:
        if wish.offset >= record.offset:
            return Told(Outcome.UNKNOWN)
        return Told(Outcome.ABSORBED, "it is not here any more, or never was")
    if wish.command is Command.REPLAY:
        if obstacle := why_not_replayable(letter, input_topics) or _strange(task, letter):
            return Told(Outcome.REFUSED, f"this letter cannot be replayed: {obstacle}")
        _replay(task, letter)
        task.count(REPLAYED)
    tables.dead_letters.put(task, key, None)
    task.cancel_timer(expires_ms(letter), key.encode())
    return Told(Outcome.APPLIED)


def _strange(task: Task, letter: Letter) -> str:
    """Why no task can have set this aside here; empty if this one can."""
    owner = owner_of((letter.key or b"").decode(errors="replace")).encode()
    return "" if letter.origin_topic or task.belongs(owner) else f"{letter.origin} is another partition's"


def _replay(task: Task, letter: Letter) -> None:
    """A record goes back on its topic. What was none is applied here and now: if that breaks down again, all of it is
    undone, and the letter is still there."""
    if letter.origin_topic:
        headers = [(name, value or b"") for name, value in letter.own_headers() if name != REQUEST]
        task.emit(letter.origin_topic, letter.key, letter.value, headers)
        return
    key, value = letter.key or b"", letter.value or b""
    if letter.request is None:
        engine.timer_handler(task, key, value)
    else:
        engine.result_handler(task, key, letter.request, value)


def _wish(record: Record) -> Wish | None:
    """What the record asks for; None if it is a letter, whatever headers its sender gave it, or anything else that
    somebody has put here."""
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    offset = headers.get(LETTER, "")
    if COMMAND not in headers or REASON in headers:
        return None
    if not offset.isascii() or not offset.isdecimal() or len(offset) > LONGEST_OFFSET:
        return None
    try:
        return Wish(Command(headers[COMMAND]), int(offset))
    except ValueError:
        return None
