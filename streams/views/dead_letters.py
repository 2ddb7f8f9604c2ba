"""What could not be applied: looking at it, having it applied after all, throwing it away."""

from typing import Any

from aiohttp import web

from processors.letters import Letter, letter_key, why_not_replayable
from streams import tables
from streams.agents.dead_letters import LONGEST_OFFSET, input_topics
from streams.app import app, engine
from streams.problems import Problem
from streams.views.ask import ApiView, answered, decided, elsewhere_by_partition, respond, send
from streams.views.listing import Listing
from streams.views.numbers import whole_number
from streams.workflow import REQUEST
from topics.dead_letters import COMMAND, LETTER, Command
from topics.families import DEAD_LETTERS
from topics.records import instant


@app.page("/v1/dead-letters")
class DeadLetters(ApiView):
    """Those that nobody has seen to."""

    async def get(self, request: web.Request) -> web.Response:
        """Partition by partition, the oldest first."""
        return await listing.answer(request)


@app.page("/v1/dead-letters/{partition}/{offset}")
class DeadLetter(ApiView):
    """One of them."""

    async def get(self, request: web.Request, partition: str, offset: str) -> web.Response:
        """All of it. What is not UTF-8 is in base64."""
        place = _place(partition, offset)
        if (answer := await elsewhere_by_partition(request, place[0])) is not None:
            return answer
        letter = tables.dead_letters.read_in(place[0], letter_key(*place))
        if letter is None:
            raise Problem(404, "unknown", f"the dead letter {place[0]}/{place[1]} is not here any more, or never was")
        headers = [{"name": name, "value": _content(value)} for name, value in letter.headers]
        return respond(
            200, {**_summary(letter_key(*place), letter), "value": _content(letter.value), "headers": headers}
        )


@app.page("/v1/dead-letters/{partition}/{offset}/{command:replay|discard}")
class LetterCommand(ApiView):
    """What is to become of one."""

    async def post(self, request: web.Request, partition: str, offset: str, command: str) -> web.Response:
        """Done once: again, it is 200 and ABSORBED, and so is one that is not here any more, or never was."""
        place = _place(partition, offset)
        if (answer := await elsewhere_by_partition(request, place[0])) is not None:
            return answer
        letter, wish = f"{place[0]}/{place[1]}", Command(command)

        async def ask(waiting: str) -> None:
            headers = {COMMAND: wish.value.encode(), LETTER: b"%d" % place[1], REQUEST: waiting.encode()}
            await send(DEAD_LETTERS, letter.encode(), wish.value.encode(), headers, partition=place[0])

        return answered(await decided(ask), f"dead letter {letter}", f"/v1/dead-letters/{letter}", {"letter": letter})


def _place(partition: str, offset: str) -> tuple[int, int]:
    number, place = whole_number(partition), whole_number(offset)
    if number is None or number >= engine.partitions or place is None or len(offset) > LONGEST_OFFSET:
        raise Problem(404, "unknown", f"{partition}/{offset} cannot be a dead letter: that is partition/offset")
    return number, place


def _summary(key: str, letter: Letter) -> dict[str, Any]:
    partition, _, offset = key.partition("/")
    return {
        "letter": f"{partition}/{int(offset)}",
        "at": instant(letter.at_ms),
        "origin": letter.origin,
        "reason": letter.reason,
        "not_replayable": why_not_replayable(letter, input_topics) or None,
        "key": _content(letter.key),
    }


def _content(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": content}


listing: Listing[tuple[str, Letter]] = Listing(
    tables.dead_letters.name,
    "dead_letters",
    lambda key, value: (key.decode(), tables.dead_letters.decode(key.decode(), value)),
    lambda _, row: _summary(*row),
)
