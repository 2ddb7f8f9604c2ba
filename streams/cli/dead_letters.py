"""`dabbawala dead-letters`: what could not be applied, and what to do with it."""

from typing import Any

import click
from rich.text import Text

from streams.cli.asking import ask, ask_list
from streams.cli.errors import CommandError
from streams.cli.showing import (
    all_option,
    cursor_option,
    json_option,
    limit_option,
    print_fields,
    print_json,
    print_table,
    tell_more,
    text,
    when,
)

SHOWN_REASON = 100
SHOWN_KEY = 60
"""Characters of it in a list; a key may be anything, kilobytes too. `show` and --json have it whole."""


class LetterId(click.ParamType):
    """PARTITION/OFFSET, where it lies on the topic of dead letters."""

    name = "letter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id as the API has it."""
        partition, slash, offset = str(value).partition("/")
        if not slash or not partition.isdecimal() or not offset.isdecimal():
            raise CommandError(f"{value!r} is no dead letter's id: that is PARTITION/OFFSET, as in 3/1024.")
        return f"{int(partition)}/{int(offset)}"


letter_argument = click.argument("letter", type=LetterId(), metavar="ID")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at what could not be applied; have it applied after all, or throw it away.

    An ID is PARTITION/OFFSET, where the letter lies on the topic of dead letters.
    """


@dead_letters.command("list")
@limit_option
@cursor_option
@all_option
@json_option
@click.pass_context
def list_letters(ctx: click.Context, limit: int, cursor: str | None, every: bool, as_json: bool) -> None:
    """List the dead letters that nobody has seen to."""
    query = {"limit": limit, "cursor": cursor}
    page = ask_list("/v1/dead-letters", "dead_letters", query, every=every)
    if as_json:
        print_json(page)
    elif not page["dead_letters"]:
        click.echo("There are no dead letters.", err=True)
    else:
        heads = ("letter", "at", "from", "key", "reason")
        print_table("dead letters", heads, (_line(row) for row in page["dead_letters"]))
        tell_more(ctx.command_path, page["next"])


@dead_letters.command()
@letter_argument
@json_option
def show(letter: str, as_json: bool) -> None:
    """Show a dead letter whole."""
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


@dead_letters.command()
@letter_argument
def replay(letter: str) -> None:
    """Put a dead letter back as it was, once: on the topic that it came from.

    One that came from none, a timer or the answer to a call, is applied at once.
    """
    answer = ask(f"/v1/dead-letters/{letter}/replay", method="POST")
    click.echo(f"{letter} {_became(answer, 'is put back')}")


@dead_letters.command()
@letter_argument
def discard(letter: str) -> None:
    """Throw a dead letter away."""
    answer = ask(f"/v1/dead-letters/{letter}/discard", method="POST")
    click.echo(f"{letter} {_became(answer, 'is discarded')}")


def _became(answer: dict[str, Any], done: str) -> str:
    match answer.get("outcome"):
        case "APPLIED":
            return f"{done}."
        case "ABSORBED":
            return "is not here any more, or never was; nothing was done."
        case _:  # the worker has not decided in time
            return "will be seen to: that is noted, and not done yet."


def _line(row: dict[str, Any]) -> list[Text]:
    reason = row["reason"].splitlines()[0][:SHOWN_REASON] if row["reason"] else ""
    return [text(row["letter"]), when(row["at"]), text(row["origin"]), text(_short(_content(row["key"]))), text(reason)]


def _short(key: str | None) -> str | None:
    return key if key is None or len(key) <= SHOWN_KEY else f"{key[: SHOWN_KEY - 1]}…"


def _content(content: dict[str, str] | None) -> str | None:
    if content is None:
        return None
    return content["text"] if "text" in content else f"base64: {content['base64']}"
