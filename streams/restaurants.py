"""Which restaurants there are: a compacted topic that every worker reads whole and keeps in memory.

The file named by `DABBAWALA_RESTAURANTS` is written to the topic when a worker starts; a restaurant that is already
there as it is in the file is not written again.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from topics.records import Undecodable, write
from topics.restaurants import READER, Restaurant

log = logging.getLogger(__name__)


class WrongRestaurants(ValueError):
    """The file of restaurants cannot be used; the message says where and why."""


class Restaurants:
    """The restaurants by id, following their topic."""

    def __init__(self, topic: str, partitions: int, file: Path) -> None:
        self._topic, self._partitions, self._file = topic, partitions, file
        self._known: dict[str, Restaurant] = {}
        self._following: asyncio.Task[None] | None = None

    def get(self, restaurant: str) -> Restaurant | None:
        """A restaurant, if there is one of that id."""
        return self._known.get(restaurant)

    async def start(self, client_settings: Mapping[str, Any]) -> None:
        """Read the topic whole, add what the file has and the topic has not, then follow the topic. Once."""
        if self._following is not None:
            return
        consumer = AIOKafkaConsumer(**client_settings, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(self._topic, number) for number in range(self._partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            await self._catch_up(consumer, partitions)
            if await self._publish(client_settings):
                await self._catch_up(consumer, partitions)
        except BaseException:
            await consumer.stop()
            raise
        self._following = asyncio.create_task(self._follow(consumer), name="restaurants")

    async def stop(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _catch_up(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            self._apply(await consumer.getmany(timeout_ms=50))

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                try:
                    self._apply(await consumer.getmany(timeout_ms=1000))
                except KafkaError as error:
                    log.warning("restaurants cannot be read now, again in a second: %r", error)
                    await asyncio.sleep(1)
        finally:
            await consumer.stop()

    def _apply(self, fetched: Mapping[TopicPartition, list[Any]]) -> None:
        for record in (record for records in fetched.values() for record in records):
            restaurant = (record.key or b"").decode(errors="replace")
            if record.value is None:
                self._known.pop(restaurant, None)
                continue
            try:
                read = READER.read(record.value)
            except Undecodable as wrong:
                log.warning("restaurant %r at offset %d is passed over: %s", restaurant, record.offset, wrong)
                continue
            self._known[read.restaurant] = read

    async def _publish(self, client_settings: Mapping[str, Any]) -> bool:
        """Write what the file has and the topic has not; whether that was anything."""
        new = [restaurant for restaurant in load(self._file) if self._known.get(restaurant.restaurant) != restaurant]
        if not new:
            return False
        producer = AIOKafkaProducer(**client_settings, acks="all", enable_idempotence=True)
        await producer.start()
        try:
            for restaurant in new:
                await producer.send_and_wait(self._topic, write(restaurant), restaurant.key.encode())
        finally:
            await producer.stop()
        return True


def load(file: Path) -> list[Restaurant]:
    """The restaurants of a file, a JSON list of them; :class:`WrongRestaurants` if it cannot be read as such."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=list[Restaurant])
    except OSError as error:
        raise WrongRestaurants(
            f"{file}: {error.strerror}; name the file of restaurants with DABBAWALA_RESTAURANTS"
        ) from None
    except msgspec.DecodeError as error:
        raise WrongRestaurants(f"{file} is not a list of restaurants: {error}") from None
