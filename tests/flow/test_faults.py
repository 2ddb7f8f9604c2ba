"""Parties with every fault they know: each order ends all the same, once, and the books agree."""

import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from simulators.faults import known_to
from simulators.ledger import AnswerEntry
from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.kills import ended, ends_in, violations_of
from tests.flow.reading import Following
from tests.stack import Stack, installed, switch_off, switch_on
from topics.families import DEAD_LETTERS, ORDER_UPDATES
from topics.order_updates import OrderUpdated
from topics.restaurants import Restaurant

pytestmark = pytest.mark.timeout(240)

SPEED = 600.0
"""A preparation takes a second, a ride two; what is late or silent for a while, three."""
ORDERS, DRIVERS, RATE = 40, 20, 20.0
SHARE = 0.12
"""The rate of each fault: of 40 orders, each strikes some."""
OFTEN = 0.5
MOST = 24
"""So many orders end though every fault is switched on; of the others some wait for what is lost, or who is gone."""
WITHIN_S = 120.0


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own, its simulators sound."""
    directory = tmp_path_factory.mktemp("faults")
    with installed(kafka, f"faults-{uuid.uuid4().hex[:8]}", directory, SPEED) as stack:
        stack.start_payment()
        stack.start_pos()
        stack.start_worker()
        stack.start_drivers(DRIVERS)
        yield stack


@pytest.fixture
def run(request: pytest.FixtureRequest) -> str:
    """The name of the test's run: the same every time, so that the same orders are struck."""
    return "-".join(request.node.name.split("_")[1:5])


async def most_ended(feed: Following, run: str) -> None:
    """Wait until most of the orders of a run have ended."""
    await feed.until(lambda: sum(ends_in(feed, run).values()) >= MOST, f"{MOST} orders have ended", WITHIN_S)


async def judged(stack: Stack, feed: Following, run: str) -> Counter[str]:
    """How the orders of a run ended, once all have, and all books agree."""
    await ended(stack, feed, run, ORDERS)
    await feed.until(lambda: not unsettled(feed, run), "all refunds are made, and nobody needs to look", WITHIN_S)
    assert not await violations_of(stack, run)
    assert len(feed.statuses(run)) == ORDERS
    return ends_in(feed, run)


def unsettled(feed: Following, run: str) -> list[OrderUpdated]:
    """The orders of a run that need attention, or are rejected for the restaurant and not refunded."""
    newest = {update.order: update for update in feed.updates(run)}
    return [
        update
        for update in newest.values()
        if update.attention or (update.reason.startswith("restaurant:") and not update.refunded)
    ]


async def test_a_payment_provider_with_every_fault_charges_each_order_once(stack: Stack, run: str) -> None:
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.payment_url, **{fault.kind: SHARE for fault in known_to("payment")})
        switch_on(stack.payment_url, **{"500-after": OFTEN, "late": OFTEN})  # asked again before it calls back
        switch_on(stack.pos_url, refuse=0.3)  # for there to be refunds, too
        stack.place(run, ORDERS, RATE)
        await most_ended(feed, run)
        switch_off(stack.payment_url)
        ends = await judged(stack, feed, run)
        switch_off(stack.pos_url)
    entries = [entry for entry in stack.payments() if run in entry.order]
    declined = sum(entry.outcome == "declined" and not entry.replay for entry in entries)
    refunded = sum(entry.outcome == "refunded" and not entry.replay for entry in entries)
    assert declined
    assert refunded
    assert ends == {"DELIVERED": ORDERS - declined - refunded, "REJECTED": declined + refunded}
    assert any(entry.replay for entry in entries), "an order was asked again that had been acted on"


async def test_restaurants_with_every_fault_cook_each_order_once(stack: Stack, run: str) -> None:
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.pos_url, **{fault.kind: SHARE for fault in known_to("pos")})
        stack.place(run, ORDERS, RATE)
        await most_ended(feed, run)
        switch_off(stack.pos_url)
        ends = await judged(stack, feed, run)
    entries = [entry for entry in stack.tickets() if run in entry.order]
    refused = sum(entry.event == "rejected" for entry in entries)
    assert refused
    assert ends == {"DELIVERED": ORDERS - refused, "REJECTED": refused}
    assert any(entry.event == "replay" for entry in entries), "a ticket was sent again that had been taken"


async def test_drivers_with_every_fault_bring_each_order_once(stack: Stack, run: str) -> None:
    faults = ",".join(f"{fault.kind}:{SHARE}" for fault in known_to("drivers"))
    stack.simulators["drivers"].stop()
    stack.start_drivers(DRIVERS, "--faults", faults)
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        stack.place(run, ORDERS, RATE)
        await most_ended(feed, run)
        said = stack.simulators["drivers"].log.read_text()
        stack.simulators["drivers"].stop()
        stack.start_drivers(DRIVERS)
        assert await judged(stack, feed, run) == {"DELIVERED": ORDERS}
    assert "is gone" in said
    assert "falls silent" in said


async def test_a_provider_with_every_fault_has_each_order_placed_once_and_nothing_else(stack: Stack, run: str) -> None:
    faults = ",".join(f"{fault.kind}:0.5" for fault in known_to("provider"))
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES, DEAD_LETTERS], from_now=True) as feed:
        provider = stack.place(run, ORDERS, RATE, "--kafka", "0.5", "--faults", faults)
        assert await judged(stack, feed, run) == {"DELIVERED": ORDERS}
        assert provider.status == 0
        dead = {record.key.decode() for record in feed.records if record.topic.endswith(DEAD_LETTERS.name)}
    malformed = {via: [entry for entry in _malformed(stack, run) if entry.via == via] for via in ("http", "kafka")}
    assert malformed["http"]
    assert malformed["kafka"]
    assert {(entry.outcome, entry.status) for entry in malformed["http"]} == {("refused", 422)}
    assert all(entry.reason for entry in malformed["http"])
    assert dead == {entry.order for entry in malformed["kafka"]}


async def test_an_order_whose_restaurant_is_silent_shows_why_it_waits_until_the_restaurant_is_back(
    stack: Stack, tiffin: Restaurant, run: str
) -> None:
    order = order_id(run)
    async with Client(stack) as client:

        async def attention() -> Body | None:
            shown: Body = await client.order(order) or {}
            return shown if shown.get("attention") else None

        switch_on(stack.pos_url, silent=1)
        assert (await client.place(an_order(tiffin, run))).status_code == 201
        stuck = await client.until(attention, "a person is asked to look")
        assert stuck is not None
        assert stuck["status"] == "SCHEDULED"
        assert stuck["attention"]["waits_for"] == "the restaurant's answer"
        assert stuck["attention"]["since"]
        assert not client.tickets(order)
        switch_off(stack.pos_url)
        assert (await client.reaches(order, "DELIVERED"))["attention"] is None


def _malformed(stack: Stack, run: str) -> list[AnswerEntry]:
    return [entry for entry in stack.answers() if entry.event == "malformed" and run in entry.order]
