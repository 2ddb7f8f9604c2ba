"""Changelogs that are compacted while a worker runs, or that lost their end: a restore equals the changelogs."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from exactly_once.kafka import topic_admin
from streams.local.kafka import broker as kafka
from streams.local.kafka.broker import EmbeddedKafka
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import Run
from tests.support.changelogs import folded
from tests.support.own_broker import own_broker

pytestmark = pytest.mark.timeout(400)

COMPACT_AT_ONCE = {
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "500",
}
"""Settings that compact a changelog a moment after a write, and drop tombstones a moment later."""
COMPACT_NEVER = {"min.cleanable.dirty.ratio": "0.99", "min.compaction.lag.ms": str(24 * 3600 * 1000)}
"""Settings that keep tombstones for a day, so that a reader on a busy machine sees them."""
WITHIN_S = 480.0
KEYS = 7
"""Number of keys, each of which is counted many times."""
Left = dict[tuple[str, int], list[tuple[int, bytes | None]]]


async def test_a_restore_from_compacted_changelogs_is_exact(
    unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "PROPERTIES", f"{kafka.PROPERTIES}log.cleaner.backoff.ms=100\n")
    directory = tmp_path / "toy"
    directory.mkdir()
    with own_broker(tmp_path / "kafka") as broker:
        async with Run(await asyncio.to_thread(broker.start), unique, directory) as toy:
            worker = await toy.at_work(toy.start())
            await toy.send(200, ids=KEYS)
            await toy.done()
            assert worker.terminate() == 0, worker.tail()
            shutil.copytree(directory / "worker-1", directory / "older")
            await set_all(toy, COMPACT_AT_ONCE)
            await work_until_compacted(toy)
            await set_all(toy, COMPACT_NEVER)
            assert await finished(toy)
            before = toy.stored()

            shutil.rmtree(directory / "worker-1")
            await opened_and_stopped(toy)
            assert toy.stored() == before, "restored from the compacted changelogs"

            shutil.rmtree(directory / "worker-1")
            shutil.copytree(directory / "older", directory / "worker-1")
            worker_log = await opened_and_stopped(toy)
            assert toy.stored() == before, "restored from a disk older than the compaction"
            assert "the last record applied" in worker_log
            assert before == await rows_of(toy)


async def set_all(toy: Run, config: Mapping[str, str]) -> None:
    """Give all changelogs these settings."""
    changelogs = [names.changelog(toy.run, table) for table in (*names.TABLES, *names.OWN_TABLES)]
    async with topic_admin._connected({"bootstrap_servers": toy.kafka}) as client:
        await topic_admin._set(client, dict.fromkeys(changelogs, config))


async def work_until_compacted(toy: Run) -> None:
    """Send records until old counts are compacted away, and the tombstones of early timers and calls too."""
    worker = await toy.at_work(toy.start())
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while not compacted(left := await left_of(toy, "counts", "timers", "calls"), toy.sent):
        assert asyncio.get_running_loop().time() < deadline, {tp: len(records) for tp, records in left.items()}
        await toy.send(20, ids=KEYS)  # a later record closes the segment
    while not await finished(toy):
        assert asyncio.get_running_loop().time() < deadline + WITHIN_S, await rows_of(toy)
    assert worker.terminate() == 0, worker.tail()


async def finished(toy: Run) -> bool:
    """Return whether every record has all its effects, and no timer or call is left."""
    partitions = await folded(toy.kafka, toy.run, names.PARTITIONS)
    counts = {
        table: sum(int(count) for tables in partitions for count in tables.get(table, {}).values())
        for table in ("counts", "seen", "fired", "called")
    }
    waiting = [table for tables in partitions for table in ("timers", "calls") if table in tables]
    return not waiting and set(counts.values()) == {toy.sent}


def compacted(left: Left, sent: int) -> bool:
    """Return whether most counts are compacted away, and the first records of timers and calls too."""
    counts = sum(len(records) for (table, _), records in left.items() if table == "counts")
    firsts = [records[0][0] if records else 1 for (table, _), records in left.items() if table != "counts"]
    return counts < sent / 2 and sum(first > 0 for first in firsts) > names.PARTITIONS


async def left_of(toy: Run, *tables: str) -> Left:
    """Return (table, partition) -> the remaining records of its changelog, as (offset, value)."""
    consumer = AIOKafkaConsumer(bootstrap_servers=toy.kafka, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    try:
        topics = {names.changelog(toy.run, table): table for table in tables}
        places = [TopicPartition(topic, partition) for topic in topics for partition in range(names.PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        left: Left = {(topics[tp.topic], tp.partition): [] for tp in places}
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                left[topics[tp.topic], tp.partition] += [(record.offset, record.value) for record in records]
        return left
    finally:
        await consumer.stop()


async def opened_and_stopped(toy: Run) -> str:
    """Start a worker without load, stop it once its tasks are open, and return its log."""
    worker = toy.start()
    await toy.wait(lambda: worker.logged("tasks [0, 1, 2, 3] open"), why="all tasks are open")
    assert worker.terminate() == 0, worker.tail()
    return worker.log.read_text()


async def rows_of(toy: Run) -> dict[tuple[str, int, bytes], bytes]:
    """Return the rows of the changelogs, in the shape of ``Run.stored``."""
    partitions = await folded(toy.kafka, toy.run, names.PARTITIONS)
    return {
        (table, partition, key): value
        for partition, tables in enumerate(partitions)
        for table, rows in tables.items()
        for key, value in rows.items()
    }


async def test_a_disk_ahead_of_a_truncated_log_is_detected(unique: str, tmp_path: Path) -> None:
    """A broker is reset to an earlier copy of its disk. Its topics keep their ids, and other records follow."""
    directory, disk, data = tmp_path / "toy", tmp_path / "toy" / "worker-1", tmp_path / "kafka" / "kafka" / "data"
    directory.mkdir()
    with own_broker(tmp_path / "kafka") as broker:
        await work(broker, unique, directory, 100)
        await asyncio.to_thread(broker.kill)
        shutil.copytree(data, tmp_path / "earlier")
        await work(broker, unique, directory, 50)
        disk.rename(tmp_path / "ahead")
        await asyncio.to_thread(broker.kill)
        shutil.rmtree(data)
        (tmp_path / "earlier").rename(data)
        await work(broker, unique, directory, 200)
        shutil.rmtree(disk)
        (tmp_path / "ahead").rename(disk)
        async with Run(await asyncio.to_thread(broker.start), unique, directory) as toy:
            log = await opened_and_stopped(toy)
            assert toy.stored() == await rows_of(toy)
        assert "the last record applied" in log, "the changelogs have grown past the checkpoints"


async def work(broker: EmbeddedKafka, run: str, directory: Path, records: int) -> None:
    """Start a worker, have it apply so many records, and stop it."""
    async with Run(await asyncio.to_thread(broker.start), run, directory) as toy:
        before = sum(int(value) for (table, _, _), value in (await rows_of(toy)).items() if table == "counts")
        worker = toy.start()
        await toy.send(records, ids=KEYS)
        toy.sent += before
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        while not await finished(toy):
            assert asyncio.get_running_loop().time() < deadline, worker.tail()
        assert worker.terminate() == 0, worker.tail()
