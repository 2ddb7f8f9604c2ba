"""A party that hangs delays only the orders that need it; all other orders end."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.flow.reading import Following
from tests.support.keys import HEADERS
from tests.support.stack import Stack, installed, switch_off, switch_on
from topics.families import ORDER_UPDATES
from topics.restaurants import Restaurant

MANY = 150
"""Orders: more than the limits of calls under way to one party and to one host."""
OTHERS = 40
WITHIN_S = 900.0
"""Longer than the pause of a circuit breaker, and than the back-off of a call that has failed twice."""
MAX_CALLS = 64
"""Limit of calls under way to one party."""


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack for this file, whose parties take no time."""
    directory = tmp_path_factory.mktemp("hung")
    with installed(kafka, f"hung-{uuid.uuid4().hex[:8]}", directory, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_drivers(30, *INSTANT)
        yield stack


async def placed(client: Client, kitchen: Restaurant, name: str, count: int) -> list[str]:
    """Place so many orders at a restaurant, and return their ids."""
    names = [f"{name}-{number}" for number in range(count)]
    for start in range(0, count, 25):
        answers = await asyncio.gather(*(client.place(an_order(kitchen, each)) for each in names[start : start + 25]))
        assert {answer.status_code for answer in answers} == {201}
    return [order_id(each) for each in names]


async def party(client: Client, name: str) -> Body | None:
    """Return the worker's state of a party; None if it has no calls and no failures."""
    rows: list[Body] = (await client.get("/v1/parties"))["parties"]
    return next((row for row in rows if row["party"].startswith(f"{name} ")), None)


async def failing(client: Client, name: str) -> Body:
    """Wait until a party has failed four times in a row, and return its state."""

    async def seen() -> Body | None:
        row = await party(client, name)
        return row if row and row["failures"] >= 4 else None

    row = await client.until(seen, f"{name} has failed", WITHIN_S)
    assert row is not None
    return row


def statuses(feed: Following, orders: list[str]) -> Counter[str]:
    """Count orders by their newest status."""
    newest = feed.statuses()
    return Counter(newest[order] for order in orders if order in newest)


@pytest.mark.parametrize("fault", ["silent", "500", "cut"])
async def test_a_hung_restaurant_delays_only_its_own_orders(
    stack: Stack, tiffin: Restaurant, unique: str, fault: str
) -> None:
    async with Client(stack) as client, Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.pos_url, **{f"{fault}@{tiffin.restaurant}": 1})
        waiting = await placed(client, tiffin, unique, MANY)
        row = await failing(client, tiffin.restaurant)
        assert row["running"] <= MAX_CALLS
        stack.place(unique, OTHERS)

        def others() -> dict[str, str]:
            newest = {update.order: update for update in feed.updates(f":{unique}-")}
            return {
                order: update.status.value
                for order, update in newest.items()
                if order not in waiting and update.restaurant != tiffin.restaurant
            }

        async def all_placed() -> bool:
            return sum(unique in entry.order for entry in stack.answers()) >= OTHERS

        await client.until(all_placed, "the others are placed", WITHIN_S)
        await feed.until(
            lambda: others() and set(others().values()) == {"DELIVERED"}, "the others are delivered", WITHIN_S
        )
        assert statuses(feed, waiting) == {"SCHEDULED": MANY}
        calls = {call["order"]: call for call in (await client.get("/v1/calls", limit=1000))["calls"]}
        assert set(waiting) <= set(calls)
        assert all("its party" in calls[order]["held_back"] for order in waiting)
        switch_off(stack.pos_url)
        await feed.until(
            lambda: statuses(feed, waiting) == {"DELIVERED": MANY}, "the orders that waited are delivered", WITHIN_S
        )
    cooked = Counter(entry.order for entry in stack.tickets() if entry.event == "accepted" and entry.order in waiting)
    assert cooked == dict.fromkeys(waiting, 1), "each ticket is accepted once, under its one key"


async def test_a_timed_out_call_is_retried_with_its_key(stack: Stack, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    async with Client(stack) as client:

        async def timed_out() -> Body | None:
            calls: list[Body] = (await client.get("/v1/calls", limit=1000))["calls"]
            found = next((call for call in calls if call["key"] == f"{order}/prepare"), None)
            return found if found and found["last_error"] else None

        switch_on(stack.pos_url, **{f"silent@{tiffin.restaurant}": 1})
        assert (await client.place(an_order(tiffin, unique))).status_code == 201
        call = await client.until(timed_out, "the time-out of the call", WITHIN_S)
        assert call is not None
        assert call["last_error"] == f"{call['url']}: no answer within 8 s"
        switch_off(stack.pos_url)
        await client.reaches(order, "DELIVERED", WITHIN_S)
    assert {entry.key for entry in stack.tickets() if entry.order == order} == {f"{order}/prepare"}


async def test_paid_orders_continue_while_the_payment_provider_hangs(
    stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    async with Client(stack) as client, Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.pos_url, **{f"silent@{tiffin.restaurant}": 1})
        paid = await placed(client, tiffin, f"{unique}-paid", 5)
        await feed.until(lambda: statuses(feed, paid) == {"SCHEDULED": 5}, "the orders are paid", WITHIN_S)
        switch_on(stack.payment_url, silent=1)
        unpaid = await placed(client, tiffin, f"{unique}-unpaid", MANY)
        await failing(client, "payments")
        switch_off(stack.pos_url)
        await feed.until(lambda: statuses(feed, paid) == {"DELIVERED": 5}, "the paid orders are delivered", WITHIN_S)
        assert statuses(feed, unpaid) == {"CREATED": MANY}
        switch_off(stack.payment_url)
        await feed.until(
            lambda: statuses(feed, unpaid) == {"DELIVERED": MANY}, "the other orders are delivered", WITHIN_S
        )
    charged = Counter(e.order for e in stack.payments() if e.outcome == "charged" and not e.replay)
    assert charged == charged | dict.fromkeys([*paid, *unpaid], 1)


async def test_an_unfinished_request_blocks_nobody_and_gets_408(stack: Stack, tiffin: Restaurant, unique: str) -> None:
    host, _, port = urlsplit(stack.url).netloc.partition(":")
    head = f"POST /v1/pos/{tiffin.restaurant}/tickets/{order_id('x')}/finished HTTP/1.1\r\nHost: {host}:{port}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
    for _, writer in connections:
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
    try:
        async with Client(stack) as client:
            await placed(client, tiffin, unique, 10)
            await client.reaches(order_id(f"{unique}-9"), "DELIVERED", WITHIN_S)
        async with asyncio.timeout(WITHIN_S):
            for reader, _ in connections:
                assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
    finally:
        for _, writer in connections:
            writer.close()
