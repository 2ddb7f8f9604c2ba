"""The tables, decoded, as the workers have them committed: JSON, or a page for a browser."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from html import escape
from typing import Any

import msgspec
from aiohttp import web

from streams import tables
from streams.app import app, catalogue, engine
from streams.problems import Problem
from streams.views.ask import SENT_ON, ApiView, elsewhere_by_partition, respond
from streams.views.listing import Share, all_shares, limit_of
from streams.views.numbers import whole_number
from topics.identity import owner_of
from topics.restaurants import Restaurant

TIMERS = "timers"
POSITIONS = "positions"
LONGEST = 10_000
LARGEST = 32 << 20
"""Bytes of rows in one answer of one worker."""

Found = tuple[int, bytes, bytes]
"""Partition, key and value of a row."""


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
        """At most `?limit=` of each worker, and about 32 MB. Of all partitions: 503 while one is open nowhere."""
        limit = _checked(request, name)
        if name == catalogue.name:
            return _answer(request, name, _restaurants(catalogue.all()[:limit]))
        here = engine.open_partitions()
        return await _of_all(request, name, here, await _first(name, _all_in(here, name), limit))


@app.page("/table/{name}/{key}")
class OwnersRows(ApiView):
    """The rows of one order, driver or region; of positions, those of one topic."""

    async def get(self, request: web.Request, name: str, key: str) -> web.Response:
        """Every row whose key is it or begins with it and a slash."""
        limit = _checked(request, name)
        if name == catalogue.name:
            return _answer(request, name, _restaurants([catalogue.get(key)]))
        if name == POSITIONS:  # in each partition there is one of every topic
            here = engine.open_partitions()
            return await _of_all(request, name, here, await _first(name, _of_topic(here, key), limit))
        if (answer := await elsewhere_by_partition(request, _partition_of(name, key))) is not None:
            return answer
        found = _timers(key) if name == TIMERS else _of_owner(name, key)
        return _answer(request, name, await _first(name, found, limit))


async def _timers(key: str) -> AsyncGenerator[Found, None]:
    """They are kept in the order they are due, so all are gone through."""
    partition = engine.partition_of(owner_of(key).encode())
    async with aclosing(tables.paged(TIMERS, partition)) as rows:
        async for row in rows:
            timer, _ = tables.shown(TIMERS, *row)
            if timer == key or timer.startswith(f"{key}/"):
                yield partition, *row


async def _of_owner(name: str, key: str) -> AsyncGenerator[Found, None]:
    partition = _partition_of(name, key)
    own = engine.read(name, partition, key.encode())
    if own is not None:
        yield partition, key.encode(), own
    async with aclosing(tables.paged(name, partition, prefix=f"{key}/".encode())) as rows:
        async for row in rows:
            yield partition, *row


async def _of_topic(partitions: Iterable[int], topic: str) -> AsyncGenerator[Found, None]:
    for partition in partitions:
        position = engine.read(POSITIONS, partition, topic.encode())
        if position is not None:
            yield partition, topic.encode(), position


async def _all_in(partitions: Iterable[int], name: str) -> AsyncGenerator[Found, None]:
    for partition in partitions:
        async with aclosing(tables.paged(name, partition)) as rows:
            async for row in rows:
                yield partition, *row


async def _of_all(request: web.Request, name: str, here: list[int], rows: list[dict[str, Any]]) -> web.Response:
    """The rows of these partitions, which are open here, and those of the others."""
    own = Share(here, [(row["key"], row) for row in rows])
    if SENT_ON in request.headers:
        return respond(200, own)
    found: list[dict[str, Any]] = []
    told: set[int] = set()
    for share in await all_shares(request, own):
        found += [row for _, row in share.rows if row["partition"] not in told]
        told.update(share.partitions)  # one that moves may be in two shares
    return _answer(request, name, found)


async def _first(name: str, rows: AsyncGenerator[Found, None], limit: int) -> list[dict[str, Any]]:
    """The first rows, shown: at most so many, and not much more than `LARGEST` bytes."""
    found: list[dict[str, Any]] = []
    left = LARGEST
    async with aclosing(rows):
        async for partition, key, value in rows:
            shown_key, row = tables.shown(name, key, value)
            found.append({"partition": partition, "key": shown_key, "row": row})
            left -= len(key) + len(value)
            if len(found) == limit or left <= 0:
                break
    return found


def _restaurants(rows: Iterable[Restaurant | None]) -> list[dict[str, Any]]:
    """Every worker has all of them."""
    return [
        {"partition": engine.partition_of(row.key.encode()), "key": row.key, "row": msgspec.to_builtins(row)}
        for row in rows
        if row is not None
    ]


def _partition_of(name: str, key: str) -> int:
    owner = owner_of(key)
    partition = whole_number(owner) if name == tables.dead_letters.name else None
    if partition is not None and partition < engine.partitions:
        return partition
    return engine.partition_of(owner.encode())


def _checked(request: web.Request, name: str) -> int:
    if name not in app.tables:
        raise Problem(404, "unknown", f"there is no table {name}; there are: {', '.join(sorted(app.tables))}")
    return limit_of(request, longest=LONGEST)


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
