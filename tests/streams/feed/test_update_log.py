"""The feed of a real Kafka with unreadable records of strangers."""

import pytest
from aiokafka import AIOKafkaProducer

from exactly_once.kafka.topic_admin import TopicSpec, create_topics
from streams.feed.feed import Feed
from streams.feed.update_log import UpdateLog
from tests.streams.fake_kafka import an_update
from tests.streams.feed.test_feed import PARTITIONS, anything, at_the_head, receive
from tests.support.poison import poison
from topics.records import write


async def test_an_undecodable_record_does_not_block_the_feed(
    kafka: str, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = {"bootstrap_servers": kafka}
    await create_topics(client, [TopicSpec(unique, PARTITIONS, {})], 1)
    feed = Feed(UpdateLog(unique, lambda: client), PARTITIONS, 2)
    async with AIOKafkaProducer(**client) as producer:

        async def say(*versions: int) -> None:
            for version in versions:
                await producer.send_and_wait(unique, write(an_update("a:x", version)), partition=0)

        await say(1, 2)
        await poison(client, unique, 0, b"a:x", b"{}")
        await say(3, 4)
        with feed.of_all(anything) as live, feed.of_all(anything, {0: 0, 1: 0}) as past:
            await at_the_head(live)
            assert [update.record.version for update in await receive(past, 4, 20)] == [1, 2, 3, 4]
            await poison(client, unique, 0, b"a:x", b"{}")
            await say(5)
            assert [update.record.version for update in await receive(live, 1, 20)] == [5]
            assert not live.closed
    await feed.stop()
    assert "cannot be read at offset 2" in caplog.text
