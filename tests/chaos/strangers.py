"""Strangers who write to our topics: one who sends every input record once more, and one who sends what nobody can use.

poison.jsonl   {at, topic, partition, offset, id}: of what must become a dead letter
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from simulators.ledger import now
from tests.flow.reading import PARTITIONS
from topics.families import FAMILIES, INPUTS, ORDERS, RESTAURANTS, Family, topic_name

COPY = "chaos-copy"
"""The header of a copy, which is not copied again."""
LATEST_S = 3.0
"""By how much a copy comes later, at most: behind others that were sent after it."""
LARGEST_BYTES = 1_048_000
"""A value that the broker still takes: a record of ours may have no more than a million bytes."""
REQUEST_BYTES = 1_100_000
AGAIN_S = 0.5


class Copier:
    """Sends every record of the input topics once more, later, with the time of the first."""

    def __init__(self, kafka: str, prefix: str, seed: int) -> None:
        self.copies = 0
        self._chance = Random(f"copies/{seed}")
        self._partitions = [
            TopicPartition(topic_name(family.name, prefix), number) for family in INPUTS for number in range(PARTITIONS)
        ]
        self._producer = _producer(kafka)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with self._producer, asyncio.TaskGroup() as tasks:
            await self._consumer.start()
            self._consumer.assign(self._partitions)
            try:
                async for record in self._consumer:
                    if all(name != COPY for name, _ in record.headers):
                        tasks.create_task(self._copy(record, self._chance.uniform(0, LATEST_S)))
            finally:
                await self._consumer.stop()

    async def _copy(self, record: Any, later_s: float) -> None:
        await asyncio.sleep(later_s)
        headers = [*record.headers, (COPY, b"1")]
        await _insist(
            self._producer, record.topic, record.partition, record.key, record.value, headers, record.timestamp
        )
        self.copies += 1


class Stuff(NamedTuple):
    """A record that nobody can use."""

    family: Family
    partition: int
    key: bytes
    value: bytes


class Poisoner:
    """Writes random bytes, records of a type that there is not, and values as large as they may be, to every topic."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str, ledger: Path) -> None:
        self._producer, self._prefix, self._ledger = producer, prefix, ledger

    async def write(self, seed: int) -> int:
        """A handful for each topic; how many in all."""
        stuff = list(poison(seed))
        for number, each in enumerate(stuff):
            topic = topic_name(each.family.name, self._prefix)
            sent = await _insist(self._producer, topic, each.partition, each.key, each.value)
            if each.family in INPUTS:
                self._note(topic, sent.partition, sent.offset, f"poison/{seed}/{number}")
        return len(stuff)

    def _note(self, topic: str, partition: int, offset: int, name: str) -> None:
        entry = {"at": now().isoformat(), "topic": topic, "partition": partition, "offset": offset, "id": name}
        with self._ledger.open("a") as ledger:
            ledger.write(json.dumps(entry) + "\n")


@asynccontextmanager
async def poisoning(kafka: str, prefix: str, ledger: Path) -> AsyncIterator[Poisoner]:
    """One who is connected as long as the block lasts."""
    async with _producer(kafka) as producer:
        yield Poisoner(producer, prefix, ledger)


def poison(seed: int) -> Iterator[Stuff]:
    """What a seed makes of it; one value of the largest size, for it stays on the disk for long."""
    chance = Random(f"poison/{seed}")
    large = chance.choice(INPUTS)
    for family in FAMILIES:
        for value in (
            chance.randbytes(chance.randint(1, 200)),
            b'{"type": "Nonsense", "id": "%d"}' % seed,
            b'{"type": "%s"' % (b"Placed" if family is ORDERS else b"Assign"),
            b"[" * 10_000,
        ):
            yield _stuff(family, chance, value)
    yield _stuff(large, chance, chance.randbytes(LARGEST_BYTES))
    yield _stuff(RESTAURANTS, chance, b'{"type": "Restaurant", "restaurant": "%d"}' % seed)


def _stuff(family: Family, chance: Random, value: bytes) -> Stuff:
    return Stuff(family, chance.randrange(PARTITIONS), b"stranger-%d" % chance.randrange(10**9), value)


def _producer(kafka: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=REQUEST_BYTES)


async def _insist(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
    timestamp_ms: int | None = None,
) -> Any:
    """Until Kafka has it, whatever happens to the broker."""
    while True:
        try:
            return await producer.send_and_wait(topic, value, key, partition, timestamp_ms, list(headers))
        except KafkaError:
            await asyncio.sleep(AGAIN_S)
