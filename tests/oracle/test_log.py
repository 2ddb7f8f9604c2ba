"""What the oracle reads of a real Kafka: all that is committed, nothing else, and who wrote it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from oracle.log import EARLIEST, LATEST, Batch, CannotRead, Log, NotDecodable
from oracle.writers import Writers
from streams.engine.provision import TopicSpec, check_topics, create_topics
from streams.engine.transactions import TransactionalClient
from tests.poison import poison

Record = tuple[bytes | None, bytes | None, tuple[Any, ...]]


class Stage:
    """A topic with two partitions, those who write to it, and who reads it."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.kafka, self.topic = kafka, topic
        self.partitions = [TopicPartition(topic, number) for number in range(2)]
        self.positions: dict[TopicPartition, int] = {}
        self.batches: list[Batch] = []
        self.values: list[bytes | None] = []
        self.undecoded: list[Batch] = []
        self._clients: list[TransactionalClient] = []

    async def owner(self, transactional_id: str = "") -> TransactionalClient:
        """Whoever had the transactional id before has it no more."""
        client = TransactionalClient(AIOKafkaClient(bootstrap_servers=self.kafka), transactional_id or self.topic)
        self._clients.append(client)
        await client.start([self.topic])
        return client

    async def write(self, client: TransactionalClient, *values: bytes, commit: bool | None = True) -> None:
        """One transaction; None leaves it open."""
        await client.produce({(self.topic, 0): [(b"k", value, ()) for value in values]})
        if commit is not None:
            await client.end(commit=commit)

    async def read(self, count: int) -> list[bytes | None]:
        """All values, once there are so many: a commit is answered some milliseconds before it is seen."""
        async with Log(self.kafka) as log, asyncio.timeout(30):
            await log.follow([self.topic])
            self.positions = self.positions or await log.offsets(self.partitions, EARLIEST)
            while len(self.values) < count:
                await log.read(self.positions, self._take, self._undecoded, lambda left: None)
        return self.values

    def _take(self, batch: Batch, first: int) -> None:
        self.batches.append(batch)
        if not batch.mark:
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


async def test_what_is_committed_is_read_and_nothing_else(stage: Stage) -> None:
    owner = await stage.owner()
    await stage.write(owner, b"1", b"2")
    await stage.write(owner, b"aborted", commit=False)
    await stage.write(owner, b"3")
    await stage.write(owner, b"open", commit=None)
    assert await stage.read(3) == [b"1", b"2", b"3"]
    await owner.end()
    assert await stage.read(4) == [b"1", b"2", b"3", b"open"]


async def test_a_read_goes_on_in_the_middle_of_a_batch_and_at_a_moment(stage: Stage, kafka: str) -> None:
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


async def test_what_cannot_be_decoded_is_told_of_and_passed_over(stage: Stage, kafka: str) -> None:
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


async def test_the_mark_of_a_commit_has_the_epoch_of_what_comes_next(stage: Stage) -> None:
    owner = await stage.owner()
    for number in range(3):
        await stage.write(owner, b"%d" % number)
    await stage.read(3)
    assert [batch.mark for batch in stage.batches] == [False, True] * 3
    epochs = [batch.epoch for batch in stage.batches]
    assert [mark - data for data, mark in zip(epochs[::2], epochs[1::2], strict=True)] == [1, 1, 1]
    assert epochs[1:-1:2] == epochs[2::2]


async def test_a_producer_that_was_replaced_is_seen_to_write_no_more(stage: Stage) -> None:
    first = await stage.owner()
    await stage.write(first, b"1")
    await stage.write(first, b"open", commit=None)
    await stage.write(await stage.owner(), b"2")
    await stage.read(2)
    writers = Writers()
    assert not [wrong for batch in stage.batches if (wrong := writers.note(batch, alone=True))]
    assert stage.values == [b"1", b"2"]


async def test_two_who_write_in_turns_where_only_one_may_are_seen(stage: Stage) -> None:
    one, other = await stage.owner(), await stage.owner(f"{stage.topic}-other")
    await stage.write(one, b"1")
    await stage.write(other, b"2")
    await stage.write(one, b"3")
    await stage.read(3)
    writers = Writers()
    wrong = [wrong for batch in stage.batches if (wrong := writers.note(batch, alone=True))]
    assert wrong[0].producer == one.producer_id
    assert wrong[0].by_producer == other.producer_id
    assert wrong[0].where.offset == 4, "after two records and their marks"


async def test_a_kafka_that_is_not_there_is_named() -> None:
    with pytest.raises(CannotRead, match=r"No Kafka answers at 127.0.0.1:1:"):
        async with Log("127.0.0.1:1"):
            pass


@pytest.mark.parametrize("address", ["localhost:abc", "127.0.0.1:99999", "[::1"])
async def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(CannotRead, match="is no address of Kafka: write host:port"):
        async with Log(address):
            pass


async def test_a_kafka_that_tells_of_no_topics_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_: AIOKafkaClient) -> None:
        raise KafkaError("Unable to get cluster metadata over all known brokers")

    monkeypatch.setattr(AIOKafkaClient, "fetch_all_metadata", fails)
    with pytest.raises(CannotRead, match="does not say which topics it has"):
        await Log("127.0.0.1:1").topics()
