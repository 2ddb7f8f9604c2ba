"""Records, timers and answers to calls that could not be applied."""

from typing import Any

import msgspec
from aiohttp import web

from processors.dead_letters import DeadLetter, dead_letter_key, replay_obstacle
from streams.agents.dead_letters import MAX_OFFSET_DIGITS
from streams.services import Services
from streams.views.api_view import ApiView
from streams.web.deciding import Decided, to_response
from streams.web.listing import PAGE_QUERY, Listing
from streams.web.masking import masked, masked_fields
from streams.web.numbers import whole_number
from streams.web.operation import operation
from streams.web.operators import OPERATOR_NOTE, OperatorNote, action_of, failed, sees_personal_data
from streams.web.problems import Problem
from streams.web.requests import read_body, respond
from topics.dead_letters import COMMAND, COMMAND_SIGNATURE, LETTER, Command
from topics.families import DEAD_LETTERS, INPUTS
from topics.headers import REQUEST_ID
from topics.records import Instant, instant


class Content(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bytes, as `text` if they are UTF-8 and otherwise as `base64`, or the number of bytes that are hidden."""

    text: str | None = None
    base64: bytes | None = None
    hidden_bytes: int | None = None


class LetterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter."""

    letter: str
    at: Instant
    origin: str
    reason: str
    not_replayable: str | None
    key: Content | None


class LetterPage(msgspec.Struct, frozen=True):
    """Page of the list of dead letters."""

    dead_letters: list[LetterSummary]
    next: str | None


class LetterHeader(msgspec.Struct, frozen=True):
    """A header of a dead letter."""

    name: str
    value: Content | None


class ShownLetter(LetterSummary, frozen=True, kw_only=True):
    """A dead letter with its value and headers."""

    value: Content | None
    fields: dict[str, Any]
    headers: list[LetterHeader]


class PendingLetter(msgspec.Struct, frozen=True):
    """A dead letter with a command that is not decided on yet."""

    letter: str


class DecidedLetter(msgspec.Struct, frozen=True):
    """The decision on a command for a dead letter."""

    letter: str
    outcome: Decided


class DeadLetters(ApiView):
    """All dead letters."""

    scans = True
    is_personal = True

    @operation("listDeadLetters", {200: LetterPage}, query=PAGE_QUERY)
    async def get(self, request: web.Request) -> web.Response:
        """List the dead letters that are neither replayed, discarded nor expired, page by page.

        They are sorted by partition, the oldest first.

        - 200: `{"dead_letters": [...], "next"}`. Each has `letter` (`PARTITION/OFFSET`), `at`, `origin`, `reason`,
          `not_replayable` (the obstacle and the remedy; null if it can be replayed) and `key`. A key or value is null,
          `{"text": ...}` if it is UTF-8, and otherwise `{"base64": ...}`. Unless an operator reveals it, a key that is
          no id is `{"hidden_bytes": SIZE}`, and the reason of a failure is the class of the exception.
        """
        return await listing(self.services, exact=sees_personal_data(request)).answer(request)


class DeadLetterDetail(ApiView):
    """One dead letter."""

    is_personal = True

    @operation("getDeadLetter", {200: ShownLetter})
    async def get(self, request: web.Request, partition: str, offset: str) -> web.Response:
        """Return a dead letter with its value and headers.

        - 200: the fields of the list, `value`, `fields` and `headers`, a list of `{"name", "value"}`. Unless an
          operator reveals them, the value, the headers of the record and the text of an exception are
          `{"hidden_bytes": SIZE}`; `fields` are those of the record that could be decoded, masked.
        - 404: this cannot be the id of a dead letter, or the letter does not exist or no longer does.
        """
        place = _place(self.services, partition, offset)
        if (answer := await self.services.forwarding.forward_to_partition(request, place[0])) is not None:
            return answer
        letter = self.services.tables.dead_letters.read_in(place[0], dead_letter_key(*place))
        if letter is None:
            raise Problem(404, "unknown", f"the dead letter {place[0]}/{place[1]} is not here any more, or never was")
        exact = sees_personal_data(request)
        shown = letter if exact else masked(letter)
        found = ShownLetter(
            **msgspec.structs.asdict(_summary(self.services, dead_letter_key(*place), letter, exact=exact)),
            value=_content(shown.value),
            fields={} if exact else _fields(self.services, letter),
            headers=[LetterHeader(name, _content(value)) for name, value in shown.headers],
        )
        return respond(200, found)


class LetterCommand(ApiView):
    """An operator's command for a dead letter."""

    @operation("commandDeadLetter", {200: DecidedLetter, 202: PendingLetter}, body=OperatorNote)
    async def post(self, request: web.Request, partition: str, offset: str, command: str) -> web.Response:
        """Replay a dead letter, or discard it; exactly once, however often it is requested.

        A replayed record goes back to its topic. A timer or the answer to a call is applied at once. The body may hold
        a `reason` for the audit, of at most 1000 characters.

        - 200: the command is applied: `{"letter", "outcome"}`. `outcome` is `ABSORBED` if the letter no longer exists,
          or never did.
        - 404: this cannot be the id of a dead letter, or its offset lies behind the end of the topic.
        - 409: the letter cannot be replayed; `detail` gives the obstacle and the remedy.
        - 500: a timer or answer failed again; the letter stays.
        """
        place = _place(self.services, partition, offset)
        note = await read_body(request, OPERATOR_NOTE)
        if (answer := await self.services.forwarding.forward_to_partition(request, place[0])) is not None:
            return answer
        letter, wanted = f"{place[0]}/{place[1]}", Command(command)
        acted = action_of(request, self.services.new_id, letter, note.reason)

        async def produce(request_id: str) -> None:
            signature = self.services.tokens.command_signature(*place, wanted.value, request_id)
            headers = {
                COMMAND: wanted.value.encode(),
                LETTER: b"%d" % place[1],
                REQUEST_ID: request_id.encode(),
                COMMAND_SIGNATURE: signature,
            }
            await self.services.decisions.send(
                DEAD_LETTERS, letter.encode(), wanted.value.encode(), headers, partition=place[0], acted=acted
            )

        decision = await self.services.decisions.submit_with(produce)
        if decision is not None and decision.failed and acted is not None:  # its transaction was rolled back
            await self.services.decisions.write_audit(failed(acted, self.services.now_ms()))
        return to_response(
            decision,
            f"dead letter {letter}",
            f"/v1/dead-letters/{letter}",
            {"letter": letter},
        )


def _place(services: Services, partition: str, offset: str) -> tuple[int, int]:
    """Return partition and offset of a letter as numbers. Raises a 404 problem if they cannot be those of one."""
    number, place = whole_number(partition), whole_number(offset)
    if number is None or number >= services.engine.partitions or place is None or len(offset) > MAX_OFFSET_DIGITS:
        ids = f"an id is PARTITION/OFFSET, with a partition from 0 to {services.engine.partitions - 1}"
        raise Problem(404, "unknown", f"there is no dead letter {partition}/{offset}: {ids}")
    return number, place


def _fields(services: Services, letter: DeadLetter) -> dict[str, Any]:
    """Return what can be shown of a record that was set aside."""
    family = next((each for each in INPUTS if services.topic_name(each) == letter.origin_topic), None)
    return {} if family is None or family.reader is None else masked_fields(family.reader, letter.value)


def _summary(services: Services, key: str, letter: DeadLetter, *, exact: bool) -> LetterSummary:
    partition, _, offset = key.partition("/")
    shown = letter if exact else masked(letter)
    return LetterSummary(
        letter=f"{partition}/{int(offset)}",
        at=instant(letter.at_ms),
        origin=letter.origin,
        reason=shown.reason,
        not_replayable=replay_obstacle(letter, services.input_topics) or None,
        key=_content(shown.key),
    )


def _content(content: bytes | dict[str, int] | None) -> Content | None:
    """Return bytes as text or base64, and the size of what is hidden as it is."""
    if content is None:
        return None
    if not isinstance(content, bytes):
        return Content(hidden_bytes=content["hidden_bytes"])
    try:
        return Content(text=content.decode())
    except UnicodeDecodeError:
        return Content(base64=content)


def listing(services: Services, *, exact: bool) -> Listing[tuple[str, DeadLetter]]:
    """Return the list of all dead letters, with the table and the form of its rows; ``exact`` hides nothing."""
    return Listing(
        services.engine,
        services.forwarding,
        services.tables.dead_letters.name,
        "dead_letters",
        lambda key, value: (key.decode(), services.tables.dead_letters.decode(key.decode(), value)),
        lambda _, row: _summary(services, *row, exact=exact),
    )
