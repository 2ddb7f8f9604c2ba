"""Orders that ended leave the tables for the history topic, and are still known."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from streams.embedded.processes import Child
from tests.flow.client import Body, Client, Driver, an_order, order_id, partition_of
from tests.flow.conftest import INSTANT
from tests.flow.hand_pos import HandPos
from tests.flow.reading import Following, headers
from tests.own_broker import own_broker
from tests.stack import Stack, installed
from topics.deliveries import EtaChanged
from topics.families import DEAD_LETTERS, DELIVERIES, ORDER_HISTORY, POS, topic_name
from topics.order_history import READER, OrderRetired
from topics.records import write
from topics.restaurants import Restaurant

pytestmark = pytest.mark.timeout(180)

ROWS = ("orders", "bodies", "payments", "tickets", "deliveries", "journal")
LARGEST_RECORD = 1_000_000


def days(seconds: float) -> str:
    """As the settings have it."""
    return f"{seconds / 86_400:.12f}"


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A worker that keeps an order for three seconds after its end."""
    name, directory = f"retention-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("retention")
    with installed(kafka, name, directory, 1.0, hand_pos.kitchens(20)) as stack:
        stack.environment["DABBAWALA_RETENTION_DAYS"] = days(3)
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_drivers(12, *INSTANT)
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """A party outside."""
    async with Client(stack) as client:
        yield client


def ended_by_itself(worker: Child) -> bool:
    """Whether a failpoint has ended it."""
    return worker.status is not None


async def retired(client: Client, order: str) -> Body:
    """Wait until an order has left the tables; its row in `history`."""

    async def left() -> Body | None:
        return (await client.rows("history", order)).get(order)

    row = await client.until(left, f"{order} has left")
    assert row is not None
    return row


async def history_of(stack: Stack, marked: str) -> list[OrderRetired]:
    """What a consumer finds in the history topic."""
    async with Following(stack.kafka, stack.name, [ORDER_HISTORY]) as topic:
        await topic.catch_up()
    return [READER.read(record.value) for record in topic.records if marked in record.key.decode()]


