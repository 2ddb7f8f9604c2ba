"""Progress of a run: the newest committed update of each order on `order-updates`."""

from collections import Counter

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.flow.reading import PARTITIONS
from topics.families import ORDER_UPDATES, topic_name
from topics.order_updates import READER, OrderUpdated
from topics.records import Undecodable

POLL_MS = 100


class Progress:
    """Updates read so far."""

    def __init__(self) -> None:
        self.updates = 0
        self.newest: dict[str, OrderUpdated] = {}
        """Order -> its newest update; orders are sorted by their first update."""

    async def follow(self, kafka: str, prefix: str) -> None:
        """Read updates until cancelled."""
        topic = topic_name(ORDER_UPDATES.name, prefix)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=POLL_MS,
        )
        async with consumer:
            consumer.assign([TopicPartition(topic, number) for number in range(PARTITIONS)])
            async for record in consumer:
                self._note(record.value)

    def _note(self, value: bytes | None) -> None:
        try:
            update = READER.read(value)
        except Undecodable:  # written by a stranger
            return
        self.updates += 1
        self.newest[update.order] = update

    @property
    def ended(self) -> int:
        """Number of orders that have ended."""
        return sum(update.status.ended for update in self.newest.values())

    def with_status(self, *statuses: str) -> set[str]:
        """Return the orders with one of these statuses."""
        return {order for order, update in self.newest.items() if update.status.value in statuses}

    def open(self) -> list[str]:
        """Return a line for each order that has not ended or needs attention, with what it waits for."""
        return [
            f"{order} is {update.status.value}"
            + (f", waits for {update.attention.waits_for} since {update.attention.since}" if update.attention else "")
            for order, update in self.newest.items()
            if not update.status.ended or update.attention
        ]

    def __str__(self) -> str:
        counts = Counter(update.status.value for update in self.newest.values())
        return f"{len(self.newest)} orders: " + ", ".join(
            f"{count} {status}" for status, count in sorted(counts.items())
        )
