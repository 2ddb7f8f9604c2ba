"""`dabbawala dead-letters`: records that could not be applied, to replay or discard."""

import json
from typing import Any

import click
import msgspec
from rich.text import Text

from streams.cli.client import ask
from streams.cli.errors import CommandError
from streams.cli.listing import list_command, reveal_option, reveal_reason_option
from streams.cli.output import counted, echo, json_option, print_fields, print_json, text, when

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


reason_option = click.option("--reason", metavar="TEXT", help="The reason, for the audit.")
letter_argument = click.argument("letter", type=LetterId(), metavar="ID")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at records that could not be applied; replay or discard them.

    An ID is PARTITION/OFFSET on the topic of dead letters.
    """


@dead_letters.command()
@letter_argument
@reveal_option
@reveal_reason_option
@json_option
def show(letter: str, reveal: bool, reason: str | None, as_json: bool) -> None:
    """Show one dead letter: with --reveal in full, else without the texts that may be personal data."""
    row = ask(f"/v1/dead-letters/{letter}", {"reveal": reveal, "reason": reason})
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
            ("fields of the value", json.dumps(fields, ensure_ascii=False) if (fields := row.get("fields")) else None),
            *((f"header {header['name']}", _content(header["value"])) for header in row["headers"]),
        ],
    )
    done = "discard" if row["not_replayable"] else "replay"
    echo(f"Next: dabbawala dead-letters {done} {row['letter']}", err=True)


@dead_letters.command()
@letter_argument
@reason_option
def replay(letter: str, reason: str | None) -> None:
    """Replay a dead letter, once: its record goes back to its topic, unchanged.

    A timer or the answer to a call has no topic and is applied at once.
    """
    answer = _command(letter, "replay", reason)
    echo(f"{letter} {_became(answer, 'is replayed')}")


@dead_letters.command()
@letter_argument
@reason_option
def discard(letter: str, reason: str | None) -> None:
    """Discard a dead letter."""
    answer = _command(letter, "discard", reason)
    echo(f"{letter} {_became(answer, 'is discarded')}")


def _command(letter: str, command: str, reason: str | None) -> dict[str, Any]:
    body = msgspec.json.encode({"reason": reason or ""})
    answer: dict[str, Any] = ask(f"/v1/dead-letters/{letter}/{command}", method="POST", body=body)
    return answer


def _became(answer: dict[str, Any], done: str) -> str:
    match answer.get("outcome"):
        case "APPLIED":
            return f"{done}."
        case "ABSORBED":
            return "does not exist, or was replayed or discarded before; nothing to do."
        case _:  # the worker has accepted the command and not applied it yet
            return "is accepted, but not done yet."


def _line(row: dict[str, Any]) -> list[Text]:
    key, reason = _content(row["key"]), row["reason"].splitlines()[0] if row["reason"] else ""
    shown = (text(key and _short(key, MAX_KEY)), text(_short(reason, MAX_REASON)))
    return [text(row["letter"]), when(row["at"]), text(row["origin"]), *shown]


def _short(line: str, longest: int) -> str:
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _content(content: dict[str, str] | None) -> str | None:
    if content is None:
        return None
    if "hidden_bytes" in content:
        return f"hidden, {counted(int(content['hidden_bytes']), 'byte')}"
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
    options=(reveal_option, reveal_reason_option),
    footer=lambda rows: f"Next: dabbawala dead-letters show {rows[0]['letter']}",
)
