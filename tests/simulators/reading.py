"""Readers of the records that the simulators wrote to Kafka."""

from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from tests.simulators.waiting import POLL_S
from topics.families import Family, topic_name

PARTITIONS = 4


async def records(kafka: str, prefix: str, family: Family) -> list[Any]:
    """Return all records of a family's topic, in order for each key."""
    return [record for _, record in await keyed_records(kafka, prefix, family)]


async def keyed_records(kafka: str, prefix: str, family: Family) -> "list[tuple[ConsumerRecord, Any]]":
    """Return all records of a family's topic, each with its Kafka record."""
    assert family.reader is not None
    partitions = [TopicPartition(topic_name(family.name, prefix), number) for number in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    found = []
    async with AsyncExitStack() as stack:
        await consumer.start()
        stack.push_async_callback(consumer.stop)
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for batch in (await consumer.getmany(timeout_ms=int(POLL_S * 1000))).values():
                found += [(record, family.reader.read(record.value)) for record in batch]
    return found
