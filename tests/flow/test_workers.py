"""Two workers of one installation share the partitions, and either answers every request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from tests.flow.client import Client, Driver, an_order, order_id, partition_of
from tests.flow.conftest import KITCHENS
from tests.flow.hand_pos import HandPos
from tests.flow.reading import PARTITIONS
from tests.flow.two_workers import one_of, one_of_each, two_workers
from tests.support.keys import HEADERS
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.stack import Stack
from topics.identity import external_id_of
from topics.restaurants import Restaurant

ATTEMPTS = 5
"""Attempts to get two answers before the next long poll ends, which is rarely in time on a busy machine."""
POLLS = 130
"""Number of long polls: more than the hundred connections that HTTP clients usually allow."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run two workers in one directory, and all outside parties."""
    with two_workers(kafka, tmp_path_factory.mktemp("workers"), hand_pos.kitchens(KITCHENS)) as stack:
        yield stack


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """Return a client of each worker."""
    async with one_of_each(stack) as clients:
        yield clients


async def test_a_second_worker_has_its_own_slot_port_and_address(
    clients: tuple[Client, Client],
) -> None:
    stack = clients[0].stack
    assert sorted(home.name for home in stack.directory.glob("worker-?")) == ["worker-1", "worker-2"]
    assert stack.url_of(1) != stack.url_of(2)
    ids = {(stack.directory / f"worker-{number}" / "instance-id").read_text() for number in (1, 2)}
    assert len(ids) == 2


async def test_an_order_placed_at_either_worker_reaches_its_owner(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    for owner, other in (clients, clients[::-1]):
        name = await one_of(owner, unique)
        first = await other.place(an_order(tiffin, name))
        again = await owner.place(an_order(tiffin, name))
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert first.headers["location"] == f"/v1/orders/{order_id(name)}"
        assert first.headers["content-type"] == "application/json"
        wrong = await other.place(an_order(tiffin, name, tip=1))
        assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
        keyed = {"Idempotency-Key": name}
        body = an_order(tiffin, name, external_id=None)
        assert [(await client.place(body, **keyed)).status_code for client in (other, owner, other)] == [201, 200, 200]
        await other.reaches(order_id(name), "DELIVERED")
        assert await owner.journal(order_id(name)) == await other.journal(order_id(name))


async def test_a_key_counts_at_any_worker(clients: tuple[Client, Client], tiffin: Restaurant, unique: str) -> None:
    """The worker that owns the key and the one that owns the order may be two, and the request may reach either."""
    for number, (owner, other) in enumerate((clients, clients[::-1])):
        name = await one_of(owner, f"{unique}-{number}")
        second = await one_of(other, f"{unique}-second-{number}")
        for key_owner in clients:
            key = await key_of(key_owner, f"{name}-{key_owner.number}")
            keyed = {"Idempotency-Key": key}
            answers = [await each.place(an_order(tiffin, name), **keyed) for each in (other, owner)]
            assert {answer.status_code for answer in answers} <= {200, 201}
            for each in clients:
                refused = await each.place(an_order(tiffin, second), **keyed)
                assert refused.status_code == 422
                assert order_id(name) in refused.json()["detail"]
        await other.reaches(order_id(name), "DELIVERED")


async def key_of(owner: Client, unique: str) -> str:
    """Return an idempotency key that this worker remembers."""
    share = (await owner.get("/readyz"))["partitions"]
    keys = (f"{unique}-{n}" for n in range(1000))
    return next(key for key in keys if partition_of(order_id(external_id_of(key.encode()))) in share)


async def test_either_worker_forwards_callbacks_and_drivers(
    clients: tuple[Client, Client], new_kitchen: Callable[[], Restaurant], unique: str
) -> None:
    for owner, other in (clients, clients[::-1]):
        kitchen, name = new_kitchen(), await one_of(owner, unique)
        order, driver = order_id(name), Driver(other, f"{name}-driver")
        await owner.place(an_order(kitchen, name))
        await other.reaches(order, "IN_PREPARATION")
        assert (await other.charged(order, "ch-none", 1)).status_code == 200, "a report that no answer shows"
        assert (await other.ticket(kitchen, order, "finished")).status_code == 200
        await driver.available(kitchen.region, kitchen.position)
        await driver.has(order)
        for what in ("pickup", "delivered"):
            assert (await driver.tell(what, {"delivery": order})).status_code == 200
        await owner.reaches(order, "DELIVERED")


async def test_many_forwarded_long_polls_block_nobody(
    clients: tuple[Client, Client], kitchen: Restaurant, tiffin: Restaurant, unique: str
) -> None:
    owner, other = clients
    drivers = [Driver(owner, await one_of(owner, f"{unique}-{n}", order=False)) for n in range(POLLS)]
    await asyncio.gather(*(driver.available(kitchen.region, kitchen.position) for driver in drivers))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=other.http.base_url, headers=HEADERS, limits=limits, timeout=60, verify=NO_CERTIFICATES
    ) as polling:
        ended = 0

        async def keep_polling(driver: Driver) -> None:
            nonlocal ended
            while True:
                await polling.get(f"/v1/drivers/{driver.name}/delivery", params={"wait": 30})
                ended += 1

        polls = [asyncio.create_task(keep_polling(driver)) for driver in drivers]
        try:
            for attempt in range(ATTEMPTS):
                before = ended
                last = await Driver(other, drivers[-1].name).poll(0.1)
                answer = await other.place(an_order(tiffin, await one_of(owner, f"{unique}-{attempt}")))
                assert (last.status_code, answer.status_code) == (204, 201)
                if ended == before:
                    break
            assert ended == before, "both requests are answered while every long poll is open"
        finally:
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)


async def test_either_worker_lists_everything(clients: tuple[Client, Client], tiffin: Restaurant, unique: str) -> None:
    names = [await one_of(client, unique) for client in clients]
    for name in names:
        await clients[0].place(an_order(tiffin, name))
        await clients[1].reaches(order_id(name), "DELIVERED")
    for client in clients:
        listed = {row["id"] for row in (await client.get("/v1/orders", limit=1000))["orders"]}
        assert {order_id(name) for name in names} <= listed
        assert {order_id(name) for name in names} <= (await client.rows("orders")).keys()
    status, printed, error = clients[0].stack.faust("--json", "table", "orders")
    assert status == 0, error
    assert all(order_id(name) in printed for name in names)


async def test_the_other_worker_takes_over_after_a_kill(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    """Runs last in this file: it leaves one worker."""
    survivor, killed = clients
    name = await one_of(killed, unique)
    await survivor.place(an_order(tiffin, name))
    before = await survivor.reaches(order_id(name), "DELIVERED")
    journal = await survivor.journal(order_id(name))
    killed.stack.workers[2].kill()

    async def owns_all() -> bool:
        answer = await survivor.http.get("/readyz")
        return answer.status_code == 200 and answer.json()["partitions"] == list(range(PARTITIONS))

    await survivor.until(owns_all, "the other worker has all partitions")
    assert await survivor.order(order_id(name)) == before
    assert await survivor.journal(order_id(name)) == journal
    assert (await survivor.place(an_order(tiffin, f"{name}-after"))).status_code == 201
    await survivor.reaches(order_id(f"{name}-after"), "DELIVERED")
