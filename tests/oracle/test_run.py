"""The oracle on real topics and ledgers without a worker: sources of its facts, and times of its judgement."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from exactly_once.task.timers import timer_key
from oracle import CannotRead, judge
from tests.oracle.installation import Installation
from tests.oracle.planted import LIFE
from tests.support.poison import poison
from tests.support.stack import ROOT, run_command
from topics.deliveries import Delivered, DriverAssigned
from topics.families import DEAD_LETTERS, DELIVERIES, ORDER_HISTORY, ORDER_UPDATES, ORDERS
from topics.order_history import OrderRetired
from topics.order_updates import Attention
from topics.records import epoch_ms, write

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(hours=3)


@pytest.fixture
async def site(kafka: str, unique: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation without records."""
    async with Installation(kafka, unique, tmp_path) as site:
        yield site


async def test_without_ledgers_only_topics_are_judged(site: Installation) -> None:
    await site.write_updates("p:fine")
    await site.write_updates("p:gap", LIFE[1:], first=2)
    report = await site.judge(ledgers=None, final=True)
    assert report.by_promise.keys() == {6}
    assert report.books["delivered"] == 2
    assert "charges" not in report.books
    unjudged = {promise.number: promise.unjudged for promise in report.promises}
    assert unjudged[2] == "there is no payment.jsonl"
    assert unjudged[8] == "not visible from outside: tests judge it"


async def test_books_are_counted(site: Installation) -> None:
    await site.write_updates("p:a")
    await site.write_updates("p:b", [LIFE[0], LIFE[0]], attention=Attention(waits_for="a person", since=NOW))
    site.add_lines("answers", *({"event": "answer", "order": o, "outcome": "accepted"} for o in ("p:a", "p:b")))
    site.add_lines("payment", {"key": "p:a/charge", "kind": "charge", "order": "p:a", "outcome": "charged"})
    site.add_lines("pos", {"event": "finished", "order": "p:a", "key": "p:a/prepare"})
    site.add_lines("trips", {"driver": "d", "event": "assigned", "delivery": "p:a"})
    report = await site.judge(final=True)
    assert not report.by_promise
    assert report.books == {
        "orders": 2,
        "delivered": 1,
        "rejected": 0,
        "cancelled": 0,
        "open": 1,
        "refunded": 0,
        "needing attention": 1,
        "dead letters": 0,
        "accepted by answer": 2,
        "refused by answer": 0,
        "charges": 1,
        "refunds": 0,
        "net charges": 1,
        "tickets": 1,
        "cooked": 1,
        "trips": 1,
        "trips completed": 0,
    }


async def test_open_order_is_late_only_at_the_end_of_the_run(site: Installation) -> None:
    await site.write_updates("p:o", LIFE[:1])
    assert not (await site.judge()).by_promise
    assert (await site.judge(final=True)).by_promise.keys() == {1}
    assert (await site.judge(final=True, only="p:o")).by_promise.keys() == {1}
    assert not (await site.judge(final=True, only="p:x")).by_promise


async def test_oracle_looks_again_at_open_orders(site: Installation) -> None:
    await site.write_updates("p:o", LIFE[:3])
    judging = asyncio.create_task(site.judge(final=True, look_again_s=30.0))
    await asyncio.sleep(0)
    await site.write_updates("p:o", LIFE[3:], first=4)
    report = await judging
    assert not report.by_promise
    assert report.books["delivered"] == 1


async def test_orders_from_before_since_are_not_judged(site: Installation) -> None:
    await site.write_updates("p:old", LIFE[:3], at=LONG_AGO)
    await site.write_updates("p:new", LIFE[:1])
    for name in ("p:lost-old", "p:lost-new"):
        at = LONG_AGO if name == "p:lost-old" else NOW
        site.add_lines("answers", {"at": at, "event": "answer", "order": name, "outcome": "accepted"})
    assert len((await site.judge(final=True)).by_promise[1]) == 4
    report = await site.judge(final=True, since=NOW - timedelta(hours=1))
    assert [sentence.partition(" ")[0] for sentence in report.by_promise[1]] == ["p:lost-new", "p:new"]
    assert report.since is not None
    await site.write_updates("p:old", LIFE[3:], first=4)
    assert "p:old" not in str((await site.judge(final=True, since=NOW - timedelta(hours=1))).by_promise)


