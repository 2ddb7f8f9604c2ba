"""`faust -A streams.app table NAME [KEY]`: the decoded rows of a table, from the running workers."""

import json
import sys
from typing import Any
from urllib.parse import quote

import click
from faust.cli.base import argument, option
from rich.json import JSON

from streams.cli.client import ask
from streams.cli.command import Command
from streams.cli.errors import CommandError, NotFound
from streams.cli.output import print_table, text


class table(Command):
    """Print the decoded rows of a table; with KEY, the rows of one order, driver or region."""

    options = [  # noqa: RUF012  (Faust's way to declare them)
        argument("name"),
        argument("key", required=False),
        option("--limit", type=click.IntRange(1, 10_000), default=100, help="Rows of each worker at most."),
        option("--reveal", is_flag=True, help="Show personal data, and record that in the audit."),
        option("--reason", help="The reason for --reveal, for the audit."),
    ]

    def perform(self, name: str, key: str | None, limit: int, reveal: bool, reason: str | None) -> None:
        """Print the rows of every worker."""
        if name not in self.app.tables:
            raise CommandError(f"There is no table {name!r}. The tables are: {', '.join(sorted(self.app.tables))}.")
        query = {"limit": limit, "reveal": reveal, "reason": reason}
        rows = ask(f"/table/{quote(name)}/{quote(key or '', safe='')}", query)["rows"]
        if self.json:
            print(json.dumps(rows))
        elif not rows and key:
            raise NotFound(f"Table {name} has no row of {key!r}.")
        elif not rows:
            print(f"Table {name} is empty.", file=sys.stderr)
        else:
            _print(name, rows)


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    lines = ([text(row["key"]), text(row["partition"]), JSON.from_data(row["row"], indent=None).text] for row in rows)
    print_table(name, ("key", "partition", "row"), lines)
