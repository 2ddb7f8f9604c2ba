"""The `list` commands: one page of a list of the API, as a table or as JSON."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from streams.cli.client import ask_list
from streams.cli.output import echo, json_option, print_json, print_next_page_hint, print_table

limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Rows on a page."
)
cursor_option = click.option("--cursor", metavar="CURSOR", help="Start after the previous page, which printed CURSOR.")
reveal_option = click.option("--reveal", is_flag=True, help="Show personal data, and record that in the audit.")
reveal_reason_option = click.option("--reason", metavar="TEXT", help="The reason for --reveal, for the audit.")
all_option = click.option("--all", "every", is_flag=True, help="List every row, page after page.")


def list_command(
    group: click.Group,
    path: str,
    member: str,
    heads: Sequence[str],
    line: Callable[[dict[str, Any]], Sequence[Text]],
    *,
    help: str,
    empty: str,
    options: Sequence[Callable[[Any], Any]] = (),
    query: Mapping[str, Any] | None = None,
    footer: Callable[[list[dict[str, Any]]], str] = lambda _: "",
) -> None:
    """Add a command `list` to a group.

    The rows are those of ``path``, under ``member``; ``line`` makes the cells of a row, under ``heads``. The values of
    ``options`` become query parameters of the same names, beside those of ``query``. ``empty`` is printed for an empty
    list; ``footer`` makes a last line from the rows, printed on stderr.
    """

    def run(ctx: click.Context, /, limit: int, cursor: str | None, every: bool, as_json: bool, **filters: Any) -> None:
        wanted = {**(query or {}), **filters, "limit": limit, "cursor": cursor}
        page = ask_list(path, member, wanted, every=every)
        rows = page[member]
        if as_json:
            print_json(page)
        elif not rows:
            echo(empty, err=True)
        else:
            print_table(member.replace("_", " "), heads, map(line, rows))
            if last := footer(rows):
                echo(last, err=True)
            print_next_page_hint(ctx.command_path, page["next"])

    command = click.pass_context(run)
    for option in reversed((*options, limit_option, cursor_option, all_option, json_option)):
        command = option(command)
    group.command("list", help=help)(command)