async def test_order_without_its_first_update_is_not_judged(site: Installation) -> None:
    await site.write_updates("p:o", LIFE[:4], at=LONG_AGO)
    await site.write_updates("p:o", LIFE[4:], first=5)
    await site.write_updates("p:p")
    site.add_lines("answers", {"at": LONG_AGO, "event": "answer", "order": "p:o", "outcome": "accepted"})
    await delete_records(site, 4)
    report = await site.judge(final=True)
    assert not report.by_promise
    assert report.books["orders"] == 1
    assert report.since is not None
    assert report.since > LONG_AGO
    await delete_records(site, 14)
    report = await site.judge(final=True)
    assert report.books["orders"] == 0
    assert not report.by_promise


async def delete_records(site: Installation, offset: int) -> None:
    """Delete the records of `order-updates` before this offset."""
    admin = AIOKafkaAdminClient(bootstrap_servers=site.kafka)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(site.topic(ORDER_UPDATES), 0): RecordsToDelete(offset)})
    finally:
        await admin.close()


async def test_stuck_partition_and_missing_dead_letter_are_found(site: Installation) -> None:
    bad = await site.write(site.topic(ORDERS), b"not JSON")
    report = await site.judge()
    (sentence,) = report.by_promise[9]
    assert sentence.startswith(f"{site.topic(ORDERS)}/0 has been at position 0 for ")
    await site.write(site.changelog("positions"), b"1", site.topic(ORDERS).encode())
    assert (await site.judge()).by_promise[9] == [
        f"{site.topic(ORDERS)}/0 at {bad} is no record of its topic, but is not among the dead letters"
    ]
    where = {"origin.topic": site.topic(ORDERS), "origin.partition": "0", "origin.offset": str(bad)}
    headers = [(name, text.encode()) for name, text in {**where, "dead-letter.reason": "not JSON"}.items()]
    letter = await site.write(site.topic(DEAD_LETTERS), b"not JSON", headers=headers)
    await site.write(site.changelog("positions"), b"%d" % (letter + 1), site.topic(DEAD_LETTERS).encode())
    site.add_lines("poison", {"topic": site.topic(ORDERS), "partition": 0, "offset": bad, "id": "x"})
    report = await site.judge(final=True)
    assert not report.by_promise
    assert report.books["dead letters"] == 1
    site.add_lines("poison", {"topic": site.topic(ORDERS), "partition": 0, "offset": 7, "id": "y"})
    assert (await site.judge(final=True)).by_promise.keys() == {9}


async def test_overdue_timer_is_lost(site: Installation) -> None:
    row = timer_key(epoch_ms(LONG_AGO), b"p:o/charge-wait")
    await site.write(site.changelog("timers"), b"order", row, timestamp_ms=epoch_ms(LONG_AGO))
    report = await site.judge()
    assert not report.by_promise, "no worker runs"
    assert report.promises[4].unjudged == "what fell due after the last commit of any worker"
    await site.write(site.changelog("orders"), b"{}", b"p:p")
    assert (await site.judge()).by_promise.keys() == {5}
    assert (await site.judge(since=NOW)).by_promise.keys() == {5}, "old rows count, too"
    await site.write(site.changelog("timers"), None, row)
    assert not (await site.judge()).by_promise


async def test_placed_record_without_any_trace_is_lost(site: Installation) -> None:
    item = {"id": "1", "pos_code": "x", "name": "x", "quantity": 1, "unit_price": 5}
    customer = {"name": "x", "address": "x", "position": {"lat": 1.0, "lon": 1.0}}
    body = {"type": "Placed", "provider": "p", "restaurant": "r", "items": [item], "total": 5, "currency": "INR"}
    record = json.dumps({**body, "customer": customer}).encode()
    await site.write(site.topic(ORDERS), record, headers=[("Idempotency-Key", b"k")])
    await site.write(site.changelog("positions"), b"1", site.topic(ORDERS).encode())
    (sentence,) = (await site.judge()).by_promise[1]
    assert sentence.startswith("p:ik-")
    assert sentence.endswith(f"({site.topic(ORDERS)}/0 at 0), but is neither an order nor a dead letter")
    await site.write_updates(sentence.partition(" ")[0], LIFE[:1])
    assert not (await site.judge()).by_promise


