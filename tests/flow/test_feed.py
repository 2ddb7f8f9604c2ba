"""The public feed over HTTP: of one order and of all orders, live and resumed after an event id."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest

from tests.flow.client import PROVIDER, Client, an_order, order_id, partition_of
from tests.flow.event_source import EventSource
from tests.flow.reading import PARTITIONS, Following, illegal_steps
from topics.families import ORDER_UPDATES
from topics.order_updates import OrderUpdated
from topics.restaurants import Restaurant

LIFE = [
    "CREATED",
    "SCHEDULED",
    "IN_PREPARATION",
    "SCHEDULING_DELIVERY",
    "WAITING_FOR_DRIVER",
    "IN_DELIVERY",
    "DELIVERED",
]


def order_feed(client: Client, name: str) -> str:
    """Return the URL of an order's feed."""
    return f"{client.stack.url}/v1/orders/{order_id(name)}/events"


def all_feed(client: Client, query: str = "") -> str:
    """Return the URL of the feed of all orders."""
    return f"{client.stack.url}/v1/events{query}"


def has_updates(feed: EventSource, marked: str, count: int) -> bool:
    """Return whether the feed has so many updates of these orders."""
    return len(feed.updates(marked)) >= count


def by_order(updates: Sequence[OrderUpdated]) -> list[OrderUpdated]:
    """Group updates by order, each order's in sequence. Across partitions there is no sequence."""
    return sorted(updates, key=lambda update: update.order)


def distinct(statuses: Sequence[str]) -> list[str]:
    """Return each status once, in order; an update that only changes the ETA repeats it."""
    return list(dict.fromkeys(statuses))


async def test_an_orders_feed_matches_the_topic(client: Client, kitchen: Restaurant, unique: str) -> None:
    async with Following(client.stack.kafka, client.stack.name, [ORDER_UPDATES], from_now=True) as topic:
        await client.place(an_order(kitchen, unique))
        await client.reaches(order_id(unique), "IN_PREPARATION")
        async with EventSource(order_feed(client, unique)) as feed:
            await feed.until(feed.updates, "the current update")
            assert feed.statuses() == ["IN_PREPARATION"]
            assert (await client.ticket(kitchen, order_id(unique), "finished")).status_code == 200
            await feed.until(lambda: len(feed.updates()) == 2, "the next step")
            assert feed.statuses() == ["IN_PREPARATION", "SCHEDULING_DELIVERY"]
            await topic.until(lambda: len(topic.updates(unique)) == 4, "the topic's records")
        (answer,) = feed.answers
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        records = [record for record in topic.records if record.key.decode() == order_id(unique)]
        assert [(event.id, event.data) for event in feed.events] == [
            (f"{record.partition}-{record.offset}", record.value.decode()) for record in records[2:]
        ]


async def test_an_orders_feed_ends_with_the_order(client: Client, tiffin: Restaurant, unique: str) -> None:
    await client.place(an_order(tiffin, unique))
    async with EventSource(order_feed(client, unique)) as feed:
        await feed.until(lambda: feed.done, "the feed ends")
    updates = feed.updates()
    assert feed.statuses()[-1] == "DELIVERED"
    assert [update.version for update in updates] == list(range(updates[0].version, updates[-1].version + 1))
    assert feed.named("end") == [{"order": order_id(unique), "status": "DELIVERED"}]
    assert len(feed.answers) == 1
    async with EventSource(order_feed(client, unique)) as late:
        await late.until(lambda: late.done, "the last update and the end")
    assert late.events == feed.events[-2:]
    async with EventSource(order_feed(client, unique), last_event_id=feed.last_event_id) as again:
        await again.until(lambda: again.done, "the feed ends at once")
    assert ([answer.status_code for answer in again.answers], again.events) == ([204], [])


