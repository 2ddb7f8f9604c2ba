"""`dabbawala sql` over two workers: complete answers, from readers that disturb and outlive nobody."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.flow.client import Client, an_order, order_id
from tests.flow.two_workers import one_of, one_of_each, two_workers
from tests.support.stack import Stack, run_command
from topics.restaurants import Restaurant

MARK = "Zquark"
UNAVAILABLE = "try again"
QUERIES = 12
"""Queries around the kill of a worker; one of them at least is under way then."""


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run two workers in one directory, and all outside parties."""
    with two_workers(kafka, tmp_path_factory.mktemp("sql")) as stack:
        yield stack


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """Return a client of each worker."""
    async with one_of_each(stack) as clients:
        yield clients


def sql(stack: Stack, *arguments: str) -> tuple[int, str, str]:
    """Run `dabbawala sql`; return exit status, stdout and stderr."""
    return run_command([sys.executable, "-m", "streams.cli", "sql", *arguments], stack.environment)


async def rows(stack: Stack, statement: str, *options: str) -> list[dict[str, Any]]:
    """Return the rows of a statement that has to succeed."""
    status, printed, error = await asyncio.to_thread(sql, stack, "--json", *options, statement)
    assert status == 0, error
    found: list[dict[str, Any]] = msgspec.json.decode(printed)
    return found


def readers_of(pid: int) -> list[psutil.Process]:
    """Return the reader processes of a worker."""
    return [child for child in psutil.Process(pid).children() if "streams.sql.reader" in child.cmdline()]


async def test_a_query_has_the_rows_of_both_workers(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    stack, names = clients[0].stack, [await one_of(client, unique) for client in clients]
    customer = an_order(tiffin, names[0])["customer"] | {"name": f"{MARK} Rao", "note": MARK}
    for name in names:
        await clients[0].place(an_order(tiffin, name, customer=customer))
        await clients[0].reaches(order_id(name), "DELIVERED")
    ids = ", ".join(f"'{order_id(name)}'" for name in names)
    scanned = await rows(stack, f"select id, status, worker, age_s from orders where id || '' in ({ids}) order by id")
    assert [(row["id"], row["status"]) for row in scanned] == sorted((order_id(name), "DELIVERED") for name in names)
    assert {row["worker"] for row in scanned} == {stack.url_of(1), stack.url_of(2)}
    assert all(0 < row["age_s"] < 3600 for row in scanned)
    looked_up = await rows(stack, f"select id, status, worker, age_s from orders where id in ({ids}) order by id")
    assert looked_up == scanned
    lines = await rows(stack, f"select seq, event from journal where order_id = '{order_id(names[1])}' order by seq")
    assert [(line["seq"], line["event"]) for line in lines] == [
        (line["seq"], line["event"]) for line in await clients[0].journal(order_id(names[1]))
    ]
    assert {row["partition"] for row in await rows(stack, "from tasks")} == set(range(4))
    assert tiffin.restaurant in {row["restaurant"] for row in await rows(stack, "select restaurant from restaurants")}


async def test_personal_data_is_masked_unless_revealed(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    stack, name = clients[0].stack, await one_of(clients[1], unique)
    customer = an_order(tiffin, name)["customer"] | {"name": f"{MARK} Rao", "note": MARK}
    await clients[0].place(an_order(tiffin, name, customer=customer))
    await clients[0].reaches(order_id(name), "DELIVERED")
    for condition in (f"order_id = '{order_id(name)}'", f"order_id || '' = '{order_id(name)}'"):
        statement = f"select customer.name as name, customer.note as note from bodies where {condition}"
        assert await rows(stack, statement) == [{"name": "Z***", "note": "***"}]
        shown = await rows(stack, statement, "--reveal", "--reason", f"test {unique}")
        assert shown == [{"name": f"{MARK} Rao", "note": MARK}]
    readings = [row for row in (await clients[0].get("/v1/audit"))["actions"] if row["reason"] == f"test {unique}"]
    assert len(readings) == 2
    assert {(row["thing"], row["outcome"]) for row in readings} == {("bodies", "READ")}
    status, _, error = await asyncio.to_thread(sql, stack, "--reveal", "select 1")
    assert (status, "--reason" in error) == (2, True)


async def test_errors_are_sentences(clients: tuple[Client, Client]) -> None:
    stack = clients[0].stack
    for statement, word in [
        ("delete from orders", "can be read only"),
        ("select nothing from orders", "nothing"),
        ("select * from read_text('/etc/passwd')", "disabled"),
        ("select 1; select 2", "one statement"),
    ]:
        status, printed, error = await asyncio.to_thread(sql, stack, statement)
        assert (status, printed) == (2, ""), statement
        assert word in error
        assert "Traceback" not in error


async def test_a_killed_worker_never_leaves_a_partial_answer(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    """Runs last in this file: it leaves one worker."""
    stack = clients[0].stack
    names = [await one_of(client, f"{unique}-{number}") for client in clients for number in range(3)]
    for name in names:
        await clients[0].place(an_order(tiffin, name))
        await clients[0].reaches(order_id(name), "DELIVERED")
    counting = f"select count(*) as n from orders where id || '' like '%{unique}%'"
    assert await rows(stack, counting) == [{"n": len(names)}]
    [reader] = readers_of(stack.workers[2].pid)
    running = [asyncio.create_task(asyncio.to_thread(sql, stack, "--json", counting)) for _ in range(QUERIES)]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    stack.workers[2].kill()
    for status, printed, error in await asyncio.gather(*running):
        assert (status, printed) != (0, "")
        if status == 0:
            assert msgspec.json.decode(printed) == [{"n": len(names)}]
        else:
            assert UNAVAILABLE in error
    await clients[0].until(lambda: _has_ended(reader), "the reader of the killed worker has ended")
    await clients[0].until(lambda: _owns_all(clients[0]), "the other worker has all partitions")
    assert await rows(stack, counting) == [{"n": len(names)}]
    assert not foreign_files(stack.home(1) / "tasks")


async def _has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def _owns_all(client: Client) -> bool:
    answer = await client.http.get("/readyz")
    return answer.status_code == 200 and answer.json()["partitions"] == list(range(4))


def foreign_files(stores: Path) -> list[Path]:
    """Return the files of a reader in the workers' stores."""
    return [file for file in stores.rglob("*") if file.is_symlink() or "secondary" in file.name]