async def test_an_order_that_ended_leaves_whole_and_is_shown_as_it_was(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
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

    again = await client.place(body)
    assert (again.status_code, again.content) == (200, first.content)
    other = await client.place({**body, "tip": 5_00, "total": 205_00})
    assert (other.status_code, other.headers["content-type"]) == (422, "application/problem+json")
    late = await client.ticket(tiffin, order, "finished")
    assert late.status_code == 409
    assert "the order ended" in late.json()["detail"]
    assert (await client.charged(order, "ch-late")).status_code == 409
    assert await client.order(order) == {**after, "retired_at": (await client.order(order) or {})["retired_at"]}


async def test_what_is_kept_is_one_record_with_every_row(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order, "DELIVERED")
    rows = {table: list((await client.rows(table, order)).values()) for table in ROWS}
    await retired(client, order)
    [record] = await history_of(client.stack, order)
    assert (record.key, record.status.value) == (order, "DELIVERED")
    assert [kept.kind for kept in record.rows[:5]] == ["order", "placed", "payment", "ticket", "delivery"]
    assert [msgspec.json.decode(kept.row) for kept in record.rows] == [row for table in ROWS for row in rows[table]]


async def test_a_late_record_that_nobody_waits_for_is_set_aside_with_the_reason(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order, "DELIVERED")
    await retired(client, order)
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        await client.produce(POS, {"type": "PreparationFinished", "order": order}, key=order)
        await letters.until(lambda: letters.records, "the late record is set aside")
    assert "PreparationFinished comes too late: the order ended" in headers(letters.records[0])["dead-letter.reason"]


async def test_an_order_stays_while_its_charge_may_still_be_answered_and_what_was_charged_then_is_given_back(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    """Declined by a callback, while nothing is heard of the call itself: that may have charged."""
    stack, order = client.stack, order_id(unique)
    stack.simulators["payment"].stop()
    try:
        await client.place(an_order(tiffin, unique))
        declined = {"type": "Declined", "order": order, "reason": "no funds"}
        assert (await client.post("/v1/payments/payments/events", declined)).status_code == 200

        async def was_due() -> bool:
            return any(line["event"] == "RetireDue" for line in await client.journal(order))

        await client.until(was_due, "its retention is over")
        assert (await client.order(order) or {})["status"] == "REJECTED"
        assert await client.rows("history", order) == {}
    finally:
        stack.start_payment(*INSTANT)
    await retired(client, order)
    moved = [entry.outcome for entry in client.payments(order) if not entry.replay and entry.kind != "callback"]
    assert moved == ["charged", "refunded"]


async def test_an_order_that_a_person_should_look_at_stays(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order, "DELIVERED")
    refund = {"type": "Refunded", "order": order, "charge_id": "ch-nobody-knows"}
    assert (await client.post("/v1/payments/payments/events", refund)).status_code == 409

    async def retirement_over() -> bool:
        return not await client.rows("timers", order)

    await client.until(retirement_over, "its retention is over")
    assert await client.rows("history", order) == {}
    shown = await client.order(order) or {}
    assert "an operator" in shown["attention"]["waits_for"]
    assert "retired_at" not in shown


async def test_a_journal_larger_than_a_record_leaves_whole(
    client: Client, hand_pos: HandPos, kitchen: Restaurant, unique: str
) -> None:
    order, driver, moves = order_id(unique), Driver(client, unique), 3000
    await client.place(an_order(kitchen, unique))
    await client.reaches(order, "IN_PREPARATION")
    assert (await client.ticket(kitchen, order, "finished")).status_code == 200
    await driver.available(kitchen.region, kitchen.position)
    await driver.has(order)
    await eta_moved(client.stack, order, driver.name, moves)

    async def noted() -> bool:
        return int((await client.rows("orders", order))[order]["journal"]) > 2 * moves

    await client.until(noted, f"{moves} new estimates are in the journal, twice each")
    for what in ("pickup", "delivered"):
        assert (await driver.tell(what, {"delivery": order})).status_code == 200
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
    """The driver's arrival is estimated anew so often, a second later each time."""
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


async def test_what_the_history_topic_has_no_more_is_said_so(client: Client, tiffin: Restaurant, unique: str) -> None:
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
    assert "the history topic, which has it no more" in answer.json()["detail"]
    assert (await client.place(an_order(tiffin, unique))).status_code == 200, "it is known all the same"


async def test_while_kafka_is_away_a_retired_order_is_503_and_then_there_again(
    unique: str, tmp_path: Path, tiffin: Restaurant
) -> None:
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

                await client.until(retired, "it was rejected and has left")
                before = await client.order(order)
                await asyncio.to_thread(broker.kill)
                away = await client.http.get(f"/v1/orders/{order}")
                assert (away.status_code, away.headers["retry-after"]) == (503, "1")
                assert "try again" in away.json()["detail"]
                await asyncio.to_thread(broker.start)
                stack.workers[1].wait_until_ready()
                assert await client.order(order) == before


async def test_a_worker_killed_while_orders_leave_lets_each_go_once_and_forgets_it_in_its_time(
    stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    """The last one: from here on the history is short."""
    names = [f"{unique}-{number}" for number in range(20)]
    worker = stack.workers[1]
    worker.stop()
    worker = stack.start_worker(DABBAWALA_RETENTION_DAYS=days(6))
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
    stack.start_worker(DABBAWALA_HISTORY_DAYS=days(4))
    async with Client(stack) as client:
        for name in names:
            await retired(client, order_id(name))
        kept = await history_of(stack, unique)
        assert sorted(record.order for record in kept) == sorted(map(order_id, names))
        for name in names:
            assert all([await client.rows(table, order_id(name)) == {} for table in ROWS])

        name = f"{unique}-short"
        await client.place(an_order(tiffin, name))
        await client.reaches(order_id(name), "DELIVERED")
        await retired(client, order_id(name))

        async def forgotten() -> bool:
            return await client.order(order_id(name)) is None

        await client.until(forgotten, "its history is over")
        assert await client.rows("history", order_id(name)) == {}
        assert (await client.place(an_order(tiffin, name, tip=5_00, total=205_00))).status_code == 201, "its id is free"


async def test_the_feed_of_an_order_that_has_left_the_tables_is_no_content(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await retired(client, order)
    answer = await client.http.get(f"/v1/orders/{order}/events")
    assert (answer.status_code, answer.text) == (204, "")
