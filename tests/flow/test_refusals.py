"""Invalid input is rejected with the name of the field: over HTTP as a problem, over Kafka as a dead letter."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.flow.client import Body, Client, an_order, order_id, partition_of
from tests.flow.reading import PARTITIONS, Following, headers
from tests.support.plain_http import JSON
from topics.families import DEAD_LETTERS, INPUTS, ORDERS, Family
from topics.restaurants import Restaurant

A_DAY = timedelta(days=1)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no restaurant": ({"restaurant": None}, "/restaurant"),
    "an unknown restaurant": ({"restaurant": "nowhere"}, "/restaurant"),
    "no items": ({"items": []}, "/items"),
    "a quantity of none": (
        {"items": [{"id": "1", "name": "Thali", "quantity": 0, "unit_price": 1}]},
        "/items/0/quantity",
    ),
    "a price in words": (
        {"items": [{"id": "1", "name": "Thali", "quantity": 1, "unit_price": "80"}]},
        "/items/0/unit_price",
    ),
    "a negative tip": ({"tip": -1}, "/tip"),
    "a total that is not the sum": ({"total": 199_99}, "/total"),
    "no currency there is": ({"currency": "rupees"}, "/currency"),
    "no customer": ({"customer": None}, "/customer"),
    "a customer nowhere on earth": (
        {"customer": {"name": "A", "address": "B", "position": {"lat": 91, "lon": 0}}},
        "/customer/position/lat",
    ),
    "a provider with a bad name": ({"provider": "My Shop"}, "/provider"),
    "a bad external id": ({"external_id": "a/b"}, "/external_id"),
    "a time without a zone": ({"deliver_at": "2030-01-01T12:00:00"}, "/deliver_at"),
    "a wish for yesterday": ({"deliver_at": (datetime.now(UTC) - A_DAY).isoformat()}, "/deliver_at"),
}
"""Error of an order -> the fields to change in a valid one, and the pointer of the error."""


def wrong_order(tiffin: Restaurant, what: str, name: str) -> Body:
    """Return an order with this error."""
    return an_order(tiffin, name, **WRONG[what][0])


def problem(answer: Any, status: int) -> Body:
    """Return the problem in a response; `AssertionError` if it has none or another status."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: Body = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("https://dabbawala.invalid/problems/")
    assert body["title"]
    assert body["detail"]
    return body


@pytest.mark.parametrize("what", WRONG)
async def test_an_invalid_order_is_rejected_naming_the_field(
    client: Client, tiffin: Restaurant, unique: str, what: str
) -> None:
    body = problem(await client.place(wrong_order(tiffin, what, unique)), 422)
    assert WRONG[what][1] in [error["pointer"] for error in body["errors"]]
    assert all(error["detail"] for error in body["errors"])


async def test_a_wrong_total_is_explained_line_by_line(client: Client, tiffin: Restaurant, unique: str) -> None:
    answer = await client.place(an_order(tiffin, unique, tip=5_00))
    assert problem(answer, 422)["errors"] == [
        {
            "pointer": "/total",
            "detail": "the total is 20000, but /items/0 2 x 8000 + /fees/0 4000 + /tip 500 = 20500",
        }
    ]


async def test_all_errors_of_an_order_are_reported_at_once(client: Client, tiffin: Restaurant, unique: str) -> None:
    answer = await client.place(an_order(tiffin, unique, total=1, restaurant="nowhere"))
    assert {error["pointer"] for error in problem(answer, 422)["errors"]} == {"/total", "/restaurant"}


async def test_an_order_without_an_id_names_the_idempotency_key(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    (error,) = problem(await client.place(an_order(tiffin, unique, external_id=None)), 400)["errors"]
    assert error["pointer"] == "/external_id"
    assert "Idempotency-Key" in error["detail"]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 400), (b"\xff\xfe", 400), (b"", 422), (b"[]", 422), (b'"order"', 422), (b"null", 422)],
)
async def test_a_body_that_is_no_json_object_is_rejected(client: Client, content: bytes, status: int) -> None:
    problem(await client.http.post("/v1/orders", content=content, headers=JSON), status)


async def test_a_body_that_is_too_large_is_rejected(client: Client, tiffin: Restaurant, unique: str) -> None:
    body = an_order(tiffin, unique, note="x" * (256 << 10))
    assert "256 KiB" in problem(await client.place(body), 413)["detail"]


async def test_unknown_paths_methods_and_ids_are_problems(client: Client) -> None:
    assert "/v2/orders" in problem(await client.http.get("/v2/orders"), 404)["detail"]
    answer = await client.http.delete("/v1/orders")
    assert "DELETE" in problem(answer, 405)["detail"]
    assert {"GET", "POST"} <= {method.strip() for method in answer.headers["allow"].split(",")}
    problem(await client.http.get("/v1/orders/nobody:nothing"), 404)
    problem(await client.http.get("/v1/orders/nobody:nothing/journal"), 404)
    problem(await client.http.get("/v1/orders/no-order-id"), 404)
    problem(await client.http.get("/v1/orders", params={"status": "LOST"}), 422)
    problem(await client.http.get("/v1/orders", params={"limit": "0"}), 422)
    problem(await client.http.get("/table/nothing/"), 404)


