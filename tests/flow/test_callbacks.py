"""Callbacks of payment providers and restaurants: late, repeated, out of order, or in contradiction to earlier ones."""

from collections.abc import Iterator

import pytest

from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.conftest import INSTANT, RULES
from tests.flow.hand_pos import RECEIVED, HandPos
from tests.support.stack import Stack, switch_off, switch_on
from topics.restaurants import Restaurant


@pytest.fixture
async def placed(client: Client, kitchen: Restaurant, unique: str) -> str:
    """Return an order that a restaurant by hand has accepted and cooks."""
    assert (await client.place(an_order(kitchen, unique))).status_code == 201
    await client.reaches(order_id(unique), "IN_PREPARATION")
    return order_id(unique)


async def attention(client: Client, order: str) -> str:
    """Return the awaited event that needs a person's attention; empty if there is none."""
    shown = await client.order(order)
    assert shown is not None
    return str(shown["attention"]["waits_for"]) if shown["attention"] else ""


def charge_of(client: Client, order: str) -> str:
    """Return the id of the charge that the provider made."""
    return next(entry.charge_id for entry in client.payments(order) if entry.kind == "charge")


# -- a payment provider and restaurants that answer later --------------------------------------------------------------


@pytest.fixture(scope="module")
def call_back(stack: Stack) -> Iterator[None]:
    """Let payment provider and restaurants answer 202 and call back later."""
    stack.start_payment(*INSTANT, *RULES["payment"], "--callback")
    stack.start_pos(*INSTANT, *RULES["pos"], "--receive")
    yield
    stack.start_payment(*INSTANT, *RULES["payment"])
    stack.start_pos(*INSTANT, *RULES["pos"])


@pytest.mark.usefixtures("call_back")
async def test_callbacks_alone_bring_an_order_to_delivered(client: Client, tiffin: Restaurant, unique: str) -> None:
    await client.place(an_order(tiffin, unique))
    await client.reaches(order_id(unique), "DELIVERED")
    await client.noted(order_id(unique), "finished")
    payments = client.payments(order_id(unique))
    assert [(entry.kind, entry.outcome) for entry in payments if not entry.replay and entry.kind != "callback"] == [
        ("charge", "charged")
    ]
    assert any(entry.replay for entry in payments), "the repeated request was answered with the result"
    assert {entry.key for entry in payments} == {f"{order_id(unique)}/charge"}
    tickets = [(entry.event, entry.told, entry.status) for entry in client.tickets(order_id(unique))]
    assert tickets[0] == ("received", "", 0)
    assert [entry for entry in tickets if entry[0] == "told"] == [("told", "accepted", 200), ("told", "finished", 200)]
    assert "TicketReceived" in [entry["event"] for entry in await client.journal(order_id(unique))]


@pytest.mark.usefixtures("call_back")
async def test_a_payment_declined_by_callback_rejects_the_order(
    client: Client, tiffin: Restaurant, unique: str
) -> None:
    await client.place(an_order(tiffin, unique, tip=13, total=200_13))
    await client.reaches(order_id(unique), "REJECTED")
    assert {entry.outcome for entry in client.payments(order_id(unique))} <= {"declined", "answered"}
    assert not client.tickets(order_id(unique))


@pytest.mark.usefixtures("call_back")
async def test_a_ticket_rejected_by_callback_is_refunded(client: Client, tiffin: Restaurant, unique: str) -> None:
    body = an_order(tiffin, unique)
    body["items"][0]["pos_code"] = "SOLD-OUT"
    await client.place(body)

    async def refunded() -> bool:
        return bool((await client.order(order_id(unique)) or {}).get("refunded"))

    await client.until(refunded, "the refund")
    assert (await client.reaches(order_id(unique), "REJECTED"))["attention"] is None
    made = [e.outcome for e in client.payments(order_id(unique)) if e.kind != "callback" and not e.replay]
    assert made == ["charged", "refunded"]


