"""Tables with rows of up to a megabyte are listed with little memory while other tasks run."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from processors.dispatch import WaitingDriver
from streams.access.keys import Identity, Role
from streams.services import Services
from streams.views import operations
from streams.views import tables as table_views
from streams.web import listing as module
from streams.web.doorkeeper import SENDER
from streams.web.forwarding import Forwarding
from streams.web.listing import Listing, PartialPage
from streams.web.problems import SOON, Problem
from tests.processors.cases import KITCHEN, RESTAURANT
from tests.support.services import unconnected_services, view_of

ROWS, ROW_BYTES = 300, 100_000
TABLE = "dead_letters"


class LargeRows:
    """Stand-in for a task with `ROWS` rows that counts the rows read."""

    alive = True

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.read_rows = 0
        self.positions: dict[bytes, bytes] = {}

    def read(self, _table: str, key: bytes) -> bytes | None:
        return self.positions.get(key)

    def scan(self, _table: str, prefix: bytes = b"", after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for number in range(ROWS):
            key = b"%d/%05d" % (self.partition, number)
            if key.startswith(prefix) and key > after:
                self.read_rows += 1
                yield key, msgspec.json.encode("x" * ROW_BYTES)


class Row:
    """A decoded row; ``alive`` has the rows that exist."""

    alive: ClassVar["weakref.WeakSet[Row]"] = weakref.WeakSet()

    def __init__(self, key: bytes) -> None:
        self.key = key.decode()
        self.alive.add(self)


@pytest.fixture
def services() -> Services:
    """Services of a worker."""
    return unconnected_services()


@pytest.fixture
def tasks(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[LargeRows]:
    """Open all partitions in one worker."""
    tasks = [LargeRows(number) for number in range(services.engine.partitions)]
    monkeypatch.setattr(services.engine, "tasks", {task.partition: task for task in tasks})
    monkeypatch.setattr(Forwarding, "other_workers", lambda _: [])
    return tasks


def body_of(answer: web.Response) -> Any:
    """Return the JSON of an answer."""
    assert isinstance(answer.body, bytes)
    return msgspec.json.decode(answer.body)


class WaitingRow(WaitingDriver, frozen=True, weakref=True):
    """A row that can be counted."""


class Meanwhile:
    """Background task that runs whenever it can and records the most rows read without a pause."""

    def __init__(self, tasks: list[LargeRows]) -> None:
        self._tasks = tasks
        self.most = 0
        self._seen = 0

    async def __aenter__(self) -> "Meanwhile":
        self._running = asyncio.create_task(self._run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._look()
        self._running.cancel()

    async def _run(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0)

    def _look(self) -> None:
        read = sum(task.read_rows for task in self._tasks)
        self.most, self._seen = max(self.most, read - self._seen), read


async def test_a_page_of_large_rows_reads_only_what_it_shows(services: Services, tasks: list[LargeRows]) -> None:
    most_alive = 0

    def show(partition: int, row: Row) -> dict[str, Any]:
        nonlocal most_alive
        most_alive = max(most_alive, len(Row.alive))
        return {"key": row.key, "partition": partition}

    listing: Listing[Row] = Listing(services.engine, services.forwarding, TABLE, "rows", lambda key, _: Row(key), show)
    async with Meanwhile(tasks) as meanwhile:
        answer = await listing.answer(make_mocked_request("GET", "/?limit=50"))
    page = body_of(answer)
    assert [row["key"] for row in page["rows"]] == [f"0/{number:05d}" for number in range(50)]
    assert page["next"] == "0/00049"
    assert most_alive <= 2
    assert tasks[0].read_rows < 70
    assert all(task.read_rows <= 11 for task in tasks[1:]), "their first rows come after these"
    assert meanwhile.most <= 25
    found: list[Any] = []
    cursor = ""
    while cursor is not None:
        answer = await listing.answer(make_mocked_request("GET", f"/?limit=1000&cursor={cursor}"))
        page = body_of(answer)
        found, cursor = found + page["rows"], page["next"]
    assert [row["key"] for row in found] == [
        f"{task.partition}/{number:05d}" for task in tasks for number in range(ROWS)
    ]


async def test_the_newest_rows_come_first_page_by_page(services: Services, tasks: list[LargeRows]) -> None:
    def time_ms(row: Row) -> int:
        partition, number = row.key.split("/")
        return 1000 * int(number) + int(partition)

    listing: Listing[Row] = Listing(
        services.engine, services.forwarding, TABLE, "rows", lambda key, _: Row(key), lambda _, row: {"key": row.key}
    )
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        request = make_mocked_request("GET", f"/?limit=500&cursor={cursor}")
        page = body_of(await listing.answer(request, newest_by=time_ms))
        assert len(Row.alive) <= 3
        found, cursor = found + [row["key"] for row in page["rows"]], page["next"]
    assert found == [f"{task.partition}/{number:05d}" for number in reversed(range(ROWS)) for task in reversed(tasks)]


async def test_restaurants_are_found_by_id_and_listed_up_to_the_limit(
    services: Services,
) -> None:
    unshowable: Any = object()
    catalogue: Any = SimpleNamespace(
        name="restaurants", get={"lakshmi": RESTAURANT}.get, all=lambda: [RESTAURANT, *[unshowable] * 100]
    )
    services = replace(services, catalogue=catalogue)
    one = view_of(services, table_views.RowsOfOwner)
    for key, found in (("lakshmi", ["lakshmi"]), ("nobody", [])):
        answer = body_of(await one.get(make_mocked_request("GET", "/"), "restaurants", key))
        assert [row["key"] for row in answer["rows"]] == found
    every = view_of(services, table_views.TableRows)
    first = body_of(await every.get(make_mocked_request("GET", "/?limit=1"), "restaurants"))
    assert [row["key"] for row in first["rows"]] == ["lakshmi"]


async def test_a_region_shows_the_first_waiting_and_counts_all(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet[WaitingRow] = weakref.WeakSet()
    most_alive = 0

    async def pages(_region: str, prefix: str) -> AsyncIterator[tuple[str, WaitingRow]]:
        nonlocal most_alive
        for number in range(1000):
            row = WaitingRow(region="fort", driver=f"{number:04d}", shift=1, position=KITCHEN)
            alive.add(row)
            most_alive = max(most_alive, len(alive))
            yield f"{prefix}{row.driver}", row

    monkeypatch.setattr(services.tables, "dispatch", SimpleNamespace(pages=pages))
    count, first = await operations._counted(services, "fort", "driver", operations._waiting, 3)
    assert (count, [row.driver for row in first]) == (1000, ["0000", "0001", "0002"])
    assert most_alive <= 2


@pytest.mark.parametrize("name", [TABLE, "positions/a-topic"])
async def test_a_table_with_a_closed_partition_is_not_listed(
    services: Services, tasks: list[LargeRows], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    del services.engine.tasks[1], services.engine.tasks[3]
    shares = [PartialPage([1], [("1/0", {"partition": 1, "key": "1/0", "row": {}})]), PartialPage([3], [])]

    async def forward(_: Forwarding, _request: web.Request, _owner: str) -> web.Response:
        return web.Response(body=msgspec.json.encode(shares.pop(0)))

    monkeypatch.setattr(Forwarding, "forward", forward)
    monkeypatch.setattr(Forwarding, "other_workers", lambda _: ["http://one", "http://another"])
    table, _, key = name.partition("/")
    assert "1/0" in await shown_of(services, table, key)
    monkeypatch.setattr(Forwarding, "other_workers", lambda _: [])
    with pytest.raises(Problem) as missing:
        await shown_of(services, table, key)
    assert (missing.value.status, missing.value.headers) == (503, SOON)


async def test_positions_of_a_topic_are_found_behind_many_topics(services: Services, tasks: list[LargeRows]) -> None:
    for task in tasks:
        task.positions[b"z-topic"] = b"7"
    view = view_of(services, table_views.RowsOfOwner)
    answer = await view.get(admitted("/?limit=4"), "positions", "z-topic")
    assert [(row["partition"], row["key"], row["row"]) for row in body_of(answer)["rows"]] == [
        (task.partition, "z-topic", 7) for task in tasks
    ]
    assert not any(task.read_rows for task in tasks), "no other row is read"


def admitted(path: str) -> web.Request:
    """Return a request of an operator whom the doorkeeper has admitted."""
    request = make_mocked_request("GET", path)
    request[SENDER] = Identity("ana", Role.OPERATOR)
    return request


async def shown_of(services: Services, table: str, key: str) -> list[str]:
    """Return the keys that a view shows of a table, or of an owner's rows in it."""
    request = admitted("/?limit=1&reveal=true")
    if key:
        answer = await view_of(services, table_views.RowsOfOwner).get(request, table, key)
    else:
        answer = await view_of(services, table_views.TableRows).get(request, table)
    return [row["key"] for row in body_of(answer)["rows"]]


