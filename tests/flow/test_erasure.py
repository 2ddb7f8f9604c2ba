"""An erased order: afterwards neither disks nor topics nor the history have anything of its customer."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.flow.reading import PARTITIONS
from tests.flow.test_dead_letters import letter_of
from tests.support.stack import Stack, installed
from topics.families import DEAD_LETTERS, DELIVERIES, DISPATCH, DRIVERS, LOCATIONS, ORDERS, topic_name
from topics.restaurants import Restaurant

BRIEF = (ORDERS, DEAD_LETTERS, DRIVERS, DELIVERIES, DISPATCH, LOCATIONS)
"""Topics whose records end by their retention."""


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker whose files have the orders of this module alone."""
    with installed(kafka, f"erasure-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("erasure"), 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_drivers(4, *INSTANT)
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Client]:
    """Return a client of the worker."""
    async with Client(stack) as client:
        yield client


def words_of(unique: str) -> tuple[str, ...]:
    """Return texts that only this customer has."""
    return f"Name {unique}", f"Street {unique}", f"Phone {unique}", f"Note {unique}", f"No nuts {unique}"


def body(tiffin: Restaurant, unique: str) -> Body:
    name, address, phone, note, on_item = words_of(unique)
    made = an_order(tiffin, unique)
    made["customer"] |= {"name": name, "address": address, "phone": phone, "note": note}
    made["items"][0]["note"] = on_item
    return made


async def in_topics(stack: Stack, words: tuple[str, ...]) -> set[str]:
    """Return what the topics have of these texts once the compacted ones are compacted, without the brief ones."""
    brief = {topic_name(family.name, stack.name) for family in BRIEF}
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka, enable_auto_commit=False)
    await consumer.start()
    found: set[str] = set()
    try:
        for topic in [each for each in await consumer.topics() if each.startswith(stack.name) and each not in brief]:
            newest: dict[object, bytes] = {}
            places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, records in (await consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        key = (place, record.key if topic.endswith("-changelog") else record.offset)
                        newest[key] = record.value or b""
            found |= {f"{topic}: {word}" for value in newest.values() for word in words if word.encode() in value}
    finally:
        await consumer.stop()
    return found


def on_disks(stack: Stack, words: tuple[str, ...]) -> set[str]:
    """Return the worker's files that have one of these texts."""
    files = [file for file in Path(stack.home(1)).rglob("*") if file.is_file()]
    return {file.name for file in files for word in words if word.encode() in file.read_bytes()}


@pytest.mark.parametrize("retention", ["in the tables", "in the history"])
async def test_nothing_remains_of_the_customer(client: Client, tiffin: Restaurant, unique: str, retention: str) -> None:
    words, order = words_of(unique), order_id(unique)
    assert (await client.place(body(tiffin, unique))).status_code == 201
    await client.reaches(order, "DELIVERED")
    assert on_disks(client.stack, words), "this test would find it"
    assert await in_topics(client.stack, words), "this test would find it"
    if retention == "in the history":
        client.stack.workers[1].stop()
        client.stack.start_worker(DABBAWALA_RETENTION_DAYS="0")
        # orders that end from now on leave the tables at once
        words, order = words_of(f"{unique}-2"), order_id(f"{unique}-2")
        assert (await client.place(body(tiffin, f"{unique}-2"))).status_code == 201

        async def retired() -> bool:
            return bool(await client.rows("history", order))

        await client.until(retired, "the order has left the tables")
        assert (await client.order(order) or {})["status"] == "DELIVERED"
        assert not await in_topics(client.stack, words), "the history is sealed"

    answer = await client.post(f"/v1/orders/{order}/erased", {"reason": "she asked for it"})
    assert (answer.status_code, answer.json()) == (200, {"order": order, "outcome": "APPLIED"})
    assert not on_disks(client.stack, words)
    assert not await in_topics(client.stack, words)
    for path in (f"/v1/orders/{order}", f"/v1/orders/{order}/journal", f"/v1/orders/{order}/workflow"):
        gone = await client.http.get(path)
        assert (gone.status_code, gone.json()["detail"][:30]) == (410, f"the order {order} was erased"[:30])
    again = await client.post(f"/v1/orders/{order}/erased", {"reason": "twice"})
    assert (again.status_code, again.json()["outcome"]) == (200, "ABSORBED")
    assert (await client.place(body(tiffin, unique))).status_code in (200, 422)


async def test_an_order_on_its_way_is_not_erased(client: Client, tiffin: Restaurant, unique: str) -> None:
    client.stack.simulators["drivers"].stop()
    order = order_id(unique)
    assert (await client.place(an_order(tiffin, unique))).status_code == 201
    answer = await client.post(f"/v1/orders/{order}/erased", {"reason": "x"})
    assert answer.status_code == 409
    assert "has not ended" in answer.json()["detail"]
    client.stack.start_drivers(4, *INSTANT)
    await client.reaches(order, "DELIVERED")


async def test_only_an_operator_erases(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    assert (await client.place(an_order(tiffin, unique))).status_code == 201
    await client.reaches(order, "DELIVERED")
    await client.produce(ORDERS, {"type": "ErasureRequested", "order": order, "by": "the boss"}, key=order)
    assert "needs the key of an operator" in (await letter_of(client, order))["reason"]
    assert (await client.order(order) or {})["status"] == "DELIVERED"


async def test_the_command_erases_and_says_so(client: Client, tiffin: Restaurant, unique: str) -> None:
    stack, order = client.stack, order_id(unique)
    assert (await client.place(an_order(tiffin, unique))).status_code == 201
    await client.reaches(order, "DELIVERED")
    assert stack.faust("erase", order)[0] == 2, "a reason is needed"
    assert stack.faust("erase", order, "--reason", "asked")[:2] == (0, f"{order} is erased.\n")
    assert stack.faust("erase", order, "--reason", "asked")[:2] == (0, f"{order} was erased before.\n")
    status, _, error = stack.faust("erase", "my-shop:nobody", "--reason", "asked")
    assert (status, error) == (1, "There is no order my-shop:nobody here.\n"), error
