"""Ended orders move from the tables to the history topic, and the API still shows them."""

import asyncio
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from streams.demo.processes import Child
from streams.worker.sealing import Seal
from tests.flow.client import Body, Client, Driver, an_order, order_id, partition_of, room_for
from tests.flow.conftest import INSTANT, KITCHENS
from tests.flow.hand_pos import HandPos
from tests.flow.reading import Following, headers
from tests.support.own_broker import own_broker
from tests.support.stack import Stack, installed
from topics.deliveries import EtaChanged
from topics.families import DEAD_LETTERS, DELIVERIES, ORDER_HISTORY, POS, topic_name
from topics.order_history import READER, OrderRetired
from topics.records import write
from topics.restaurants import Restaurant

ROWS = ("orders", "bodies", "payments", "tickets", "deliveries", "journal")
ATTEMPTS = 10
"""Attempts to read an order's rows within the retention, which is rarely too short on a busy machine."""


def days(seconds: float) -> str:
    """Return seconds as days, in the form of the settings."""
    return f"{seconds / 86_400:.12f}"


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker that keeps an order for three seconds after its end."""
    name, directory = f"retention-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("retention")
    with installed(kafka, name, directory, 1.0, hand_pos.kitchens(KITCHENS)) as stack:
        stack.environment["DABBAWALA_RETENTION_DAYS"] = days(3)
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_drivers(12, *INSTANT)
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """Return a client of the worker."""
    async with Client(stack) as client:
        yield client


def ended_by_itself(worker: Child) -> bool:
    """Return whether a failpoint has ended the worker."""
    return worker.status is not None


async def retired(client: Client, order: str) -> Body:
    """Wait until an order has left the tables, and return its row in `history`."""

    async def left() -> Body | None:
        return (await client.rows("history", order)).get(order)

    row = await client.until(left, f"{order} is in the history")
    assert row is not None
    return row


async def history_of(stack: Stack, marked: str) -> list[OrderRetired]:
    """Return the records of the history topic for the orders with this in their id."""
    async with Following(stack.kafka, stack.name, [ORDER_HISTORY]) as topic:
        await topic.catch_up()
    return [READER.read(record.value) for record in topic.records if marked in record.key.decode()]


async def test_a_retired_order_is_shown_unchanged(client: Client, tiffin: Restaurant, unique: str) -> None:
    order, body = order_id(unique), an_order(tiffin, unique)
    first = await client.place(body)
    before = await client.reaches(order, "DELIVERED")
    journal = await client.journal(order)
    row = await retired(client, order)

    assert all([await client.rows(table, order) == {} for table in ROWS])
    assert list(await client.rows("timers", order)) == [f"{order}/history"]
    listed = (await client.get("/v1/orders", limit=1000))["orders"]
    assert order not in [shown["id"] for shown in listed]

    after = await client.order(order) or {}
    assert datetime.fromisoformat(after.pop("retired_at")).timestamp() * 1000 == pytest.approx(row["retired_ms"], abs=1)
    before.pop("retired_at", None)
    assert after == before
    assert await client.journal(order) == journal
    page = await client.get(f"/v1/orders/{order}/workflow")
    assert (page["waiting"], page["remedies"], page["timers"][0]["timer"]) == (None, [], f"{order}/history")
    assert [{name: line[name] for name in line if name != "cause"} for line in page["journal"]] == journal

    again = await client.place(body)
    assert (again.status_code, again.content) == (200, first.content)
    other = await client.place({**body, "tip": 5_00, "total": 205_00})
    assert (other.status_code, other.headers["content-type"]) == (422, "application/problem+json")
    late = await client.ticket(tiffin, order, "finished")
    assert late.status_code == 409
    assert "the order has ended" in late.json()["detail"]
    assert (await client.charged(order, "ch-late")).status_code == 409
    assert await client.order(order) == {**after, "retired_at": (await client.order(order) or {})["retired_at"]}


async def test_the_history_record_has_every_row(client: Client, tiffin: Restaurant, unique: str) -> None:
    for attempt in range(ATTEMPTS):
        order = order_id(f"{unique}-{attempt}")
        await client.place(an_order(tiffin, f"{unique}-{attempt}"))
        await client.reaches(order, "DELIVERED")
        rows = {table: list((await client.rows(table, order)).values()) for table in ROWS}
        in_time = await client.rows("orders", order) != {}
        remains = await retired(client, order)
        if in_time:
            break
    assert in_time, "an order's rows are read before it leaves"
    [record] = await history_of(client.stack, order)
    assert (record.key, record.status.value) == (order, "DELIVERED")
    assert [kept.kind for kept in record.rows[:5]] == ["order", "placed", "payment", "ticket", "delivery"]
    seal = Seal(b64decode(remains["data_key"]), order)
    kept_rows = [msgspec.json.decode(seal.open(kept.row)) for kept in record.rows]
    assert kept_rows == [row for table in ROWS for row in rows[table]]


async def test_a_late_record_becomes_a_dead_letter_with_the_reason(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order, "DELIVERED")
    await retired(client, order)
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        await client.produce(POS, {"type": "PreparationFinished", "order": order}, key=order)
        await letters.until(lambda: letters.records, "the late record becomes a dead letter")
    reason = headers(letters.records[0])["dead-letter.reason"]
    assert "the end of the preparation comes too late: the order has ended" in reason


async def test_a_reported_decline_ends_no_order_whose_charge_is_open(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    """A callback declines the payment while the call has no answer yet: the call may still have charged."""
    stack, order = client.stack, order_id(unique)
    stack.simulators["payment"].stop()
    try:
        await client.place(an_order(tiffin, unique))
        declined = {"type": "Declined", "order": order, "reason": "no funds"}
        assert (await client.post("/v1/payments/payments/events", declined)).status_code == 200
        assert (await client.order(order) or {})["status"] == "CREATED"
    finally:
        stack.start_payment(*INSTANT)
    await client.reaches(order, "DELIVERED")
    moved = [entry.outcome for entry in client.payments(order) if not entry.replay and entry.kind != "callback"]
    assert moved == ["charged"]


async def test_an_order_that_needs_attention_stays(client: Client, kitchen: Restaurant, unique: str) -> None:
    order, driver = order_id(unique), Driver(client, unique)
    await in_delivery(client, kitchen, unique, driver)
    refund = {"type": "Refunded", "order": order, "charge_id": "ch-nobody-knows"}
    assert (await client.post("/v1/payments/payments/events", refund)).status_code == 200
    assert (await driver.tell("delivered", {"delivery": order})).status_code == 200
    await client.reaches(order, "DELIVERED")

    async def retirement_over() -> bool:
        return not await client.rows("timers", order)

    await client.until(retirement_over, "the retention is over")
    assert await client.rows("history", order) == {}
    shown = await client.order(order) or {}
    assert "an operator" in shown["attention"]["waits_for"]
    assert "retired_at" not in shown


async def in_delivery(client: Client, kitchen: Restaurant, name: str, driver: Driver) -> None:
    """Place an order and advance it until this driver has picked it up."""
    await client.place(an_order(kitchen, name))
    await client.reaches(order_id(name), "IN_PREPARATION")
    assert (await client.ticket(kitchen, order_id(name), "finished")).status_code == 200
    await driver.available(kitchen.region, kitchen.position)
    await driver.has(order_id(name))
    assert (await driver.tell("pickup", {"delivery": order_id(name)})).status_code == 200
    await client.reaches(order_id(name), "IN_DELIVERY")


async def test_a_journal_larger_than_a_record_leaves_whole(client: Client, kitchen: Restaurant, unique: str) -> None:
    order, driver, moves = order_id(unique), Driver(client, unique), 3000
    await in_delivery(client, kitchen, unique, driver)
    await eta_moved(client.stack, order, driver.name, moves)

    async def noted() -> bool:
        return int((await client.rows("orders", order))[order]["journal"]) > 2 * moves

    await client.until(noted, f"{moves} new estimates are in the journal, two entries each")
    assert (await driver.tell("delivered", {"delivery": order})).status_code == 200
    await client.reaches(order, "DELIVERED")
    journal = await client.journal(order)
    await retired(client, order)
    assert await client.journal(order) == journal
    assert [entry["seq"] for entry in journal] == list(range(1, len(journal) + 1))
    assert await client.rows("journal", order) == {}
    parts = await history_of(client.stack, order)
    assert len(parts) > 1
    assert (await client.order(order) or {})["status"] == "DELIVERED"


async def eta_moved(stack: Stack, order: str, driver: str, times: int) -> None:
    """Produce so many new estimates of the driver's arrival, each a second later than the last."""
    began = datetime.now(UTC)
    moved = (
        EtaChanged(order=order, driver=driver, attempt=1, eta_s=60 + n, at=began + timedelta(milliseconds=n))
        for n in range(1, times + 1)
    )
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        topic = topic_name(DELIVERIES.name, stack.name)
        sent = [await producer.send(topic, write(record), key=order.encode()) for record in moved]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def test_an_order_past_the_history_topic_is_404(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order, "DELIVERED")
    await retired(client, order)
    place = TopicPartition(topic_name(ORDER_HISTORY.name, client.stack.name), partition_of(order))
    admin = AIOKafkaAdminClient(bootstrap_servers=client.stack.kafka)
    await admin.start()
    try:
        await admin.delete_records({place: RecordsToDelete(before_offset=-1)})
    finally:
        await admin.close()
    answer = await client.http.get(f"/v1/orders/{order}")
    assert answer.status_code == 404
    assert "the history topic, which no longer has it" in answer.json()["detail"]
    assert (await client.place(an_order(tiffin, unique))).status_code == 200, "its id is still taken"


