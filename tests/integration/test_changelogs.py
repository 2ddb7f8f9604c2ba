"""Changelogs that are compacted under a worker's feet, or are not what they were: what is restored is what they say."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.embedded import kafka
from streams.embedded.kafka import EmbeddedKafka
from streams.engine import provision
from tests.changelogs import folded
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import Run
from tests.own_broker import own_broker

pytestmark = pytest.mark.timeout(400)

AT_ONCE = {
    "segment.ms": "200",
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "500",
}
"""Compacted a moment after it was written, and deletions forgotten a moment after that."""
NO_MORE = {"min.cleanable.dirty.ratio": "0.99", "min.compaction.lag.ms": str(24 * 3600 * 1000)}
"""Who reads must be quicker than deletions are forgotten: in a day, not in half a second on a busy machine."""
WITHIN_S = 120.0
KEYS = 7
"""Each is counted over and over."""
Left = dict[tuple[str, int], list[tuple[int, bytes | None]]]


async def test_what_is_restored_from_compacted_changelogs_is_exact_and_an_older_disk_is_not_believed(
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
            assert worker.terminate()[0] == 0, worker.tail()
            shutil.copytree(directory / "worker-1", directory / "older")
            await set_all(toy, AT_ONCE)
            await work_until_compacted(toy)
            await set_all(toy, NO_MORE)
            assert await finished(toy)
            before = toy.stored()

            shutil.rmtree(directory / "worker-1")
            await opened_and_stopped(toy)
            assert toy.stored() == before, "restored from what is left"

            shutil.rmtree(directory / "worker-1")
            shutil.copytree(directory / "older", directory / "worker-1")
            worker_log = await opened_and_stopped(toy)
            assert toy.stored() == before, "brought up to date from before the compaction"
            assert "that was followed last" in worker_log
            assert before == await rows_of(toy)


async def set_all(toy: Run, config: Mapping[str, str]) -> None:
    """Give all changelogs these settings."""
    changelogs = [names.changelog(toy.run, table) for table in (*names.TABLES, *names.OWN_TABLES)]
    async with provision._connected({"bootstrap_servers": toy.kafka}) as client:
        await provision._set(client, dict.fromkeys(changelogs, config))


async def work_until_compacted(toy: Run) -> None:
    """Until earlier counts are gone, and the deletions of early timers and calls too."""
    worker = await toy.at_work(toy.start())
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while not compacted(left := await left_of(toy, "counts", "timers", "calls"), toy.sent):
        assert asyncio.get_running_loop().time() < deadline, {tp: len(records) for tp, records in left.items()}
        await toy.send(20, ids=KEYS)  # a segment is closed by what comes after it
    while not await finished(toy):
        assert asyncio.get_running_loop().time() < deadline + WITHIN_S, await rows_of(toy)
    assert worker.terminate()[0] == 0, worker.tail()


async def finished(toy: Run) -> bool:
    """Whether all that was sent is done, and nothing is to come."""
    partitions = await folded(toy.kafka, toy.run, names.PARTITIONS)
    counts = {
        table: sum(int(count) for tables in partitions for count in tables.get(table, {}).values())
        for table in ("counts", "seen", "fired", "called")
    }
    waiting = [table for tables in partitions for table in ("timers", "calls") if table in tables]
    return not waiting and set(counts.values()) == {toy.sent}


def compacted(left: Left, sent: int) -> bool:
    """Whether most counts are gone, and of timers and calls, which are all over, what the first records said."""
    counts = sum(len(records) for (table, _), records in left.items() if table == "counts")
    firsts = [records[0][0] if records else 1 for (table, _), records in left.items() if table != "counts"]
    return counts < sent / 2 and sum(first > 0 for first in firsts) > names.PARTITIONS


async def left_of(toy: Run, *tables: str) -> Left:
    """Table and partition -> what is left of its changelog, as (offset, value)."""
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
    """The log of a worker that opened its tasks, with nothing to do, and ended."""
    worker = toy.start()
    await toy.wait(lambda: worker.logged("tasks [0, 1, 2, 3] open"), 90, why="open")
    assert worker.terminate()[0] == 0, worker.tail()
    return worker.log.read_text()


async def rows_of(toy: Run) -> dict[tuple[str, int, bytes], bytes]:
    """What the changelogs say, in the shape of ``Run.stored``."""
    partitions = await folded(toy.kafka, toy.run, names.PARTITIONS)
    return {
        (table, partition, key): value
        for partition, tables in enumerate(partitions)
        for table, rows in tables.items()
        for key, value in rows.items()
    }


async def test_a_disk_that_followed_a_log_which_lost_its_end_and_grew_again_is_noticed(
    unique: str, tmp_path: Path
) -> None:
    """A broker is put back to an earlier copy of its disk: the topics are the same, and as long, with other records."""
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
        assert "that was followed last" in log, "of the topics that have grown beyond"


async def work(broker: EmbeddedKafka, run: str, directory: Path, records: int) -> None:
    """Have a worker start, do so much, and end."""
    async with Run(await asyncio.to_thread(broker.start), run, directory) as toy:
        before = sum(int(value) for (table, _, _), value in (await rows_of(toy)).items() if table == "counts")
        worker = toy.start()
        await toy.send(records, ids=KEYS)
        toy.sent += before
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        while not await finished(toy):
            assert asyncio.get_running_loop().time() < deadline, worker.tail()
        assert worker.terminate()[0] == 0, worker.tail()