async def test_a_listing_of_large_rows_returns_as_many_as_fit(
    services: Services, tasks: list[LargeRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_views, "MAX_BYTES", 40 * ROW_BYTES)
    view = view_of(services, table_views.TableRows)
    async with Meanwhile(tasks) as meanwhile:
        answer = await view.get(admitted("/?limit=10000&reveal=true"), TABLE)
    assert [row["key"] for row in body_of(answer)["rows"]] == [f"0/{number:05d}" for number in range(40)]
    assert meanwhile.most <= 25
    few = await view.get(admitted("/?limit=3&reveal=true"), TABLE)
    assert len(body_of(few)["rows"]) == 3


@pytest.mark.parametrize("looked_at", [20, 97, 10_000])
async def test_a_page_looks_at_a_limited_number_of_rows(
    services: Services, tasks: list[LargeRows], monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS_LOOKED_AT", looked_at * len(tasks))
    wanted = [f"{task.partition}/{number:05d}" for task in tasks for number in range(0, ROWS, 97)]

    def show(_: int, row: Row) -> dict[str, Any]:
        return {"key": row.key}

    listing: Listing[Row] = Listing(services.engine, services.forwarding, TABLE, "rows", lambda key, _: Row(key), show)
    found: list[str] = []
    cursor, pages = "", 0
    while cursor is not None:
        before = sum(task.read_rows for task in tasks)
        request = make_mocked_request("GET", f"/?limit=3&cursor={cursor}")
        page = body_of(await listing.answer(request, lambda row: row.key in wanted))
        assert sum(task.read_rows for task in tasks) - before <= (looked_at + 20) * len(tasks)  # a page ahead
        found += [row["key"] for row in page["rows"]]
        assert page["next"] is None or page["next"] > cursor
        cursor, pages = page["next"], pages + 1
    assert found == wanted
