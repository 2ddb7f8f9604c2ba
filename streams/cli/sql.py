"""`dabbawala sql`: query the committed rows of all workers."""

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.text import Text

from streams.cli.errors import CommandError, NotFound
from streams.cli.kafka import read_settings
from streams.cli.listing import reveal_option, reveal_reason_option
from streams.cli.output import counted, echo, print_json, print_table, print_text, text
from streams.cli.sql_rows import HttpRows
from streams.sql import postgres
from streams.sql.description import columns_of, summaries
from streams.sql.engine import TIMEOUT_S, DuckSession, as_of, open_session
from streams.sql.interfaces import Row, SqlError

BATCH_ROWS = 1000
MAX_TABLE_ROWS = 10_000
"""Rows of a table for people, whose columns are as wide as their widest cell. The other formats have no limit."""
WORD = "describe"


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("statement", nargs=-1)
@click.option("--json", "form", flag_value="json", help="Print one JSON array of objects.")
@click.option("--jsonl", "form", flag_value="jsonl", help="Print a JSON object a line.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, with a line of heads.")
@click.option("--watch", type=click.FloatRange(0.5), metavar="S", help="Run the statement again every S seconds.")
@click.option("--timeout", type=click.FloatRange(1), default=TIMEOUT_S, show_default=True, help="Seconds it may take.")
@click.option("--serve", metavar="HOST:PORT", help="Serve clients of PostgreSQL, such as psql, until Ctrl-C.")
@click.option("--password-file", type=click.Path(path_type=Path), metavar="FILE", help="Password of --serve.")
@reveal_option
@reveal_reason_option
def sql(
    statement: tuple[str, ...],
    form: str | None,
    watch: float | None,
    timeout: float,
    serve: str | None,
    password_file: Path | None,
    reveal: bool,
    reason: str | None,
) -> None:
    """Query the committed rows of all workers in SQL (DuckDB's); without STATEMENT, at a prompt.

    The tables can be read only. `dabbawala sql describe` lists them, `dabbawala sql describe TABLE` their columns.

    \b
    dabbawala sql "select status, count(*), avg(age_s) from orders group by 1"
    dabbawala sql "select * from waiting where needs_person order by age_s desc"
    dabbawala sql --csv "from journal where order_id = 'my-shop:17'"
    dabbawala sql --serve 127.0.0.1:5433
    """
    if reveal and not (reason or "").strip():
        raise CommandError("Personal data needs a reason, which is recorded: add --reason TEXT.")
    words = " ".join(statement).split()
    if serve is not None and (words or form or watch):
        raise CommandError(
            "--serve takes no statement: its clients send theirs. Leave out the statement and its options."
        )
    with TemporaryDirectory(prefix="dabbawala-sql-") as directory:

        def opened(setup: Sequence[str] = ()) -> DuckSession:
            return open_session(HttpRows(reveal, reason), directory=directory, timeout_s=timeout, setup=setup)

        if serve is not None:
            _serve(serve, opened, password_file)
            return
        session = opened()
        try:
            if words and words[0].lower() == WORD and len(words) <= 2:
                describe(session, words[1].rstrip(";") if len(words) == 2 else None, form)
            elif statement:
                _run(session, " ".join(statement), form, watch)
            elif sys.stdin.isatty():
                from streams.cli.sql_prompt import prompt

                prompt(session, lambda text: run_once(session, text, form))
            else:
                _run(session, sys.stdin.read(), form, watch)
        except SqlError as error:
            raise CommandError(f"{error}") from None
        finally:
            session.close()


def _serve(address: str, open_session: Callable[[Sequence[str]], DuckSession], password_file: Path | None) -> None:
    """Serve clients until Ctrl-C. Each has a session with a separate DuckDB."""
    directory = read_settings().directory
    try:
        postgres.serve(address, open_session, directory=directory, echo=echo, password_file=password_file)
    except (postgres.WrongAddress, postgres.WrongPasswordFile) as error:
        raise CommandError(str(error)) from None


def _run(session: DuckSession, statement: str, form: str | None, watch: float | None) -> None:
    if not statement.strip():
        raise CommandError('There is no statement: dabbawala sql "select count(*) from orders".')
    run_once(session, statement, form)
    while watch is not None:
        time.sleep(watch)
        run_once(session, statement, form, clears=form is None)


