"""What cannot be decoded is stepped over, and nothing else is lost: on a real Kafka."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.engine.provision import TopicSpec, create_topics
from streams.lenient import LenientConsumer
from tests.poison import poison

PARTITIONS = 2


@pytest.fixture
def client(kafka: str) -> dict[str, Any]:
    """How to reach Kafka."""
    return {"bootstrap_servers": kafka}


@pytest.fixture
async def consumer(client: dict[str, Any], unique: str) -> AsyncIterator[LenientConsumer]:
    """Of both partitions, from their begin."""
    await create_topics(client, [TopicSpec(unique, PARTITIONS, {})], 1)
    consumer = LenientConsumer(**client, enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    consumer.assign([TopicPartition(unique, number) for number in range(PARTITIONS)])
    for tp in consumer.assignment():
        consumer.seek(tp, 0)
    yield consumer
    await consumer.stop()


async def read_all(consumer: LenientConsumer, limit: int | None = None) -> dict[int, list[bytes]]:
    """The values up to the ends, by partition."""
    found: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
    ends = await consumer.end_offsets(consumer.assignment())
    async with asyncio.timeout(10):
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=100, max_records=limit)).items():
                assert limit is None or len(records) <= limit
                found[tp.partition] += [record.value for record in records]
    return found


@pytest.mark.parametrize("limit", [None, 1])
async def test_what_cannot_be_decoded_is_stepped_over_and_everything_around_it_is_read(
    client: dict[str, Any],
    consumer: LenientConsumer,
    unique: str,
    caplog: pytest.LogCaptureFixture,
    limit: int | None,
) -> None:
    async with AIOKafkaProducer(**client) as producer:
        for number in range(PARTITIONS):
            await producer.send_and_wait(unique, b"first", partition=number)
        await poison(client, unique, 0, b"k", b"bad", b"bad", before=[b"second", b"third"])
        await poison(client, unique, 0, b"k", b"bad")
        for number in range(PARTITIONS):
            await producer.send_and_wait(unique, b"last", partition=number)
        assert await read_all(consumer, limit) == {0: [b"first", b"second", b"third", b"last"], 1: [b"first", b"last"]}
        said = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
        assert len(said) == 2
        assert f"{unique}/0 cannot be read at offset 3: UnicodeDecodeError" in said[0]
        assert "up to offset 5" in said[0]
        await poison(client, unique, 1, b"k", b"bad")
        await producer.send_and_wait(unique, b"on", partition=1)
        assert await read_all(consumer, limit) == {0: [], 1: [b"on"]}


async def test_what_kafka_answers_for_one_partition_is_raised_and_the_records_of_the_others_are_not_lost(
    client: dict[str, Any], consumer: LenientConsumer, unique: str
) -> None:
    async with AIOKafkaProducer(**client) as producer:
        await producer.send_and_wait(unique, b"good", partition=1)
    consumer.seek(TopicPartition(unique, 0), 1000)
    found: list[bytes] = []
    raised = 0
    async with asyncio.timeout(10):
        while not (found and raised):
            try:
                fetched = await consumer.getmany(timeout_ms=100)
            except OffsetOutOfRangeError:
                raised += 1
            else:
                found += [record.value for records in fetched.values() for record in records]
    assert found == [b"good"]
