"""The reader process: it reads what is committed, ends when it is idle and with its worker, and is started again."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil
import pytest

from exactly_once.state.rocksdb import PartitionStore
from streams.sql.projection import Opened
from streams.sql.reader import ReadPartition, ReadTable
from streams.sql.reader_process import ReaderFailed, ReaderProcess

WITHIN_S = 300.0
NEVER_S = 3600.0
ORPHANED = """
import asyncio, sys
from pathlib import Path
from streams.sql.reader_process import ReaderProcess
from tests.streams.sql.test_reader_process import counting
async def main():
    reader = ReaderProcess(lambda: Path(sys.argv[1]), 3600.0)
    async for _ in reader.read(counting(Path(sys.argv[1]) / "0")):
        print(reader.pid, flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""


def counting(path: Path, opening: int = 1) -> ReadTable:
    opened = Opened(partition=0, worker="http://w", as_of_ms=1)
    partitions = (ReadPartition(opened, str(path), opening),)
    return ReadTable(table="orders", fields=("key",), is_masked=True, limit=None, partitions=partitions)


@pytest.fixture
def store(tmp_path: Path) -> PartitionStore:
    made = PartitionStore(tmp_path / "0", 0, ["orders"], {"orders": "id"}, lambda: 1_000)
    made.write({"orders": {b"a": b"{}", b"b": b"{}"}}, {"orders": 2}, {"orders": 1_000})
    return made


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[ReaderProcess]:
    made = ReaderProcess(lambda: tmp_path, NEVER_S)
    yield made
    await made.stop()


async def keys(reader: ReaderProcess, request: ReadTable) -> list[str]:
    """Return the keys of an answer that has to be complete."""
    answer = b"".join([chunk async for chunk in reader.read(request)])
    first, *lines, last = [msgspec.json.decode(line) for line in answer.splitlines()]
    assert first == {"partition": 0, "worker": "http://w", "as_of_ms": 1}
    found = [key for line in lines for key in line["rows"]["key"]]
    assert last == {"count": len(found)}
    return found


async def until_ended(pid: int) -> None:
    await asyncio.to_thread(wait_until_ended, pid)


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_each_request_sees_the_last_commit(store: PartitionStore, reader: ReaderProcess, tmp_path: Path) -> None:
    assert await keys(reader, counting(tmp_path / "0")) == ["a", "b"]
    store.write({"orders": {b"c": b"{}"}}, {"orders": 3}, {"orders": 1_000})
    assert await keys(reader, counting(tmp_path / "0")) == ["a", "b", "c"]
    store.reset_table("orders", "a test resets it")
    store.write({"orders": {b"d": b"{}"}}, {"orders": 4}, {"orders": 1_000})
    assert await keys(reader, counting(tmp_path / "0", opening=2)) == ["d"]
    store.close()


async def test_an_idle_reader_ends_and_is_started_again(store: PartitionStore, tmp_path: Path) -> None:
    reader = ReaderProcess(lambda: tmp_path, 0.05)
    pids = []
    for _ in range(2):
        assert await keys(reader, counting(tmp_path / "0")) == ["a", "b"]
        assert reader.pid is not None
        pids.append(reader.pid)
        await until_ended(reader.pid)
    assert len(set(pids)) == 2
    assert not list((tmp_path / "reader").iterdir())
    await reader.stop()
    store.close()


async def test_a_large_reader_ends_and_is_started_again(store: PartitionStore, tmp_path: Path) -> None:
    reader = ReaderProcess(lambda: tmp_path, NEVER_S, max_bytes=1)
    for _ in range(2):
        assert await keys(reader, counting(tmp_path / "0")) == ["a", "b"]
        assert reader.pid is not None
        await until_ended(reader.pid)
    await reader.stop()
    store.close()


async def test_a_killed_reader_is_started_again(store: PartitionStore, reader: ReaderProcess, tmp_path: Path) -> None:
    assert await keys(reader, counting(tmp_path / "0")) == ["a", "b"]
    assert reader.pid is not None
    psutil.Process(reader.pid).kill()
    await until_ended(reader.pid)
    assert await keys(reader, counting(tmp_path / "0")) == ["a", "b"]
    store.close()


async def test_a_store_that_cannot_be_read_ends_the_answer(reader: ReaderProcess, tmp_path: Path) -> None:
    answer = b"".join([chunk async for chunk in reader.read(counting(tmp_path / "nowhere"))])
    [failure] = [msgspec.json.decode(line) for line in answer.splitlines()]
    assert "partition 0" in failure["failed"]


async def test_a_reader_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    reader = ReaderProcess(lambda: tmp_path, NEVER_S)
    with pytest.raises(ReaderFailed):
        await keys(reader, counting(tmp_path / "0"))
    await reader.stop()


def test_a_reader_ends_with_its_worker(store: PartitionStore, tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", ORPHANED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    assert psutil.pid_exists(pid)
    worker.kill()
    worker.wait()
    wait_until_ended(pid)
    store.close()
