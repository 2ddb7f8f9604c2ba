"""The restore of a store from a changelog on a real Kafka.

The changelog must contain the last record that the store has applied; otherwise the store is restored from its start.
"""

import asyncio
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient

from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.topic_admin import CHANGELOG_CONFIG, TopicSpec, check_topics, create_topics
from exactly_once.state.restore import Restored, restore
from exactly_once.state.rocksdb import PartitionStore
from exactly_once.task.transaction import ProduceResult

NOW_MS = 1_800_000_000_000
ROWS = {b"k": b"1", b"l": b"2", b"m": b"3"}


class Changelog:
    """A changelog of the table ``t`` with three rows, and the stores that follow it."""

    def __init__(self, kafka: str, topic: str, directory: Path) -> None:
        self.settings = {"bootstrap_servers": kafka}
        self.topic = topic
        self.directory = directory
        self.id = ""

    async def write(self) -> ProduceResult:
        """Commit the rows, and return the offset after them and their time."""
        specs = [TopicSpec(self.topic, 1, CHANGELOG_CONFIG)]
        await create_topics(self.settings, specs, 1)
        await check_topics(self.settings, specs, wait_s=120)
        client = TransactionalClient(AIOKafkaClient(**self.settings), self.topic)
        try:
            await client.start([self.topic])
            self.id = (await client.topic_ids())[self.topic]
            appended = await client.produce({(self.topic, 0): [(key, value, ()) for key, value in ROWS.items()]})
            await client.end()
            return appended[self.topic, 0]
        finally:
            await client.close()

    def store(self) -> PartitionStore:
        return PartitionStore(self.directory / "0", 0, ["t"], {"t": self.id}, lambda: NOW_MS)

    async def restore(self, store: PartitionStore) -> Restored:
        async with asyncio.timeout(120):
            return await restore(self.settings, store, {"t": self.topic}, [], NOW_MS, lambda _: None)


@pytest.fixture
def changelog(kafka: str, unique: str, tmp_path: Path) -> Changelog:
    return Changelog(kafka, f"{unique}-changelog", tmp_path)


async def test_a_restored_changelog_is_not_read_again(changelog: Changelog) -> None:
    appended = await changelog.write()
    restored = changelog.store()
    assert (await changelog.restore(restored)).records == len(ROWS)
    assert dict(restored.rows("t")) == ROWS
    checkpoint = restored.checkpoint("t")
    assert checkpoint is not None
    assert (checkpoint.last_offset + 1, checkpoint.last_ms) == appended, "offset and time are those of the commit"
    assert (await changelog.restore(restored)).records == 0
    restored.close()


@pytest.mark.parametrize("late_ms", [0, 1, -1])
async def test_a_last_record_of_another_time_is_of_another_log(
    changelog: Changelog, late_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    appended = await changelog.write()
    store = changelog.store()
    mine = {**ROWS, b"of the other": b"4"}
    store.write({"t": mine}, {"t": appended.next_offset}, {"t": appended.broker_ms + late_ms})
    await changelog.restore(store)
    assert dict(store.rows("t")) == (ROWS if late_ms else mine)
    assert ("the last record applied" in caplog.text) is bool(late_ms)
    store.close()


async def test_a_checkpoint_without_a_record_is_not_trusted(changelog: Changelog) -> None:
    """The store saw the end of a log with every record compacted away. The log has lost its end since, and grown."""
    appended = await changelog.write()
    store = changelog.store()
    store.write({}, {"t": appended.next_offset - 1}, {})
    assert (await changelog.restore(store)).records == len(ROWS)
    assert dict(store.rows("t")) == ROWS
    store.close()
