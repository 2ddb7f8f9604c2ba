"""Text of statements: where each ends, the literals in it, and the statements that the server answers by itself.

The engine only reads. Clients send BEGIN, SET and the like all the same, so the server accepts them: a transaction
holds no snapshot, and a setting changes no result.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<literal> [eE]'[^'\\]*(?:(?:''|\\.)[^'\\]*)*(?:'|\Z)
                 | '[^']*(?:''[^']*)*(?:'|\Z)
                 | \$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|\Z) )
    | (?P<name>    "[^"]*(?:""[^"]*)*(?:"|\Z) )
    | (?P<end>     ; )
    | (?P<code>    \w+ | . )
    """,
    re.DOTALL | re.VERBOSE,
)


class Token(Struct, frozen=True):
    """A piece of a statement."""

    kind: str
    """`comment`, `literal`, `name` (in double quotes), `end` (a semicolon) or `code`."""
    text: str


def tokens(sql: str) -> Iterator[Token]:
    """Divide a text into its pieces, which together are the text."""
    for found in _TOKEN.finditer(sql):
        kind = found.lastgroup or "code"
        yield Token("literal" if kind == "tag" else kind, found[0])


def split(sql: str) -> list[str]:
    """Divide a text into its statements, without the semicolons; one of comments only is left out."""
    statements, pieces, is_empty = [], [], True
    for token in tokens(sql):
        if token.kind != "end":
            pieces.append(token.text)
            is_empty = is_empty and (token.kind == "comment" or token.text.isspace())
            continue
        if not is_empty:
            statements.append("".join(pieces))
        pieces, is_empty = [], True
    return statements if is_empty else [*statements, "".join(pieces)]


class Begin(Struct, frozen=True):
    """The start of a transaction, or of a part of one."""

    tag: str


class End(Struct, frozen=True):
    """The end of a transaction."""

    tag: str


class RollBackTo(Struct, frozen=True):
    """The return to a savepoint, which mends a failed transaction."""


class Set(Struct, frozen=True):
    """The change of a setting."""

    name: str
    value: str


class Show(Struct, frozen=True):
    """The reading of a setting."""

    name: str


class Deallocate(Struct, frozen=True):
    """The end of a prepared statement; of all of them if the name is None."""

    name: str | None
    tag: str = "DEALLOCATE"


class NoEffect(Struct, frozen=True):
    """A statement without effect here."""

    tag: str


Command = Begin | End | RollBackTo | Set | Show | Deallocate | NoEffect
"""A statement that the server answers by itself."""

_NAME = r"(?P<name>\w+(?:\.\w+)?)"
_COMMANDS: tuple[tuple[re.Pattern[str], type[Command], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), kind, tag)
    for pattern, kind, tag in (
        (r"begin\b", Begin, "BEGIN"),
        (r"start\s+transaction\b", Begin, "START TRANSACTION"),
        (r"(?:commit|end)\b", End, "COMMIT"),
        (r"rollback\s+(?:(?:work|transaction)\s+)?to\b", RollBackTo, "ROLLBACK"),
        (r"(?:rollback|abort)\b", End, "ROLLBACK"),
        (r"savepoint\b", NoEffect, "SAVEPOINT"),
        (r"release\b", NoEffect, "RELEASE"),
        (r"set\s+(?:(?:session|local)\s+)?time\s+zone\s+(?P<value>.+)", Set, "TimeZone"),
        (r"set\s+(?:session\s+characteristics|transaction|constraints)\b", NoEffect, "SET"),
        (rf"set\s+(?:(?:session|local)\s+)?{_NAME}\s*(?:=|\bto\b)\s*(?P<value>.*)", Set, ""),
        (r"reset\b", NoEffect, "RESET"),
        (r"discard\s+all\b", Deallocate, "DISCARD ALL"),
        (r"discard\b", NoEffect, "DISCARD"),
        (r"deallocate\s+(?:prepare\s+)?all\s*\Z", Deallocate, "DEALLOCATE ALL"),
        (r'deallocate\s+(?:prepare\s+)?(?P<name>\w+|"(?:[^"]|"")*")\s*\Z', Deallocate, "DEALLOCATE"),
        (r"unlisten\b", NoEffect, "UNLISTEN"),
        (r"close\s+all\b", NoEffect, "CLOSE CURSOR ALL"),
        (r"show\s+time\s+zone\b", Show, "TimeZone"),
        (r"show\s+transaction\s+isolation\s+level\b", Show, "transaction_isolation"),
        (rf"show\s+{_NAME}\s*\Z", Show, ""),
    )
)


def command(sql: str) -> Command | None:
    """Return the command that one statement is; None if it is for the engine."""
    text = "".join(" " if token.kind == "comment" else token.text for token in tokens(sql)).strip()
    for pattern, kind, tag in _COMMANDS:
        if found := pattern.match(text):
            return _made(kind, tag, found.groupdict())
    return None


def _made(kind: type[Command], tag: str, groups: dict[str, str | None]) -> Command:
    name = groups.get("name")
    if kind is Set:
        return Set(name or tag, unquoted(groups["value"] or ""))
    if kind is Show:
        return Show(name or tag)
    if kind is Deallocate:
        return Deallocate(None if name is None else identifier(name), tag)
    return RollBackTo() if kind is RollBackTo else kind(tag)  # type: ignore[call-arg]


def unquoted(value: str) -> str:
    """Return the value of a setting without its quotes."""
    text = value.strip()
    return text[1:-1].replace("''", "'") if len(text) > 1 and text[0] == text[-1] == "'" else text


def identifier(name: str) -> str:
    """Return the name that an identifier stands for: lower case without quotes."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


_PLACE = re.compile(r"\n+LINE (?P<line>\d+): (?P<shown>[^\n]*)\n(?P<indent> *)\^+\s*\Z")


def located(error: str, sql: str) -> tuple[str, int | None]:
    """Return an error of DuckDB without the line that it shows, and the position in the statement, from 1.

    DuckDB may show a line with more in front, if the engine added it. The position is None if the line is not one of
    the statement's: DuckDB shortens long lines, and the catalogue changes some.
    """
    found = _PLACE.search(error)
    if found is None:
        return error, None
    before, shown = sql.split("\n")[: int(found["line"])], found["shown"]
    if len(before) < int(found["line"]) or not shown.endswith(before[-1]):
        return error, None
    added = len(f"LINE {found['line']}: ") + len(shown) - len(before[-1])
    position = sum(len(line) + 1 for line in before[:-1]) + len(found["indent"]) - added + 1
    return (error[: found.start()], position) if position > 0 else (error, None)
