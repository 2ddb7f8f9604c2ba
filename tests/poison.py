"""Records that no client of Kafka for Python can decode: they have a header whose name is not UTF-8."""

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

NAME, SPOILED = b"spoile\x7f", b"spoile\xff"
CRC_AT, CRC_OF = 17, 21
"""In a record batch: where its checksum lies, and from where on it is taken."""


async def poison(
    client: Mapping[str, Any], topic: str, partition: int, key: bytes, *values: bytes, before: Sequence[bytes] = ()
) -> None:
    """Write one batch: the records `before`, which can be decoded, and then those that cannot."""
    build = BatchBuilder._build

    def spoil(builder: BatchBuilder) -> bytes:
        built: bytes = build(builder).replace(NAME, SPOILED)
        crc: int = calc_crc32c(built[CRC_OF:])
        return built[:CRC_AT] + crc.to_bytes(4, "big") + built[CRC_OF:]

    async with AIOKafkaProducer(**client) as producer:
        batch = producer.create_batch()
        for value in before:
            batch.append(key=key, value=value, timestamp=None)
        for value in values:
            batch.append(key=key, value=value, timestamp=None, headers=[(NAME.decode(), b"")])
        with patch.object(BatchBuilder, "_build", spoil):
            batch.close()
            sent = await producer.send_batch(batch, topic, partition=partition)
            await sent
