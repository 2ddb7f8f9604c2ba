"""Page of the tables of SQL, made from the types of the rows and their docstrings."""

from collections.abc import Iterator
from contextlib import closing

from streams.sql.catalogue import open_catalogue
from streams.sql.description import columns_of, summaries

INTRODUCTION = """# Tables of SQL

The tables and views of `dabbawala sql`, as `dabbawala sql describe TABLE` prints them. [sql.md](sql.md) has examples.
"""
MAX_TYPE = 60
"""Characters of a type; the rest of a longer one is left out."""


def render() -> str:
    """Return the page of the tables."""
    with closing(open_catalogue()) as connection:
        types = {
            name: [(column, kind) for column, kind, *_ in connection.execute(f"DESCRIBE {name}").fetchall()]
            for name, _ in summaries()
        }
    return "\n".join([INTRODUCTION, *_sections(types)])


def _sections(types: dict[str, list[tuple[str, str]]]) -> Iterator[str]:
    for name, meaning in summaries():
        yield f"## {name}\n\n{meaning}\n\n| column | type | meaning |\n|---|---|---|"
        for column, kind, text in columns_of(name, types[name]):
            short = kind if len(kind) <= MAX_TYPE else f"{kind[:MAX_TYPE]}..."
            yield f"| `{column}` | `{short}` | {text.replace('``', '`').replace('|', chr(92) + '|')} |"
        yield ""
