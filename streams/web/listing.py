"""Lists over all workers, a page at a time, in the order of the rows' keys.

A page starts after a key, the cursor, and not after a number of rows, so rows that are added or deleted meanwhile shift
nothing. Each worker returns the rows of its open partitions and the list of these partitions. The asked worker answers
only if together they cover all partitions. Otherwise the rows of a partition that moves just then would be missing for
good, because the next page starts after them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from heapq import nsmallest
from http import HTTPStatus
from itertools import islice
from operator import itemgetter
from types import MappingProxyType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from exactly_once import Engine, PartitionNotOwned
from streams.web.doorkeeper import is_forwarded
from streams.web.forwarding import Forwarding
from streams.web.numbers import whole_number
from streams.web.problems import SOON, Problem
from streams.web.requests import respond
from streams.worker.tables import paged

DEFAULT_LIMIT = 100
"""Rows on a page, unless the request has a `limit`."""
MAX_LIMIT = 1000
MAX_ROWS_LOOKED_AT = 20_000
"""Rows that a worker decodes for one page in the order of keys: 0.2 s of its time. A filter may fit few of them."""
MAX_CURSOR_LENGTH = 1000
WRONG_CURSOR = "cursor: it must be `next` of the previous page"
PAGE_QUERY: Mapping[str, Any] = MappingProxyType(
    {
        "limit": Annotated[int, Meta(ge=1, le=MAX_LIMIT, description=f"Rows on a page, by default {DEFAULT_LIMIT}.")],
        "cursor": Annotated[str, Meta(max_length=MAX_CURSOR_LENGTH, description="`next` of the previous page.")],
    }
)
"""Types of the parameters of a list."""
LATEST_MS = 10**14 - 1
"""Larger than every time in a row, so that a time subtracted from it sorts the newest row first."""

Row = tuple[str, Any]
"""(cursor, row as shown)."""

T = TypeVar("T")


class Scanned(NamedTuple):
    """First rows of a partition that fit."""

    rows: list[Row]
    stopped_at: str | None = None
    """Cursor of the last row that was looked at, unless the scan came to its end."""
    fitting: int = 0
    """Number of all rows that fit, if the scan came to its end."""


class PartialPage(msgspec.Struct):
    """Part of a page that one worker returns: the partitions it read, and its first rows as (cursor, row).

    ``upto`` is the cursor up to which these are all rows that fit, if the worker has not looked at the rows after it.
    """

    partitions: list[int]
    rows: list[tuple[str, Any]]
    upto: str | None = None
    counts: dict[int, int] = {}
    """Partition -> number of its rows that fit; used by lists that read every row."""


class Listing(Generic[T]):
    """Pages of one table."""

    def __init__(
        self,
        engine: Engine,
        forwarding: Forwarding,
        table: str,
        member: str,
        read: Callable[[bytes, bytes], T],
        show: Callable[[int, T], Any],
        *,
        cursor_of: Callable[[bytes], str] = bytes.decode,
        key_of: Callable[[str], bytes] = str.encode,
    ) -> None:
        """``member`` is the name of the list in the answer. ``read`` decodes a row from its key and value.

        ``show`` returns the JSON of (partition, row). ``cursor_of`` and ``key_of`` convert keys to cursors and back;
        cursors sort like their keys.
        """
        self._engine = engine
        self._forwarding = forwarding
        self._table = table
        self._member = member
        self._read = read
        self._show = show
        self._cursor_of = cursor_of
        self._key_of = key_of

    async def answer(
        self,
        request: web.Request,
        fits: Callable[[T], bool] = lambda _: True,
        newest_by: Callable[[T], int] | None = None,
    ) -> web.Response:
        """Return the page of `?limit=` and `?cursor=` of the rows that fit, in the order of their keys.

        ``newest_by`` returns the time of a row, in milliseconds since the epoch. With it, the newest row comes first.
        Each page then reads every row, and has the `count` of the rows that fit.
        """
        limit = limit_of(request)
        count = limit + 1
        if newest_by is None:
            after = self._after(request)
            own = await self._own_part(
                count, lambda partition, last: self._scan_partition(partition, after, last, count, fits)
            )
        else:
            cursor = self._checked_cursor(request)
            own = await self._own_part(
                count, lambda partition, _: self._newest(partition, cursor, count, fits, newest_by)
            )
        if is_forwarded(request):
            return respond(HTTPStatus.OK, own)
        parts = await collect_pages(self._engine, self._forwarding, request, own)
        upto = min((part.upto for part in parts if part.upto is not None), default=None)
        found = (row for part in parts for row in part.rows if upto is None or row[0] <= upto)
        rows = dict(sorted(found, key=lambda row: row[0]))  # a partition that moves may be in two parts
        page = list(islice(rows.items(), limit))
        more = page[-1][0] if len(rows) > limit else upto
        answer: dict[str, Any] = {self._member: [row for _, row in page], "next": more}
        if newest_by is not None:
            counts = {partition: count for part in parts for partition, count in part.counts.items()}
            answer["count"] = sum(counts.values())
        return respond(HTTPStatus.OK, answer)

    def _after(self, request: web.Request) -> bytes:
        try:
            return self._key_of(self._checked_cursor(request))
        except ValueError:
            raise Problem(422, "invalid", WRONG_CURSOR) from None

    def _checked_cursor(self, request: web.Request) -> str:
        cursor = request.query.get("cursor", "")
        if len(cursor) > MAX_CURSOR_LENGTH:
            raise Problem(422, "invalid", WRONG_CURSOR)
        return cursor

    async def _own_part(self, count: int, rows_of: Callable[[int, str | None], Awaitable[Scanned]]) -> PartialPage:
        """Return this worker's first rows. ``rows_of`` takes a partition and the cursor after which no row fits."""
        found: list[Row] = []
        counts: dict[int, int] = {}
        upto: str | None = None
        for partition in self._engine.open_partitions():
            ends = [found[-1][0] if len(found) == count else None, upto]
            last = min((end for end in ends if end is not None), default=None)
            try:
                more, stopped_at, counts[partition] = await rows_of(partition, last)
            except PartitionNotOwned:  # it has moved: its new owner answers for it, once it is open
                continue
            found = sorted(found + more, key=itemgetter(0))[:count]
            upto = min(upto or stopped_at, stopped_at) if stopped_at is not None else upto
        return PartialPage(list(counts), found, upto, counts)

    async def _scan_partition(
        self, partition: int, after: bytes, last: str | None, count: int, fits: Callable[[T], bool]
    ) -> Scanned:
        """Return the first rows that fit, up to the cursor ``last``. Each is converted at once: a row may have 1 MB.

        Looks at this partition's share of `MAX_ROWS_LOOKED_AT`, and returns the cursor where it stopped for that.
        """
        found: list[Row] = []
        left = max(1, MAX_ROWS_LOOKED_AT // len(self._engine.open_partitions()))
        async with aclosing(paged(self._engine, self._table, partition, after=after)) as rows:
            async for key, value in rows:
                cursor = self._cursor_of(key)
                if len(found) == count or (last is not None and cursor > last):
                    break
                if fits(row := self._read(key, value)):
                    found.append((cursor, self._show(partition, row)))
                left -= 1
                if left == 0:
                    return Scanned(found, cursor)
        return Scanned(found)

    async def _newest(
        self, partition: int, after: str, count: int, fits: Callable[[T], bool], time_ms: Callable[[T], int]
    ) -> Scanned:
        """Return the newest rows that fit, after a cursor. Holds at most twice as many rows as it returns."""
        best: list[tuple[str, T]] = []
        fitting = 0
        async with aclosing(paged(self._engine, self._table, partition)) as rows:
            async for key, value in rows:
                row = self._read(key, value)
                if not fits(row):
                    continue
                fitting += 1
                cursor = f"{LATEST_MS - time_ms(row):014d}/{self._cursor_of(key)}"
                if cursor > after:
                    best.append((cursor, row))
                if len(best) >= 2 * count:
                    best = nsmallest(count, best, key=itemgetter(0))
        first = nsmallest(count, best, key=itemgetter(0))
        return Scanned([(cursor, self._show(partition, row)) for cursor, row in first], fitting=fitting)


def limit_of(request: web.Request, default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Return `?limit=`. Raises a problem that names its range."""
    text = request.query.get("limit", str(default))
    limit = whole_number(text)
    if limit is None or not 1 <= limit <= most:
        raise Problem(422, "invalid", f"limit={text}: it must be a whole number from 1 to {most}")
    return limit


async def collect_pages(
    engine: Engine, forwarding: Forwarding, request: web.Request, own: PartialPage
) -> list[PartialPage]:
    """Return the parts of this worker and of the others. Raises a 503 problem if a partition is in none of them."""
    parts = [own, *await _ask_others(forwarding, request)]
    if {partition for part in parts for partition in part.partitions} != set(range(engine.partitions)):
        raise Problem(503, "not-ready", "a partition is being opened; try again", headers=SOON)
    return parts


async def _ask_others(forwarding: Forwarding, request: web.Request) -> Sequence[PartialPage]:
    answers = await asyncio.gather(*(forwarding.forward(request, worker) for worker in forwarding.other_workers()))
    for answer in answers:
        if answer.status != HTTPStatus.OK:
            raise Problem(503, "owner-unreachable", "another worker cannot answer now; try again", headers=SOON)
    return [_parts.decode(answer.text or "") for answer in answers]


_parts = msgspec.json.Decoder(PartialPage)
