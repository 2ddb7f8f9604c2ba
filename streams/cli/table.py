"""`faust -A streams.app table NAME [KEY]`: `dabbawala kv` as Faust users type it."""

import json
import sys

import click
from faust.cli.base import argument, option

from streams.cli.command import Command
from streams.cli.errors import CommandError
from streams.cli.kv import MAX_ROWS, no_row, print_rows, rows_of


class table(Command):
    """Print the decoded rows of a table; with KEY, the rows of one order, driver or region."""

    options = [  # noqa: RUF012  (Faust's way to declare them)
        argument("name"),
        argument("key", required=False),
        option("--limit", type=click.IntRange(1, MAX_ROWS), default=100, help="Rows of each worker at most."),
        option("--reveal", is_flag=True, help="Show personal data, and record that in the audit."),
        option("--reason", help="The reason for --reveal, for the audit."),
    ]

    def perform(self, name: str, key: str | None, limit: int, reveal: bool, reason: str | None) -> None:
        """Print the rows of every worker."""
        if name not in self.app.tables:
            raise CommandError(f"There is no table {name!r}. The tables are: {', '.join(sorted(self.app.tables))}.")
        rows = rows_of(name, key, {"limit": limit, "reveal": reveal, "reason": reason})
        if self.json:
            print(json.dumps(rows))
        elif not rows and key:
            raise no_row(name, key)
        elif not rows:
            print(f"Table {name} is empty.", file=sys.stderr)
        else:
            print_rows(name, rows)
