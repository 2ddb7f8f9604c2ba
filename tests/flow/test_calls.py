"""Calls that wait or were given up: seen, made again at once under the same key, or abandoned."""

from datetime import datetime
from typing import Any

from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.hand_pos import HandPos
from topics.restaurants import Restaurant

REFUSES: tuple[int, dict[str, str]] = (404, {"detail": "no such restaurant"})
BROKEN: tuple[int, dict[str, str]] = (500, {})


async def prepare_of(client: Client, order: str) -> Body | None:
    """The call that asks the restaurant, if it waits."""
    calls: list[Body] = (await client.get("/v1/calls", limit=1000))["calls"]
    return next((call for call in calls if call["key"] == f"{order}/prepare"), None)


async def attention(client: Client, order: str) -> str:
    """What a person should look at."""
    shown = await client.order(order) or {}
    return str(shown["attention"]["waits_for"]) if shown.get("attention") else ""


async def wish(client: Client, order: str, what: str, **body: Any) -> Any:
    return await client.post(f"/v1/calls/{order}/prepare/{what}", body)


async def test_a_call_that_was_given_up_is_made_again_under_the_same_key_when_an_operator_asks(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = REFUSES
    await client.place(an_order(kitchen, unique))
    await client.until(lambda: attention(client, order), "a person is asked")
    assert await prepare_of(client, order) is None, "nobody asks any more"
    hand_pos.answers[kitchen.restaurant] = (200, {"status": "accepted"})
    answer = await wish(client, order, "retry", by="ana", reason="they are back")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "APPLIED")
    shown = await client.reaches(order, "IN_PREPARATION")
    assert shown["attention"] is None
    assert [asked.key for asked in hand_pos.asked_for(order)] == [f"{order}/prepare"] * 2
    assert "by ana: they are back" in [entry.get("reason") for entry in await client.journal(order)]


async def test_a_call_that_waits_is_shown_with_what_went_wrong_and_made_again_at_once(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = BROKEN
    await client.place(an_order(kitchen, unique))

    async def failed() -> Body | None:
        call = await prepare_of(client, order)
        return call if call and call["attempts"] >= 3 else None

    call = await client.until(failed, "it was tried three times")
    assert call is not None
    assert (call["order"], call["kind"]) == (order, "prepare")
    assert call["url"] == f"{kitchen.pos_url}/prepare"
    assert "status 500" in call["last_error"]
    before = len(hand_pos.asked_for(order))
    assert (await wish(client, order, "retry")).status_code == 200

    async def asked() -> bool:
        return len(hand_pos.asked_for(order)) > before

    await client.until(asked, "it is made again")
    again = hand_pos.asked_for(order)[before]
    assert again.at < datetime.fromisoformat(call["next_attempt"]), "before it would have been by itself"
    hand_pos.answers[kitchen.restaurant] = (200, {"status": "accepted"})
    assert (await wish(client, order, "retry")).status_code == 200
    await client.reaches(order, "IN_PREPARATION")


async def test_a_call_that_is_abandoned_is_made_no_more_and_its_order_asks_for_a_person(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = BROKEN
    await client.place(an_order(kitchen, unique))
    await client.until(lambda: prepare_of(client, order), "the restaurant is asked")
    assert (await wish(client, order, "abandon", by="ana")).status_code == 200
    assert await prepare_of(client, order) is None
    assert await attention(client, order) == "the restaurant's answer, given up by ana"
    listed = await client.get("/v1/orders", attention="true", restaurant=kitchen.restaurant)
    assert [row["id"] for row in listed["orders"]] == [order]
    asked = len(hand_pos.asked_for(order))
    assert "PrepareAbandoned" in [entry["event"] for entry in await client.journal(order)]
    hand_pos.answers[kitchen.restaurant] = (200, {"status": "accepted"})
    assert (await wish(client, order, "retry")).status_code == 200
    await client.reaches(order, "IN_PREPARATION")
    assert len(hand_pos.asked_for(order)) > asked


async def test_what_cannot_be_made_again_or_given_up_is_refused_and_says_why(
    client: Client, kitchen: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    await client.place(an_order(kitchen, unique))
    await client.reaches(order, "IN_PREPARATION")
    refused = await wish(client, order, "retry")
    assert refused.status_code == 409
    assert "ACCEPTED" in refused.json()["detail"]
    assert (await client.post(f"/v1/calls/{order}/charge/abandon")).status_code == 409, "nobody is asked any more"
    assert (await client.post(f"/v1/calls/{order}/refund/ch-none/retry")).status_code == 409
    assert (await client.post(f"/v1/calls/{order}/feed/retry")).status_code == 404
    assert (await client.post("/v1/calls/nobody:nothing/charge/retry")).status_code == 404
