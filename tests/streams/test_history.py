"""What the history topic keeps of one order, read from a real Kafka, whatever else strangers have written there."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

import streams.app  # noqa: F401  before its parts, which import it
from processors.history import Retired, records_of
from processors.order import Order, Stage
from processors.workflow import JournalLine
from streams import history
from streams.engine.provision import TopicSpec, create_topics
from tests.poison import poison
from tests.processors.cases import HOME, KITCHEN, ORDER, REGION, RESTAURANT
from topics.order_history import KeptRow
from topics.order_updates import OrderStatus
from topics.records import write

RETIRED_MS = time.time_ns() // 1_000_000 - 10 * history.SETTLED_MS
RETIRED = Retired(retired_ms=RETIRED_MS, placed_ms=0, body_hash="")
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
(KEPT,) = records_of(ORDER, OrderStatus.DELIVERED, [("order", ROW), ("journal", LINE)], RETIRED_MS)


@pytest.fixture
async def topic(kafka: str, unique: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A history topic of one partition."""
    client = {"bootstrap_servers": kafka}
    await create_topics(client, [TopicSpec(unique, 1, {})], 1)
    turns = asyncio.Semaphore(history.AT_ONCE)
    monkeypatch.setattr(history, "_turns", lambda: turns)
    monkeypatch.setattr(history, "topic_of", lambda _: unique)
    monkeypatch.setattr(history, "engine", SimpleNamespace(client_settings=client, partition_of=lambda _: 0))
    return unique


async def write_to(kafka: str, topic: str, *values: bytes | None) -> None:
    """Records of the order."""
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, key=ORDER.encode())


async def test_what_cannot_be_read_is_passed_over_and_the_order_is_found_before_and_behind_it(
    kafka: str, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    client: dict[str, Any] = {"bootstrap_servers": kafka}
    garbled = KeptRow(kind="order", row=msgspec.Raw(b'{"id": 7}'))
    no_line = KeptRow(kind="journal", row=msgspec.Raw(b"[]"))
    strange = [
        None,
        b"garbage",
        b"{}",
        *(write(msgspec.structs.replace(KEPT, rows=rows)) for rows in ((), (garbled,), (*KEPT.rows, no_line))),
    ]
    await write_to(kafka, topic, *strange)
    await poison(client, topic, 0, ORDER.encode(), b"{}")
    await write_to(kafka, topic, write(KEPT), *strange)
    kept = await history.read(ORDER, RETIRED)
    assert (kept.workflow.order, kept.journal) == (ROW, (LINE,))
    said = caplog.text
    for cause in ("cannot be read at offset 6", "null", "not JSON", "no row of the order", "Expected `str`"):
        assert cause in said, cause


async def test_what_is_gone_is_said_so_as_soon_as_that_is_known(kafka: str, topic: str) -> None:
    other = msgspec.structs.replace(KEPT, at=None)
    await write_to(kafka, topic, write(other))
    began = time.monotonic()
    answers = await asyncio.gather(*(history.read(ORDER, RETIRED) for _ in range(12)), return_exceptions=True)
    assert time.monotonic() - began < history.WITHIN_S
    for answer in answers:
        assert isinstance(answer, history.Unread)
        assert answer.gone


async def test_what_has_just_left_is_waited_for(kafka: str, topic: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    (kept,) = records_of(ORDER, OrderStatus.DELIVERED, [("order", ROW)], now_ms)
    reading = asyncio.create_task(history.read(ORDER, msgspec.structs.replace(RETIRED, retired_ms=now_ms)))
    await asyncio.wait([reading], timeout=1)
    assert not reading.done()
    await write_to(kafka, topic, write(kept))
    assert (await reading).workflow.order == ROW


async def test_who_waits_for_a_turn_has_as_long_as_everybody_once_it_comes(
    kafka: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_to(kafka, topic, write(KEPT))
    monkeypatch.setattr(history, "WITHIN_S", 2.0)
    for _ in range(history.AT_ONCE):
        await history._turns().acquire()
    reading = asyncio.create_task(history.read(ORDER, RETIRED))
    await asyncio.wait([reading], timeout=1.5 * history.WITHIN_S)
    assert not reading.done()
    history._turns().release()
    assert (await reading).workflow.order == ROW