async def test_driver_with_two_deliveries_is_found(site: Installation) -> None:
    for event in (
        DriverAssigned(order="p:o", driver="d", attempt=1, eta_s=5),
        Delivered(order="p:o", driver="d", attempt=1),
        DriverAssigned(order="p:p", driver="d", attempt=1, eta_s=5),
    ):
        await site.write(site.topic(DELIVERIES), write(event), event.key.encode())
    await site.write(site.changelog("positions"), b'{"offset":9,"topic_id":"f00d"}', site.topic(DELIVERIES).encode())
    assert not (await site.judge()).by_promise
    third = DriverAssigned(order="p:q", driver="d", attempt=1, eta_s=5)
    await site.write(site.topic(DELIVERIES), write(third), b"p:q")
    assert (await site.judge()).by_promise.keys() == {4}


async def test_reused_id_is_looked_up_in_the_history(site: Installation) -> None:
    await site.write_updates("p:o", at=NOW - timedelta(minutes=9))
    await site.write_updates("p:o", at=NOW)
    assert (await site.judge()).by_promise.keys() == {6}
    retired = OrderRetired(order="p:o", status=LIFE[-1], rows=())
    retired_ms = epoch_ms(NOW - timedelta(minutes=5))
    await site.write(site.topic(ORDER_HISTORY), write(retired), b"p:o", timestamp_ms=retired_ms)
    assert not (await site.judge()).by_promise
    await site.write(site.topic(ORDER_HISTORY), b"a stranger's", b"p:o")
    await site.write_updates("p:o", LIFE[:1])
    await site.write_updates("p:o", LIFE[:1])
    report = await site.judge(look_again_s=1.5)
    assert report.by_promise.keys() == {6}, "the oracle has looked again"
    assert [each.where for each in report.unreadable] == [f"{site.topic(ORDER_HISTORY)}/0 at 1"]


async def test_unreadable_records_and_lines_are_reported(site: Installation) -> None:
    topic = site.topic(ORDER_UPDATES)
    await site.write(topic, b"a stranger's")
    await poison({"bootstrap_servers": site.kafka}, topic, 0, b"k", b"a stranger's, too")
    async with AIOKafkaProducer(bootstrap_servers=site.kafka, transactional_id=topic) as task, task.transaction():
        await task.send_and_wait(topic, b"perhaps a task's", partition=0)
    await site.write_updates("p:o", LIFE[:1])
    site.add_lines("trips", {"driver": 5})
    report = await site.judge()
    assert not report.by_promise
    assert [(each.where, each.foreign) for each in report.unreadable] == [
        (f"{topic}/0 at 0", True),
        (f"{topic}/0 at 1", True),
        (f"{topic}/0 at 2", False),
        ("trips.jsonl line 1", False),
    ]
    assert report.books["orders"] == 1


async def test_missing_installation_is_named(kafka: str, unique: str) -> None:
    with pytest.raises(CannotRead, match=f"There is no topic {unique}.orders: name the prefix of an existing"):
        await judge(kafka, unique)


async def test_program_exits_with_0_1_or_2(site: Installation) -> None:
    await site.write_updates("p:o", LIFE[:1])
    command = [sys.executable, "-m", "oracle", "--kafka", site.kafka, "--prefix", site.prefix]
    command += ["--ledgers", str(site.ledgers), "--look-again", "0"]
    environment = {"PYTHONPATH": str(ROOT)}
    status, shown, errors = await asyncio.to_thread(run_command, command, environment)
    assert (status, errors) == (0, "")
    assert "observers see legal steps in order" in shown
    status, shown, errors = await asyncio.to_thread(run_command, [*command, "--final", "--json"], environment)
    assert (status, errors) == (1, "")
    report = json.loads(shown)
    assert report["books"]["open"] == 1
    (violation,) = report["promises"][0]["violations"]
    assert violation["about"] == "p:o"
    status, shown, errors = await asyncio.to_thread(run_command, [*command, "--final"], environment)
    assert (status, errors) == (1, "")
    assert violation["sentence"].partition(" for ")[0] in shown
    for asked, sentence in (
        (["--kafka", "localhost:abc"], "'localhost:abc' is not an address of Kafka: write host:port[,host:port].\n"),
        (["--prefix", "none"], "There is no topic none.orders: name the prefix of an existing installation.\n"),
        (["--since", "now"], "Invalid value for '--since': 'now' is not a time"),
        (["--ledgers", "/nowhere"], "Invalid value for '--ledgers': Directory '/nowhere' does not exist"),
    ):
        status, shown, errors = await asyncio.to_thread(run_command, [*command, *asked], environment)
        assert (status, shown, errors.count("\n")) == (2, "", 1)
        assert errors.startswith(sentence)
