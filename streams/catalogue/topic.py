"""The catalogue in the workers: each reads a whole compacted topic, shown as the table `restaurants`.

A restaurant's newest record counts. Kafka keeps the order of records only within a partition. A record outside its
key's partition is therefore skipped with a warning: it could overwrite a newer one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from exactly_once.kafka.consumers import skipping_consumer
from streams.catalogue.file import read_catalogue
from topics.party_urls import party_url_problem
from topics.records import Undecodable, write
from topics.restaurants import READER, Restaurant

if TYPE_CHECKING:
    from faust.types import TableT

log = logging.getLogger(__name__)

HELP = "Restaurant id -> position, opening hours and menu. Every worker holds all restaurants."
RETRY_S = 1.0


class RestaurantTopic(NamedTuple):
    """Name and partitions of the compacted topic, and the function that returns the partition of a key."""

    name: str
    partitions: int
    partition_of: Callable[[bytes], int]


class CatalogueReader:
    """Consumer that keeps `rows` equal to the newest records of the topic."""

    def __init__(
        self, topic: RestaurantTopic, rows: MutableMapping[str, Restaurant], *, allow_http: bool = True
    ) -> None:
        """``allow_http`` admits points of sale with an http address outside this machine."""
        self.rows = rows
        self._allow_http = allow_http
        self._topic = topic
        self._partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]

    async def start(self, client_settings: Mapping[str, Any]) -> None:
        """Read the whole topic, up to its present end."""
        self._consumer = skipping_consumer(client_settings, auto_offset_reset="earliest")
        await self._consumer.start()
        try:
            self._consumer.assign(self._partitions)
            await self._consumer.seek_to_beginning(*self._partitions)
            await self.catch_up()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the consumer."""
        await self._consumer.stop()

    async def catch_up(self) -> None:
        """Read up to the present end of the topic."""
        ends = await self._consumer.end_offsets(self._partitions)
        while any([await self._consumer.position(partition) < end for partition, end in ends.items()]):
            self._apply(await self._consumer.getmany(timeout_ms=50))

    async def follow(self) -> None:
        """Apply new records until cancelled. If Kafka fails, log it and retry after `RETRY_S`."""
        try:
            while True:
                try:
                    self._apply(await self._consumer.getmany(timeout_ms=1000))
                except KafkaError as error:
                    log.warning("restaurants cannot be read from Kafka; next attempt in a second: %r", error)
                    await asyncio.sleep(RETRY_S)
        finally:
            await self.stop()

    def _apply(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> None:
        for record in (record for records in fetched.values() for record in records):
            try:
                self._apply_record(record)
            except Undecodable as wrong:
                place = f"{record.topic}/{record.partition} at offset {record.offset}"
                log.warning("the restaurant %r in %s is passed over: %r", record.key, place, str(wrong))

    def _apply_record(self, record: Any) -> None:
        key = record.key or b""
        if record.partition != (expected := self._topic.partition_of(key)):
            raise Undecodable(f"its key belongs in partition {expected}: let the producer partition by murmur2")
        if record.value is None:
            self.rows.pop(key.decode(errors="replace"), None)
            return
        restaurant = READER.read(record.value)
        if restaurant.key.encode() != key:
            raise Undecodable(
                f"the body names {restaurant.key!r}: a record's key must be its restaurant's id", "/restaurant"
            )
        if problem := party_url_problem(restaurant.pos_url, allow_http=self._allow_http):
            raise Undecodable(problem, "/pos_url")
        self.rows[restaurant.key] = restaurant


class Catalogue:
    """The restaurants of a worker by id: rows of a Faust table in memory, whose changelog is the topic."""

    def __init__(
        self, table: "TableT[str, Restaurant]", topic: RestaurantTopic, file: Path | None, *, allow_http: bool = True
    ) -> None:
        """``file`` is written to the topic when the worker starts; None for no file.

        ``allow_http`` admits points of sale with an http address outside this machine.
        """
        self._table = table
        self._topic = topic
        self._file = file
        self._allow_http = allow_http
        self._following: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Name of the table."""
        return self._table.name

    def get(self, restaurant: str) -> Restaurant | None:
        """Return the restaurant of this id, or None."""
        return self._rows.get(restaurant)

    def all(self) -> list[Restaurant]:
        """Return all restaurants, sorted by id."""
        return [row for _, row in sorted(self._rows.items())]

    async def start(self, client_settings: Mapping[str, Any]) -> None:
        """Read the topic, write the restaurants of the file that differ, then follow the topic. Later calls do nothing.

        Raises `WrongCatalogue` if the file cannot be used, and `KafkaError` if Kafka fails.
        """
        if self._following is not None:
            return
        reader = CatalogueReader(self._topic, self._rows, allow_http=self._allow_http)
        await reader.start(client_settings)
        try:
            if await self._load_file(client_settings):
                await reader.catch_up()
        except BaseException:
            await reader.stop()
            raise
        self._following = asyncio.create_task(reader.follow(), name="catalogue")

    async def stop(self) -> None:
        """Stop following the topic."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _load_file(self, client_settings: Mapping[str, Any]) -> bool:
        """Write the restaurants of the file that differ from the topic; return whether there were any."""
        if self._file is None:
            return False
        wanted = read_catalogue(self._file, allow_http=self._allow_http)
        changed = [restaurant for restaurant in wanted if self.get(restaurant.key) != restaurant]
        await publish(client_settings, self._topic, changed)
        return bool(changed)

    @property
    def _rows(self) -> MutableMapping[str, Restaurant]:
        return self._table.data


async def read(client_settings: Mapping[str, Any], topic: RestaurantTopic) -> dict[str, Restaurant]:
    """Return the restaurants of the topic by id, as of now."""
    rows: dict[str, Restaurant] = {}
    reader = CatalogueReader(topic, rows)
    await reader.start(client_settings)
    await reader.stop()
    return rows


async def publish(
    client_settings: Mapping[str, Any],
    topic: RestaurantTopic,
    restaurants: Iterable[Restaurant],
    removed: Iterable[str] = (),
) -> None:
    """Write restaurants to the topic, and tombstones for the removed ids. Returns when Kafka has acknowledged all."""
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
