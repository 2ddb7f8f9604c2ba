"""The prompt of `dabbawala sql`: statements of several lines that end with a semicolon, a history, completion."""

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory

from streams.access.keys import write_private
from streams.cli.errors import CommandError
from streams.cli.kafka import read_settings
from streams.cli.output import echo
from streams.sql.engine import DuckSession
from streams.sql.interfaces import SqlError
from streams.sql.tables import TABLES, VIEWS

MAX_HISTORY_BYTES = 1 << 20
LEAVE = re.compile(r"\s*(?:exit|quit|\\q)\s*;?\s*", re.IGNORECASE)
WORD = re.compile(r"\w+")


def prompt(session: DuckSession, run: Callable[[str], None]) -> None:
    """Take statements until Ctrl-D or `exit`. Ctrl-C ends the statement under way, or clears the line."""
    reading: PromptSession[str] = PromptSession(
        history=FileHistory(str(history_file())),
        completer=WordCompleter(words(), ignore_case=True, pattern=WORD),
        complete_while_typing=False,
        multiline=Condition(lambda: not is_complete(reading.default_buffer.text)),
        prompt_continuation="      ...> ",
    )
    echo("Statements end with a semicolon. Tab completes, Ctrl-D leaves; `describe TABLE;` shows columns.", err=True)
    while True:
        try:
            statement = reading.prompt("dabbawala> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if LEAVE.fullmatch(statement):
            return
        if statement.strip(" ;\n"):
            _run(session, statement, run)


def _run(session: DuckSession, statement: str, run: Callable[[str], None]) -> None:
    try:
        run(statement)
    except KeyboardInterrupt:
        session.interrupt()
        echo("The statement was cancelled.", err=True)
    except (SqlError, CommandError) as error:
        for line in str(error).splitlines():
            echo(line, err=True)


def is_complete(text: str) -> bool:
    """Return whether Enter sends a text: it ends with a semicolon, leaves, or is blank."""
    return not text.strip() or text.rstrip().endswith(";") or bool(LEAVE.fullmatch(text))


def words() -> list[str]:
    """Return the words that Tab completes: tables, columns and keywords."""
    columns = {column for table in TABLES.values() for column in table.columns}
    with duckdb.connect(":memory:") as connection:
        found = connection.execute("SELECT DISTINCT keyword_name FROM duckdb_keywords()").fetchall()
    return list(dict.fromkeys([*sorted({*TABLES, *VIEWS}), *sorted(columns), *sorted(word for (word,) in found)]))


def history_file() -> Path:
    """Return the file of the history, which only its owner may read: statements may name customers."""
    file = read_settings().directory / "sql-history"
    kept = b""
    if file.exists():
        kept = file.read_bytes()[-MAX_HISTORY_BYTES:]
        kept = kept[kept.find(b"\n# ") + 1 :] if len(kept) == MAX_HISTORY_BYTES else kept
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private(file, kept)
    return file
