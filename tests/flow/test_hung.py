"""A party that hangs hurts nobody else: what waits for it waits, and the orders of the others end."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.flow.reading import Following
from tests.stack import Stack, installed, switch_off, switch_on
from topics.families import ORDER_UPDATES
from topics.restaurants import Restaurant

pytestmark = pytest.mark.timeout(400)

MANY = 150
"""Orders: more than may be asked of a party at once, and of a host."""
OTHERS = 40
WITHIN_S = 150.0
"""Longer than a party rests, and than what has failed twice waits."""
AT_ONCE = 64


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, whose parties take no time."""
    directory = tmp_path_factory.mktemp("hung")
    with installed(kafka, f"hung-{uuid.uuid4().hex[:8]}", directory, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_drivers(30, *INSTANT)
        yield stack


async def placed(client: Client, kitchen: Restaurant, name: str, count: int) -> list[str]:
    """So many orders of a restaurant; their ids."""
    names = [f"{name}-{number}" for number in range(count)]
    for start in range(0, count, 25):
        answers = await asyncio.gather(*(client.place(an_order(kitchen, each)) for each in names[start : start + 25]))
        assert {answer.status_code for answer in answers} == {201}
    return [order_id(each) for each in names]


async def party(client: Client, name: str) -> Body | None:
    """How a party stands with the worker, if there is something to say."""
    rows: list[Body] = (await client.get("/v1/parties"))["parties"]
    return next((row for row in rows if row["party"].startswith(f"{name} ")), None)


async def is_not_well(client: Client, name: str) -> Body:
    """Wait until the worker has seen that a party does not answer."""

    async def seen() -> Body | None:
        row = await party(client, name)
        return row if row and row["failures"] >= 4 else None

    row = await client.until(seen, f"{name} has failed", WITHIN_S)
    assert row is not None
    return row


def statuses(feed: Following, orders: list[str]) -> Counter[str]:
    newest = feed.statuses()
    return Counter(newest[order] for order in orders if order in newest)


@pytest.mark.parametrize("fault", ["silent", "500", "cut"])
async def test_the_orders_of_other_restaurants_are_delivered_while_all_of_one_wait_and_those_in_the_end(
    stack: Stack, tiffin: Restaurant, unique: str, fault: str
) -> None:
    async with Client(stack) as client, Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.pos_url, **{f"{fault}@{tiffin.restaurant}": 1})
        waiting = await placed(client, tiffin, unique, MANY)
        row = await is_not_well(client, tiffin.restaurant)
        assert row["running"] <= AT_ONCE
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
            lambda: statuses(feed, waiting) == {"DELIVERED": MANY}, "those that waited are delivered", WITHIN_S
        )
    cooked = Counter(entry.order for entry in stack.tickets() if entry.event == "accepted" and entry.order in waiting)
    assert cooked == dict.fromkeys(waiting, 1), "each under its one key, however often it was asked for"


async def test_a_call_that_timed_out_says_so_and_is_made_again_under_the_same_key(
    stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    async with Client(stack) as client:

        async def timed_out() -> Body | None:
            calls: list[Body] = (await client.get("/v1/calls", limit=1000))["calls"]
            found = next((call for call in calls if call["key"] == f"{order}/prepare"), None)
            return found if found and found["last_error"] else None

        switch_on(stack.pos_url, **{f"silent@{tiffin.restaurant}": 1})
        assert (await client.place(an_order(tiffin, unique))).status_code == 201
        call = await client.until(timed_out, "it timed out", WITHIN_S)
        assert call is not None
        assert call["last_error"] == f"{call['url']}: no answer within 8 s"
        switch_off(stack.pos_url)
        await client.reaches(order, "DELIVERED", WITHIN_S)
    assert {entry.key for entry in stack.tickets() if entry.order == order} == {f"{order}/prepare"}


async def test_orders_that_are_paid_go_on_while_the_payment_provider_hangs(
    stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    async with Client(stack) as client, Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.pos_url, **{f"silent@{tiffin.restaurant}": 1})
        paid = await placed(client, tiffin, f"{unique}-paid", 5)
        await feed.until(lambda: statuses(feed, paid) == {"SCHEDULED": 5}, "they are paid", WITHIN_S)
        switch_on(stack.payment_url, silent=1)
        unpaid = await placed(client, tiffin, f"{unique}-unpaid", MANY)
        await is_not_well(client, "payments")
        switch_off(stack.pos_url)
        await feed.until(lambda: statuses(feed, paid) == {"DELIVERED": 5}, "what is paid is delivered", WITHIN_S)
        assert statuses(feed, unpaid) == {"CREATED": MANY}
        switch_off(stack.payment_url)
        await feed.until(lambda: statuses(feed, unpaid) == {"DELIVERED": MANY}, "the others in the end", WITHIN_S)
    charged = Counter(e.order for e in stack.payments() if e.outcome == "charged" and not e.replay)
    assert charged == charged | dict.fromkeys([*paid, *unpaid], 1)


async def test_who_does_not_end_its_requests_holds_up_nobody_and_is_told(
    stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    host, _, port = urlsplit(stack.url).netloc.partition(":")
    head = f"POST /v1/pos/{tiffin.restaurant}/tickets/{order_id('x')}/finished HTTP/1.1\r\nHost: {host}\r\n"
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
