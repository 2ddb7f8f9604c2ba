"""Rows of a table as `dabbawala sql` reads them: some fields of them, and all of them.

The answer is `application/x-ndjson`. Its first line has `expected`, the partitions whose rows follow. Before the rows
of a partition comes a line with `partition`, `worker` and `as_of_ms`: the rows are as of then, or newer. After them
comes a line with `count`. A line in between has `rows`: each field, with its values in the order of the rows. An answer
that ends without the `count` of an expected partition is not complete; a last line with `failed` has the reason.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from streams.services import Services
from streams.sql.projection import Expected, Failed, Opened, Row, line, lines_of
from streams.sql.reader import ReadPartition, ReadTable
from streams.sql.reader_process import ReaderFailed
from streams.sql.tables import TABLES, Table
from streams.views.api_view import ApiView
from streams.web.doorkeeper import is_forwarded
from streams.web.numbers import whole_number
from streams.web.operation import operation
from streams.web.operators import sees_personal_data
from streams.web.problems import SOON, Problem
from streams.worker.tables import paged
from topics.identity import owner_of

NDJSON = "application/x-ndjson"
MAX_ROWS = 20_000
"""Rows of one owner in an answer: more than the journal of an order has lines."""
MAX_BYTES = 64 << 20
"""Bytes of these rows."""
MAX_LIMIT = 1 << 31
"""Largest `?limit=`."""
SLOW_CLIENT_S = 30.0
"""Time that a client may take to take some bytes: it holds a turn to read a table."""


class RowFields(ApiView):
    """Fields of the rows of a table."""

    scans = True
    is_personal = True
    streams = True

    @operation(
        "streamRows",
        {200: str},
        query={
            "fields": Annotated[str, Meta(description="Fields, separated by commas; by default all.")],
            "key": Annotated[str, Meta(description="Owner of the rows.")],
            "partitions": Annotated[str, Meta(description="Partitions, separated by commas; by default all.")],
            "limit": Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Rows of each partition that are enough.")],
        },
        media=(NDJSON,),
    )
    async def get(self, request: web.Request, name: str) -> web.StreamResponse:
        """Stream fields of the rows of a table from all workers.

        `?fields=` are the fields, separated by commas; all by default. If it is empty, the rows are only counted.
        `?key=` selects the rows of one owner, whose key is this one or begins with it and a slash. `?partitions=`
        selects partitions, separated by commas. `?limit=` is the number of rows of each partition that are enough.

        - 200: the lines.
        - 404: there is no such table.
        - 422: there is no such field, or a parameter is wrong.
        - 503: also while no worker has one of the partitions open.
        """
        known = TABLES.get(name)
        if known is None or known.path:
            names = ", ".join(each.name for each in TABLES.values() if not each.path)
            raise Problem(404, "unknown", f"there is no table {name}; there are: {names}")
        wanted = _Wanted(self.services, request, known)
        if request.method == "HEAD":
            return web.Response(content_type=NDJSON)
        if wanted.key is not None:
            return await _of_owner(self.services, request, wanted, wanted.key)
        if known.name == self.services.catalogue.name:
            return _restaurants(self.services, wanted)
        return await _stream(request, await _parts(self.services, request, wanted))


class _Wanted:
    """The parameters of a request. Raises a 422 problem for one that is wrong."""

    def __init__(self, services: Services, request: web.Request, table: Table) -> None:
        query = request.query
        self.table = table
        self.is_masked = not sees_personal_data(request)
        self.key = query.get("key")
        named = query.get("fields")
        self.fields = tuple(sorted(table.fields) if named is None else filter(None, named.split(",")))
        self.limit = _number(query["limit"], "limit", 1, MAX_LIMIT) if "limit" in query else None
        most = services.engine.partitions - 1
        named = query.get("partitions")
        self.partitions = (
            list(range(most + 1))
            if named is None
            else sorted({_number(text, "partitions", 0, most) for text in named.split(",")})
        )
        if unknown := sorted(set(self.fields) - table.fields.keys()):
            detail = f"fields={unknown[0]}: {table.name} has no such field; it has {', '.join(sorted(table.fields))}"
            raise Problem(422, "invalid", detail)

    def lines(self, opened: Opened, rows: Iterable[Row]) -> Iterable[bytes]:
        """Return the lines of a partition."""
        return lines_of(opened, self.table, self.fields, rows, is_masked=self.is_masked, limit=self.limit)


def _number(text: str, name: str, least: int, most: int) -> int:
    number = whole_number(text)
    if number is None or not least <= number <= most:
        raise Problem(422, "invalid", f"{name}={text}: it must be a whole number from {least} to {most}")
    return number


# -- the rows of one owner -------------------------------------------------------------------------------------------


async def _of_owner(services: Services, request: web.Request, wanted: _Wanted, key: str) -> web.Response:
    """Answer from the worker that has the partition. The event loop reads these rows: they are few."""
    partition = services.engine.partition_of(owner_of(key).encode())
    opened = Opened(partition=partition, worker=services.forwarding.this_worker(), as_of_ms=services.now_ms())
    if wanted.table.name == services.catalogue.name:
        return _answer([partition], wanted.lines(opened, _catalogue_rows(services, key)))
    if (answer := await services.forwarding.forward_to_partition(request, partition)) is not None:
        return answer
    rows = [row async for row in _owned(services, wanted.table.name, partition, key)]
    return _answer([partition], wanted.lines(opened, rows))


async def _owned(services: Services, table: str, partition: int, key: str) -> AsyncIterator[Row]:
    own = services.engine.read(table, partition, key.encode())
    if own is not None:
        yield key.encode(), own
    count, size = 0, 0
    async with aclosing(paged(services.engine, table, partition, prefix=f"{key}/".encode())) as rows:
        async for row in rows:
            count, size = count + 1, size + len(row[1])
            if count > MAX_ROWS or size > MAX_BYTES:
                raise Problem(422, "invalid", f"key={key}: it has more than {MAX_ROWS} rows; read the whole table")
            yield row


def _answer(expected: list[int], lines: Iterable[bytes]) -> web.Response:
    return web.Response(body=b"".join([line(Expected(expected)), *lines]), content_type=NDJSON)


def _restaurants(services: Services, wanted: _Wanted) -> web.Response:
    """Answer with the catalogue, which every worker has in memory."""
    here, now_ms = services.forwarding.this_worker(), services.now_ms()
    by_partition: dict[int, list[Row]] = {partition: [] for partition in wanted.partitions}
    for key, value in _catalogue_rows(services):
        by_partition.get(services.engine.partition_of(key), []).append((key, value))
    lines = (
        each
        for partition, rows in by_partition.items()
        for each in wanted.lines(Opened(partition=partition, worker=here, as_of_ms=now_ms), rows)
    )
    return _answer(wanted.partitions, lines)


def _catalogue_rows(services: Services, key: str | None = None) -> list[Row]:
    rows = services.catalogue.all() if key is None else [services.catalogue.get(key)]
    return [(row.key.encode(), msgspec.json.encode(row)) for row in rows if row is not None]


# -- all rows --------------------------------------------------------------------------------------------------------


async def _parts(services: Services, request: web.Request, wanted: _Wanted) -> Sequence[AsyncGenerator[bytes, None]]:
    """Return the parts of the answer: this worker's, and those of the others. Raises a 503 problem."""
    engine, here = services.engine, set(services.engine.open_partitions())
    own = [partition for partition in wanted.partitions if partition in here]
    for partition in own:
        await engine.verify_ownership(partition)
    if is_forwarded(request):
        return [_own(services, wanted, own)]
    owners = {name: owner.rstrip("/") for name, owner in engine.owners().items()}
    others = {partition: owners.get(partition) for partition in wanted.partitions if partition not in here}
    for partition, owner in others.items():
        if owner in (None, services.forwarding.this_worker()):
            raise Problem(503, "not-ready", f"partition {partition} is being opened; try again", headers=SOON)
    asked = sorted({owner for owner in others.values() if owner is not None})
    forwarded = [services.forwarding.stream(request, worker) for worker in asked]
    return [_one(line(Expected(wanted.partitions))), *([_own(services, wanted, own)] if own else []), *forwarded]