async def test_a_retired_order_is_503_during_a_broker_outage(unique: str, tmp_path: Path, tiffin: Restaurant) -> None:
    with own_broker(tmp_path / "kafka") as broker:
        kafka = await asyncio.to_thread(broker.start)
        with installed(kafka, unique, tmp_path / "stack", 1.0) as stack:
            stack.start_payment("--decline", "always", *INSTANT)
            stack.start_worker(DABBAWALA_RETENTION_DAYS="0")
            async with Client(stack) as client:
                order = order_id(unique)
                await client.place(an_order(tiffin, unique))

                async def retired() -> bool:
                    return "retired_at" in (await client.order(order) or {})

                await client.until(retired, "the rejected order has left the tables")
                before = await client.order(order)
                await asyncio.to_thread(broker.kill)
                away = await client.http.get(f"/v1/orders/{order}")
                assert (away.status_code, away.headers["retry-after"]) == (503, "1")
                assert "try again" in away.json()["detail"]
                await asyncio.to_thread(broker.start)
                stack.workers[1].wait_until_ready()
                assert await client.order(order) == before


async def test_the_feed_of_a_retired_order_is_204(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await retired(client, order)
    answer = await client.http.get(f"/v1/orders/{order}/events")
    assert (answer.status_code, answer.text) == (204, "")


async def test_orders_retire_once_across_a_kill(stack: Stack, tiffin: Restaurant, unique: str) -> None:
    names = [f"{unique}-n-{number}" for number in range(20)]
    async with Client(stack) as client:
        began = datetime.now(UTC)
        await client.place(an_order(tiffin, f"{unique}-first"))
        await client.reaches(order_id(f"{unique}-first"), "DELIVERED")
        retention = room_for(datetime.now(UTC) - began)
    worker = stack.workers[1]
    worker.stop()
    worker = stack.start_worker(DABBAWALA_RETENTION_DAYS=days(retention.total_seconds()))
    async with Client(stack) as client:
        for name in names:
            await client.place(an_order(tiffin, name))
        for name in names:
            await client.reaches(order_id(name), "DELIVERED")
    worker.kill()
    for failpoint in ("produced:kill:2", "committed:kill:2"):
        doomed = stack.start_worker(wait=False, DABBAWALA_FAILPOINTS=failpoint)
        async with Following(stack.kafka, stack.name, [ORDER_HISTORY]) as topic:
            await topic.until(partial(ended_by_itself, doomed), f"killed by {failpoint}")
    stack.start_worker()
    async with Client(stack) as client:
        for name in names:
            await retired(client, order_id(name))
        kept = await history_of(stack, f"{unique}-n-")
        assert sorted(record.order for record in kept) == sorted(map(order_id, names))
        for name in names:
            assert all([await client.rows(table, order_id(name)) == {} for table in ROWS])


async def test_an_id_is_free_after_the_history(stack: Stack, tiffin: Restaurant, unique: str) -> None:
    """Runs last in this file: it leaves a worker with a short history."""
    stack.workers[1].stop()
    stack.start_worker(DABBAWALA_HISTORY_DAYS=days(4))
    async with Client(stack) as client:
        name = f"{unique}-short"
        assert (await client.place(an_order(tiffin, name))).status_code == 201

        async def forgotten() -> bool:
            return await client.order(order_id(name)) is None

        await client.until(forgotten, "the order has left tables and history")
        assert await client.rows("history", order_id(name)) == {}
        assert (await client.place(an_order(tiffin, name, tip=5_00, total=205_00))).status_code == 201, "its id is free"
