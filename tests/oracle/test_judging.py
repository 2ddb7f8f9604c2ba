"""The oracle on topics and ledgers that are there, without a worker: what it takes from where, and when it judges."""

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

from oracle import CannotRead, judge
from tests.oracle.installation import Installation
from tests.oracle.planted import LIFE
from tests.poison import poison
from tests.stack import ROOT, run_command
from topics.deliveries import Delivered, DriverAssigned
from topics.families import DEAD_LETTERS, DELIVERIES, ORDER_HISTORY, ORDER_UPDATES, ORDERS
from topics.order_history import OrderRetired
from topics.order_updates import Attention
from topics.records import epoch_ms, write

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(hours=3)


@pytest.fixture
async def there(kafka: str, unique: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """An installation of which nothing is known yet."""
    async with Installation(kafka, unique, tmp_path) as there:
        yield there


async def test_without_ledgers_the_topics_alone_are_judged_and_what_is_not_is_said(there: Installation) -> None:
    await there.tell("p:fine")
    await there.tell("p:gap", LIFE[1:], first=2)
    report = await there.judged(ledgers=None, final=True)
    assert report.by_promise.keys() == {6}
    assert report.books["delivered"] == 2
    assert "charges" not in report.books
    unjudged = {promise.number: promise.unjudged for promise in report.promises}
    assert unjudged[2] == "there is no payment.jsonl"
    assert unjudged[8] == "not seen from outside: judged by tests"


async def test_the_books_are_counted(there: Installation) -> None:
    await there.tell("p:a")
    await there.tell("p:b", [LIFE[0], LIFE[0]], attention=Attention(waits_for="a person", since=NOW))
    there.note("answers", *({"event": "answer", "order": o, "outcome": "accepted"} for o in ("p:a", "p:b")))
    there.note("payment", {"key": "p:a/charge", "kind": "charge", "order": "p:a", "outcome": "charged"})
    there.note("pos", {"event": "finished", "order": "p:a", "key": "p:a/prepare"})
    there.note("trips", {"driver": "d", "event": "assigned", "delivery": "p:a"})
    report = await there.judged(final=True)
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
        "brought": 0,
    }


async def test_an_order_under_way_is_lost_only_when_the_run_is_over(there: Installation) -> None:
    await there.tell("p:o", LIFE[:1])
    assert not (await there.judged()).by_promise
    assert (await there.judged(final=True)).by_promise.keys() == {1}
    assert (await there.judged(final=True, only="p:o")).by_promise.keys() == {1}
    assert not (await there.judged(final=True, only="p:x")).by_promise


async def test_what_is_only_under_way_is_looked_at_again(there: Installation) -> None:
    await there.tell("p:o", LIFE[:3])
    judging = asyncio.create_task(there.judged(final=True, look_again_s=30.0))
    await asyncio.sleep(0)
    await there.tell("p:o", LIFE[3:], first=4)
    report = await judging
    assert not report.by_promise
    assert report.books["delivered"] == 1


async def test_what_began_before_is_not_judged(there: Installation) -> None:
    await there.tell("p:old", LIFE[:3], at=LONG_AGO)
    await there.tell("p:new", LIFE[:1])
    for name in ("p:lost-old", "p:lost-new"):
        at = LONG_AGO if name == "p:lost-old" else NOW
        there.note("answers", {"at": at, "event": "answer", "order": name, "outcome": "accepted"})
    assert len((await there.judged(final=True)).by_promise[1]) == 4
    report = await there.judged(final=True, since=NOW - timedelta(hours=1))
    assert [sentence.partition(" ")[0] for sentence in report.by_promise[1]] == ["p:lost-new", "p:new"]
    assert report.since is not None
    await there.tell("p:old", LIFE[3:], first=4)
    assert "p:old" not in str((await there.judged(final=True, since=NOW - timedelta(hours=1))).by_promise)


async def test_an_order_whose_beginning_is_kept_no_longer_is_not_judged(there: Installation) -> None:
    await there.tell("p:o", LIFE[:4], at=LONG_AGO)
    await there.tell("p:o", LIFE[4:], first=5)
    await there.tell("p:p")
    there.note("answers", {"at": LONG_AGO, "event": "answer", "order": "p:o", "outcome": "accepted"})
    await cut_off(there, 4)
    report = await there.judged(final=True)
    assert not report.by_promise
    assert report.books["orders"] == 1
    assert report.since is not None
    assert report.since > LONG_AGO
    await cut_off(there, 14)
    report = await there.judged(final=True)
    assert report.books["orders"] == 0
    assert not report.by_promise


