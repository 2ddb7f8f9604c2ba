"""Strangers that write to the product's topics: one repeats every input record, the other sends unusable records.

poison.jsonl   {at, topic, partition, offset, id}, a line for each record that must become a dead letter
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
"""Header that marks a copy, so that it is not copied again."""
MAX_DELAY_S = 3.0
"""Longest delay of a copy; it may arrive after later records."""
MAX_VALUE_BYTES = 1_048_000
"""Size of a value that the broker still accepts; the product's own records have at most a million bytes."""
MAX_REQUEST_BYTES = 1_100_000
RETRY_S = 0.5


class Copier:
    """Sends every record of the input topics once more, later but with the same timestamp."""

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
        """Copy records until cancelled."""
        async with self._producer, asyncio.TaskGroup() as tasks:
            await self._consumer.start()
            self._consumer.assign(self._partitions)
            try:
                async for record in self._consumer:
                    if all(name != COPY for name, _ in record.headers):
                        tasks.create_task(self._copy(record, self._chance.uniform(0, MAX_DELAY_S)))
            finally:
                await self._consumer.stop()

    async def _copy(self, record: Any, later_s: float) -> None:
        await asyncio.sleep(later_s)
        headers = [*record.headers, (COPY, b"1")]
        await _produce_until_acknowledged(
            self._producer, record.topic, record.partition, record.key, record.value, headers, record.timestamp
        )
        self.copies += 1


class PoisonRecord(NamedTuple):
    """A record that no consumer can use."""

    family: Family
    partition: int
    key: bytes
    value: bytes


class Poisoner:
    """Writes random bytes, records of an unknown type and incomplete JSON to every topic, and one huge value."""

    def __init__(self, producer: AIOKafkaProducer, prefix: str, ledger: Path) -> None:
        self._producer = producer
        self._prefix = prefix
        self._ledger = ledger

    async def write(self, seed: int) -> int:
        """Write a few records to each topic; return their total number."""
        records = list(poison(seed))
        for number, each in enumerate(records):
            topic = topic_name(each.family.name, self._prefix)
            sent = await _produce_until_acknowledged(self._producer, topic, each.partition, each.key, each.value)
            if each.family in INPUTS:
                self._note(topic, sent.partition, sent.offset, f"poison/{seed}/{number}")
        return len(records)

    def _note(self, topic: str, partition: int, offset: int, name: str) -> None:
        entry = {"at": now().isoformat(), "topic": topic, "partition": partition, "offset": offset, "id": name}
        with self._ledger.open("a") as ledger:
            ledger.write(json.dumps(entry) + "\n")


@asynccontextmanager
async def poisoning(kafka: str, prefix: str, ledger: Path) -> AsyncIterator[Poisoner]:
    """Provide a poisoner that is connected within the block."""
    async with _producer(kafka) as producer:
        yield Poisoner(producer, prefix, ledger)


def poison(seed: int) -> Iterator[PoisonRecord]:
    """Yield the poison of a seed. Only one value has the largest size, because it stays on disk for a long time."""
    chance = Random(f"poison/{seed}")
    large = chance.choice(INPUTS)
    for family in FAMILIES:
        for value in (
            chance.randbytes(chance.randint(1, 200)),
            b'{"type": "Nonsense", "id": "%d"}' % seed,
            b'{"type": "%s"' % (b"Placed" if family is ORDERS else b"Assign"),
            b"[" * 10_000,
        ):
            yield _poison_record(family, chance, value)
    yield _poison_record(large, chance, chance.randbytes(MAX_VALUE_BYTES))
    yield _poison_record(RESTAURANTS, chance, b'{"type": "Restaurant", "restaurant": "%d"}' % seed)


def _poison_record(family: Family, chance: Random, value: bytes) -> PoisonRecord:
    return PoisonRecord(family, chance.randrange(PARTITIONS), b"stranger-%d" % chance.randrange(10**9), value)


def _producer(kafka: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=kafka, acks="all", max_request_size=MAX_REQUEST_BYTES)


async def _produce_until_acknowledged(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes]] = (),
    timestamp_ms: int | None = None,
) -> Any:
    """Send a record until Kafka acknowledges it, also across outages of the broker."""
    while True:
        try:
            return await producer.send_and_wait(topic, value, key, partition, timestamp_ms, list(headers))
        except KafkaError:
            await asyncio.sleep(RETRY_S)