# -- repeated, early and late callbacks --------------------------------------------------------------------------------


async def test_repeated_callbacks_are_idempotent(client: Client, kitchen: Restaurant, placed: str) -> None:
    charge = charge_of(client, placed)
    assert (await client.charged(placed, charge)).json() == {"order": placed, "outcome": "ABSORBED"}
    assert (await client.ticket(kitchen, placed, "accepted")).json() == {"order": placed, "outcome": "ABSORBED"}
    first, again = [await client.ticket(kitchen, placed, "finished") for _ in range(2)]
    assert [(answer.status_code, answer.json()["outcome"]) for answer in (first, again)] == [
        (200, "APPLIED"),
        (200, "ABSORBED"),
    ]
    late = await client.ticket(kitchen, placed, "accepted")
    assert (late.status_code, late.json()["outcome"]) == (200, "ABSORBED")
    order = await client.reaches(placed, "SCHEDULING_DELIVERY")
    assert (order["version"], order["attention"]) == (4, None), "four changes, each applied once"


async def test_finished_implies_accepted(client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str) -> None:
    hand_pos.answers[kitchen.restaurant] = RECEIVED
    order = order_id(unique)
    await client.place(an_order(kitchen, unique))

    async def received() -> bool:
        shown = await client.order(order)
        return shown is not None and shown["ticket"] == {"status": "RECEIVED"}

    await client.until(received, "the restaurant has received the ticket")
    assert (await client.ticket(kitchen, order, "finished")).status_code == 200
    await client.reaches(order, "SCHEDULING_DELIVERY")
    steps = [entry["after"] for entry in await client.journal(order) if entry["machine"] == "order"]
    assert steps[-2:] == ["IN_PREPARATION", "SCHEDULING_DELIVERY"]
    late = await client.ticket(kitchen, order, "accepted")
    assert (late.status_code, late.json()["outcome"]) == (200, "ABSORBED")
    assert len(hand_pos.asked_for(order)) == 1


async def test_a_restaurant_cannot_take_back_what_it_accepted(client: Client, kitchen: Restaurant, placed: str) -> None:
    answer = await client.ticket(kitchen, placed, "rejected", {"reason": "no rice"})
    assert answer.status_code == 409
    assert "ACCEPTED" in answer.json()["detail"]
    assert "make up its mind" in await attention(client, placed)
    assert (await client.ticket(kitchen, placed, "finished")).status_code == 200
    assert not await attention(client, placed), "the restaurant has decided"
    await client.reaches(placed, "SCHEDULING_DELIVERY")


async def test_a_callback_from_another_restaurant_is_rejected(client: Client, tiffin: Restaurant, placed: str) -> None:
    for event in ("accepted", "rejected", "finished"):
        answer = await client.ticket(tiffin, placed, event)
        assert answer.status_code == 409
        assert "not lakshmi-tiffin's" in answer.json()["detail"]
    await client.reaches(placed, "IN_PREPARATION")


async def test_a_payment_provider_cannot_decline_what_it_charged(client: Client, placed: str) -> None:
    body = {"type": "Declined", "order": placed, "reason": "no money"}
    answer = await client.post("/v1/payments/payments/events", body)
    assert (answer.status_code, answer.json()["outcome"]) == (200, "APPLIED")
    assert "no money" in await attention(client, placed)
    settled = await client.post(f"/v1/orders/{placed}/settled", {"reason": "the bank was wrong"})
    assert (settled.status_code, settled.json()) == (200, {"order": placed, "outcome": "APPLIED"})
    assert not (await client.order(placed) or {})["attention"]
    assert "by test-operator: the bank was wrong" in [entry.get("reason") for entry in await client.journal(placed)]
    assert (await client.post("/v1/orders/nobody:nothing/settled")).status_code == 404
    assert (await client.order(placed) or {})["payment"] == {"status": "CHARGED"}


