"""Agent of the topic `dead-letters`: each letter is a row until it is replayed, discarded or expired.

Operators' commands come on the same topic. A command is performed in the transaction that deletes the row, so repeated
commands have no further effect. The agent accepts all records and never raises: the dead letter of a dead letter would
be an endless loop. The one exception is a replayed timer or answer to a call, whose handler may raise. The engine makes
no dead letter of that.
"""

from hmac import compare_digest
from typing import NamedTuple

from exactly_once import Record, Task
from processors.dead_letters import DeadLetter, dead_letter_from, dead_letter_key, expires_ms, replay_obstacle
from processors.decision import Outcome
from processors.timers import TimerKind
from streams.services import Services
from streams.worker.order_workflow import DecisionReply, request_id_of
from topics.dead_letters import BROKE_DOWN, COMMAND, COMMAND_SIGNATURE, LETTER, REASON, SIGNATURE, Command
from topics.headers import OPERATOR_ACTED, REQUEST_ID

TIMER = TimerKind.DEAD_LETTER.value
"""Payload of the timers of dead letters, by which a due timer finds its handler."""
MAX_OFFSET_DIGITS = 19
"""Digits of the largest offset, a signed 64-bit number."""
NOT_REPLAYED = (REQUEST_ID, OPERATOR_ACTED)
"""Headers of the first request, which has had its answer and its record in the audit."""
REPLAYED = "dead_letters_replayed"


class LetterRequest(NamedTuple):
    """An operator's command, and the offset of the letter that it applies to."""

    command: Command
    offset: int


def dead_letters(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Store a dead letter, or replay or discard one if the record is an operator's command."""
    wanted = _letter_request(services, task, record)
    if wanted is None:
        _store(services, task, record)
        return None
    request = request_id_of(record)
    task.answer_on_failure(request, lambda reason: DecisionReply(Outcome.REFUSED, reason, failed=True))
    decision = _perform(services, task, wanted, record)
    task.answer(request, decision)
    return decision


def timer_due(services: Services, task: Task, key: str) -> None:
    """Delete the row of a letter whose retention on the topic is over."""
    services.tables.dead_letters.put(task, key, None)


def _store(services: Services, task: Task, record: Record) -> None:
    at_ms = min(max(0, record.timestamp), task.now_ms)  # a sender may set any timestamp
    letter = dead_letter_from(
        at_ms, record.key, record.value, record.headers, signed=_is_signed(services, task, record)
    )
    key = dead_letter_key(task.partition, record.offset)
    services.tables.dead_letters.put(task, key, letter)
    task.set_timer(expires_ms(letter), key.encode(), TIMER)
    if letter.signed and letter.header_text(BROKE_DOWN):  # the transaction that failed has emitted nothing
        services.audit.report_failure(task, letter.origin_topic, record.key, record.value, record.headers)


def _perform(services: Services, task: Task, wanted: LetterRequest, record: Record) -> DecisionReply:
    key = dead_letter_key(task.partition, wanted.offset)
    letter = services.tables.dead_letters.get(task, key)
    if letter is None:
        if wanted.offset >= record.offset:
            return DecisionReply(Outcome.NOT_FOUND)
        return DecisionReply(Outcome.ABSORBED, "it is not here any more, or never was")
    if wanted.command is Command.REPLAY:
        if obstacle := replay_obstacle(letter, services.input_topics):
            return DecisionReply(Outcome.REFUSED, f"this letter cannot be replayed: {obstacle}")
        _replay(services, task, letter)
        task.count(REPLAYED)
    services.tables.dead_letters.put(task, key, None)
    task.cancel_timer(expires_ms(letter), key.encode())
    return DecisionReply(Outcome.APPLIED)


def _replay(services: Services, task: Task, letter: DeadLetter) -> None:
    """Put a record back on its topic; apply a timer or an answer to a call in this transaction.

    If that fails again, the engine rolls back to before the command, so the letter stays.
    """
    if letter.origin_topic:
        headers = [(name, value or b"") for name, value in letter.own_headers() if name not in NOT_REPLAYED]
        task.emit(letter.origin_topic, letter.key, letter.value, headers)
        return
    key, value = letter.key or b"", letter.value or b""
    if letter.request is None:
        services.engine.timer_handler(task, key, value)
    else:
        services.engine.result_handler(task, key, letter.request, value)


def _is_signed(services: Services, task: Task, record: Record) -> bool:
    """Return whether the last header of a letter is the signature of everything before it."""
    name, signature = record.headers[-1] if record.headers else ("", None)
    if name != SIGNATURE or signature is None:
        return False
    expected = services.tokens.letter_signature(task.partition, record.key, record.value, record.headers[:-1])
    return compare_digest(signature, expected)


def _letter_request(services: Services, task: Task, record: Record) -> LetterRequest | None:
    """Return the operator's command in a record; None for any other record.

    A record with a reason is a letter, even if its sender gave it the headers of a command. So is a command without the
    signature of a view.
    """
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    offset = headers.get(LETTER, "")
    if COMMAND not in headers or REASON in headers:
        return None
    if not offset.isascii() or not offset.isdecimal() or len(offset) > MAX_OFFSET_DIGITS:
        return None
    try:
        wanted = LetterRequest(Command(headers[COMMAND]), int(offset))
    except ValueError:
        return None
    expected = services.tokens.command_signature(
        task.partition, wanted.offset, wanted.command.value, headers.get(REQUEST_ID, "")
    )
    signature = headers.get(COMMAND_SIGNATURE, "").encode(errors="surrogatepass")
    return wanted if compare_digest(signature, expected) else None
