"""Partitions that move from a worker to another while somebody asks: each request reaches the owner, or is told to come
again. Workers stop in time whatever is under way, and leave when they are told to."""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from streams.embedded.processes import Child
from streams.engine.runtime import LEAVE_SIGNAL
from tests.flow.client import Client, Driver, an_order, order_id, partition_of
from tests.flow.conftest import INSTANT
from tests.flow.reading import PARTITIONS
from tests.stack import WORKERS, Stack, installed, ports_of_its_own
from topics.places import Position
from topics.restaurants import Restaurant

pytestmark = pytest.mark.timeout(240)
INDIAN_OCEAN = Position(lat=0.0, lon=80.0)
STOPS_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everybody outside, and no worker yet."""
    with installed(kafka, f"moves-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("moves"), 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        stack.environment["DABBAWALA_PUBLIC_URL"] = stack.url  # where parties outside call back outlives the second
        stack.start_drivers(12, *INSTANT)
        yield stack


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """One of each of two workers, of which each has a half."""
    for number in (1, 2):
        if number not in stack.workers or stack.workers[number].status is not None:
            stack.start_worker(number)
    async with Client(stack, 1) as first, Client(stack, 2) as second:

        async def both() -> bool:
            return [len(await owned(client)) for client in (first, second)] == [PARTITIONS // 2] * 2

        await first.until(both, "each has a half of the partitions", 60)
        yield first, second


async def owned(client: Client) -> list[int]:
    """The partitions open in the client's worker; none if it is not there or not ready."""
    try:
        answer = await client.http.get("/readyz")
    except httpx.TransportError:
        return []
    return list(answer.json()["partitions"]) if answer.status_code == 200 else []


async def has_all(client: Client) -> bool:
    return await owned(client) == list(range(PARTITIONS))


def names(share: list[int], unique: str) -> Iterator[str]:
    """External ids whose orders are in these partitions."""
    return (name for name in (f"{unique}-{n}" for n in range(100_000)) if partition_of(order_id(name)) in share)


async def ask(client: Client, order: str) -> httpx.Response:
    return await client.http.get(f"/v1/orders/{order}")


def stopped(worker: Child) -> float:
    """Ask it to end; the seconds that took."""
    began = time.monotonic()
    worker.stop(15)
    return time.monotonic() - began