async def cut_off(there: Installation, offset: int) -> None:
    """Have `order-updates` forget what lies before this offset."""
    admin = AIOKafkaAdminClient(bootstrap_servers=there.kafka)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(there.topic(ORDER_UPDATES), 0): RecordsToDelete(offset)})
    finally:
        await admin.close()


async def test_a_partition_that_holds_what_nobody_applies_stands_still(there: Installation) -> None:
    bad = await there.say(there.topic(ORDERS), b"not JSON")
    report = await there.judged()
    (sentence,) = report.by_promise[9]
    assert sentence.startswith(f"{there.topic(ORDERS)}/0 stands at 0 for ")
    await there.say(there.changelog("positions"), b"1", there.topic(ORDERS).encode())
    assert (await there.judged()).by_promise[9] == [
        f"{there.topic(ORDERS)}/0 at {bad} holds nothing that could be applied, and is not among the dead letters"
    ]
    where = {"origin.topic": there.topic(ORDERS), "origin.partition": "0", "origin.offset": str(bad)}
    headers = [(name, text.encode()) for name, text in {**where, "dead-letter.reason": "not JSON"}.items()]
    letter = await there.say(there.topic(DEAD_LETTERS), b"not JSON", headers=headers)
    await there.say(there.changelog("positions"), b"%d" % (letter + 1), there.topic(DEAD_LETTERS).encode())
    there.note("poison", {"topic": there.topic(ORDERS), "partition": 0, "offset": bad, "id": "x"})
    report = await there.judged(final=True)
    assert not report.by_promise
    assert report.books["dead letters"] == 1
    there.note("poison", {"topic": there.topic(ORDERS), "partition": 0, "offset": 7, "id": "y"})
    assert (await there.judged(final=True)).by_promise.keys() == {9}


async def test_a_timer_that_is_set_and_long_due_is_lost(there: Installation) -> None:
    row = epoch_ms(LONG_AGO).to_bytes(8, "big") + b"p:o/charge-wait"
    await there.say(there.changelog("timers"), b"order", row, timestamp_ms=epoch_ms(LONG_AGO))
    report = await there.judged()
    assert not report.by_promise, "nobody works"
    assert report.promises[4].unjudged == "what is due since no worker has committed anything"
    await there.say(there.changelog("orders"), b"{}", b"p:p")
    assert (await there.judged()).by_promise.keys() == {5}
    assert (await there.judged(since=NOW)).by_promise.keys() == {5}, "rows count, however old"
    await there.say(there.changelog("timers"), None, row)
    assert not (await there.judged()).by_promise


async def test_an_order_placed_on_its_topic_that_became_nothing_is_lost(there: Installation) -> None:
    item = {"id": "1", "pos_code": "x", "name": "x", "quantity": 1, "unit_price": 5}
    customer = {"name": "x", "address": "x", "position": {"lat": 1.0, "lon": 1.0}}
    body = {"type": "Placed", "provider": "p", "restaurant": "r", "items": [item], "total": 5, "currency": "INR"}
    record = json.dumps({**body, "customer": customer}).encode()
    await there.say(there.topic(ORDERS), record, headers=[("Idempotency-Key", b"k")])
    await there.say(there.changelog("positions"), b"1", there.topic(ORDERS).encode())
    (sentence,) = (await there.judged()).by_promise[1]
    assert sentence.startswith("p:ik-")
    assert sentence.endswith(f"({there.topic(ORDERS)}/0 at 0), and has become neither an order nor a dead letter")
    await there.tell(sentence.partition(" ")[0], LIFE[:1])
    assert not (await there.judged()).by_promise


async def test_a_driver_who_takes_two_is_seen_on_the_topics(there: Installation) -> None:
    for said in (
        DriverAssigned(order="p:o", driver="d", attempt=1, eta_s=5),
        Delivered(order="p:o", driver="d", attempt=1),
        DriverAssigned(order="p:p", driver="d", attempt=1, eta_s=5),
    ):
        await there.say(there.topic(DELIVERIES), write(said), said.key.encode())
    await there.say(there.changelog("positions"), b'{"offset":9,"topic_id":"f00d"}', there.topic(DELIVERIES).encode())
    assert not (await there.judged()).by_promise
    third = DriverAssigned(order="p:q", driver="d", attempt=1, eta_s=5)
    await there.say(there.topic(DELIVERIES), write(third), b"p:q")
    assert (await there.judged()).by_promise.keys() == {4}


