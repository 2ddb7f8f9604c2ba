"""`dabbawala dead-letters`: records that could not be applied, to replay or discard."""

from typing import Any

import click
from rich.text import Text

from streams.cli.client import ask
from streams.cli.errors import CommandError
from streams.cli.listing import list_command
from streams.cli.output import echo, json_option, print_fields, print_json, text, when

MAX_REASON = 100
MAX_KEY = 60
"""Characters shown in a list; a key may have kilobytes. `show` and --json print all of it."""


class LetterId(click.ParamType):
    """PARTITION/OFFSET on the topic of dead letters."""

    name = "letter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id as the API spells it."""
        partition, slash, offset = str(value).partition("/")
        if not slash or not partition.isdecimal() or not offset.isdecimal():
            raise CommandError(f"{value!r} is not the id of a dead letter: use PARTITION/OFFSET, such as 3/1024.")
        return f"{int(partition)}/{int(offset)}"


letter_argument = click.argument("letter", type=LetterId(), metavar="ID")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that could not be applied; replay or discard them.

    An ID is PARTITION/OFFSET on the topic of dead letters.
    """


@dead_letters.command()
@letter_argument
@json_option
def show(letter: str, as_json: bool) -> None:
    """Show one dead letter in full."""
    row = ask(f"/v1/dead-letters/{letter}")
    if as_json:
        print_json(row)
        return
    print_fields(
        row["letter"],
        [
            ("at", when(row["at"])),
            ("from", row["origin"]),
            ("reason", row["reason"]),
            ("cannot be replayed", row["not_replayable"]),
            ("key", _content(row["key"])),
            ("value", _content(row["value"])),
            *((f"header {header['name']}", _content(header["value"])) for header in row["headers"]),
        ],
    )
    done = "discard" if row["not_replayable"] else "replay"
    echo(f"Next: dabbawala dead-letters {done} {row['letter']}", err=True)


@dead_letters.command()
@letter_argument
def replay(letter: str) -> None:
    """Replay a dead letter, once: its record goes back to its topic, unchanged.

    A timer or the answer to a call has no topic and is applied at once.
    """
    answer = ask(f"/v1/dead-letters/{letter}/replay", method="POST")
    echo(f"{letter} {_became(answer, 'is replayed')}")


@dead_letters.command()
@letter_argument
def discard(letter: str) -> None:
    """Discard a dead letter."""
    answer = ask(f"/v1/dead-letters/{letter}/discard", method="POST")
    echo(f"{letter} {_became(answer, 'is discarded')}")


def _became(answer: dict[str, Any], done: str) -> str:
    match answer.get("outcome"):
        case "APPLIED":
            return f"{done}."
        case "ABSORBED":
            return "does not exist, or was replayed or discarded before; nothing to do."
        case _:  # the worker has accepted the command and not applied it yet
            return "is accepted, but not done yet."


def _line(row: dict[str, Any]) -> list[Text]:
    reason = row["reason"].splitlines()[0][:MAX_REASON] if row["reason"] else ""
    return [text(row["letter"]), when(row["at"]), text(row["origin"]), text(_short(_content(row["key"]))), text(reason)]


def _short(key: str | None) -> str | None:
    return key if key is None or len(key) <= MAX_KEY else f"{key[: MAX_KEY - 1]}…"


def _content(content: dict[str, str] | None) -> str | None:
    if content is None:
        return None
    return content["text"] if "text" in content else f"base64: {content['base64']}"


list_command(
    dead_letters,
    "/v1/dead-letters",
    "dead_letters",
    ("letter", "at", "from", "key", "reason"),
    _line,
    help="""List dead letters that are neither replayed nor discarded, partition by partition, oldest first.

    \b
    letter  the id: PARTITION/OFFSET on the topic of dead letters
    from    the topic, partition and offset of the record
    """,
    empty="There are no dead letters.",
    footer=lambda rows: f"Next: dabbawala dead-letters show {rows[0]['letter']}",
)
