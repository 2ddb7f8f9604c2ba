"""Partitions that move between workers under requests: the owner answers, or the client is asked to retry.

Workers stop with requests under way, and leave the group on a signal, a command or a setting. Session and stop are
limited to ten minutes here (`patient_app`), and every wait to two: no move has waited for a session to end, and no
worker was cut off at the limit.
"""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from exactly_once import LEAVE_SIGNAL
from streams.demo.processes import Child
from tests.flow.client import Client, Driver, an_order, order_id, partition_of
from tests.flow.conftest import INSTANT
from tests.flow.reading import PARTITIONS, WITHIN_S
from tests.support.keys import HEADERS
from tests.support.stack import WORKERS, Stack, installed, ports_of_its_own
from topics.places import Position
from topics.restaurants import Restaurant

APP = "tests.support.patient_app"
INDIAN_OCEAN = Position(lat=0.0, lon=80.0)


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker and all outside parties."""
    with installed(kafka, f"moves-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("moves"), 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker(app=APP)
        stack.environment["DABBAWALA_PUBLIC_URL"] = stack.url  # callbacks go to the first worker, which stays
        stack.start_drivers(12, *INSTANT)
        yield stack


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """Return a client of each of two workers that have half of the partitions each."""
    for number in (1, 2):
        if number not in stack.workers or stack.workers[number].status is not None:
            stack.start_worker(number, app=APP)
    async with Client(stack, 1) as first, Client(stack, 2) as second:

        async def both() -> bool:
            return [len(await owned(client)) for client in (first, second)] == [PARTITIONS // 2] * 2

        await first.until(both, "each worker has half of the partitions")
        yield first, second


async def owned(client: Client) -> list[int]:
    """Return the partitions open in the client's worker; none if it is down or not ready."""
    try:
        answer = await client.http.get("/readyz")
    except httpx.TransportError:
        return []
    return list(answer.json()["partitions"]) if answer.status_code == 200 else []


async def has_all(client: Client) -> bool:
    """Return whether the client's worker has all partitions open."""
    return await owned(client) == list(range(PARTITIONS))


def names(share: list[int], unique: str) -> Iterator[str]:
    """Yield external ids whose orders are in these partitions."""
    return (name for name in (f"{unique}-{n}" for n in range(100_000)) if partition_of(order_id(name)) in share)


async def ask(client: Client, order: str) -> httpx.Response:
    """GET an order; the status may be an error."""
    return await client.http.get(f"/v1/orders/{order}")


async def stopped(worker: Child) -> int | None:
    """Stop a worker, and return its exit status: that of SIGKILL unless it ends within `WITHIN_S`."""
    await asyncio.to_thread(worker.stop, WITHIN_S)
    return worker.status


