"""Lists over all workers, a page at a time, in the order of the rows' keys.

A page goes on after a key, the cursor, and not after so many rows: what is added or deleted meanwhile moves nothing. A
worker answers for the partitions that it has open, and says which these are; the one that was asked gives an answer
only if all partitions are in it. One that is moving just then would else be passed over for good, for the next page
begins after it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from streams import tables
from streams.app import engine
from streams.engine import NotHere
from streams.problems import SOON, Problem
from streams.views.ask import SENT_ON, other_workers, respond, send_on
from streams.views.numbers import whole_number

LIMIT = 100
LONGEST = 1000
LONGEST_CURSOR = 1000

T = TypeVar("T")


class Share(msgspec.Struct):
    """What one worker has of a page: which partitions it looked into, and its first rows, as (cursor, row); of a table
    of any kind, as (key, row)."""

    partitions: list[int]
    rows: list[tuple[str, Any]]


class Listing(Generic[T]):
    """One table as a list."""

    def __init__(
        self,
        table: str,
        member: str,
        read: Callable[[bytes, bytes], T],
        show: Callable[[int, T], dict[str, Any]],
        *,
        cursor_of: Callable[[bytes], str] = bytes.decode,
        key_of: Callable[[str], bytes] = str.encode,
    ) -> None:
        """`member`: the list's name in the answer. `read` makes a row of key and value, `show` shows it (and its
        partition). `cursor_of` and `key_of` turn keys into cursors and back; cursors sort as keys do."""
        self._table, self._member, self._read, self._show = table, member, read, show
        self._cursor_of, self._key_of = cursor_of, key_of

    async def answer(self, request: web.Request, fits: Callable[[T], bool] = lambda _: True) -> web.Response:
        """The page that the request asks for with `?limit=` and `?cursor=`, of the rows that fit."""
        limit = limit_of(request)
        own = await self._share(self._after(request), limit + 1, fits)
        if SENT_ON in request.headers:
            return respond(HTTPStatus.OK, own)
        found = (row for share in await all_shares(request, own) for row in share.rows)
        rows = dict(sorted(found, key=lambda row: row[0]))  # a partition that moves may be in two shares
        page = list(islice(rows.items(), limit))
        more = page[-1][0] if len(rows) > limit else None
        return respond(HTTPStatus.OK, {self._member: [row for _, row in page], "next": more})

    def _after(self, request: web.Request) -> bytes:
        cursor = request.query.get("cursor", "")
        try:
            if len(cursor) > LONGEST_CURSOR:
                raise ValueError
            return self._key_of(cursor)
        except ValueError:
            raise Problem(422, "invalid", "cursor: it must be `next` of the page before") from None

    async def _share(self, after: bytes, count: int, fits: Callable[[T], bool]) -> Share:
        found: list[tuple[bytes, dict[str, Any]]] = []
        looked_into: list[int] = []
        for partition in engine.open_partitions():
            last = found[-1][0] if len(found) == count else None
            try:
                more = await self._first(partition, after, last, count, fits)
            except NotHere:  # it has moved: its new owner answers for it, or nobody yet
                continue
            looked_into.append(partition)
            found = sorted(found + more, key=lambda each: each[0])[:count]
        return Share(looked_into, [(self._cursor_of(key), shown) for key, shown in found])

    async def _first(
        self, partition: int, after: bytes, last: bytes | None, count: int, fits: Callable[[T], bool]
    ) -> list[tuple[bytes, dict[str, Any]]]:
        """The first rows that fit, none of them behind the key `last`. Shown at once: a whole one may be a megabyte."""
        found: list[tuple[bytes, dict[str, Any]]] = []
        async with aclosing(tables.paged(self._table, partition, after=after)) as rows:
            async for key, value in rows:
                if len(found) == count or (last is not None and key > last):
                    break
                if fits(row := self._read(key, value)):
                    found.append((key, self._show(partition, row)))
        return found


def limit_of(request: web.Request, default: int = LIMIT, longest: int = LONGEST) -> int:
    """`?limit=`, or a problem that says what it may be."""
    text = request.query.get("limit", str(default))
    limit = whole_number(text)
    if limit is None or not 1 <= limit <= longest:
        raise Problem(422, "invalid", f"limit={text}: it must be a whole number from 1 to {longest}")
    return limit


async def all_shares(request: web.Request, own: Share) -> list[Share]:
    """What this worker has and what the others have; a problem where a partition is in none of these."""
    shares = [own, *await _ask_others(request)]
    if {partition for share in shares for partition in share.partitions} != set(range(engine.partitions)):
        raise Problem(503, "not-ready", "a partition is being opened; try again", headers=SOON)
    return shares


async def _ask_others(request: web.Request) -> Sequence[Share]:
    answers = await asyncio.gather(*(send_on(request, worker) for worker in other_workers()))
    for answer in answers:
        if answer.status != HTTPStatus.OK:
            raise Problem(503, "owner-unreachable", "another worker cannot answer now; try again", headers=SOON)
    return [_shares.decode(answer.text or "") for answer in answers]


_shares = msgspec.json.Decoder(Share)