async def test_an_id_that_is_used_again_is_looked_up_in_the_history(there: Installation) -> None:
    await there.tell("p:o", at=NOW - timedelta(minutes=9))
    await there.tell("p:o", at=NOW)
    assert (await there.judged()).by_promise.keys() == {6}
    retired = OrderRetired(order="p:o", status=LIFE[-1], rows=())
    left = epoch_ms(NOW - timedelta(minutes=5))
    await there.say(there.topic(ORDER_HISTORY), write(retired), b"p:o", timestamp_ms=left)
    assert not (await there.judged()).by_promise
    await there.say(there.topic(ORDER_HISTORY), b"a stranger's", b"p:o")
    await there.tell("p:o", LIFE[:1])
    await there.tell("p:o", LIFE[:1])
    report = await there.judged(look_again_s=1.5)
    assert report.by_promise.keys() == {6}, "so it has looked again"
    assert [each.where for each in report.unreadable] == [f"{there.topic(ORDER_HISTORY)}/0 at 1"]


async def test_what_is_unreadable_is_told_of_and_nothing_else_suffers(there: Installation) -> None:
    topic = there.topic(ORDER_UPDATES)
    await there.say(topic, b"a stranger's")
    await poison({"bootstrap_servers": there.kafka}, topic, 0, b"k", b"a stranger's, too")
    async with AIOKafkaProducer(bootstrap_servers=there.kafka, transactional_id=topic) as task, task.transaction():
        await task.send_and_wait(topic, b"perhaps a task's", partition=0)
    await there.tell("p:o", LIFE[:1])
    there.note("trips", {"driver": 5})
    report = await there.judged()
    assert not report.by_promise
    assert [(each.where, each.foreign) for each in report.unreadable] == [
        (f"{topic}/0 at 0", True),
        (f"{topic}/0 at 1", True),
        (f"{topic}/0 at 2", False),
        ("trips.jsonl line 1", False),
    ]
    assert report.books["orders"] == 1


async def test_an_installation_that_is_not_there_is_named(kafka: str, unique: str) -> None:
    with pytest.raises(CannotRead, match=f"There is no topic {unique}.orders: name the prefix of an installation"):
        await judge(kafka, unique)


async def test_the_program_exits_with_0_1_or_2(there: Installation) -> None:
    await there.tell("p:o", LIFE[:1])
    command = [sys.executable, "-m", "oracle", "--kafka", there.kafka, "--prefix", there.prefix]
    command += ["--ledgers", str(there.ledgers), "--look-again", "0"]
    environment = {"PYTHONPATH": str(ROOT)}
    status, shown, errors = await asyncio.to_thread(run_command, command, environment)
    assert (status, errors) == (0, "")
    assert "observers see legal steps in order" in shown
    status, shown, errors = await asyncio.to_thread(run_command, [*command, "--final", "--json"], environment)
    assert (status, errors) == (1, "")
    told = json.loads(shown)
    assert told["books"]["open"] == 1
    (violation,) = told["promises"][0]["violations"]
    assert violation["about"] == "p:o"
    status, shown, errors = await asyncio.to_thread(run_command, [*command, "--final"], environment)
    assert (status, errors) == (1, "")
    assert violation["sentence"].partition(" for ")[0] in shown
    for asked, sentence in (
        (["--kafka", "localhost:abc"], "'localhost:abc' is no address of Kafka: write host:port[,host:port].\n"),
        (["--prefix", "none"], "There is no topic none.orders: name the prefix of an installation that is there.\n"),
        (["--since", "now"], "Invalid value for '--since': 'now' is no moment"),
        (["--ledgers", "/nowhere"], "Invalid value for '--ledgers': Directory '/nowhere' does not exist"),
    ):
        status, shown, errors = await asyncio.to_thread(run_command, [*command, *asked], environment)
        assert (status, shown, errors.count("\n")) == (2, "", 1)
        assert errors.startswith(sentence)