async def test_around_a_move_every_request_is_answered_by_the_owner_or_told_to_come_again(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    stays, leaves = clients
    placed = [next(names([partition], unique)) for partition in range(PARTITIONS)]
    for name in placed:
        assert (await stays.place(an_order(tiffin, name))).status_code == 201
        await leaves.reaches(order_id(name), "DELIVERED")
    seen: list[tuple[str, int]] = []
    moving = True

    async def keep_asking(client: Client, name: str) -> None:
        while moving:
            with contextlib.suppress(httpx.TransportError):  # the worker that leaves stops listening
                answer = await ask(client, order_id(name))
                seen.append((name, answer.status_code))
                assert answer.status_code in (200, 503), answer.text
                if answer.status_code == 503:
                    assert answer.headers["retry-after"] == "1"
                    assert answer.headers["content-type"] == "application/problem+json"
                else:
                    assert answer.json()["status"] == "DELIVERED"
            await asyncio.sleep(0.02)

    asking = [asyncio.create_task(keep_asking(client, name)) for client in clients for name in placed]
    stays.stack.workers[2].send(LEAVE_SIGNAL)
    await stays.until(lambda: has_all(stays), "one has it all, at once", 5)
    for name in placed:
        assert (await ask(stays, order_id(name))).status_code == 200
    stays.stack.start_worker(2)

    async def shared() -> bool:
        return len(await owned(stays)) == len(await owned(leaves)) == PARTITIONS // 2

    await stays.until(shared, "two share again", 30)
    for name in placed:
        for client in clients:
            assert (await ask(client, order_id(name))).status_code == 200, "right after the move, at either worker"
    moving = False
    await asyncio.gather(*asking)
    assert {name for name, status in seen if status == 200} == set(placed)


async def test_orders_placed_while_partitions_move_are_taken_once(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    stays, _ = clients
    placed: list[str] = []

    async def keep_placing(client: Client, number: int) -> None:
        for n in range(25):
            name = f"{unique}-{number}-{n}"
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.place(an_order(tiffin, name))
                    assert answer.status_code in (200, 201, 202, 503), answer.text
                    if answer.status_code != 503:
                        break
                client = stays
                await asyncio.sleep(0.1)
            placed.append(name)
            await asyncio.sleep(0.02)

    placing = asyncio.gather(*(keep_placing(client, number) for number, client in enumerate(clients)))
    await stays.until(lambda: _more_than(placed, 5), "some are placed")
    stays.stack.workers[2].send(LEAVE_SIGNAL)
    await placing
    for name in placed:
        await stays.reaches(order_id(name), "DELIVERED")
        entries = await stays.journal(order_id(name))
        assert [entry["event"] for entry in entries if "outcome" not in entry].count("OrderPlaced") == 1
        assert len([entry for entry in stays.payments(order_id(name)) if not entry.replay]) == 1


async def _more_than(placed: list[str], count: int) -> bool:
    return len(placed) > count


async def test_sigterm_ends_a_worker_in_time_whoever_is_connected(clients: tuple[Client, Client], unique: str) -> None:
    """A long poll for a driver of its own, one that it has sent on to the other, half a request, and nothing at all."""
    first, second = clients
    mine, other = await owned(first), await owned(second)
    polls = []
    for share in (mine, other):
        name = next(f"{unique}-{n}" for n in range(1000) if partition_of(f"{unique}-{n}") in share)
        driver = Driver(first, name)
        await driver.available(f"nowhere-{unique}"[:30], INDIAN_OCEAN)
        polls.append(asyncio.create_task(driver.poll(30)))
    address = urlsplit(first.stack.url_of(1))
    half, idle = (socket.create_connection((address.hostname, address.port)) for _ in range(2))
    with half, idle:
        half.sendall(
            b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        await asyncio.sleep(0.2)  # for the polls to be under way: nobody can see that from outside
        assert not any(poll.done() for poll in polls)
        took_s = await asyncio.to_thread(stopped, first.stack.workers[1])
    assert first.stack.workers[1].status == 0
    assert took_s < STOPS_WITHIN_S
    answers = await asyncio.gather(*polls, return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, httpx.TransportError) or (
            isinstance(answer, httpx.Response) and answer.status_code == 503
        )
    assert "cut off" not in first.stack.workers[1].log.read_text(errors="replace")


async def test_a_worker_told_to_stop_while_it_starts_ends_with_0_in_time(clients: tuple[Client, Client]) -> None:
    stack = clients[0].stack
    stack.workers[2].stop()
    for said in ("Starting...", "TaskRecovery]: Starting"):
        before = _count(stack, said)
        worker = stack.start_worker(2, wait=False)
        await clients[0].until(lambda: _says_again(stack, said, before), said)  # noqa: B023
        took_s = await asyncio.to_thread(stopped, worker)
        assert (worker.status, took_s < STOPS_WITHIN_S) == (0, True)


def _count(stack: Stack, text: str) -> int:
    """How often the second worker's log has it."""
    return stack.workers[2].log.read_text(errors="replace").count(text)


async def _says_again(stack: Stack, text: str, before: int) -> bool:
    return _count(stack, text) > before


async def test_a_worker_that_comes_back_on_another_port_is_found_there(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    first, second = clients
    stack, before = first.stack, first.stack.url_of(2)
    name = next(names(await owned(second), unique))
    stack.workers[2].kill()
    with socket.create_server(("127.0.0.1", urlsplit(before).port or 0)):
        (other,) = ports_of_its_own(1, after=WORKERS)
        stack.start_worker(2, port=str(other))
        assert stack.url_of(2) != before

        async def taken() -> bool:
            return (await first.place(an_order(tiffin, name))).status_code in (200, 201)

        await first.until(taken, "the first worker finds the second at its new address", 15)
    stack.workers[2].stop()


async def test_the_command_has_a_worker_leave_or_tells_the_group_of_one_that_is_gone(
    clients: tuple[Client, Client],
) -> None:
    stack, first = clients[0].stack, clients[0]
    status, _, error = stack.faust("leave")
    assert (status, error) == (2, "Say which is to leave: 1, 2.\n")
    status, said, error = stack.faust("leave", "2")
    assert (status, said) == (0, "worker-2 has stopped and left the group.\n"), error
    await first.until(lambda: has_all(first), "the other takes over at once", 5)
    stack.workers[2].stop()
    assert stack.workers[2].status == 0
    stack.start_worker(2)
    stack.workers[2].kill()
    status, said, error = stack.faust("leave", "2")
    assert (status, said) == (0, "worker-2 does not run; it has left the group.\n"), error
    await first.until(lambda: has_all(first), "the other takes over before the session ends", 5)
    assert stack.faust("leave", "2")[1] == "worker-2 does not run, and is not in the group.\n"
    status, _, error = stack.faust("leave", "7")
    assert (status, error) == (2, f"There is no {stack.directory}/worker-7: no worker of that number has run here.\n")


async def test_with_the_setting_every_stop_is_for_good(clients: tuple[Client, Client]) -> None:
    stack, first = clients[0].stack, clients[0]
    stack.workers[2].stop()
    stack.start_worker(2, DABBAWALA_LEAVE_ON_STOP="1")
    stack.workers[2].stop()
    assert stack.workers[2].status == 0
    await first.until(lambda: has_all(first), "the other takes over at once", 5)
