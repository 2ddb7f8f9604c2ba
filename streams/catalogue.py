"""The catalogue as the workers have it: a compacted topic that each reads whole, shown as the table `restaurants`.

A restaurant's newest record counts, and it is found by its key: a record that lies in another partition than its key's
would race with those that lie where they belong, so it is passed over, with a warning.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TableT

from streams.catalogue_file import read_catalogue
from streams.lenient import LenientConsumer
from topics.records import Undecodable, write
from topics.restaurants import READER, Restaurant

log = logging.getLogger(__name__)

HELP = "Restaurant id -> where it is, when it is open, what it cooks. Whole in every worker."
RETRY_S = 1.0


class RestaurantTopic(NamedTuple):
    """The compacted topic, and in which of its partitions a key belongs."""

    name: str
    partitions: int
    partition_of: Callable[[bytes], int]


class Reading:
    """Keeps `rows` as the topic has them."""

    def __init__(self, topic: RestaurantTopic, rows: MutableMapping[str, Restaurant]) -> None:
        self.rows = rows
        self._topic = topic
        self._partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]

    async def start(self, client_settings: Mapping[str, Any]) -> None:
        """Read the topic whole."""
        self._consumer = LenientConsumer(
            **client_settings,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await self._consumer.start()
        try:
            self._consumer.assign(self._partitions)
            await self._consumer.seek_to_beginning(*self._partitions)
            await self.catch_up()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Read no more."""
        await self._consumer.stop()

    async def catch_up(self) -> None:
        """Read up to where the topic ends now."""
        ends = await self._consumer.end_offsets(self._partitions)
        while any([await self._consumer.position(partition) < end for partition, end in ends.items()]):
            self._apply(await self._consumer.getmany(timeout_ms=50))

    async def follow(self) -> None:
        """Read on until cancelled."""
        try:
            while True:
                try:
                    self._apply(await self._consumer.getmany(timeout_ms=1000))
                except KafkaError as error:
                    log.warning("restaurants cannot be read now, again in a second: %r", error)
                    await asyncio.sleep(RETRY_S)
        finally:
            await self.stop()

    def _apply(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> None:
        for record in (record for records in fetched.values() for record in records):
            try:
                self._take(record)
            except Undecodable as wrong:
                key, where = record.key, f"{record.topic}/{record.partition} at offset {record.offset}"
                log.warning("the restaurant %r in %s is passed over: %s", key, where, wrong)

    def _take(self, record: Any) -> None:
        key = record.key or b""
        if record.partition != (right := self._topic.partition_of(key)):
            raise Undecodable(f"its key belongs in partition {right}: let the producer partition by murmur2")
        if record.value is None:
            self.rows.pop(key.decode(errors="replace"), None)
            return
        restaurant = READER.read(record.value)
        if restaurant.key.encode() != key:
            raise Undecodable(f"it is of {restaurant.key!r}: a record's key is its restaurant's id", "/restaurant")
        self.rows[restaurant.key] = restaurant


class Catalogue:
    """The restaurants by id, in a worker: the rows of a Faust table in memory, whose changelog is the topic."""

    def __init__(self, table: "TableT[str, Restaurant]", topic: RestaurantTopic, file: Path | None) -> None:
        """`file` is loaded when the worker starts; None: nothing is."""
        self._table, self._topic, self._file = table, topic, file
        self._following: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The table's."""
        return self._table.name

    def get(self, restaurant: str) -> Restaurant | None:
        """A restaurant, if there is one of that id."""
        return self._rows.get(restaurant)

    def all(self) -> list[Restaurant]:
        """Every restaurant, by id."""
        return [row for _, row in sorted(self._rows.items())]

    async def start(self, client_settings: Mapping[str, Any]) -> None:
        """Read the topic whole, write what the file has otherwise, then follow the topic. Once."""
        if self._following is not None:
            return
        reading = Reading(self._topic, self._rows)
        await reading.start(client_settings)
        try:
            if await self._load_file(client_settings):
                await reading.catch_up()
        except BaseException:
            await reading.stop()
            raise
        self._following = asyncio.create_task(reading.follow(), name="catalogue")

    async def stop(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _load_file(self, client_settings: Mapping[str, Any]) -> bool:
        """Write what the file has and the topic has not; whether that was anything."""
        if self._file is None:
            return False
        changed = [restaurant for restaurant in read_catalogue(self._file) if self.get(restaurant.key) != restaurant]
        await publish(client_settings, self._topic, changed)
        return bool(changed)

    @property
    def _rows(self) -> MutableMapping[str, Restaurant]:
        return self._table.data


async def read(client_settings: Mapping[str, Any], topic: RestaurantTopic) -> dict[str, Restaurant]:
    """The restaurants by id, as the topic has them now."""
    rows: dict[str, Restaurant] = {}
    reading = Reading(topic, rows)
    await reading.start(client_settings)
    await reading.stop()
    return rows


async def publish(
    client_settings: Mapping[str, Any],
    topic: RestaurantTopic,
    restaurants: Iterable[Restaurant],
    removed: Iterable[str] = (),
) -> None:
    """Write restaurants to the topic, and that others are no more; returns when Kafka has all of it."""
    values: dict[str, bytes | None] = {restaurant.key: write(restaurant) for restaurant in restaurants}
    values |= dict.fromkeys(removed)
    if not values:
        return
    producer = AIOKafkaProducer(**client_settings, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        sent = [await producer.send(topic.name, value, key.encode()) for key, value in values.items()]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
