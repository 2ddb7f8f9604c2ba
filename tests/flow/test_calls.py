"""Pending and abandoned calls: an operator lists them, retries them at once under the same key, or abandons them."""

from datetime import datetime
from typing import Any

import pytest

from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.hand_pos import HandPos
from topics.restaurants import Restaurant

REFUSES: tuple[int, dict[str, str]] = (404, {"detail": "no such restaurant"})
BROKEN: tuple[int, dict[str, str]] = (500, {})


async def prepare_of(client: Client, order: str) -> Body | None:
    """Return the pending call that requests the ticket; None if there is none."""
    calls: list[Body] = (await client.get("/v1/calls", limit=1000))["calls"]
    return next((call for call in calls if call["key"] == f"{order}/prepare"), None)


async def attention(client: Client, order: str) -> str:
    """Return the awaited event that needs a person's attention; empty if there is none."""
    shown = await client.order(order) or {}
    return str(shown["attention"]["waits_for"]) if shown.get("attention") else ""


async def command(client: Client, order: str, what: str, **body: Any) -> Any:
    """Retry or abandon the call that requests the ticket."""
    return await client.post(f"/v1/calls/{order}/prepare/{what}", body)


async def test_unclear_call_is_retried_with_its_key_and_body(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = REFUSES
    await client.place(an_order(kitchen, unique))
    await client.until(lambda: attention(client, order), "the order needs attention")
    call = await prepare_of(client, order)
    assert call is not None, "the call goes on"
    assert "answered 404 (no such restaurant)" in call["last_error"]
    hand_pos.answers[kitchen.restaurant] = (200, {"status": "accepted"})
    answer = await command(client, order, "retry", reason="they are back")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "APPLIED")
    shown = await client.reaches(order, "IN_PREPARATION")
    assert shown["attention"] is None
    asked = hand_pos.asked_for(order)
    assert {each.key for each in asked} == {f"{order}/prepare"}
    assert len(asked) == 5, "four quick attempts, and the operator's"
    assert all(each.body == asked[0].body for each in asked)
    assert "by test-operator: they are back" in [entry.get("reason") for entry in await client.journal(order)]


async def test_a_failing_call_shows_its_error_and_is_retried_at_once(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = BROKEN
    await client.place(an_order(kitchen, unique))
    for attempts in range(3, 9):
        call = await failed_call(client, order, attempts)
        assert (call["order"], call["kind"]) == (order, "prepare")
        assert call["url"] == f"{kitchen.pos_url}/prepare"
        assert "status 500" in call["last_error"]
        if await retried_at(client, hand_pos, order) < datetime.fromisoformat(call["next_attempt"]):
            break
    else:
        pytest.fail("each retry waited for the call's next attempt")
    hand_pos.answers[kitchen.restaurant] = (200, {"status": "accepted"})
    assert (await command(client, order, "retry")).status_code == 200
    await client.reaches(order, "IN_PREPARATION")


async def failed_call(client: Client, order: str, attempts: int) -> Body:
    """Wait until the call that requests the ticket has failed in so many attempts, and return it."""

    async def failed() -> Body | None:
        call = await prepare_of(client, order)
        return call if call and call["attempts"] >= attempts else None

    call = await client.until(failed, f"{attempts} attempts")
    assert call is not None
    return call


async def retried_at(client: Client, hand_pos: HandPos, order: str) -> datetime:
    """Retry the call, and return when the restaurant received the next request.

    On a busy machine that may be the call's own next attempt. The back-off doubles with each attempt, so a caller that
    waits for more attempts leaves more time for the retry.
    """
    before = len(hand_pos.asked_for(order))
    assert (await command(client, order, "retry")).status_code == 200

    async def repeated() -> bool:
        return len(hand_pos.asked_for(order)) > before

    await client.until(repeated, "the call is made again")
    return hand_pos.asked_for(order)[before].at


async def test_an_abandoned_call_ends_and_its_order_needs_attention(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = BROKEN
    await client.place(an_order(kitchen, unique))
    await client.until(lambda: prepare_of(client, order), "the call is pending")
    assert (await command(client, order, "abandon")).status_code == 200
    assert await prepare_of(client, order) is None
    assert await attention(client, order) == "the restaurant's answer, given up by test-operator"
    listed = await client.get("/v1/orders", attention="true", restaurant=kitchen.restaurant)
    assert [row["id"] for row in listed["orders"]] == [order]
    asked = len(hand_pos.asked_for(order))
    assert "PrepareAbandoned" in [entry["event"] for entry in await client.journal(order)]
    hand_pos.answers[kitchen.restaurant] = (200, {"status": "accepted"})
    assert (await command(client, order, "retry")).status_code == 200
    await client.reaches(order, "IN_PREPARATION")
    assert len(hand_pos.asked_for(order)) > asked


async def test_retry_and_abandon_are_refused_with_a_reason(client: Client, kitchen: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(kitchen, unique))
    await client.reaches(order, "IN_PREPARATION")
    refused = await command(client, order, "retry")
    assert refused.status_code == 409
    assert "ACCEPTED" in refused.json()["detail"]
    assert (await client.post(f"/v1/calls/{order}/charge/abandon")).status_code == 409, "the charge has its answer"
    assert (await client.post(f"/v1/calls/{order}/refund/ch-none/retry")).status_code == 409
    assert (await client.post(f"/v1/calls/{order}/feed/retry")).status_code == 404
    assert (await client.post("/v1/calls/nobody:nothing/charge/retry")).status_code == 404
