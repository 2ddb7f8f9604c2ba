"""The record of one order on the history topic of a real Kafka, among records of strangers."""

import asyncio
import time
from base64 import b64encode
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from exactly_once.kafka.topic_admin import TopicSpec, create_topics
from processors.history import Retired, records_of
from processors.order import Order, Stage
from processors.workflow import JournalLine
from streams.feed import order_history as history
from streams.worker.sealing import Seal
from tests.processors.cases import HOME, KITCHEN, ORDER, REGION, RESTAURANT
from tests.support.poison import poison
from topics.order_history import KeptRow, RowKind
from topics.order_updates import OrderStatus
from topics.records import write

RETIRED_MS = time.time_ns() // 1_000_000 - 10 * history.SETTLED_MS
DATA_KEY = bytes(range(32))
SEAL = Seal(DATA_KEY, ORDER)
RETIRED = Retired(retired_ms=RETIRED_MS, placed_ms=0, body_hash="", data_key=b64encode(DATA_KEY).decode())
ROW = Order(
    id=ORDER,
    stage=next(stage for stage in Stage if stage.value == "DELIVERED"),
    body_hash="",
    placed_ms=0,
    updated_ms=0,
    restaurant=RESTAURANT.restaurant,
    region=REGION,
    pos_url=RESTAURANT.pos_url,
    pickup=KITCHEN,
    dropoff=HOME,
    preparation_ms=0,
    travel_ms=0,
    start_ms=0,
)
LINE = JournalLine(seq=1, at_ms=0, machine="order", event="OrderPlaced", event_id=ORDER)
ROWS: list[tuple[RowKind, msgspec.Struct]] = [(RowKind.ORDER, ROW), (RowKind.JOURNAL, LINE)]
(KEPT,) = records_of(ORDER, OrderStatus.DELIVERED, ROWS, RETIRED_MS, SEAL.close)


@pytest.fixture
async def topic(kafka: str, unique: str) -> str:
    """Create a history topic of one partition."""
    await create_topics({"bootstrap_servers": kafka}, [TopicSpec(unique, 1, {})], 1)
    return unique


@pytest.fixture
def orders(kafka: str, topic: str) -> history.OrderHistory:
    """Return a reader of the topic."""
    engine: Any = SimpleNamespace(client_settings={"bootstrap_servers": kafka}, partition_of=lambda _: 0)
    return history.OrderHistory(engine, topic, lambda: time.time_ns() // 1_000_000)


async def write_to(kafka: str, topic: str, *values: bytes | None) -> None:
    """Write records of the order."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=ORDER.encode())


async def test_orders_are_found_around_an_unreadable_record(
    kafka: str, topic: str, orders: history.OrderHistory, caplog: pytest.LogCaptureFixture
) -> None:
    client: dict[str, Any] = {"bootstrap_servers": kafka}
    garbled = KeptRow(kind=RowKind.ORDER, row=SEAL.close(b'{"id": 7}'))
    no_line = KeptRow(kind=RowKind.JOURNAL, row=SEAL.close(b"[]"))
    others = KeptRow(kind=RowKind.ORDER, row=Seal(bytes(32), ORDER).close(msgspec.json.encode(ROW)))
    odd: tuple[tuple[KeptRow, ...], ...] = ((), (garbled,), (*KEPT.rows, no_line), (others,))
    strange = [
        None,
        b"garbage",
        b"{}",
        *(write(msgspec.structs.replace(KEPT, rows=rows)) for rows in odd),
    ]
    await write_to(kafka, topic, *strange)
    await poison(client, topic, 0, ORDER.encode(), b"{}")
    await write_to(kafka, topic, write(KEPT), *strange)
    kept = await orders.read(ORDER, RETIRED, "ops")
    assert (kept.workflow.order, kept.journal) == (ROW, (LINE,))
    logged = caplog.text
    for cause in (
        "cannot be read at offset 7",
        "null",
        "not JSON",
        "no row of the order",
        "it must be text",
        "its key",
    ):
        assert cause in logged, cause


async def test_a_missing_order_is_reported_as_soon_as_known(
    kafka: str, topic: str, orders: history.OrderHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = msgspec.structs.replace(KEPT, at=None)
    await write_to(kafka, topic, write(other))
    monkeypatch.setattr(history, "MAX_READ_S", 120.0)
    began = time.monotonic()
    answers = await asyncio.gather(*(orders.read(ORDER, RETIRED, "ops") for _ in range(12)), return_exceptions=True)
    assert time.monotonic() - began < history.MAX_READ_S
    for answer in answers:
        assert isinstance(answer, history.HistoryUnavailable)
        assert answer.gone


async def test_a_just_retired_order_is_awaited(kafka: str, topic: str, orders: history.OrderHistory) -> None:
    now_ms = time.time_ns() // 1_000_000
    (kept,) = records_of(ORDER, OrderStatus.DELIVERED, [(RowKind.ORDER, ROW)], now_ms, SEAL.close)
    reading = asyncio.create_task(orders.read(ORDER, msgspec.structs.replace(RETIRED, retired_ms=now_ms), "ops"))
    await asyncio.wait([reading], timeout=1)
    assert not reading.done()
    await write_to(kafka, topic, write(kept))
    assert (await reading).workflow.order == ROW


async def test_waiting_for_a_slot_does_not_shorten_the_read(
    kafka: str, topic: str, orders: history.OrderHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_to(kafka, topic, write(KEPT))
    monkeypatch.setattr(history, "MAX_READ_S", 2.0)
    held = AsyncExitStack()
    for _ in range(history.MAX_READS):
        await held.enter_async_context(orders._turns.take("others"))
    reading = asyncio.create_task(orders.read(ORDER, RETIRED, "ops"))
    await asyncio.wait([reading], timeout=1.5 * history.MAX_READ_S)
    assert not reading.done()
    monkeypatch.setattr(history, "MAX_READ_S", 60.0)  # a busy machine reads slowly
    await held.aclose()
    assert (await reading).workflow.order == ROW
