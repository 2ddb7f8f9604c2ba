"""`dabbawala kv`: the committed rows of the tables, decoded, of all workers."""

from typing import Any
from urllib.parse import quote

import click
from rich.json import JSON

from streams.cli.client import ask
from streams.cli.errors import NotFound
from streams.cli.listing import reveal_option, reveal_reason_option
from streams.cli.output import echo, json_option, print_json, print_table, text

MAX_ROWS = 10_000

table_argument = click.argument("table", metavar="TABLE")


@click.group()
def kv() -> None:
    """Look at the committed rows of a table: the key and the decoded value of each.

    `dabbawala kv list` without TABLE lists the tables. Personal data is masked without --reveal.
    """


@kv.command()
@table_argument
@click.argument("key", metavar="KEY")
@reveal_option
@reveal_reason_option
def get(table: str, key: str, reveal: bool, reason: str | None) -> None:
    """Print the row of one key as JSON, with its key and partition.

    In `positions`, where each partition has a row of every topic, KEY is a topic; the rows are printed as a list.
    """
    rows = rows_of(table, key, {"exact": True, "limit": MAX_ROWS, "reveal": reveal, "reason": reason})
    if not rows:
        raise no_row(table, key)
    shown = [{"table": table, "key": row["key"], "partition": row["partition"], "row": row["row"]} for row in rows]
    print_json(shown if len(shown) > 1 else shown[0])


@kv.command("list")
@click.argument("table", metavar="[TABLE]", required=False)
@click.option("--prefix", metavar="P", help="List rows whose keys begin with P only.")
@click.option("--limit", type=click.IntRange(1, MAX_ROWS), default=100, show_default=True, help="Rows at most.")
@reveal_option
@reveal_reason_option
@json_option
def list_rows(
    table: str | None, prefix: str | None, limit: int, reveal: bool, reason: str | None, as_json: bool
) -> None:
    """List rows of a table, partition by partition, in the order of their keys; without TABLE, the tables."""
    if table is None:
        _list_tables(as_json)
        return
    # one more row shows that there are more
    found = rows_of(
        table,
        None,
        {"prefix": prefix, "limit": min(limit + 1, MAX_ROWS), "reveal": reveal, "reason": reason},
    )
    rows = sorted(found, key=lambda row: row["partition"])[:limit]
    if as_json:
        print_json({"table": table, "rows": rows})
    elif not rows:
        echo(f"Table {table} has no such row." if prefix else f"Table {table} is empty.", err=True)
    else:
        print_rows(table, rows)
    if len(found) > limit:
        echo(f"There are more rows than {limit}: use --prefix, or a higher --limit.", err=True)


def rows_of(table: str, key: str | None, query: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows of a table, each with `partition`, `key` and `row`: of one owner, or of all without a key."""
    rows: list[dict[str, Any]] = ask(f"/table/{quote(table, safe='')}/{quote(key or '', safe='')}", query)["rows"]
    return rows


def print_rows(table: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    lines = ([text(row["key"]), text(row["partition"]), JSON.from_data(row["row"], indent=None).text] for row in rows)
    print_table(table, ("key", "partition", "row"), lines)


def no_row(table: str, key: str) -> NotFound:
    """Return the error for a key without a row."""
    return NotFound(f"Table {table} has no row of {key!r}.")


def _list_tables(as_json: bool) -> None:
    found = ask("/table/")
    if as_json:
        print_json(found)
    else:
        print_table("tables", ("table", "rows"), ([text(row["name"]), text(row["help"])] for row in found["tables"]))
