"""Committed rows of all tables, decoded: as JSON, or as a page if `Accept` contains `text/html`.

Personal data is masked unless an operator reveals it.
"""

from base64 import b64encode
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from html import escape
from itertools import islice
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from streams.services import Services
from streams.views.api_view import ApiView
from streams.web.doorkeeper import is_forwarded
from streams.web.listing import PartialPage, collect_pages, limit_of
from streams.web.masking import masked, masked_call
from streams.web.numbers import whole_number
from streams.web.operation import JSON, operation
from streams.web.operators import sees_personal_data
from streams.web.problems import Problem
from streams.web.requests import respond
from streams.worker.tables import paged, shown
from topics.identity import owner_of
from topics.restaurants import Restaurant

CALLS = "calls"
TIMERS = "timers"
POSITIONS = "positions"
MAX_ROWS = 10_000
"""Largest `?limit=`."""
MAX_BYTES = 32 << 20
"""Bytes of rows in the answer of one worker."""

ROWS_QUERY = {"limit": Annotated[int, Meta(ge=1, le=MAX_ROWS, description="Rows of each worker, by default 100.")]}
PREFIX = Annotated[str, Meta(description="Begin of the keys.")]
EXACT = Annotated[bool, Meta(description="Whether only the row with this key is meant.")]
MEDIA = (JSON, "text/html")

Found = tuple[int, bytes, bytes]
"""Partition, key and value of a row."""


class TableHelp(msgspec.Struct, frozen=True):
    """A table and the description of its rows."""

    name: str
    help: str


class TableList(msgspec.Struct, frozen=True):
    """Tables."""

    tables: list[TableHelp]


class ShownRow(msgspec.Struct, frozen=True):
    """A row of a table."""

    partition: int
    key: str
    row: Any


class RowList(msgspec.Struct, frozen=True):
    """Rows of a table."""

    table: str
    rows: list[ShownRow]


class Tables(ApiView):
    """All tables."""

    @operation("listTables", {200: TableList}, media=MEDIA)
    async def get(self, request: web.Request) -> web.Response:
        """List the tables.

        - 200: `{"tables": [...]}`, each with `name` and `help`.
        """
        found = [TableHelp(table.name, table.help) for table in self.services.app.tables.values()]
        if _wants_page(request):
            rows = ([f'<a href="/table/{escape(t.name)}/">{escape(t.name)}</a>', escape(t.help)] for t in found)
            return _page("tables", ["name", "content"], rows)
        return respond(200, TableList(found))


class TableRows(ApiView):
    """Rows of a table."""

    scans = True
    is_personal = True

    @operation("listRows", {200: RowList}, query={**ROWS_QUERY, "prefix": PREFIX}, media=MEDIA)
    async def get(self, request: web.Request, name: str) -> web.Response:
        """List rows of a table from all workers.

        `?limit=` is the number of rows per worker, from 1 to 10000, by default 100. A worker also stops after 32 MiB.
        `?prefix=` selects the rows whose keys begin with it.

        - 200: `{"table", "rows": [...]}`, each row with `partition`, `key` and `row`.
        - 404: there is no such table.
        - 503: also while no worker has one of the partitions open.
        """
        limit, prefix = _checked(self.services, request, name), request.query.get("prefix", "")
        if name == self.services.catalogue.name:
            fitting = (row for row in self.services.catalogue.all() if row.key.startswith(prefix))
            return _answer(request, name, _restaurants(self.services, islice(fitting, limit)))
        here = self.services.engine.open_partitions()
        return await _of_all(
            self.services,
            request,
            name,
            here,
            await _first(self.services, request, name, _all_rows(self.services, here, name, prefix), limit),
        )


class RowsOfOwner(ApiView):
    """Rows of an owner in a table."""

    scans = True
    is_personal = True

    @operation("listRowsOfOwner", {200: RowList}, query={**ROWS_QUERY, "exact": EXACT}, media=MEDIA)
    async def get(self, request: web.Request, name: str, key: str) -> web.Response:
        """List the rows of one order, driver, region or restaurant; of `positions`, those of one topic.

        Their key is `{key}`, or begins with `{key}` and a slash; with `?exact=true` only the former. `?limit=` is as
        above.

        - 200: `{"table", "rows": [...]}`, as above.
        - 404: there is no such table.
        """
        limit = _checked(self.services, request, name)
        if name == self.services.catalogue.name:
            return _answer(request, name, _restaurants(self.services, [self.services.catalogue.get(key)]))
        if name == POSITIONS:  # each partition has a row of every topic
            here = self.services.engine.open_partitions()
            return await _of_all(
                self.services,
                request,
                name,
                here,
                await _first(self.services, request, name, _of_topic(self.services, here, key), limit),
            )
        if (
            answer := await self.services.forwarding.forward_to_partition(
                request, _partition_of(self.services, name, key)
            )
        ) is not None:
            return answer
        rows_of = partial(_timers, self.services) if name == TIMERS else partial(_of_owner, self.services, name)
        found = rows_of(key, is_exact=_is_exact(request))
        return _answer(request, name, await _first(self.services, request, name, found, limit))


