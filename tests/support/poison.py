"""Records that no Python client of Kafka can decode: the name of a header is not UTF-8."""

from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

NAME, SPOILED = b"spoile\x7f", b"spoile\xff"
CRC_OFFSET, CRC_START = 17, 21
"""Offset of a record batch's checksum, and of the first byte that it covers."""


async def poison(
    client: Mapping[str, Any], topic: str, partition: int, key: bytes, *values: bytes, before: Sequence[bytes] = ()
) -> None:
    """Append one batch: the records `before`, which can be decoded, then `values`, which cannot."""
    build = BatchBuilder._build

    def spoil(builder: BatchBuilder) -> bytes:
        built: bytes = build(builder).replace(NAME, SPOILED)
        crc: int = calc_crc32c(built[CRC_START:])
        return built[:CRC_OFFSET] + crc.to_bytes(4, "big") + built[CRC_START:]

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
