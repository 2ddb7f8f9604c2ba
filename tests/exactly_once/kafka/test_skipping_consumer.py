"""Undecodable batches of a real Kafka are skipped, and no other record is lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from exactly_once.kafka.skipping_consumer import SkippingConsumer
from exactly_once.kafka.topic_admin import TopicSpec, create_topics
from tests.support.poison import poison

PARTITIONS = 2


@pytest.fixture
def client(kafka: str) -> dict[str, Any]:
    """Bootstrap servers of Kafka."""
    return {"bootstrap_servers": kafka}


@pytest.fixture
async def consumer(client: dict[str, Any], unique: str) -> AsyncIterator[SkippingConsumer]:
    """Return a consumer of both partitions from their beginning."""
    await create_topics(client, [TopicSpec(unique, PARTITIONS, {})], 1)
    consumer = SkippingConsumer(**client, enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    consumer.assign([TopicPartition(unique, number) for number in range(PARTITIONS)])
    for tp in consumer.assignment():
        consumer.seek(tp, 0)
    yield consumer
    await consumer.stop()


async def read_all(consumer: SkippingConsumer, limit: int | None = None) -> dict[int, list[bytes]]:
    """Read to the ends and return the values by partition."""
    found: dict[int, list[bytes]] = {number: [] for number in range(PARTITIONS)}
    ends = await consumer.end_offsets(consumer.assignment())
    async with asyncio.timeout(120):
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=100, max_records=limit)).items():
                assert limit is None or len(records) <= limit
                found[tp.partition] += [record.value for record in records]
    return found


@pytest.mark.parametrize("limit", [None, 1])
async def test_an_undecodable_batch_is_skipped_and_all_others_are_read(
    client: dict[str, Any],
    consumer: SkippingConsumer,
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
        messages = [record.getMessage() for record in caplog.records if "skips to" in record.getMessage()]
        assert len(messages) == 2
        assert f"{unique}/0 cannot be read at offset 3: UnicodeDecodeError" in messages[0]
        assert "skips to offset 5" in messages[0]
        await poison(client, unique, 1, b"k", b"bad")
        await producer.send_and_wait(unique, b"on", partition=1)
        assert await read_all(consumer, limit) == {0: [], 1: [b"on"]}


async def test_an_error_of_one_partition_loses_no_records_of_others(
    client: dict[str, Any], consumer: SkippingConsumer, unique: str
) -> None:
    async with AIOKafkaProducer(**client) as producer:
        await producer.send_and_wait(unique, b"good", partition=1)
    consumer.seek(TopicPartition(unique, 0), 1000)
    found: list[bytes] = []
    raised = 0
    async with asyncio.timeout(120):
        while not (found and raised):
            try:
                fetched = await consumer.getmany(timeout_ms=100)
            except OffsetOutOfRangeError:
                raised += 1
            else:
                found += [record.value for records in fetched.values() for record in records]
    assert found == [b"good"]
