"""The topic of restaurants, as every worker reads it, on a real Kafka."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.topic_admin import TopicSpec, create_topics
from streams.catalogue.topic import Catalogue, CatalogueReader, RestaurantTopic, publish, read
from tests.processors.cases import RESTAURANT
from tests.support.poison import poison
from topics.families import RESTAURANTS
from topics.records import write
from topics.restaurants import Restaurant

PARTITIONS = 4


def partition_of(key: bytes) -> int:
    return java_partition(key, PARTITIONS)


@pytest.fixture
def client(kafka: str) -> dict[str, Any]:
    """Bootstrap servers of Kafka."""
    return {"bootstrap_servers": kafka}


@pytest.fixture
async def topic(client: dict[str, Any], unique: str) -> RestaurantTopic:
    """An empty topic of restaurants."""
    await create_topics(client, [TopicSpec(unique, PARTITIONS, RESTAURANTS.config)], 1)
    return RestaurantTopic(unique, PARTITIONS, partition_of)


@pytest.fixture
async def producer(client: dict[str, Any]) -> AsyncIterator[AIOKafkaProducer]:
    """A producer without transactions."""
    async with AIOKafkaProducer(**client) as producer:
        yield producer


def kitchen(name: str, **changes: Any) -> Restaurant:
    return msgspec.structs.replace(RESTAURANT, restaurant=name, **changes)


async def test_the_newest_record_counts_and_tombstones_remove(client: dict[str, Any], topic: RestaurantTopic) -> None:
    names = [f"kitchen-{number}" for number in range(20)]
    await publish(client, topic, map(kitchen, names))
    dearer = kitchen(names[3], preparation_s=1)
    await publish(client, topic, [dearer], removed=[names[5]])
    assert await read(client, topic) == {
        name: dearer if name == names[3] else kitchen(name) for name in names if name != names[5]
    }


async def test_a_reader_follows_the_topic(client: dict[str, Any], topic: RestaurantTopic) -> None:
    rows: dict[str, Restaurant] = {}
    reader = CatalogueReader(topic, rows)
    await reader.start(client)
    assert rows == {}
    await publish(client, topic, [kitchen("new")])
    await reader.catch_up()
    assert rows == {"new": kitchen("new")}
    await publish(client, topic, (), removed=["new", "never-there"])
    await reader.catch_up()
    assert rows == {}
    await reader.stop()


async def test_a_misplaced_record_is_skipped_with_a_warning(
    client: dict[str, Any], topic: RestaurantTopic, producer: AIOKafkaProducer, caplog: pytest.LogCaptureFixture
) -> None:
    right, wrong = partition_of(b"right"), (partition_of(b"right") + 1) % PARTITIONS
    await producer.send_and_wait(topic.name, write(kitchen("right")), b"right", partition=right)
    for value, key, partition in (
        (write(kitchen("right", preparation_s=1)), b"right", wrong),
        (None, b"right", wrong),
        (write(kitchen("other")), b"right", right),
        (b"{", b"right", right),
        (json.dumps({"restaurant": "right"}).encode(), b"right", right),
        (write(kitchen("right")).replace(b'"fort"', b'"fort","time_zone":"Bombay"'), b"right", right),
    ):
        await producer.send_and_wait(topic.name, value, key, partition=partition)
    assert await read(client, topic) == {"right": kitchen("right")}
    said = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len(said) == 6
    for cause in ("murmur2", "its restaurant's id", "not JSON", "`name` is missing", "there is no 'Bombay'"):
        assert any(cause in each for each in said), cause


async def test_uncommitted_records_do_not_count(client: dict[str, Any], topic: RestaurantTopic, unique: str) -> None:
    async with AIOKafkaProducer(**client, transactional_id=unique) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic.name, write(kitchen("aborted")), b"aborted")
        await producer.abort_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(topic.name, write(kitchen("taken")), b"taken")
        await producer.commit_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(topic.name, write(kitchen("undecided")), b"undecided")
        assert (await read(client, topic)).keys() == {"taken"}
        await producer.abort_transaction()


async def test_a_starting_worker_writes_only_changed_restaurants(
    client: dict[str, Any], topic: RestaurantTopic, tmp_path: Path, unique: str
) -> None:
    await publish(client, topic, [kitchen("kept"), kitchen("same"), kitchen("changed")])
    file = tmp_path / "catalogue.json"
    file.write_bytes(msgspec.json.encode([kitchen("same"), kitchen("changed", preparation_s=1), kitchen("new")]))
    app = faust.App(unique, store="memory://here")
    for wanted, written in ((file, 2), (file, 0), (None, 0)):
        before = await records(client, topic)
        catalogue = Catalogue(app.Table(f"restaurants-{before}-{written}-{wanted}"), topic, wanted)
        await catalogue.start(client)
        assert [row.key for row in catalogue.all()] == ["changed", "kept", "new", "same"]
        assert (found := catalogue.get("changed")) is not None
        assert found.preparation_s == 1
        assert catalogue.get("nowhere") is None
        await catalogue.stop()
        assert await records(client, topic) - before == written


async def records(client: dict[str, Any], topic: RestaurantTopic) -> int:
    """Return the number of records that were ever written."""
    async with AIOKafkaConsumer(**client) as consumer:
        ends = await consumer.end_offsets([TopicPartition(topic.name, number) for number in range(PARTITIONS)])
    return sum(ends.values())


async def test_an_undecodable_record_does_not_block_the_catalogue(
    client: dict[str, Any], topic: RestaurantTopic, unique: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, names = partition_of(b"poison"), [f"kitchen-{number}" for number in range(12)]
    await publish(client, topic, map(kitchen, names[:6]))
    await poison(client, topic.name, bad, b"poison", b"{}")
    await publish(client, topic, map(kitchen, names[6:]))
    catalogue = Catalogue(faust.App(unique, store="memory://here").Table("restaurants"), topic, None)
    await asyncio.wait_for(catalogue.start(client), 120)
    assert {row.key for row in catalogue.all()} == set(names)
    await poison(client, topic.name, bad, b"poison", b"{}")
    await publish(client, topic, [kitchen(name) for name in ("later-1", "later-2", "later-3", "later-4")])
    deadline = time.monotonic() + 120
    while len(catalogue.all()) < 16:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await catalogue.stop()
    assert caplog.text.count("cannot be read at offset") == 2


def test_an_http_address_is_passed_over_unless_allowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    restaurant = kitchen("plain", pos_url="http://pos.example")
    record = ConsumerRecord("t", partition_of(b"plain"), 0, 0, 0, b"plain", write(restaurant), None, 0, 0, ())
    for allow_http, rows in ((False, {}), (True, {"plain": restaurant})):
        reader = CatalogueReader(RestaurantTopic("t", PARTITIONS, partition_of), {}, allow_http=allow_http)
        reader._apply({TopicPartition("t", record.partition): [record]})
        assert reader.rows == rows
    assert caplog.text.count("DABBAWALA_ALLOW_HTTP_PARTIES") == 1