def run_once(session: DuckSession, statement: str, form: str | None, *, clears: bool = False) -> None:
    """Run a statement, print its rows, and on stderr how many there are; on a cleared terminal if ``clears``.

    Raises `SqlError`.
    """
    began = time.monotonic()
    result = session.run(session.prepare(statement))
    try:
        heads = [column.name for column in result.columns]
        batches = result.batches(BATCH_ROWS)
        first = next(batches, [])
        if clears:
            click.clear()  # does nothing if the output is no terminal
        count = FORMATS[form](heads, _chained(first, batches))
    finally:
        result.close()
    took = f"{counted(count, 'row')}, took {time.monotonic() - began:.2f} s"
    echo(f"{took}, as of {moment}" if (moment := as_of(session)) else took, err=True)


def _chained(first: list[Row], others: Iterator[list[Row]]) -> Iterator[Row]:
    yield from first
    for batch in others:
        yield from batch


# -- formats ---------------------------------------------------------------------------------------------------------


def _print_table(heads: Sequence[str], rows: Iterator[Row]) -> int:
    count = 0
    shown: list[list[Text]] = []
    for row in rows:
        count += 1
        if count > MAX_TABLE_ROWS:
            raise CommandError(f"The result has more than {MAX_TABLE_ROWS} rows: add LIMIT, or --jsonl or --csv.")
        shown.append([text(_cell(value)) for value in row])
    if shown:
        print_table("", heads, shown)
    return count


def _print_json(heads: Sequence[str], rows: Iterator[Row]) -> int:
    found = [_object(heads, row) for row in rows]
    print_json(found)
    return len(found)


def _print_lines(heads: Sequence[str], rows: Iterator[Row]) -> int:
    count = 0
    for row in rows:
        print_text(json.dumps(_object(heads, row), ensure_ascii=False) + "\n")
        count += 1
    return count


def _print_csv(heads: Sequence[str], rows: Iterator[Row]) -> int:
    count = 0
    print_text(_csv_line(heads))
    for row in rows:
        print_text(_csv_line([_cell(value) for value in row]))
        count += 1
    return count


FORMATS: dict[str | None, Callable[[Sequence[str], Iterator[Row]], int]] = {
    None: _print_table,
    "json": _print_json,
    "jsonl": _print_lines,
    "csv": _print_csv,
}
"""Format -> function that prints the rows under these heads, and returns their number."""


def _csv_line(values: Sequence[object]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(["" if value is None else value for value in values])
    return written.getvalue()


def _object(heads: Sequence[str], row: Row) -> dict[str, Any]:
    return {head: _json_value(value) for head, value in zip(heads, row, strict=True)}


def _json_value(value: object) -> Any:
    """Return a value of DuckDB as JSON has it: times in RFC 3339, other types as their text."""
    if isinstance(value, dict):
        return {str(name): _json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _cell(value: object) -> object:
    """Return a value for one cell: nested values as JSON, numbers with few digits after the point."""
    if isinstance(value, dict | list):
        return json.dumps(_json_value(value), ensure_ascii=False)
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S %z") if value.tzinfo else value.isoformat(" ")
    return f"{value:.10g}" if isinstance(value, float) else value


# -- describe --------------------------------------------------------------------------------------------------------


def describe(session: DuckSession, name: str | None, form: str | None) -> None:
    """Print the tables; or the columns of one, with their types and meanings."""
    if name is None:
        rows: list[Sequence[str]] = list(summaries())
        heads: Sequence[str] = ("table", "content")
    else:
        if name not in dict(summaries()):
            raise NotFound(f"There is no table {name}; there are: {', '.join(sorted(dict(summaries())))}.")
        types = [(column.name, column.type) for column in session.prepare(f"SELECT * FROM {name}").columns]
        rows = list(columns_of(name, types))
        heads = ("column", "type", "meaning")
    if form is None:
        print_table(name or "tables", heads, [[text(value) for value in row] for row in rows])
    else:
        FORMATS[form](heads, iter([tuple(row) for row in rows]))
