"""Kills of workers, restaurants and payment providers, at seeded moments and at failpoints."""

import shutil
import signal
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from streams.demo.processes import Child
from tests.flow.client import Client, an_order, order_id
from tests.flow.reading import Following
from tests.support.stack import Stack
from topics.families import ORDER_UPDATES
from topics.restaurants import Restaurant
from verification.kills.flow import DRIVERS, at_work, ended, kill_once, violations_of


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack at 600 times the speed: preparations and rides take seconds, waits less."""
    with at_work(kafka, tmp_path_factory.mktemp("kills")) as stack:
        yield stack


@pytest.fixture(scope="module")
def pair(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run the same stack with two workers."""
    with at_work(kafka, tmp_path_factory.mktemp("kills-of-two"), workers=2) as stack:
        yield stack


def ended_by_itself(worker: Child) -> bool:
    """Return whether a failpoint has ended the worker."""
    return worker.status is not None


@pytest.mark.parametrize("seed", [1])
async def test_a_killed_worker_loses_and_repeats_nothing(stack: Stack, seed: int) -> None:
    found = await kill_once(stack, 40, seed)
    assert not found.violations
    assert found.ends == {"DELIVERED": 40}


@pytest.mark.parametrize(("killed", "back"), [(1, True), (2, False)])
async def test_one_of_two_killed_workers_loses_and_repeats_nothing(pair: Stack, killed: int, back: bool) -> None:
    found = await kill_once(pair, 60, 10 * killed + back, killed, back)
    assert not found.violations
    assert found.ends == {"DELIVERED": 60}


async def test_a_kill_at_each_failpoint_loses_nothing(stack: Stack, unique: str) -> None:
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        stack.workers[1].stop()
        provider = None
        for failpoint in ("before_call:kill:9", "after_call:kill:9", "produced:kill:30", "committed:kill:30"):
            doomed = stack.start_worker(DABBAWALA_FAILPOINTS=failpoint, wait=False)
            provider = provider or stack.place(unique[-6:], 40, rate=20)
            await feed.until(partial(ended_by_itself, doomed), f"killed by {failpoint}")
            assert doomed.status == -signal.SIGKILL, failpoint
        stack.start_worker()
        await ended(stack, feed, unique[-6:], 40)
        assert not await violations_of(stack, unique[-6:])


async def test_a_restore_survives_a_kill_in_the_middle(stack: Stack, unique: str) -> None:
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        stack.place(unique[-6:], 10)
        await ended(stack, feed, unique[-6:], 10)
    rows = {table: stack.get(f"/table/{table}/", limit="10000")["rows"] for table in ("orders", "journal", "bodies")}
    stack.workers[1].kill()
    for store in stack.directory.glob("worker-1/**/tasks"):
        shutil.rmtree(store)
    doomed = stack.start_worker(DABBAWALA_FAILPOINTS="restoring:kill:2", wait=False)
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        await feed.until(partial(ended_by_itself, doomed), "killed during the restore")
    stack.start_worker()
    for table, before in rows.items():
        assert stack.get(f"/table/{table}/", limit="10000")["rows"] == before, table


async def test_a_worker_without_open_tasks_is_alive_and_not_ready(
    stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    async with Client(stack) as client:

        async def all_wait() -> bool:
            return sum("/driver/" in key for key in await client.rows("dispatch")) == DRIVERS

        await client.until(all_wait, "all drivers wait for work, each in a long poll")
    stack.workers[1].stop()
    assert stack.workers[1].status == 0, "the stop does not wait for the drivers' long polls"
    stack.start_worker(DABBAWALA_FAILPOINTS="opening:raise:1", wait=False)
    async with Client(stack) as client:

        async def alive() -> bool:
            try:
                return (await client.http.get("/livez")).status_code == 200
            except httpx.TransportError:
                return False

        await client.until(alive, "the worker answers")
        answers = [
            await client.http.get("/readyz"),
            await client.http.post("/v1/orders", json=an_order(tiffin, unique)),
            await client.http.get(f"/v1/orders/{order_id(unique)}"),
        ]
        assert [answer.status_code for answer in answers] == [503, 503, 503]
        assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
        assert all(answer.headers["retry-after"] == "1" for answer in answers)
    stack.workers[1].kill()
    stack.start_worker()


async def test_an_order_survives_kills_of_the_pos(stack: Stack, tiffin: Restaurant, unique: str) -> None:
    """The worker repeats the request until it is answered, and the POS resumes the ticket from its ledger."""
    async with Client(stack) as client:
        stack.simulators["pos"].kill()
        order = order_id(unique)
        await client.place(an_order(tiffin, unique))

        async def unanswered() -> bool:
            shown = await client.order(order)
            return shown is not None and shown["ticket"] == {"status": "ASKED"} and bool(shown["attention"])

        await client.until(unanswered, "the order waits for the restaurant and needs attention")
        stack.start_pos()

        async def cooking() -> bool:
            return any(entry.event == "accepted" for entry in client.tickets(order))

        await client.until(cooking, "the restaurant cooks")
        stack.simulators["pos"].kill()
        stack.start_pos()
        assert (await client.reaches(order, "DELIVERED"))["attention"] is None
        await client.noted(order, "finished")
        entries = client.tickets(order)
        assert {entry.key for entry in entries} == {f"{order}/prepare"}
        assert [entry.event for entry in entries].count("finished") == 1


async def test_a_payment_provider_outage_ends_in_one_charge(stack: Stack, tiffin: Restaurant, unique: str) -> None:
    async with Client(stack) as client:
        stack.simulators["payment"].kill()
        order = order_id(unique)
        assert (await client.place(an_order(tiffin, unique))).status_code == 201

        async def waits() -> bool:
            shown = await client.order(order) or {}
            return bool(shown.get("attention")) and shown["attention"]["waits_for"] == "the payment"

        await client.until(waits, "the payment needs attention")
        assert (await client.order(order) or {})["status"] == "CREATED"
        stack.start_payment()
        assert (await client.reaches(order, "DELIVERED"))["attention"] is None
        made = [entry for entry in client.payments(order) if not entry.replay]
        assert [(entry.key, entry.outcome) for entry in made] == [(f"{order}/charge", "charged")]
