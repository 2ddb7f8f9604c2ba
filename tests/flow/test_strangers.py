"""Hostile values in every field, over HTTP and Kafka: no 500, nothing stops, and others' orders are delivered."""

import asyncio
import json
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from streams.access.rules import RULES
from tests.flow.client import Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.flow.reading import PARTITIONS
from tests.support.hostile import FIELDS, OTHERS, TEXTS, Field
from tests.support.stack import Stack, installed
from topics.families import INPUTS, topic_name
from topics.restaurants import Restaurant
from topics.text import plain

ROUTES = {
    "http order": "/v1/orders",
    "http note": "/v1/orders/my-shop:nobody/settled",
    "http ticket": "/v1/pos/lakshmi-tiffin/tickets/my-shop:nobody/rejected",
    "http available": "/v1/drivers/stranger/available",
    "http delivery": "/v1/drivers/stranger/pickup",
    "http location": "/v1/drivers/stranger/location",
    "payments": "/v1/payments/payments/events",
}
"""Reader -> the route that takes its bodies."""
ANSWERS = frozenset({200, 201, 202, 204, 400, 404, 409, 413, 422})
AT_A_TIME = 8
ENDLESS = frozenset({"/v1/events", "/v1/orders/{order}/events"})
"""Routes of event streams, which do not end by themselves."""


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run an installation for this module: the strangers leave thousands of dead letters."""
    with installed(kafka, f"strangers-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("strangers"), 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.start_drivers(4, *INSTANT)
        yield stack


async def delivered(client: Client, tiffin: Restaurant, name: str) -> None:
    """Place an order of somebody else, and wait until it is delivered."""
    assert (await client.place(an_order(tiffin, name))).status_code == 201
    await client.reaches(order_id(name), "DELIVERED")


def check(answer: httpx.Response, what: str) -> None:
    """Check that an answer is one of the API's, in harmless words."""
    assert answer.status_code in ANSWERS, (what, answer.status_code, answer.text[:500])
    if answer.status_code == 400 and answer.text.startswith("Invalid header value"):
        return  # not HTTP: the parser of aiohttp refuses it
    assert plain(answer.text) == answer.text, what
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json", what
        assert answer.json()["detail"], what
        assert "Traceback" not in answer.text, what


async def send_all(client: Client, requests: Sequence[tuple[str, Any]]) -> None:
    """Send requests, a few at a time: pairs of a description and a function that returns the answer."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(what: str, send: Any) -> None:
        async with places:
            check(await send(), what)

    async with asyncio.TaskGroup() as group:
        for what, send in requests:
            group.create_task(one(what, send))


@pytest.mark.parametrize("reader", ROUTES)
async def test_hostile_bodies_stop_nothing(client: Client, tiffin: Restaurant, unique: str, reader: str) -> None:
    def sends(field: Field, value: object) -> Any:
        headers = {"Content-Type": "application/json"}
        return partial(client._request, "POST", ROUTES[reader], content=field.with_value(value), headers=headers)

    requests = [
        (f"{field.reader} {field.pointer}: {what}", sends(field, value))
        for field in FIELDS
        if field.reader == reader
        for what, value in (TEXTS | OTHERS).items()
    ]
    assert len(requests) > 20
    await send_all(client, requests)
    await delivered(client, tiffin, unique)


async def test_hostile_ids_in_paths_stop_nothing(client: Client, tiffin: Restaurant, unique: str) -> None:
    texts = {what: quote(text[:2000], safe="", errors="surrogatepass") for what, text in TEXTS.items() if text}

    def filled(path: str, text: str) -> str:
        parts = [text if part.startswith("{") else part for part in path.split("/")]
        return "/".join(parts)

    requests = [
        (f"{method} {path}: {what}", partial(client._request, method, filled(path, text)))
        for path, rules in RULES.items()
        if "{" in path and path not in ENDLESS
        for method in rules
        for what, text in texts.items()
    ]
    await send_all(client, requests)
    await delivered(client, tiffin, unique)


async def test_hostile_headers_and_parameters_stop_nothing(client: Client, tiffin: Restaurant, unique: str) -> None:
    texts = {what: text[:2000].encode(errors="surrogatepass") for what, text in TEXTS.items()}
    sendable = {what: text for what, text in texts.items() if not set(text) & set(b"\0\r\n")}

    def ordered(name: str, text: bytes) -> Any:
        body = json.dumps(an_order(tiffin, f"{unique}-{name}")).encode()
        headers = [(b"Content-Type", b"application/json"), (name.encode(), text)]
        return partial(client._request, "POST", "/v1/orders", content=body, headers=headers)

    named = ("Idempotency-Key", "traceparent", "Last-Event-ID", "X-Request-Id", "Dabbawala-Sent-On")
    requests = [(f"{name}: {what}", ordered(name, text)) for name in named for what, text in sendable.items()]
    for path in ("/v1/orders", "/v1/calls", "/v1/drivers", "/v1/timers", "/table/orders/", "/v1/dead-letters"):
        for parameter in ("cursor", "limit", "status", "restaurant"):
            for what, text in texts.items():
                read = partial(client._request, "GET", f"{path}?{parameter}={quote(text)}")
                requests.append((f"{path}?{parameter}: {what}", read))
    await send_all(client, requests)
    await delivered(client, tiffin, unique)


async def test_hostile_records_become_dead_letters(client: Client, tiffin: Restaurant, unique: str) -> None:
    names = {family.name: family for family in INPUTS}
    fields = [field for field in FIELDS if field.reader in names]
    sent = 0
    for field in fields:
        for number, value in enumerate((TEXTS | OTHERS).values()):
            record = field.with_value(value)
            if len(record) > 900_000:
                continue
            topic = topic_name(field.reader, client.stack.name)
            headers: list[tuple[str, bytes | None]] = [("", b"\xff"), ("null", None), ("traceparent", b"\x00\xff")]
            key = None if number % 5 == 0 else f"my-shop:{number}".encode()
            await client._producer.send(topic, record, key=key, partition=number % PARTITIONS, headers=headers)
            sent += 1
    await client._producer.flush()
    assert sent > 500

    async def applied() -> bool:
        return all(task.get("lag") == 0 for task in (await client.get("/v1/tasks"))["tasks"])

    await client.until(applied, "every record is applied or set aside")
    await delivered(client, tiffin, unique)
    for letter in (await client.get("/v1/dead-letters", limit=1000))["dead_letters"]:
        assert plain(json.dumps(letter, ensure_ascii=False)) == json.dumps(letter, ensure_ascii=False)
    log = client.stack.workers[1].log.read_text(errors="replace")
    assert "incident" not in log
