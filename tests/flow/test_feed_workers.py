"""The public feed of two workers: from either worker, across kills, and with slow or many listeners."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

import pytest
from aiokafka import AIOKafkaProducer

from streams.access.keys import Role
from tests.flow.client import Client, Driver, an_order, order_id
from tests.flow.conftest import KITCHENS
from tests.flow.event_source import Event, EventSource
from tests.flow.hand_pos import HandPos
from tests.flow.reading import PARTITIONS, WITHIN_S, Following, illegal_steps
from tests.flow.two_workers import one_of, one_of_each, two_workers
from tests.support.keys import HEADERS, KEYS
from tests.support.stack import Stack
from topics.families import ORDER_UPDATES, topic_name
from topics.order_updates import Attention, OrderStatus, OrderUpdated
from topics.records import write
from topics.restaurants import Restaurant

STEPS = ["IN_PREPARATION", "SCHEDULING_DELIVERY", "WAITING_FOR_DRIVER", "IN_DELIVERY", "DELIVERED"]
"""Statuses of an order from the start of its preparation."""
LISTENERS = 400
LOAD = 10_000
"""Updates of one partition: four times as many as a worker keeps in memory, and far more than sockets buffer."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run two workers in one directory, and all outside parties."""
    with two_workers(kafka, tmp_path_factory.mktemp("feeds"), hand_pos.kitchens(KITCHENS)) as stack:
        yield stack


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """Return a client of each worker."""
    async with one_of_each(stack) as clients:
        yield clients


async def read_to_the_end(client: Client, path: str, last_event_id: str = "") -> list[Event]:
    """Return all events until the feed ends."""
    async with EventSource(f"{client.stack.url_of(client.number)}{path}", last_event_id=last_event_id) as feed:
        await feed.until(lambda: feed.done, "the end of the feed")
        return feed.events


async def test_an_orders_feed_is_the_same_at_either_worker(
    clients: tuple[Client, Client], new_kitchen: Callable[[], Restaurant], unique: str
) -> None:
    for owner, other in (clients, clients[::-1]):
        kitchen, name = new_kitchen(), await one_of(owner, unique)
        order, path = order_id(name), f"/v1/orders/{order_id(name)}/events"
        await owner.place(an_order(kitchen, name))
        await owner.reaches(order, "IN_PREPARATION")
        async with EventSource(f"{other.stack.url_of(other.number)}{path}") as feed:
            await feed.until(feed.updates, "the current update")
            assert (await owner.ticket(kitchen, order, "finished")).status_code == 200
            driver = Driver(owner, f"{name}-driver")
            await driver.available(kitchen.region, kitchen.position)
            await driver.has(order)
            for what in ("pickup", "delivered"):
                assert (await driver.tell(what, {"delivery": order})).status_code == 200
            await feed.until(partial(is_done, feed), "the end of the feed")
        assert feed.statuses() == STEPS
        assert await read_to_the_end(owner, path) == feed.events[-2:]
        for client in (owner, other):
            assert await read_to_the_end(client, path, feed.events[0].id) == feed.events[1:]
        assert (await other.http.get(f"/v1/orders/{order}-not/events")).status_code == 404


async def test_a_provider_follows_its_order_at_either_worker(
    clients: tuple[Client, Client], kitchen: Restaurant, unique: str
) -> None:
    name = await one_of(clients[0], unique)
    await clients[0].place(an_order(kitchen, name))
    await clients[0].reaches(order_id(name), "IN_PREPARATION")
    provider = {"Authorization": f"Bearer {KEYS[Role.PROVIDER]}"}
    for client in clients:
        async with client.http.stream("GET", f"/v1/orders/{order_id(name)}/events", headers=provider) as answer:
            assert answer.status_code == 200
            assert await anext(answer.aiter_lines())


def is_done(feed: EventSource) -> bool:
    """Return whether the feed has ended."""
    return feed.done


async def test_a_feed_is_exactly_once_across_a_kill_of_its_worker(
    stack: Stack, clients: tuple[Client, Client], kitchen: Restaurant, unique: str
) -> None:
    run, orders, by_hand = unique[-6:], 30, await one_of(clients[1], unique)
    assert (await clients[0].place(an_order(kitchen, by_hand))).status_code == 201
    await clients[0].reaches(order_id(by_hand), "IN_PREPARATION")
    path = f"/v1/orders/{order_id(by_hand)}/events"
    async with (
        Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as topic,
        EventSource(lambda: f"{stack.url_of(2)}/v1/events") as everything,
        EventSource(lambda: f"{stack.url_of(2)}{path}", lambda: f"{stack.url_of(1)}{path}") as one,
    ):
        await everything.placed()
        await one.until(one.updates, "the current update")
        stack.place(run, orders, 10)
        await everything.until(lambda: len(everything.updates(f":{run}-")) > orders, "the middle of the run")
        stack.workers[2].kill()
        stack.start_worker(2)
        assert (await clients[0].ticket(kitchen, order_id(by_hand), "finished")).status_code in (200, 202)

        def ended() -> set[str]:
            return {update.order for update in everything.updates(f":{run}-") if update.status.ended}

        await everything.until(lambda: len(ended()) == orders, "every order's end")
        await one.until(lambda: "SCHEDULING_DELIVERY" in one.statuses(), "the step after the kill")
        updates = everything.updates(f":{run}-")
        await topic.until(lambda: len(topic.updates(f":{run}-")) >= len(updates), "the records")
        assert not illegal_steps(updates)
        assert sorted(updates, key=step) == sorted(topic.updates(f":{run}-"), key=step)
        assert [update.version for update in one.updates()] == [3, 4]
        assert len(everything.answers) >= 2, "the listener reconnected"
        assert len(one.answers) >= 2, "the listener reconnected"


