"""Reading a real Kafka: the oracle reads all committed records with their producers, and no others."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.topic_admin import TopicSpec, check_topics, create_topics
from oracle.log import EARLIEST, LATEST, Batch, CannotRead, Log, NotDecodable
from oracle.writers import Writers
from tests.support.poison import poison

Record = tuple[bytes | None, bytes | None, tuple[Any, ...]]


class Stage:
    """A topic with two partitions, its writers, and its reader."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.kafka = kafka
        self.topic = topic
        self.partitions = [TopicPartition(topic, number) for number in range(2)]
        self.positions: dict[TopicPartition, int] = {}
        self.batches: list[Batch] = []
        self.values: list[bytes | None] = []
        self.undecoded: list[Batch] = []
        self._clients: list[TransactionalClient] = []

    async def owner(self, transactional_id: str = "") -> TransactionalClient:
        """Return a client that owns the transactional id, by default the topic's name. It fences the previous owner."""
        client = TransactionalClient(AIOKafkaClient(bootstrap_servers=self.kafka), transactional_id or self.topic)
        self._clients.append(client)
        await client.start([self.topic])
        return client

    async def write(self, client: TransactionalClient, *values: bytes, commit: bool | None = True) -> None:
        """Write one transaction. ``commit`` is False to abort it, and None to leave it open."""
        await client.produce({(self.topic, 0): [(b"k", value, ()) for value in values]})
        if commit is not None:
            await client.end(commit=commit)

    async def read(self, count: int) -> list[bytes | None]:
        """Return all values once there are ``count`` of them: a commit becomes visible after its answer."""
        async with Log(self.kafka) as log, asyncio.timeout(120):
            await log.follow([self.topic])
            self.positions = self.positions or await log.offsets(self.partitions, EARLIEST)
            while len(self.values) < count:
                await log.read(self.positions, self._take, self._undecoded, lambda left: None)
        return self.values

    def _take(self, batch: Batch, first: int) -> None:
        self.batches.append(batch)
        if not batch.is_marker:
            self.values += [record.value for record in batch.records(first)]

    def _undecoded(self, batch: Batch, _: NotDecodable) -> None:
        self.undecoded.append(batch)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@pytest.fixture
async def stage(kafka: str, unique: str) -> AsyncIterator[Stage]:
    stage = Stage(kafka, unique)
    specs = [TopicSpec(unique, 2)]
    await create_topics({"bootstrap_servers": kafka}, specs, 1)
    await check_topics({"bootstrap_servers": kafka}, specs, wait_s=10)
    yield stage
    await stage.close()


async def test_only_committed_records_are_read(stage: Stage) -> None:
    owner = await stage.owner()
    await stage.write(owner, b"1", b"2")
    await stage.write(owner, b"aborted", commit=False)
    await stage.write(owner, b"3")
    await stage.write(owner, b"open", commit=None)
    assert await stage.read(3) == [b"1", b"2", b"3"]
    await owner.end()
    assert await stage.read(4) == [b"1", b"2", b"3", b"open"]


async def test_read_starts_inside_a_batch_or_at_a_time(stage: Stage, kafka: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        batch = producer.create_batch()
        for number in range(4):
            batch.append(key=None, value=b"%d" % number, timestamp=1_000 + number)
        await (await producer.send_batch(batch, stage.topic, partition=0))
    stage.positions = dict(zip(stage.partitions, (2, 0), strict=True))
    assert await stage.read(2) == [b"2", b"3"]
    async with Log(kafka) as log:
        await log.follow([stage.topic])
        assert await log.offsets(stage.partitions, 1_003) == dict(zip(stage.partitions, (3, 0), strict=True))
        assert await log.offsets(stage.partitions, 9_000) == dict(zip(stage.partitions, (4, 0), strict=True))
        assert await log.offsets(stage.partitions, LATEST) == dict(zip(stage.partitions, (4, 0), strict=True))


async def test_undecodable_batch_is_reported_and_skipped(stage: Stage, kafka: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(stage.topic, b"before", partition=0)
        await poison({"bootstrap_servers": kafka}, stage.topic, 0, b"k", b"bad")
        await producer.send_and_wait(stage.topic, b"after", partition=0)
    assert await stage.read(2) == [b"before", b"after"]
    assert [(batch.offset, batch.transactional) for batch in stage.undecoded] == [(1, False)]


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
async def test_compressed_records_are_read(stage: Stage, kafka: str, compression: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka, compression_type=compression) as producer:
        for _ in range(3):
            await producer.send_and_wait(stage.topic, b"x" * 5_000, partition=1)
    assert await stage.read(3) == [b"x" * 5_000] * 3


async def test_marker_of_a_commit_has_the_next_epoch(stage: Stage) -> None:
    owner = await stage.owner()
    for number in range(3):
        await stage.write(owner, b"%d" % number)
    await stage.read(3)
    assert [batch.is_marker for batch in stage.batches] == [False, True] * 3
    epochs = [batch.epoch for batch in stage.batches]
    assert [marker - data for data, marker in zip(epochs[::2], epochs[1::2], strict=True)] == [1, 1, 1]
    assert epochs[1:-1:2] == epochs[2::2]


async def test_replaced_producer_writes_nothing(stage: Stage) -> None:
    first = await stage.owner()
    await stage.write(first, b"1")
    await stage.write(first, b"open", commit=None)
    await stage.write(await stage.owner(), b"2")
    await stage.read(2)
    writers = Writers()
    assert not [stale for batch in stage.batches if (stale := writers.note(batch, single_writer=True))]
    assert stage.values == [b"1", b"2"]


async def test_second_writer_of_a_partition_is_found(stage: Stage) -> None:
    one, other = await stage.owner(), await stage.owner(f"{stage.topic}-other")
    for count, (owner, value) in enumerate(((one, b"1"), (other, b"2"), (one, b"3")), 1):
        await stage.write(owner, value)
        # The coordinator answers a commit before it writes the markers. Records of another transactional id do not wait
        # for them, and a marker behind such records would be the first stale write.
        await stage.read(count)
    writers = Writers()
    found = [stale for batch in stage.batches if (stale := writers.note(batch, single_writer=True))]
    assert found[0].producer == one.producer_id
    assert found[0].by_producer == other.producer_id
    assert found[0].where.offset == 4, "each transaction is one record and one marker"


async def test_unreachable_kafka_is_named() -> None:
    with pytest.raises(CannotRead, match=r"No Kafka answers at 127.0.0.1:1:"):
        async with Log("127.0.0.1:1"):
            pass


@pytest.mark.parametrize("address", ["localhost:abc", "127.0.0.1:99999", "[::1"])
async def test_wrong_address_is_named(address: str) -> None:
    with pytest.raises(CannotRead, match="is not an address of Kafka: write host:port"):
        async with Log(address):
            pass


async def test_kafka_that_lists_no_topics_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_: AIOKafkaClient) -> None:
        raise KafkaError("Unable to get cluster metadata over all known brokers")

    monkeypatch.setattr(AIOKafkaClient, "fetch_all_metadata", fails)
    with pytest.raises(CannotRead, match="does not list its topics"):
        await Log("127.0.0.1:1").topics()
