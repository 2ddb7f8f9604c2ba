"""Traces of orders: complete, with one root and no orphan, also if a worker or the collector fails."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.tracing.ids import root_of, trace_id
from tests.flow.client import Client, Driver, an_order, order_id
from tests.flow.collector import Collector, Exported, collecting
from tests.flow.hand_pos import RECEIVED, HandPos
from tests.support.stack import Stack, installed, ports_of_its_own
from topics.restaurants import Restaurant

EVERY_ORDER = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "50"}
SENDER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
CHAIN = {
    "order placed": "",
    "POST /v1/orders": "order placed",
    "POST /v1/charges": "order placed",
    "answer Charged": "POST /v1/charges",
    "POST /prepare": "answer Charged",
    "answer TicketAccepted": "POST /prepare",
    "process PreparationFinished": "answer TicketAccepted",
    "process DriverRequested": "process PreparationFinished",
    "process Assign": "process DriverRequested",
    "process DriverAssigned": "process Assign",
    "order ended": "process Delivered",
}
"""Span -> its parent, for an order without a failure. The driver's and the delivery's spans of one name are apart."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def stack(
    kafka: str, hand_pos: HandPos, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Run a worker that traces every order, and a payment provider."""
    with traced(kafka, hand_pos, tmp_path_factory.mktemp("traces"), collector.url) as stack:
        yield stack


@contextmanager
def traced(kafka: str, hand_pos: HandPos, directory: Path, url: str, **more: str) -> Iterator[Stack]:
    """Run a worker with a collector at this URL, and a payment provider."""
    with installed(kafka, directory.name, directory, 1.0, hand_pos.kitchens(10)) as stack:
        stack.environment |= {**EVERY_ORDER, "OTEL_EXPORTER_OTLP_ENDPOINT": url, **more}
        stack.start_payment("--speed", "0")
        stack.start_worker()
        yield stack


def kitchen_of(hand_pos: HandPos, number: int) -> Restaurant:
    return hand_pos.kitchens(10)[number]


async def deliver(client: Client, kitchen: Restaurant, order: str, name: str) -> None:
    """Cook and deliver an order whose ticket is accepted."""
    driver = Driver(client, name)
    await client.reaches(order, "IN_PREPARATION")
    assert (await client.ticket(kitchen, order, "finished")).status_code == 200
    await client.reaches(order, "SCHEDULING_DELIVERY")
    await driver.available(kitchen.region, kitchen.position)
    await driver.has(order)
    await client.reaches(order, "WAITING_FOR_DRIVER")
    await driver.tell("pickup", {"delivery": order})
    await client.reaches(order, "IN_DELIVERY")
    await driver.tell("delivered", {"delivery": order})
    await client.reaches(order, "DELIVERED")


async def exported(client: Client, collector: Collector, order: str, *names: str) -> list[Exported]:
    """Wait until the collector has spans of these names, and return all of the order."""

    async def complete() -> bool:
        return set(names) <= {span.name for span in collector.of(order)}

    await client.until(complete, f"the collector has {names} of {order}: {collector.named(order).keys()}")
    return collector.of(order)


def assert_one_tree(spans: list[Exported], order: str) -> None:
    """Check that the spans have unique ids, one root and no orphan."""
    ids = {span.id for span in spans}
    assert len(ids) == len(spans), Counter(span.name for span in spans)
    assert [span.id for span in spans if not span.parent] == [f"{root_of(order):016x}"]
    assert not [span.name for span in spans if span.parent and span.parent not in ids]
    assert all(span.start_ns <= span.end_ns for span in spans)


async def test_the_trace_of_an_order_is_one_complete_tree(
    stack: Stack, hand_pos: HandPos, collector: Collector, unique: str
) -> None:
    kitchen, order = kitchen_of(hand_pos, 1), order_id(unique)
    async with Client(stack) as client:
        answer = await client.place(an_order(kitchen, unique), traceparent=f"00-{'-'.join(SENDER)}-01")
        assert answer.headers["traceresponse"] == f"00-{trace_id(order):032x}-{root_of(order):016x}-01"
        await deliver(client, kitchen, order, unique)
        spans = await exported(client, collector, order, *CHAIN)
        drawn = (await client.get(f"/traces/{order}"))["spans"]
    assert_one_tree(spans, order)
    assert Counter(span.name for span in spans) == Counter([*CHAIN, *("process PickedUp", "process Delivered") * 2])
    by_id, named = {span.id: span for span in spans}, collector.named(order)
    parents = {name: by_id[named[name].parent].name if named[name].parent else "" for name in CHAIN}
    assert parents == CHAIN
    assert [span.links for span in spans if span.links] == [("/".join(SENDER),)], "the provider's trace is linked"
    assert named["order placed"].links
    ended = named["order ended"].attributes
    assert (ended["dabbawala.status"], ended["dabbawala.order"]) == ("DELIVERED", order)
    took_ns = named["order ended"].end_ns - named["order placed"].start_ns
    assert 0 <= int(ended["dabbawala.duration_ms"]) * 1_000_000 <= took_ns
    assert named["POST /prepare"].attributes["http.response.status_code"] == 200
    assert {span.service for span in spans} == {"dabbawala"}
    above = {span.id: span.parent for span in spans}
    differing = {span["name"] for span in drawn if above[span["id"]] != span.get("parent", "")}
    reported = {"process DriverAssigned", "process PickedUp", "process Delivered"}
    assert differing == reported, "the journal draws the same tree, without the steps of the driver"
    sent = b"".join(collector.bodies)
    assert not [secret for secret in (b"Asha", b"Mint Road", b"5550", b"callbacks") if secret in sent]


async def test_a_trace_survives_a_kill_of_the_worker(
    stack: Stack, hand_pos: HandPos, collector: Collector, unique: str
) -> None:
    kitchen, order = kitchen_of(hand_pos, 2), order_id(unique)
    hand_pos.answers[kitchen.restaurant] = (503, {})
    async with Client(stack) as client:
        await client.place(an_order(kitchen, unique))
        await exported(client, collector, order, "POST /v1/orders", "POST /prepare")
    stack.workers[1].kill()
    hand_pos.answers[kitchen.restaurant] = RECEIVED
    stack.start_worker()
    async with Client(stack) as client:
        await exported(client, collector, order, "POST /prepare")
        assert (await client.ticket(kitchen, order, "accepted")).status_code == 200
        await deliver(client, kitchen, order, unique)
        spans = await exported(client, collector, order, "order ended", "process TicketAccepted")
    assert_one_tree(spans, order)
    attempts = [span for span in spans if span.name == "POST /prepare"]
    failed = [span for span in attempts if span.attributes.get("error.type") == "503"]
    assert failed
    resends = [span.attributes.get("http.request.resend_count", 0) for span in attempts]
    assert sorted(resends) == list(range(len(attempts))), "each attempt is one span, also of the second worker"


async def test_orders_do_not_notice_a_lost_collector(
    kafka: str, hand_pos: HandPos, tmp_path: Path, unique: str
) -> None:
    [nobody] = ports_of_its_own(1, after=10)
    away = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
    directory = tmp_path / unique
    with traced(kafka, hand_pos, directory, f"http://127.0.0.1:{nobody}", **away) as stack:
        kitchen, order = kitchen_of(hand_pos, 3), order_id(unique)
        async with Client(stack) as client:
            await client.place(an_order(kitchen, unique))
            await deliver(client, kitchen, order, unique)

            async def dropped() -> bool:
                return await client.counter("spans_dropped") >= 8

            await client.until(dropped, "the spans that no collector takes are counted")
        stack.workers[1].stop()
        log = stack.workers[1].log.read_text()
    assert stack.workers[1].status == 0
    assert "has not stopped in time" not in log
    assert log.count("collector takes no spans") == 1
    assert "Traceback" not in log
