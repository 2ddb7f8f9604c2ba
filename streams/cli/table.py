"""`faust -A streams.app table NAME [KEY]`: the rows of a table, decoded, as the running workers have them."""

import json
import sys
from typing import Any
from urllib.parse import quote

import click
from faust.cli.base import argument, option
from rich.json import JSON

from streams.app import app
from streams.cli.asking import ask
from streams.cli.command import Command
from streams.cli.errors import CommandError, NotThere
from streams.cli.showing import print_table, text


class table(Command):
    """Print the decoded rows of a table; with KEY, those of one order, driver or region."""

    options = [  # noqa: RUF012  (Faust's way to declare them)
        argument("name"),
        argument("key", required=False),
        option("--limit", type=click.IntRange(1, 10_000), default=100, help="Rows at most, of each worker."),
    ]

    def perform(self, name: str, key: str | None, limit: int) -> None:
        """Ask a worker, which asks the others."""
        if name not in app.tables:
            raise CommandError(f"There is no table {name!r}; there are: {', '.join(sorted(app.tables))}.")
        rows = ask(f"/table/{quote(name)}/{quote(key or '', safe='')}", {"limit": limit})["rows"]
        if self.json:
            print(json.dumps(rows))
        elif not rows and key:
            raise NotThere(f"Table {name} has no row of {key!r}.")
        elif not rows:
            print(f"Table {name} is empty.", file=sys.stderr)
        else:
            _print(name, rows)


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    lines = ([text(row["key"]), text(row["partition"]), JSON.from_data(row["row"], indent=None).text] for row in rows)
    print_table(name, ("key", "partition", "row"), lines)
