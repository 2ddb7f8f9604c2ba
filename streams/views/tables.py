"""The tables, decoded, as the workers have them committed: JSON, or a page for a browser."""

import asyncio
from collections.abc import Iterable
from html import escape
from itertools import chain
from typing import Any

import msgspec
from aiohttp import web

from streams import tables
from streams.app import app, catalogue, engine
from streams.problems import Problem
from streams.views.ask import ApiView, elsewhere_by_partition, everywhere, respond
from topics.identity import owner_of

TIMERS = "timers"
POSITIONS = "positions"
LIMIT = 100
LONGEST = 10_000


@app.page("/table/")
class Tables(ApiView):
    """Which tables there are."""

    async def get(self, request: web.Request) -> web.Response:
        """Name and help of each."""
        found = [{"name": table.name, "help": table.help} for table in app.tables.values()]
        if _wants_page(request):
            rows = (
                [f'<a href="/table/{escape(t["name"])}/">{escape(t["name"])}</a>', escape(t["help"])] for t in found
            )
            return _page("tables", ["name", "what is in it"], rows)
        return respond(200, {"tables": found})


@app.page("/table/{name}/")
class TableRows(ApiView):
    """The rows of a table, of every worker."""

    async def get(self, request: web.Request, name: str) -> web.Response:
        """At most `?limit=` of each worker."""
        limit = _checked(request, name)
        if name == catalogue.name:
            return _answer(request, name, _restaurants()[:limit])
        rows = await everywhere(request, _rows(name, limit), "rows")
        return _answer(request, name, rows)


@app.page("/table/{name}/{key}")
class OwnersRows(ApiView):
    """The rows of one order, driver or region; of positions, those of one topic."""

    async def get(self, request: web.Request, name: str, key: str) -> web.Response:
        """Every row whose key is it or begins with it and a slash."""
        limit = _checked(request, name)
        if name == catalogue.name:
            return _answer(request, name, [row for row in _restaurants() if row["key"] == key])
        if name == POSITIONS:  # in each partition there is one of every topic
            rows = await everywhere(request, _rows(name, limit), "rows")
            return _answer(request, name, [row for row in rows if row["key"] == key])
        if (answer := await elsewhere_by_partition(request, _partition_of(name, key))) is not None:
            return answer
        rows = await _timers(key, limit) if name == TIMERS else _rows(name, limit, key)
        return _answer(request, name, rows)


async def _timers(key: str, limit: int) -> list[dict[str, Any]]:
    """They are kept in the order they are due, so all are gone through: a page at a time, the tasks go on meanwhile."""
    partition, after, found = engine.partition_of(owner_of(key).encode()), b"", []
    while page := list(engine.scan(TIMERS, partition, after=after, limit=tables.PAGE)):
        rows = _shown(TIMERS, page)
        found += [row for row in rows if row["key"] == key or row["key"].startswith(f"{key}/")]
        after = page[-1][1]
        if len(found) >= limit:
            break
        await asyncio.sleep(0)
    return found[:limit]


def _rows(name: str, limit: int, key: str | None = None) -> list[dict[str, Any]]:
    if key is None:
        return _shown(name, engine.scan(name, limit=limit))
    partition = _partition_of(name, key)
    own = engine.read(name, partition, key.encode())
    its_own = [] if own is None else [(partition, key.encode(), own)]
    return _shown(name, chain(its_own, engine.scan(name, partition, prefix=f"{key}/".encode(), limit=limit)))[:limit]


def _restaurants() -> list[dict[str, Any]]:
    """Every worker has all of them."""
    return [
        {"partition": engine.partition_of(row.key.encode()), "key": row.key, "row": msgspec.to_builtins(row)}
        for row in catalogue.all()
    ]


def _partition_of(name: str, key: str) -> int:
    owner = owner_of(key)
    if name == tables.dead_letters.name and owner.isdecimal() and int(owner) < engine.partitions:
        return int(owner)
    return engine.partition_of(owner.encode())


def _shown(name: str, rows: Iterable[tuple[int, bytes, bytes]]) -> list[dict[str, Any]]:
    found = ((partition, *tables.shown(name, key, value)) for partition, key, value in rows)
    return [{"partition": partition, "key": key, "row": row} for partition, key, row in found]


def _checked(request: web.Request, name: str) -> int:
    if name not in app.tables:
        raise Problem(404, "unknown", f"there is no table {name}; there are: {', '.join(sorted(app.tables))}")
    text = request.query.get("limit", str(LIMIT))
    if not text.isdigit() or not 1 <= int(text) <= LONGEST:
        raise Problem(422, "invalid", f"limit={text}: it must be a whole number from 1 to {LONGEST}")
    return int(text)


def _answer(request: web.Request, name: str, rows: list[dict[str, Any]]) -> web.Response:
    if not _wants_page(request):
        return respond(200, {"table": name, "rows": rows})
    cells = (
        [str(row["partition"]), escape(row["key"]), f"<code>{escape(msgspec.json.encode(row['row']).decode())}</code>"]
        for row in rows
    )
    return _page(name, ["partition", "key", "row"], cells)


def _wants_page(request: web.Request) -> bool:
    return "text/html" in request.headers.get("Accept", "")


def _page(title: str, heads: list[str], rows: Iterable[list[str]]) -> web.Response:
    """A page with one table. The cells are HTML, escaped by whoever made them."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)} · Dabbawala</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        '<p><a href="/table/">all tables</a></p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>"
    )
    return web.Response(text=text, content_type="text/html")


_STYLE = (
    "body{font:15px system-ui;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.35rem .8rem;border-bottom:1px solid #ddd;vertical-align:top}"
    "code{font-size:12px;word-break:break-all}a{color:#0645ad}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#333}a{color:#8ab4f8}}"
)