async def test_an_unrequested_refund_is_rejected_and_needs_attention(client: Client, placed: str) -> None:
    charge = charge_of(client, placed)
    answer = await client.post(
        "/v1/payments/payments/events", {"type": "Refunded", "order": placed, "charge_id": charge}
    )
    assert answer.status_code == 200
    assert charge in await attention(client, placed)
    assert (await client.order(placed) or {})["payment"] == {"status": "CHARGED"}


async def test_charge_that_no_answer_shows_refunds_nothing(client: Client, kitchen: Restaurant, placed: str) -> None:
    outcomes = [(await client.charged(placed, f"ch-victim-{number}")).json()["outcome"] for number in range(3)]
    assert outcomes == ["APPLIED", "ABSORBED", "ABSORBED"]
    assert "ch-victim-0" in await attention(client, placed)
    assert (await client.post(f"/v1/orders/{placed}/settled", {"by": "ana"})).status_code == 200
    assert (await client.charged(placed, "ch-victim-9")).json()["outcome"] == "ABSORBED"
    assert not await attention(client, placed)
    assert (await client.ticket(kitchen, placed, "finished")).status_code == 200
    await client.reaches(placed, "SCHEDULING_DELIVERY")
    assert "refund" not in {entry.kind for entry in client.payments(placed)}


async def test_a_forged_charge_pays_no_order_and_cancels_no_call(
    stack: Stack, client: Client, kitchen: Restaurant, unique: str
) -> None:
    order = order_id(unique)
    switch_on(stack.payment_url, **{"500": 1})
    try:
        assert (await client.place(an_order(kitchen, unique))).status_code == 201
        assert (await client.charged(order, "ch-forged")).status_code == 200
        assert (await client.order(order) or {})["status"] == "CREATED"
    finally:
        switch_off(stack.payment_url)
    await client.reaches(order, "IN_PREPARATION")
    assert charge_of(client, order) != "ch-forged"
    assert "ch-forged" in await attention(client, order), "a person learns of the charge that no answer shows"


async def test_cooking_a_rejected_order_reaches_a_person(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    order = order_id(unique)
    hand_pos.answers[kitchen.restaurant] = (422, {"status": "rejected", "reason": "closed"})
    await client.place(an_order(kitchen, unique))
    await client.reaches(order, "REJECTED")
    assert (await client.ticket(kitchen, order, "finished")).status_code == 409
    assert "cooks a ticket that is REJECTED" in await attention(client, order)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/payments/payments/events", {"type": "Charged", "charge_id": "ch", "amount": 1, "currency": "INR"}),
        ("/v1/payments/payments/events", {"type": "Declined"}),
        ("/v1/payments/payments/events", {"type": "Refunded", "charge_id": "ch"}),
        ("/v1/pos/lakshmi-tiffin/tickets/{order}/accepted", {}),
        ("/v1/pos/lakshmi-tiffin/tickets/{order}/rejected", {}),
        ("/v1/pos/lakshmi-tiffin/tickets/{order}/finished", {}),
    ],
)
async def test_a_callback_for_an_unknown_order_is_404(client: Client, unique: str, path: str, body: Body) -> None:
    order = order_id(unique)
    answer = await client.post(path.format(order=order), {**body, "order": order} if "type" in body else body)
    assert answer.status_code == 404
    assert order in answer.json()["detail"]
    assert await client.order(order) is None, "a callback creates no order"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/payments/payments/events", {"type": "Charged"}, 422),
        ("/v1/payments/payments/events", {"type": "Stolen", "order": "a:b"}, 422),
        ("/v1/pos/lakshmi-tiffin/tickets/a:b/accepted", {"at": "today"}, 422),
        ("/v1/pos/lakshmi-tiffin/tickets/a:b/burnt", {}, 404),
        ("/v1/pos/lakshmi-tiffin/tickets/nothing/accepted", {}, 404),
    ],
)
async def test_an_invalid_callback_is_a_problem(client: Client, path: str, body: Body, status: int) -> None:
    answer = await client.post(path, body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