async def test_text_that_resembles_a_number_is_a_problem(client: Client) -> None:
    for number in ("\u00b2", "\u0663", "9" * 5000, "9" * 20, "-1", "1e3", " 1"):
        for path in ("/v1/orders", "/v1/regions/fort", "/table/orders/", "/table/restaurants/lakshmi"):
            detail = problem(await client.http.get(path, params={"limit": number}), 422)["detail"]
            assert "a whole number from 1 to" in detail
        for letter in (f"{number}/0", f"0/{number}"):
            problem(await client.http.get(f"/v1/dead-letters/{letter}"), 404)
    for key in ("\u00b2%2F1", "9" * 5000):
        assert (await client.get(f"/table/dead_letters/{key}"))["rows"] == []


async def test_a_header_that_is_not_text_is_a_problem(client: Client, tiffin: Restaurant, unique: str) -> None:
    not_text, order = {b"Idempotency-Key": b"key-\xff"}, f"shop:{unique}"
    body = {name: value for name, value in an_order(tiffin, unique).items() if name != "external_id"}
    wanted = {"region": tiffin.region, "position": {"lat": 1.0, "lon": 1.0}}
    for path, asked in (
        ("/v1/orders", body),
        (f"/v1/calls/{order}/charge/retry", {}),
        (f"/v1/drivers/{unique}/available", wanted),
        (f"/v1/drivers/{unique}/unavailable", {}),
    ):
        detail = problem(await client.http.post(path, json=asked, headers=not_text), 400)["detail"]
        assert "Idempotency-Key" in detail
    events = await client.http.get("/v1/events", headers={b"Last-Event-ID": b"\xff"})
    assert "\\udcff" in problem(events, 422)["detail"]


async def test_an_invalid_order_record_becomes_a_dead_letter(client: Client, tiffin: Restaurant, unique: str) -> None:
    wrong = {f"{unique}-{number}": what for number, what in enumerate(WRONG)}
    bodies = {name: {"type": "Placed", **wrong_order(tiffin, what, name)} for name, what in wrong.items()}
    good = one_name_a_partition(unique)
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        for name, body in bodies.items():
            for partition in range(PARTITIONS) if "sum" in wrong[name] else (None,):
                await client.produce(ORDERS, body, key=order_id(name), partition=partition)
        for name in good:
            await client.produce(ORDERS, {"type": "Placed", **an_order(tiffin, name)}, key=order_id(name))
        for name in good:
            await client.reaches(order_id(name), "DELIVERED")
        found = await letters.until(
            lambda: (
                len({r.key for r in letters.records}) == len(wrong) and {r.key.decode(): r for r in letters.records}
            ),
            "all of them become dead letters",
        )
    for name, what in wrong.items():
        letter, notes = found[order_id(name)], headers(found[order_id(name)])
        assert WRONG[what][1] in notes["dead-letter.reason"], what
        assert notes["origin.topic"] == f"{client.stack.name}.orders"
        assert {"origin.partition", "origin.offset"} <= notes.keys()
        assert "exception.class" not in notes, "the sender made the error"
        assert msgspec.json.decode(letter.value) == bodies[name]
        assert await client.order(order_id(name)) is None
        assert not client.payments(order_id(name))


@pytest.mark.parametrize("family", INPUTS, ids=lambda family: family.name)
async def test_bytes_that_are_no_record_become_a_dead_letter(client: Client, unique: str, family: Family) -> None:
    values: list[bytes | None] = [
        None,
        b"",
        b"\x00\xff\xfe",
        b"{",
        b"[]",
        b"12",
        b"{}",
        b'{"type":"Nonsense"}',
        b'{"type":12}',
        b"x" * 900_000,
        *(msgspec.json.encode({"type": kind}) for kind in ("Placed", "Charged", "TicketAccepted", "DriverMoved")),
    ]
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        for value in values:
            await client.produce(family, value, key=unique)
        await letters.until(lambda: len(letters.records) >= len(values), "each becomes a dead letter")
        assert [record.value for record in letters.records] == values
        assert {headers(record)["origin.topic"] for record in letters.records} == {f"{client.stack.name}.{family.name}"}
        assert all(headers(record)["dead-letter.reason"] for record in letters.records)


async def test_events_of_unknown_orders_and_drivers_are_dead_letters(client: Client, unique: str) -> None:
    order = order_id(unique)
    events: list[Body] = [
        {"type": "Charged", "order": order, "charge_id": "ch-1", "amount": 1, "currency": "INR"},
        {"type": "TicketAccepted", "order": order},
        {"type": "DriverAssigned", "order": order, "driver": "d", "attempt": 1, "eta_s": 1},
        {"type": "PickedUp", "driver": unique, "delivery": order},
    ]
    families = [next(f for f in INPUTS if f.name == name) for name in ("payments", "pos", "deliveries", "drivers")]
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        for family, event in zip(families, events, strict=True):
            await client.produce(family, event, key=order)
        await letters.until(lambda: len(letters.records) >= len(events), "each becomes a dead letter")
    reasons = sorted(headers(record)["dead-letter.reason"] for record in letters.records)
    assert reasons[0].startswith(f"there is no driver {unique}")
    assert reasons[1:] == ["there is no such order"] * 3


def one_name_a_partition(unique: str) -> list[str]:
    """Return external ids, one in each partition."""
    names = (f"{unique}-good-{number}" for number in range(10_000))
    found: dict[int, str] = {}
    while len(found) < PARTITIONS:
        name = next(names)
        found.setdefault(partition_of(order_id(name)), name)
    return list(found.values())