def step(update: OrderUpdated) -> tuple[str, int]:
    """Return the order and version of an update."""
    return update.order, update.version


@asynccontextmanager
async def raw(url: str, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Open a connection that buffers as little as possible while the test does not read. HTTP/1.0 has no chunks."""
    host, port = url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    headers = {"Host": f"{host}:{port}", "Accept": "text/event-stream", **HEADERS}
    lines = [f"GET {path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        yield reader
    finally:
        writer.close()


async def read_until(reader: asyncio.StreamReader, text: bytes, count: int = 1) -> bytes:
    """Read until the text has arrived so many times, and return all bytes."""
    read = b""
    async with asyncio.timeout(WITHIN_S):
        while read.count(text) < count:
            chunk = await reader.read(1 << 16)
            assert chunk, f"the connection ended after {len(read)} bytes"
            read += chunk
    return read


LONG = Attention(waits_for="x" * 200, since=datetime.now(UTC))


def an_update(number: int) -> OrderUpdated:
    """Return an update of an order that no other test uses."""
    order = f"load:{number}"
    return OrderUpdated(order=order, version=1, status=OrderStatus.CREATED, restaurant="r", attention=LONG)


async def test_a_stalled_listener_blocks_no_other_and_catches_up(stack: Stack, clients: tuple[Client, Client]) -> None:
    topic, partition = topic_name(ORDER_UPDATES.name, stack.name), 1
    async with (
        raw(stack.url, "/v1/events?provider=load") as still,
        EventSource(f"{stack.url}/v1/events?provider=load") as busy,
    ):
        await busy.placed()
        await read_until(still, b"keep-alive")
        producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, linger_ms=20)
        await producer.start()
        for number in range(LOAD):
            await producer.send(topic, write(an_update(number)), partition=partition)
        await producer.stop()
        await busy.until(lambda: len(busy.events) >= LOAD, "all updates")
        async with asyncio.timeout(WITHIN_S):
            read = await read_until(still, b"event: order-updated", LOAD)
            while not read.endswith(b"\n\n"):
                read += await still.read(1 << 16)
    orders = [update.order for update in busy.updates()]
    assert orders == [f"load:{number}" for number in range(LOAD)]
    data = [part.split(b"data: ")[1] for part in read.split(b"\n\n") if b"event: order-updated" in part]
    assert data == [event.data.encode() for event in busy.events]


async def test_hundreds_of_listeners_get_each_update_once(
    stack: Stack, clients: tuple[Client, Client], kitchen: Restaurant, unique: str
) -> None:
    name = await one_of(clients[1], unique)
    await clients[0].place(an_order(kitchen, name))
    await clients[0].reaches(order_id(name), "IN_PREPARATION")

    ready = asyncio.Semaphore(0)

    async def listen() -> bytes:
        async with raw(stack.url, f"/v1/orders/{order_id(name)}/events") as reader:
            current = await read_until(reader, b"data: ")
            ready.release()
            return current + await read_until(reader, b"SCHEDULING_DELIVERY")

    listening = [asyncio.create_task(listen()) for _ in range(LISTENERS)]
    for _ in range(LISTENERS):
        await ready.acquire()
    await clients[0].ticket(kitchen, order_id(name), "finished")
    async with asyncio.timeout(WITHIN_S):
        streams = await asyncio.gather(*listening)
    for stream in streams:
        assert stream.count(b"event: order-updated") == 2
        assert stream.count(b"IN_PREPARATION") == 1


async def test_a_stopping_worker_disconnects_its_listeners(
    stack: Stack, clients: tuple[Client, Client], unique: str
) -> None:
    """Runs last in this file: it leaves one worker."""
    async with (
        EventSource(lambda: f"{stack.url_of(2)}/v1/events", f"{stack.url_of(1)}/v1/events") as feed,
        raw(stack.url_of(2), "/v1/events?last_event_id=" + ".".join(f"{p}-0" for p in range(PARTITIONS))) as still,
    ):
        await feed.placed()
        await still.read(100)
        await asyncio.to_thread(stack.workers[2].stop, WITHIN_S)
        assert stack.workers[2].status == 0
        await feed.until(lambda: len(feed.answers) >= 2, "the listener reconnects to the other worker")
        assert feed.answers[-1].status_code == 200
