"""The public feed over HTTP: one order's life as it goes on, all orders', from where a client left off."""

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
    """Where the feed of an order is."""
    return f"{client.stack.url}/v1/orders/{order_id(name)}/events"


def all_feed(client: Client, query: str = "") -> str:
    """Where that of all orders is."""
    return f"{client.stack.url}/v1/events{query}"


def has_updates(feed: EventSource, marked: str, count: int) -> bool:
    """Whether so many were told."""
    return len(feed.updates(marked)) >= count


def by_order(told: Sequence[OrderUpdated]) -> list[OrderUpdated]:
    """In the order in which they were told of each: across partitions there is none."""
    return sorted(told, key=lambda update: update.order)


def distinct(statuses: Sequence[str]) -> list[str]:
    """One of each, in order: the ETA may change in between."""
    return list(dict.fromkeys(statuses))


async def test_an_orders_feed_tells_its_life_from_how_it_stands_to_its_end_as_the_topic_does(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    async with Following(client.stack.kafka, client.stack.name, [ORDER_UPDATES], from_now=True) as topic:
        await client.place(an_order(kitchen, unique))
        await client.reaches(order_id(unique), "IN_PREPARATION")
        async with EventSource(order_feed(client, unique)) as feed:
            await feed.until(feed.updates, "how it stands")
            assert feed.statuses() == ["IN_PREPARATION"]
            assert (await client.ticket(kitchen, order_id(unique), "finished")).status_code == 200
            await feed.until(lambda: len(feed.updates()) == 2, "the next step")
            assert feed.statuses() == ["IN_PREPARATION", "SCHEDULING_DELIVERY"]
            await topic.until(lambda: len(topic.updates(unique)) == 4, "the topic has them too")
        (answer,) = feed.answers
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        records = [record for record in topic.records if record.key.decode() == order_id(unique)]
        assert [(event.id, event.data) for event in feed.events] == [
            (f"{record.partition}-{record.offset}", record.value.decode()) for record in records[2:]
        ]


async def test_an_orders_feed_ends_with_the_order_and_a_client_that_knows_is_told_not_to_come_back(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    await client.place(an_order(tiffin, unique))
    async with EventSource(order_feed(client, unique)) as feed:
        await feed.until(lambda: feed.done, "the feed ends")
    told = feed.updates()
    assert feed.statuses()[-1] == "DELIVERED"
    assert [update.version for update in told] == list(range(told[0].version, told[-1].version + 1))
    assert feed.named("end") == [{"order": order_id(unique), "status": "DELIVERED"}]
    assert len(feed.answers) == 1
    async with EventSource(order_feed(client, unique)) as late:
        await late.until(lambda: late.done, "how it ended")
    assert late.events == feed.events[-2:]
    async with EventSource(order_feed(client, unique), last_event_id=feed.last_event_id) as again:
        await again.until(lambda: again.done, "nothing is left to tell")
    assert ([answer.status_code for answer in again.answers], again.events) == ([204], [])


async def test_a_feed_goes_on_after_the_last_event_that_its_client_has(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    place = f"?provider={PROVIDER}"
    async with EventSource(all_feed(client, place)) as live:
        begin = await live.placed()
        await client.place(an_order(tiffin, unique))
        await live.until(lambda: "DELIVERED" in [u.status.value for u in live.updates(unique)], "the order's life")
    whole = live.updates(unique)
    assert not illegal_steps(whole)
    assert distinct([update.status.value for update in whole]) == LIFE
    cuts = [event for event in live.events if unique in event.data][:-1]
    for number, cut in enumerate(cuts, 1):
        async with EventSource(all_feed(client, place), last_event_id=cut.id) as resumed:
            await resumed.until(partial(has_updates, resumed, unique, len(whole) - number), "the rest")
            assert resumed.updates(unique) == whole[number:]
    async with EventSource(all_feed(client, f"{place}&last_event_id={begin}")) as by_query:
        await by_query.until(lambda: len(by_query.updates(unique)) >= len(whole), "everything")
        assert by_query.updates(unique) == whole

    async with Following(client.stack.kafka, client.stack.name, [ORDER_UPDATES]) as topic:
        await topic.until(lambda: len(topic.updates(unique)) == len(whole), "the records")
        records = [record for record in topic.records if record.key.decode() == order_id(unique)]
    for number, record in enumerate(records[:-1], 1):
        place_in_topic = f"{record.partition}-{record.offset}"
        async with EventSource(order_feed(client, unique), last_event_id=place_in_topic) as feed:
            await feed.until(lambda: feed.done, "the rest, and the end")
            assert feed.updates() == whole[number:]


async def test_the_feed_of_all_orders_is_narrowed_down(
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
    ("path", "headers", "status", "said"),
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
async def test_what_cannot_be_listened_to_is_a_problem_that_says_why(
    client: Client, path: str, headers: dict[str, str], status: int, said: str
) -> None:
    partition = partition_of("my-shop:nobody")
    known = {"partition": partition, "other": (partition + 1) % PARTITIONS}
    sent = {name: value.format(**known) for name, value in headers.items()}
    answer = await client.http.get(path, headers=sent)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said.format(**known) in answer.json()["detail"]


async def test_head_is_answered_without_listening_and_other_methods_are_not_taken(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    await client.place(an_order(kitchen, unique))
    for url in (order_feed(client, unique), all_feed(client)):
        head = await client.http.head(url)
        assert (head.status_code, head.headers["content-type"], head.content) == (200, "text/event-stream", b"")
        for accept in ("text/event-stream", "text/*;q=0.5", "text/html, */*;q=0.1"):
            assert (await client.http.head(url, headers={"Accept": accept})).status_code == 200
        assert (await client.http.post(url)).status_code == 405
    assert (await client.http.head(f"{client.stack.url}/v1/orders/my-shop:nobody/events")).status_code == 404


async def test_an_id_of_no_record_there_ever_was_is_told_as_a_gap_and_then_how_the_order_stands(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    await client.place(an_order(kitchen, unique))
    await client.reaches(order_id(unique), "IN_PREPARATION")
    partition = partition_of(order_id(unique))
    async with EventSource(order_feed(client, unique), last_event_id=f"{partition}-99999999") as feed:
        await feed.until(feed.updates, "how it stands")
    (gap,) = feed.named("gap")
    assert gap == {"lost": [{"partition": partition, "wanted": 100000000, "oldest": 0}]}
    assert [event.name for event in feed.events] == ["gap", "order-updated"]
    assert feed.statuses() == ["IN_PREPARATION"]