async def _one(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


async def _own(services: Services, wanted: _Wanted, partitions: Sequence[int]) -> AsyncGenerator[bytes, None]:
    """Yield the lines of partitions of this worker, from its reader."""
    worker, now_ms = services.forwarding.this_worker(), services.now_ms()
    found = []
    for partition in partitions:
        store = services.engine.store_of(partition)
        opened = Opened(partition=partition, worker=worker, as_of_ms=now_ms)
        found.append(ReadPartition(opened, str(store.path.resolve()), store.number))
    request = ReadTable(
        table=wanted.table.name,
        fields=wanted.fields,
        is_masked=wanted.is_masked,
        limit=wanted.limit,
        partitions=tuple(found),
    )
    if found:
        async with aclosing(services.reader.read(request)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _stream(request: web.Request, parts: Sequence[AsyncGenerator[bytes, None]]) -> web.StreamResponse:
    """Send the parts, one after the other. A client that takes nothing stops the reader."""
    response = web.StreamResponse(headers={"Content-Type": NDJSON, "Cache-Control": "no-store"})
    await response.prepare(request)
    try:
        for part in parts:
            async with aclosing(part):
                async for chunk in part:
                    async with asyncio.timeout(SLOW_CLIENT_S):
                        await response.write(chunk)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        return response
    except (Problem, ReaderFailed, LookupError) as error:
        await response.write(b"\n" + line(Failed(str(error))))
    await response.write_eof()
    return response