async def test_a_feed_resumes_after_the_clients_last_event(client: Client, tiffin: Restaurant, unique: str) -> None:
    place = f"?provider={PROVIDER}"
    async with EventSource(all_feed(client, place)) as live:
        begin = await live.placed()
        await client.place(an_order(tiffin, unique))
        await live.until(lambda: "DELIVERED" in [u.status.value for u in live.updates(unique)], "the end of the order")
    whole = live.updates(unique)
    assert not illegal_steps(whole)
    assert distinct([update.status.value for update in whole]) == LIFE
    cuts = [event for event in live.events if unique in event.data][:-1]
    for number, cut in enumerate(cuts, 1):
        async with EventSource(all_feed(client, place), last_event_id=cut.id) as resumed:
            await resumed.until(partial(has_updates, resumed, unique, len(whole) - number), "the remaining updates")
            assert resumed.updates(unique) == whole[number:]
    async with EventSource(all_feed(client, f"{place}&last_event_id={begin}")) as by_query:
        await by_query.until(lambda: len(by_query.updates(unique)) >= len(whole), "all updates")
        assert by_query.updates(unique) == whole

    async with Following(client.stack.kafka, client.stack.name, [ORDER_UPDATES]) as topic:
        await topic.until(lambda: len(topic.updates(unique)) == len(whole), "the records")
        records = [record for record in topic.records if record.key.decode() == order_id(unique)]
    for number, record in enumerate(records[:-1], 1):
        place_in_topic = f"{record.partition}-{record.offset}"
        async with EventSource(order_feed(client, unique), last_event_id=place_in_topic) as feed:
            await feed.until(lambda: feed.done, "the remaining updates and the end")
            assert feed.updates() == whole[number:]


async def test_the_feed_of_all_orders_is_filtered(
    client: Client, kitchen: Restaurant, tiffin: Restaurant, unique: str
) -> None:
    filters = {
        "all": "",
        "two statuses": "?status=CREATED,IN_PREPARATION",
        "a restaurant": f"?restaurant={kitchen.restaurant}",
        "both": f"?restaurant={kitchen.restaurant},nobody&status=CREATED",
        "a provider": f"?provider={PROVIDER},another",
        "another provider": "?provider=another",
        "attention": f"?attention=true&restaurant={kitchen.restaurant}",
    }
    async with AsyncExitStack() as open_feeds:
        feeds = {
            name: await open_feeds.enter_async_context(EventSource(all_feed(client, query)))
            for name, query in filters.items()
        }
        for feed in feeds.values():
            await feed.placed()
        await client.place(an_order(kitchen, f"{unique}-a"))
        await client.place(an_order(tiffin, f"{unique}-b"))
        await client.reaches(order_id(f"{unique}-a"), "IN_PREPARATION")
        await client.charged(order_id(f"{unique}-a"), "one-too-many", 1)
        everything = feeds["all"]
        await everything.until(
            lambda: (
                any(u.attention for u in everything.updates(f"{unique}-a"))
                and "DELIVERED" in [u.status.value for u in everything.updates(f"{unique}-b")]
            ),
            "both orders",
        )
        whole = everything.updates(unique)
        wanted = {
            "all": whole,
            "two statuses": [u for u in whole if u.status.value in ("CREATED", "IN_PREPARATION")],
            "a restaurant": [u for u in whole if u.restaurant == kitchen.restaurant],
            "both": [u for u in whole if u.restaurant == kitchen.restaurant and u.status.value == "CREATED"],
            "a provider": whole,
            "another provider": [],
            "attention": [u for u in whole if u.restaurant == kitchen.restaurant and u.attention],
        }
        for name, feed in feeds.items():
            await feed.until(partial(has_updates, feed, unique, len(wanted[name])), name)
            assert by_order(feed.updates(unique)) == by_order(wanted[name]), name


