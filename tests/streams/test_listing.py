"""Tables of which a row may be a megabyte are listed without holding much of them, and others run meanwhile."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

import streams.app
from processors.dispatch import WaitingDriver
from streams import tables
from streams.problems import SOON, Problem
from streams.views import operations
from streams.views import tables as table_views
from streams.views.listing import Listing, Share
from tests.processors.cases import KITCHEN, RESTAURANT

ROWS, ROW_BYTES = 300, 100_000
TABLE = tables.dead_letters.name


class LargeRows:
    """As a task, of `ROWS` rows; how much of them was ever read."""

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
    """One row, read; how many there are."""

    alive: ClassVar["weakref.WeakSet[Row]"] = weakref.WeakSet()

    def __init__(self, key: bytes) -> None:
        self.key = key.decode()
        self.alive.add(self)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[LargeRows]:
    """All the partitions, open here."""
    tasks = [LargeRows(number) for number in range(streams.app.engine.partitions)]
    monkeypatch.setattr(streams.app.engine, "tasks", {task.partition: task for task in tasks})
    monkeypatch.setattr("streams.views.listing.other_workers", list)
    return tasks


def body_of(answer: web.Response) -> Any:
    """The JSON in it."""
    assert isinstance(answer.body, bytes)
    return msgspec.json.decode(answer.body)


class WaitingRow(WaitingDriver, frozen=True, weakref=True):
    """One that can be counted."""


class Meanwhile:
    """Somebody else, who runs whenever it can; the most rows that were read without a pause."""

    def __init__(self, tasks: list[LargeRows]) -> None:
        self._tasks = tasks
        self.most = self._seen = 0

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


async def test_a_page_of_large_rows_reads_no_more_than_it_shows_and_holds_none(tasks: list[LargeRows]) -> None:
    most_alive = 0

    def show(partition: int, row: Row) -> dict[str, Any]:
        nonlocal most_alive
        most_alive = max(most_alive, len(Row.alive))
        return {"key": row.key, "partition": partition}

    listing: Listing[Row] = Listing(TABLE, "rows", lambda key, _: Row(key), show)
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


async def test_one_restaurant_of_the_table_is_looked_up_and_the_first_ones_are_all_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unshowable: Any = object()
    catalogue = SimpleNamespace(
        name="restaurants", get={"lakshmi": RESTAURANT}.get, all=lambda: [RESTAURANT, *[unshowable] * 100]
    )
    monkeypatch.setattr(table_views, "catalogue", catalogue)
    one = table_views.OwnersRows(streams.app.app, streams.app.app.web)
    for key, found in (("lakshmi", ["lakshmi"]), ("nobody", [])):
        answer = body_of(await one.get(make_mocked_request("GET", "/"), "restaurants", key))
        assert [row["key"] for row in answer["rows"]] == found
    every = table_views.TableRows(streams.app.app, streams.app.app.web)
    first = body_of(await every.get(make_mocked_request("GET", "/?limit=1"), "restaurants"))
    assert [row["key"] for row in first["rows"]] == ["lakshmi"]


async def test_of_all_who_wait_in_a_region_the_first_are_shown_and_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
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

    monkeypatch.setattr(tables, "dispatch", SimpleNamespace(pages=pages))
    count, first = await operations._counted("fort", "driver", operations._waiting, 3)
    assert (count, [row["driver"] for row in first]) == (1000, ["0000", "0001", "0002"])
    assert most_alive <= 2


@pytest.mark.parametrize("name", [TABLE, "positions/a-topic"])
async def test_a_table_of_which_a_partition_is_open_nowhere_is_not_shown_without_it(
    tasks: list[LargeRows], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    del streams.app.engine.tasks[1], streams.app.engine.tasks[3]
    shares = [Share([1], [("1/0", {"partition": 1, "key": "1/0", "row": {}})]), Share([3], [])]

    async def send_on(_request: web.Request, _owner: str) -> web.Response:
        return web.Response(body=msgspec.json.encode(shares.pop(0)))

    monkeypatch.setattr("streams.views.listing.send_on", send_on)
    monkeypatch.setattr("streams.views.listing.other_workers", lambda: ["http://one", "http://another"])
    table, _, key = name.partition("/")
    assert "1/0" in await shown_of(table, key)
    monkeypatch.setattr("streams.views.listing.other_workers", list)
    with pytest.raises(Problem) as missing:
        await shown_of(table, key)
    assert (missing.value.status, missing.value.headers) == (503, SOON)


async def test_the_positions_in_a_topic_are_found_however_many_topics_come_before(tasks: list[LargeRows]) -> None:
    for task in tasks:
        task.positions[b"z-topic"] = b"7"
    view = table_views.OwnersRows(streams.app.app, streams.app.app.web)
    answer = await view.get(make_mocked_request("GET", "/?limit=4"), "positions", "z-topic")
    assert [(row["partition"], row["key"], row["row"]) for row in body_of(answer)["rows"]] == [
        (task.partition, "z-topic", 7) for task in tasks
    ]
    assert not any(task.read_rows for task in tasks), "no other row is read"


async def shown_of(table: str, key: str) -> list[str]:
    """The keys that a view shows of a table, or of an owner's rows in it."""
    request = make_mocked_request("GET", "/?limit=1")
    if key:
        answer = await table_views.OwnersRows(streams.app.app, streams.app.app.web).get(request, table, key)
    else:
        answer = await table_views.TableRows(streams.app.app, streams.app.app.web).get(request, table)
    return [row["key"] for row in body_of(answer)["rows"]]


async def test_a_table_of_large_rows_is_answered_with_as_much_as_fits(
    tasks: list[LargeRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_views, "LARGEST", 40 * ROW_BYTES)
    view = table_views.TableRows(streams.app.app, streams.app.app.web)
    async with Meanwhile(tasks) as meanwhile:
        answer = await view.get(make_mocked_request("GET", "/?limit=10000"), TABLE)
    assert [row["key"] for row in body_of(answer)["rows"]] == [f"0/{number:05d}" for number in range(40)]
    assert meanwhile.most <= 25
    few = await view.get(make_mocked_request("GET", "/?limit=3"), TABLE)
    assert len(body_of(few)["rows"]) == 3