async def _timers(services: Services, key: str, *, is_exact: bool) -> AsyncGenerator[Found, None]:
    """Yield the timers of an owner. They are sorted by due time, so all timers of the partition are read."""
    partition = services.engine.partition_of(owner_of(key).encode())
    async with aclosing(paged(services.engine, TIMERS, partition)) as rows:
        async for row in rows:
            timer, _ = shown(TIMERS, *row)
            if timer == key or (timer.startswith(f"{key}/") and not is_exact):
                yield partition, *row


async def _of_owner(services: Services, name: str, key: str, *, is_exact: bool) -> AsyncGenerator[Found, None]:
    partition = _partition_of(services, name, key)
    own = services.engine.read(name, partition, key.encode())
    if own is not None:
        yield partition, key.encode(), own
    if is_exact:
        return
    async with aclosing(paged(services.engine, name, partition, prefix=f"{key}/".encode())) as rows:
        async for row in rows:
            yield partition, *row


async def _of_topic(services: Services, partitions: Iterable[int], topic: str) -> AsyncGenerator[Found, None]:
    for partition in partitions:
        position = services.engine.read(POSITIONS, partition, topic.encode())
        if position is not None:
            yield partition, topic.encode(), position


async def _all_rows(
    services: Services, partitions: Iterable[int], name: str, prefix: str
) -> AsyncGenerator[Found, None]:
    # the keys of timers begin with their due times
    in_keys = b"" if name == TIMERS else prefix.encode(errors="replace")
    for partition in partitions:
        async with aclosing(paged(services.engine, name, partition, in_keys)) as rows:
            async for row in rows:
                if name != TIMERS or shown(name, *row)[0].startswith(prefix):
                    yield partition, *row


async def _of_all(
    services: Services, request: web.Request, name: str, here: list[int], rows: list[dict[str, Any]]
) -> web.Response:
    """Answer with the rows of the partitions that are open here, and of the others from their workers."""
    own = PartialPage(here, [(row["key"], row) for row in rows])
    if is_forwarded(request):
        return respond(200, own)
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    for share in await collect_pages(services.engine, services.forwarding, request, own):
        found += [row for _, row in share.rows if row["partition"] not in seen]
        seen.update(share.partitions)  # a partition that moves may be in two shares
    return _answer(request, name, found)


async def _first(
    services: Services, request: web.Request, name: str, rows: AsyncGenerator[Found, None], limit: int
) -> list[dict[str, Any]]:
    """Return the first rows as shown: at most ``limit``, and not many more bytes than `MAX_BYTES`."""
    show = shown if sees_personal_data(request) else partial(_masked, services)
    found: list[dict[str, Any]] = []
    left = MAX_BYTES
    async with aclosing(rows):
        async for partition, key, value in rows:
            shown_key, row = show(name, key, value)
            found.append({"partition": partition, "key": shown_key, "row": row})
            left -= len(key) + len(value)
            if len(found) == limit or left <= 0:
                break
    return found


def _masked(services: Services, name: str, key: bytes, value: bytes) -> tuple[str, Any]:
    """Return the key and value of a row as `shown` does, with masks over personal data."""
    if name == CALLS:
        return key.decode(), masked_call(value)
    table = services.tables.by_name.get(name)
    return shown(name, key, value) if table is None else (key.decode(), masked(table.decode(key.decode(), value)))


def _restaurants(services: Services, rows: Iterable[Restaurant | None]) -> list[dict[str, Any]]:
    """Return restaurants as rows. Every worker holds all of them, so no other is asked."""
    return [
        {
            "partition": services.engine.partition_of(row.key.encode()),
            "key": row.key,
            "row": msgspec.to_builtins(row),
        }
        for row in rows
        if row is not None
    ]


def _partition_of(services: Services, name: str, key: str) -> int:
    """Return the partition of an owner; in a table that is keyed by partition it is the first part of the key."""
    owner = owner_of(key)
    keyed_by_partition = (services.tables.dead_letters.name, services.tables.forgotten_shifts.name)
    partition = whole_number(owner) if name in keyed_by_partition else None
    if partition is not None and partition < services.engine.partitions:
        return partition
    return services.engine.partition_of(owner.encode())


def _checked(services: Services, request: web.Request, name: str) -> int:
    """Return `?limit=`. Raises a 404 problem if there is no such table."""
    if name not in services.app.tables:
        raise Problem(404, "unknown", f"there is no table {name}; there are: {', '.join(sorted(services.app.tables))}")
    return limit_of(request, most=MAX_ROWS)


def _is_exact(request: web.Request) -> bool:
    """Return `?exact=`, by default false. Raises a 422 problem for another value."""
    text = request.query.get("exact", "false")
    if text not in ("true", "false"):
        raise Problem(422, "invalid", f"exact={text}: it must be true or false")
    return text == "true"


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
    """Return a page with one table. The cells are HTML; the caller has escaped their text."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)} · Dabbawala</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        '<p><a href="/table/">all tables</a></p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>"
    )
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": _POLICY})


_STYLE = (
    "body{font:15px system-ui;margin:2rem;color:#222;background:#fff}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.35rem .8rem;border-bottom:1px solid #ddd;vertical-align:top}"
    "code{font-size:12px;word-break:break-all}a{color:#0645ad}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#333}a{color:#8ab4f8}}"
)
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: the page's own style and nothing else."""