async def test_during_a_move_the_owner_answers_or_the_client_retries(
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
            with contextlib.suppress(httpx.TransportError):  # the worker that leaves closes its port
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
    await stays.until(lambda: has_all(stays), "one worker has all partitions")
    for name in placed:
        assert (await ask(stays, order_id(name))).status_code == 200
    stays.stack.start_worker(2, app=APP)

    async def shared() -> bool:
        return len(await owned(stays)) == len(await owned(leaves)) == PARTITIONS // 2

    await stays.until(shared, "two workers share the partitions again")
    for name in placed:
        for client in clients:
            assert (await ask(client, order_id(name))).status_code == 200, "either worker answers right after the move"
    moving = False
    await asyncio.gather(*asking)
    assert {name for name, status in seen if status == 200} == set(placed)


async def test_orders_placed_during_a_move_are_accepted_once(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    stays, _ = clients
    placed: list[str] = []

    async def keep_placing(client: Client, number: int) -> None:
        for n in range(25):
            name = f"{unique}-{number}-{n}"
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.http.post("/v1/orders", json=an_order(tiffin, name))
                    assert answer.status_code in (200, 201, 202, 503), answer.text
                    if answer.status_code != 503:
                        break
                client = stays
                await asyncio.sleep(0.1)
            placed.append(name)
            await asyncio.sleep(0.02)

    placing = asyncio.gather(*(keep_placing(client, number) for number, client in enumerate(clients)))
    await stays.until(lambda: _more_than(placed, 5), "some orders are placed")
    stays.stack.workers[2].send(LEAVE_SIGNAL)
    await placing
    for name in placed:
        await stays.reaches(order_id(name), "DELIVERED")
        entries = await stays.journal(order_id(name))
        assert [entry["event"] for entry in entries if "outcome" not in entry].count("OrderPlaced") == 1
        assert len([entry for entry in stays.payments(order_id(name)) if not entry.replay]) == 1


async def _more_than(placed: list[str], count: int) -> bool:
    return len(placed) > count


async def test_sigterm_ends_a_worker_with_open_connections(clients: tuple[Client, Client], unique: str) -> None:
    """Stop with a long poll of a driver that it owns, a forwarded long poll, half a request and an idle connection.

    Both long polls are cut: they are not answered at their end, after 30 s.
    """
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
            f"POST /v1/orders HTTP/1.1\r\nHost: {address.netloc}\r\n".encode()
            + "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode()
            + b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        await asyncio.sleep(0.2)  # lets the polls begin, which is not visible from outside
        assert not any(poll.done() for poll in polls)
        assert await stopped(first.stack.workers[1]) == 0
    answers = await asyncio.gather(*polls, return_exceptions=True)
    for answer in answers:
        assert isinstance(answer, httpx.TransportError) or (
            isinstance(answer, httpx.Response) and answer.status_code == 503
        )


async def test_a_worker_that_still_starts_stops_with_status_0(clients: tuple[Client, Client]) -> None:
    stack = clients[0].stack
    stack.workers[2].stop()
    for line in ("Starting worker-", "changelog records restored"):
        before = _count(stack, line)
        worker = stack.start_worker(2, app=APP, wait=False)
        await clients[0].until(lambda: _is_logged_again(stack, line, before), line)  # noqa: B023
        assert await stopped(worker) == 0


def _count(stack: Stack, text: str) -> int:
    """Count a text in the second worker's log."""
    return stack.workers[2].log.read_text(errors="replace").count(text)


async def _is_logged_again(stack: Stack, text: str, before: int) -> bool:
    return _count(stack, text) > before


async def test_a_worker_restarted_on_another_port_is_found(
    clients: tuple[Client, Client], tiffin: Restaurant, unique: str
) -> None:
    first, second = clients
    stack, before = first.stack, first.stack.url_of(2)
    name = next(names(await owned(second), unique))
    stack.workers[2].kill()
    with socket.create_server(("127.0.0.1", urlsplit(before).port or 0)):
        (other,) = ports_of_its_own(1, after=WORKERS)
        stack.start_worker(2, app=APP, port=str(other))
        assert stack.url_of(2) != before

        async def placed() -> bool:
            return (await first.place(an_order(tiffin, name))).status_code in (200, 201)

        await first.until(placed, "the first worker forwards the order to the second")
    stack.workers[2].stop()


async def test_the_leave_command_works_for_running_and_dead_workers(
    clients: tuple[Client, Client],
) -> None:
    stack, first = clients[0].stack, clients[0]
    status, _, error = stack.faust("leave")
    assert (status, error) == (2, "Several workers run. Give the number of one: 1, 2.\n")
    status, printed, error = stack.faust("leave", "2")
    assert (status, printed) == (0, "worker-2 has stopped and left the group.\n"), error
    await first.until(lambda: has_all(first), "the other worker takes over")
    assert await stopped(stack.workers[2]) == 0
    stack.start_worker(2, app=APP)
    stack.workers[2].kill()
    status, printed, error = stack.faust("leave", "2")
    assert (status, printed) == (0, "worker-2 does not run; it has left the group.\n"), error
    await first.until(lambda: has_all(first), "the other worker takes over")
    assert stack.faust("leave", "2")[1] == "worker-2 does not run, and is not in the group.\n"
    status, _, error = stack.faust("leave", "7")
    assert (status, error) == (2, f"There is no {stack.directory}/worker-7: no worker with this number has run here.\n")


async def test_leave_on_stop_makes_every_stop_leave_the_group(clients: tuple[Client, Client]) -> None:
    stack, first = clients[0].stack, clients[0]
    assert await stopped(stack.workers[2]) == 0
    stack.start_worker(2, app=APP, DABBAWALA_LEAVE_ON_STOP="1")
    assert await stopped(stack.workers[2]) == 0
    await first.until(lambda: has_all(first), "the other worker takes over")
