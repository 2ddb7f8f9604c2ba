"""Outside parties with all their faults: each order still ends once, and all ledgers agree."""

import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from simulators.faults import known_to
from simulators.ledger import AnswerEntry
from tests.flow.client import Body, Client, an_order, order_id
from tests.flow.reading import Following
from tests.support.stack import Stack, installed, switch_off, switch_on
from topics.families import DEAD_LETTERS, ORDER_UPDATES
from topics.order_updates import OrderUpdated, Reason
from topics.restaurants import Restaurant
from verification.kills.flow import ended, ends_in, violations_of

SPEED = 600.0
"""Speed-up: a preparation takes a second, a ride two, and a late or silent answer three."""
ORDERS, DRIVERS, RATE = 40, 20, 20.0
SHARE = 0.12
"""Rate of each fault: each strikes some of 40 orders."""
OFTEN = 0.5
ENDED_WITH_FAULTS = 24
"""Orders that end while the faults are on. Others may wait for a lost message or for a driver who has gone."""
WITHIN_S = 900.0


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack whose simulators have no faults yet."""
    directory = tmp_path_factory.mktemp("faults")
    with installed(kafka, f"faults-{uuid.uuid4().hex[:8]}", directory, SPEED) as stack:
        stack.start_payment()
        stack.start_pos()
        stack.start_worker()
        stack.start_drivers(DRIVERS)
        yield stack


@pytest.fixture
def run(request: pytest.FixtureRequest) -> str:
    """Return the name of the test's run. It is the same every time, so that the faults strike the same orders."""
    return "-".join(request.node.name.split("_")[1:5])


async def most_ended(feed: Following, run: str) -> None:
    """Wait until most of the orders of a run have ended."""
    await feed.until(
        lambda: sum(ends_in(feed, run).values()) >= ENDED_WITH_FAULTS, f"{ENDED_WITH_FAULTS} ends", WITHIN_S
    )


async def judged(stack: Stack, feed: Following, run: str) -> Counter[str]:
    """Wait until all orders of a run have ended, check the oracle's promises, and count the ends by status."""
    await ended(stack, feed, run, ORDERS)
    await feed.until(lambda: not unsettled(feed, run), "all refunds are made, and no order needs attention", WITHIN_S)
    assert not await violations_of(stack, run)
    assert len(feed.statuses(run)) == ORDERS
    return ends_in(feed, run)


def unsettled(feed: Following, run: str) -> list[OrderUpdated]:
    """Return the orders of a run that need attention or still lack the refund after the restaurant's rejection."""
    newest = {update.order: update for update in feed.updates(run)}
    return [
        update
        for update in newest.values()
        if update.attention or (update.reason is Reason.RESTAURANT_REJECTED and not update.refunded)
    ]


async def test_a_faulty_payment_provider_charges_each_order_once(stack: Stack, run: str) -> None:
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.payment_url, **{fault.kind: SHARE for fault in known_to("payment")})
        switch_on(stack.payment_url, late=OFTEN)  # a repeated charge, before the callback
        switch_on(stack.pos_url, refuse=0.3)  # so that there are refunds
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
    assert any(entry.replay for entry in entries), "a charge or refund was repeated after it was made"


async def test_restaurants_with_every_fault_cook_each_order_once(stack: Stack, run: str) -> None:
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        switch_on(stack.pos_url, **{fault.kind: SHARE for fault in known_to("pos")})
        stack.place(run, ORDERS, RATE)
        await most_ended(feed, run)
        switch_off(stack.pos_url)
        ends = await judged(stack, feed, run)
    entries = [entry for entry in stack.tickets() if run in entry.order]
    rejected = sum(entry.event == "rejected" for entry in entries)
    assert rejected
    assert ends == {"DELIVERED": ORDERS - rejected, "REJECTED": rejected}
    assert any(entry.event == "replay" for entry in entries), "a ticket was repeated after it was accepted"


async def test_drivers_with_every_fault_bring_each_order_once(stack: Stack, run: str) -> None:
    faults = ",".join(f"{fault.kind}:{SHARE}" for fault in known_to("drivers"))
    stack.simulators["drivers"].stop()
    stack.start_drivers(DRIVERS, "--faults", faults)
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        stack.place(run, ORDERS, RATE)
        await most_ended(feed, run)
        log = stack.simulators["drivers"].log.read_text()
        stack.simulators["drivers"].stop()
        stack.start_drivers(DRIVERS)
        assert await judged(stack, feed, run) == {"DELIVERED": ORDERS}
    assert "is gone" in log
    assert "falls silent" in log


async def test_a_faulty_provider_places_each_order_once(stack: Stack, run: str) -> None:
    faults = ",".join(f"{fault.kind}:0.5" for fault in known_to("provider"))
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES, DEAD_LETTERS], from_now=True) as feed:
        provider = stack.place(run, ORDERS, RATE, "--kafka", "0.5", "--faults", faults)
        assert await judged(stack, feed, run) == {"DELIVERED": ORDERS}
        assert provider.status == 0
        dead = {record.key.decode() for record in feed.records if record.topic.endswith(DEAD_LETTERS.name)}
    malformed = {via: [entry for entry in _malformed(stack, run) if entry.via == via] for via in ("http", "kafka")}
    assert malformed["http"]
    assert malformed["kafka"]
    assert {entry.outcome for entry in malformed["http"]} == {"refused"}
    assert {entry.status for entry in malformed["http"]} >= {422}
    assert all(entry.status == (400 if "not JSON" in entry.reason else 422) for entry in malformed["http"])
    assert all(entry.reason for entry in malformed["http"])
    assert dead == {entry.order for entry in malformed["kafka"]}


async def test_an_order_shows_that_its_restaurant_is_unresponsive(stack: Stack, tiffin: Restaurant, run: str) -> None:
    order = order_id(run)
    async with Client(stack) as client:

        async def attention() -> Body | None:
            shown: Body = await client.order(order) or {}
            late = shown.get("attention") and shown["status"] == "SCHEDULED"  # a busy machine is late to charge, too
            return shown if late else None

        switch_on(stack.pos_url, silent=1)
        assert (await client.place(an_order(tiffin, run))).status_code == 201
        overdue = await client.until(attention, "the order needs attention")
        assert overdue is not None
        assert overdue["attention"]["waits_for"] == "the restaurant's answer"
        assert overdue["attention"]["since"]
        assert not client.tickets(order)
        switch_off(stack.pos_url)
        assert (await client.reaches(order, "DELIVERED"))["attention"] is None


def _malformed(stack: Stack, run: str) -> list[AnswerEntry]:
    return [entry for entry in stack.answers() if entry.event == "malformed" and run in entry.order]