@pytest.mark.parametrize(
    ("path", "headers", "status", "detail"),
    [
        ("/v1/orders/my-shop:nobody/events", {}, 404, "there is no order my-shop:nobody here"),
        ("/v1/orders/my-shop:nobody/events", {"Last-Event-ID": "{partition}-0"}, 404, "there is no order"),
        ("/v1/orders/nobody/events", {}, 404, "'nobody' cannot be the id of an order"),
        ("/v1/orders/my-shop:nobody/events", {"Last-Event-ID": "7"}, 422, "Last-Event-ID=7: it must be {partition}-<"),
        ("/v1/orders/my-shop:nobody/events", {"Last-Event-ID": "{other}-7"}, 422, "it must be {partition}-<offset>"),
        ("/v1/orders/my-shop:nobody/events?last_event_id=x", {}, 422, "Last-Event-ID=x"),
        ("/v1/orders/my-shop:nobody/events", {"Accept": "application/json"}, 406, "text/event-stream"),
        ("/v1/events", {"Accept": "text/html"}, 406, "text/event-stream"),
        ("/v1/events", {"Last-Event-ID": "0-1"}, 422, "Last-Event-ID=0-1: it must be <partition>-<offset> for each of"),
        ("/v1/events", {"Last-Event-ID": "0-1.1-1.2-1.3-1.4-1"}, 422, "each of the 4 partitions"),
        ("/v1/events", {"Last-Event-ID": "0-1.1-1.2-1.2-1"}, 422, "each of the 4 partitions"),
        ("/v1/events", {"Last-Event-ID": "0-1.1-1.2-1.3--1"}, 422, "Last-Event-ID=0-1.1-1.2-1.3--1"),
        ("/v1/events?status=EATEN", {}, 422, "status=EATEN: each, separated by commas, must be a status: CREATED, SC"),
        ("/v1/events?status=", {}, 422, "status=: each"),
        ("/v1/events?restaurant=a,/", {}, 422, "restaurant=a,/: each"),
        ("/v1/events?provider=A", {}, 422, "provider=A: each"),
        ("/v1/events?attention=maybe", {}, 422, "attention=maybe: it must be true or false"),
        ("/v1/events?state=CREATED", {}, 422, "there is no filter 'state'; there are: status, restaurant, provider"),
    ],
)
async def test_a_wrong_request_for_a_feed_is_a_problem(
    client: Client, path: str, headers: dict[str, str], status: int, detail: str
) -> None:
    partition = partition_of("my-shop:nobody")
    known = {"partition": partition, "other": (partition + 1) % PARTITIONS}
    sent = {name: value.format(**known) for name, value in headers.items()}
    answer = await client.http.get(path, headers=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail.format(**known) in answer.json()["detail"]


async def test_a_feed_answers_head_and_rejects_other_methods(client: Client, kitchen: Restaurant, unique: str) -> None:
    await client.place(an_order(kitchen, unique))
    for url in (order_feed(client, unique), all_feed(client)):
        head = await client.http.head(url)
        assert (head.status_code, head.headers["content-type"], head.content) == (200, "text/event-stream", b"")
        for accept in ("text/event-stream", "text/*;q=0.5", "text/html, */*;q=0.1"):
            assert (await client.http.head(url, headers={"Accept": accept})).status_code == 200
        assert (await client.http.post(url)).status_code == 405
    assert (await client.http.head(f"{client.stack.url}/v1/orders/my-shop:nobody/events")).status_code == 404


async def test_an_unknown_event_id_gives_a_gap_and_a_snapshot(client: Client, kitchen: Restaurant, unique: str) -> None:
    await client.place(an_order(kitchen, unique))
    await client.reaches(order_id(unique), "IN_PREPARATION")
    partition = partition_of(order_id(unique))
    async with EventSource(order_feed(client, unique), last_event_id=f"{partition}-99999999") as feed:
        await feed.until(feed.updates, "the current update")
    (gap,) = feed.named("gap")
    assert gap == {"lost": [{"partition": partition, "wanted": 100000000, "oldest": 0}]}
    assert [event.name for event in feed.events] == ["gap", "order-updated"]
    assert feed.statuses() == ["IN_PREPARATION"]
