"""An installation without workers: topics and ledgers that tests write."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaProducer

import oracle
from exactly_once.kafka.topic_admin import TopicSpec, check_topics, create_topics
from oracle import Report
from tests.oracle.planted import LIFE
from topics.families import FAMILIES, ORDER_UPDATES, Family, topic_name
from topics.order_updates import OrderStatus, OrderUpdated
from topics.records import write as encode

TABLES = ("timers", "positions", "orders")


class Installation:
    """Topics with one partition each, and a directory of ledgers."""

    def __init__(self, kafka: str, prefix: str, ledgers: Path) -> None:
        self.kafka = kafka
        self.prefix = prefix
        self.ledgers = ledgers
        self._producer = AIOKafkaProducer(bootstrap_servers=kafka)

    async def __aenter__(self) -> Self:
        client = {"bootstrap_servers": self.kafka}
        topics = [topic_name(family.name, self.prefix) for family in FAMILIES]
        specs = [TopicSpec(topic, 1) for topic in (*topics, *map(self.changelog, TABLES))]
        await create_topics(client, specs, 1)
        await check_topics(client, specs, wait_s=20)
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._producer.stop()

    def topic(self, family: Family) -> str:
        """Return the topic of a family."""
        return topic_name(family.name, self.prefix)

    def changelog(self, table: str) -> str:
        """Return the changelog of a table."""
        return f"{self.prefix}-{table}-changelog"

    async def write(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Write a record, and return its offset."""
        sent = await self._producer.send_and_wait(
            topic, value, key=key, partition=0, headers=list(headers), timestamp_ms=timestamp_ms
        )
        return int(sent.offset)

    async def write_updates(
        self,
        order: str,
        statuses: Sequence[OrderStatus] = LIFE,
        first: int = 1,
        at: datetime | None = None,
        **more: Any,
    ) -> None:
        """Write an order's updates, the first of them with the version ``first``."""
        at = at or datetime.now(UTC)
        for number, status in enumerate(statuses, first):
            update = OrderUpdated(order=order, version=number, status=status, restaurant="r", at=at, **more)
            moment = int(at.timestamp() * 1000)
            await self.write(self.topic(ORDER_UPDATES), encode(update), order.encode(), timestamp_ms=moment)

    def add_lines(self, ledger: str, *lines: Mapping[str, Any]) -> None:
        """Append lines to a ledger, with the current time unless a line has another."""
        with (self.ledgers / f"{ledger}.jsonl").open("ab") as file:
            for line in lines:
                file.write(msgspec.json.encode({"at": datetime.now(UTC), **line}) + b"\n")

    async def judge(self, **asked: Any) -> Report:
        """Return the report of the oracle, after a short look."""
        async with asyncio.timeout(60):
            return await oracle.judge(
                self.kafka, self.prefix, **{"ledgers": self.ledgers, "look_again_s": 1.0, **asked}
            )
