"""An order from its placement to its end: over HTTP and Kafka, now and for later, accepted and rejected."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tests.flow.client import Client, an_order, order_id, partition_of, place, room_for
from tests.flow.hand_pos import HandPos
from tests.flow.reading import PARTITIONS, Following, headers, illegal_steps
from topics.families import DEAD_LETTERS, ORDER_UPDATES, ORDERS
from topics.identity import external_id_of
from topics.restaurants import Restaurant


async def delivered_once(client: Client, order: str) -> None:
    """Wait until an order is delivered, and check the ledgers of the outside parties."""
    await client.reaches(order, "DELIVERED")
    await client.noted(order, "finished")
    assert [entry.outcome for entry in client.payments(order)] == ["charged"]
    assert [entry.event for entry in client.tickets(order)] == ["accepted", "finished", "told"]
    trip = [entry.event for entry in client.stack.trips() if entry.delivery == order]
    assert trip[:2] == ["assigned", "picked_up"], "the ledger has `delivered` only after the worker applied it"


async def test_an_order_placed_over_http_is_delivered(client: Client, tiffin: Restaurant, unique: str) -> None:
    answer = await client.place(an_order(tiffin, unique))
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/orders/{order_id(unique)}"
    body = answer.json()
    assert body == {
        "id": order_id(unique),
        "provider": "my-shop",
        "external_id": unique,
        "placed_at": body["placed_at"],
    }
    assert abs(datetime.fromisoformat(body["placed_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    await delivered_once(client, order_id(unique))


async def test_an_order_placed_over_kafka_is_delivered(client: Client, tiffin: Restaurant, unique: str) -> None:
    await client.produce(ORDERS, {"type": "Placed", **an_order(tiffin, unique)}, key=order_id(unique))
    await delivered_once(client, order_id(unique))


@pytest.mark.parametrize("keyed", [True, False], ids=["in another partition than its key's", "without a key"])
async def test_an_order_in_the_wrong_partition_is_delivered(
    client: Client, tiffin: Restaurant, unique: str, keyed: bool
) -> None:
    wrong, forwarded = (partition_of(order_id(unique)) + 1) % PARTITIONS, await client.counter("forwarded")
    record = {"type": "Placed", **an_order(tiffin, unique)}
    await client.produce(ORDERS, record, key=order_id(unique) if keyed else None, partition=wrong)
    await delivered_once(client, order_id(unique))
    assert await client.counter("forwarded") == forwarded + 1


async def test_an_order_sent_by_fausts_command_is_delivered(client: Client, tiffin: Restaurant, unique: str) -> None:
    record = msgspec.json.encode({"type": "Placed", **an_order(tiffin, unique)}).decode()
    status, _, error = client.stack.faust("send", "@agents.orders.orders", record)
    assert status == 0, error
    await delivered_once(client, order_id(unique))


async def test_a_repeated_order_gets_the_same_answer_and_is_one(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    first = await client.place(an_order(tiffin, unique))
    second = await client.place(an_order(tiffin, unique))
    await delivered_once(client, order_id(unique))
    third = await client.place(an_order(tiffin, unique))
    assert [answer.status_code for answer in (first, second, third)] == [201, 200, 200]
    assert first.content == second.content == third.content
    assert third.headers["location"] == first.headers["location"]
    await delivered_once(client, order_id(unique))


async def test_an_order_by_http_and_the_same_by_kafka_are_one(client: Client, tiffin: Restaurant, unique: str) -> None:
    body, order = an_order(tiffin, unique), order_id(unique)
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as letters:
        assert (await client.place(body)).status_code == 201
        await client.produce(ORDERS, {"type": "Placed", **body}, key=order)
        await client.produce(ORDERS, {"type": "Placed", **body, "tip": 5_00, "total": 205_00}, key=order)
        await letters.until(lambda: letters.records, "the other body becomes a dead letter, after the first is applied")
        assert [record.key.decode() for record in letters.records] == [order]
        assert "with another body" in headers(letters.records[0])["dead-letter.reason"]
    await delivered_once(client, order)
    placed = [
        entry.get("outcome", "APPLIED") for entry in await client.journal(order) if entry["event"] == "OrderPlaced"
    ]
    assert placed == ["APPLIED", "REFUSED"]


async def test_an_order_by_kafka_and_the_same_by_http_are_one(client: Client, tiffin: Restaurant, unique: str) -> None:
    body = an_order(tiffin, unique)
    await client.produce(ORDERS, {"type": "Placed", "id": "given-by-the-sender", **body}, key=order_id(unique))
    await client.until(lambda: client.order(order_id(unique)), "the order exists")
    answer = await client.place(body)
    assert (answer.status_code, answer.json()["id"]) == (200, order_id(unique))
    await delivered_once(client, order_id(unique))


async def test_another_body_under_the_same_id_is_rejected(client: Client, tiffin: Restaurant, unique: str) -> None:
    assert (await client.place(an_order(tiffin, unique))).status_code == 201
    answer = await client.place(an_order(tiffin, unique, tip=5_00, total=205_00))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert order_id(unique) in answer.json()["detail"]
    assert (await client.order(order_id(unique)) or {})["total"] == 200_00
    await delivered_once(client, order_id(unique))


async def test_an_idempotency_key_replaces_an_external_id(client: Client, tiffin: Restaurant, unique: str) -> None:
    body, order = an_order(tiffin, unique, external_id=None), order_id(external_id_of(unique.encode()))
    first = await client.place(body, **{"Idempotency-Key": unique})
    quoted = await client.place(body, **{"Idempotency-Key": f'"{unique}"'})
    other = await client.place({**body, "tip": 5_00, "total": 205_00}, **{"Idempotency-Key": unique})
    assert [answer.status_code for answer in (first, quoted, other)] == [201, 200, 422]
    assert first.json()["id"] == order
    await client.produce(ORDERS, {"type": "Placed", **body}, headers={"idempotency-key": unique})
    await delivered_once(client, order)


async def test_a_key_stands_for_an_order_with_an_external_id(client: Client, tiffin: Restaurant, unique: str) -> None:
    key = {"Idempotency-Key": f'"{unique}"'}
    first = await client.place(an_order(tiffin, unique), **key)
    again = await client.place(an_order(tiffin, unique), **key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other_body = await client.place(an_order(tiffin, unique, tip=5_00, total=205_00), **key)
    assert (other_body.status_code, order_id(unique) in other_body.json()["detail"]) == (422, True)
    for other in (an_order(tiffin, f"{unique}-2"), an_order(tiffin, unique, external_id=None)):
        answer = await client.place(other, **key)
        assert answer.status_code == 422
        assert f"the Idempotency-Key was used for the order {order_id(unique)}" in answer.json()["detail"]
    id_of_key = order_id(external_id_of(unique.encode()))
    for refused in (order_id(f"{unique}-2"), id_of_key):
        assert await client.order(refused) is None
    assert [row["row"] for row in (await client.get(f"/table/used_keys/{id_of_key}"))["rows"]] == [
        {"order": order_id(unique)}
    ]
    await delivered_once(client, order_id(unique))


async def test_the_key_that_names_an_order_is_its_own(client: Client, tiffin: Restaurant, unique: str) -> None:
    key = {"Idempotency-Key": unique}
    named = await client.place(an_order(tiffin, unique, external_id=None), **key)
    other = await client.place(an_order(tiffin, unique), **key)
    assert (named.status_code, other.status_code) == (201, 422)
    assert named.json()["id"] in other.json()["detail"]
    assert await client.order(order_id(unique)) is None
    await delivered_once(client, named.json()["id"])


async def test_an_order_may_repeat_the_id_that_its_key_gave(client: Client, tiffin: Restaurant, unique: str) -> None:
    key, body = {"Idempotency-Key": unique}, an_order(tiffin, unique, external_id=None)
    first = await client.place(body, **key)
    echoed = {**body, "external_id": first.json()["external_id"]}
    for again in (echoed, body, echoed):
        answer = await client.place(again, **key)
        assert (answer.status_code, answer.content) == (200, first.content)


async def test_a_refused_order_may_be_corrected_under_its_key(client: Client, tiffin: Restaurant, unique: str) -> None:
    key = {"Idempotency-Key": unique}
    assert (await client.place(an_order(tiffin, unique, total=1), **key)).status_code == 422
    assert (await client.place(an_order(tiffin, unique), **key)).status_code == 201
    await delivered_once(client, order_id(unique))


async def test_an_order_for_later_reaches_the_restaurant_on_time(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    """The restaurant cooks the order before it is asked for another one that is due a little later."""

    async def place_for(name: str, wished: datetime) -> None:
        body = an_order(kitchen, name, deliver_at=wished.isoformat())
        body["customer"]["position"] = place(kitchen.position)
        assert (await client.place(body)).status_code == 201
        await client.reaches(order_id(name), "SCHEDULED")

    began = datetime.now(UTC)
    await place_for(f"{unique}-much-later", began + timedelta(hours=1))
    lead = room_for(datetime.now(UTC) - began)
    wished = datetime.now(UTC) + lead
    await place_for(unique, wished)
    await place_for(f"{unique}-next", wished + 3 * lead)
    early = await client.ticket(kitchen, order_id(unique), "accepted")
    if datetime.now(UTC) < wished:
        assert early.status_code == 409, "the restaurant has no ticket yet"
    await client.reaches(order_id(unique), "IN_PREPARATION")
    assert not hand_pos.asked_for(order_id(f"{unique}-next"))
    (asked,) = hand_pos.asked_for(order_id(unique))
    assert wished <= asked.at
    assert "PreparationDue" in [entry["event"] for entry in await client.journal(order_id(unique))]


async def test_an_order_the_restaurant_rejects_is_refunded(client: Client, tiffin: Restaurant, unique: str) -> None:
    body = an_order(tiffin, unique)
    body["items"][0]["pos_code"] = "SOLD-OUT"
    await client.place(body)

    async def refunded() -> bool:
        return bool((await client.order(order_id(unique)) or {}).get("refunded"))

    await client.until(refunded, "the refund")
    order = await client.reaches(order_id(unique), "REJECTED")
    assert order["reason"] == "restaurant_rejected"
    assert (order["payment"]["status"], order["ticket"]["status"], order["eta"]) == ("REFUNDED", "REJECTED", None)
    assert [entry.outcome for entry in client.payments(order_id(unique))] == ["charged", "refunded"]


async def test_a_declined_payment_rejects_the_order(client: Client, tiffin: Restaurant, unique: str) -> None:
    await client.place(an_order(tiffin, unique, tip=13, total=200_13))
    order = await client.reaches(order_id(unique), "REJECTED")
    assert order["reason"] == "payment_declined"
    assert order["payment"]["status"] == "DECLINED"
    assert [entry.outcome for entry in client.payments(order_id(unique))] == ["declined"]
    assert not client.tickets(order_id(unique))


async def test_order_updates_has_each_step_once_and_no_customer_data(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    async with Following(client.stack.kafka, client.stack.name, [ORDER_UPDATES], from_now=True) as feed:
        await client.place(an_order(tiffin, unique))
        await feed.until(lambda: feed.statuses(order).get(order) == "DELIVERED", "the end of the order in the feed")
        updates = feed.updates(order)
        records = [record for record in feed.records if record.key.decode() == order]
    assert not illegal_steps(updates)
    assert list(dict.fromkeys(update.status.value for update in updates)) == [
        "CREATED",
        "SCHEDULED",
        "IN_PREPARATION",
        "SCHEDULING_DELIVERY",
        "WAITING_FOR_DRIVER",
        "IN_DELIVERY",
        "DELIVERED",
    ]
    for record, update in zip(records, updates, strict=True):
        event = headers(record)
        assert (event["ce_specversion"], event["ce_type"]) == ("1.0", "dabbawala.OrderUpdated")
        assert (event["ce_subject"], event["ce_sequence"]) == (order, str(update.version))
        assert event["traceparent"].split("-")[1] == headers(records[0])["traceparent"].split("-")[1]
        assert not any(personal in record.value.decode() for personal in ("Asha", "Mint Road", "5550"))
    assert len({headers(record)["ce_id"] for record in records}) == len(records)
