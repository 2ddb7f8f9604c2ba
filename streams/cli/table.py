"""`faust -A streams.app table NAME [KEY]`: the rows of a table, decoded, as the running workers have them."""

import json
import os
from typing import Any
from urllib.parse import quote

import click
import httpx
from faust.cli.base import argument, option
from rich.console import Console
from rich.json import JSON
from rich.table import Table

from streams.app import app, settings
from streams.cli.command import Command
from streams.cli.errors import CommandError
from streams.embedded.slots import worker_urls
from streams.settings import Settings

TIMEOUT_S = 10.0


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
        address = f"{worker_url(settings)}/table/{quote(name)}/"
        found = _get(address + quote(key or "", safe=""), {"limit": str(limit)})
        rows = found["rows"]
        if self.json:
            print(json.dumps(rows))
        elif not rows:
            raise CommandError(f"Table {name} has no row of {key!r}." if key else f"Table {name} is empty.")
        else:
            _print(name, rows)


def worker_url(settings: Settings) -> str:
    """Where a worker listens: `DABBAWALA_URL`, else the first one that runs on this machine."""
    if url := os.environ.get("DABBAWALA_URL"):
        return url.rstrip("/")
    if urls := worker_urls(settings.directory):
        return urls[0]
    raise CommandError(
        f"No worker runs under {settings.directory}: start one with `make worker`, or name one in DABBAWALA_URL."
    )


def _get(address: str, query: dict[str, str]) -> Any:
    try:
        answer = httpx.get(address, params=query, headers={"Accept": "application/json"}, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        raise CommandError(f"{address} does not answer ({type(error).__name__}): is the worker running?") from None
    if answer.status_code != httpx.codes.OK:
        raise CommandError(f"{address} says: {answer.json().get('detail', answer.text)}")
    return answer.json()


def _print(name: str, rows: list[dict[str, Any]]) -> None:
    drawn = Table("partition", "key", "row", title=name)
    for row in rows:
        drawn.add_row(str(row["partition"]), row["key"], JSON.from_data(row["row"], indent=None))
    Console().print(drawn)
