"""State that is restored is the state that was, byte for byte: the hashes, the disk and the changelogs say the same."""

import asyncio
import json
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from streams.engine.runtime import LEAVE_SIGNAL
from tests.changelogs import folded, hash_of, on_disk
from tests.flow.client import Body, Client, Driver, an_order, order_id
from tests.flow.conftest import INSTANT, RULES
from tests.flow.hand_pos import RECEIVED, HandPos
from tests.flow.kills import at_work, ended
from tests.flow.reading import PARTITIONS, Following
from tests.stack import Stack, installed
from topics.families import ORDER_UPDATES, PAYMENTS
from topics.restaurants import Restaurant

pytestmark = pytest.mark.timeout(400)

EACH = 5
"""Orders in each state."""
WITHIN_S = 90.0
SLOW = 0.01
"""All waits take a hundred times as long: none is over while hashes are compared."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A worker, and nobody who does anything by himself once all orders are where they are to stay."""
    name, directory = f"recovery-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("recovery")
    with installed(kafka, name, directory, SLOW, hand_pos.kitchens(4)) as stack:
        stack.start_payment(*INSTANT, *RULES["payment"])
        stack.start_pos(*INSTANT, *RULES["pos"])
        stack.start_worker()
        yield stack


@pytest.fixture(scope="module")
def hashes(stack: Stack, hand_pos: HandPos, tiffin: Restaurant) -> list[str]:
    """Of each partition, with orders in every state; the worker runs."""

    async def filled() -> list[str]:
        async with Client(stack) as client:
            await fill(client, hand_pos, tiffin)
            return await settled(client)

    return asyncio.run(filled())


async def fill(client: Client, hand_pos: HandPos, tiffin: Restaurant) -> None:
    """Orders in every state, drivers, timers, dead letters."""
    cooks, waits, picks, brings = hand_pos.kitchens(4)
    hand_pos.answers[cooks.restaurant] = RECEIVED
    later = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    drivers = client.stack.start_drivers(4, *INSTANT)
    await all_reach(client, "DELIVERED", tiffin, "delivered")
    drivers.stop()
    sold_out = [{"id": "1", "name": "Thali", "quantity": 1, "unit_price": 200_00, "pos_code": "SOLD-OUT"}]
    await all_reach(client, "REJECTED", tiffin, "refused", items=sold_out, fees=[])
    tip = {"tip": 13, "total": 200_13}
    await all_reach(client, "REJECTED", tiffin, "declined", **tip)
    await all_reach(client, "SCHEDULED", waits, "later", deliver_at=later)
    await all_reach(client, "SCHEDULED", cooks, "asked")
    await all_reach(client, "IN_PREPARATION", waits, "cooking")
    for kitchen, status in ((waits, "SCHEDULING_DELIVERY"), (picks, "WAITING_FOR_DRIVER"), (brings, "IN_DELIVERY")):
        for number in range(EACH):
            await go_on(client, kitchen, f"{status.lower()}-{number}", status)
    for number in range(EACH):
        order = order_id(f"unknown-{number}")
        charged = {"type": "Charged", "order": order, "charge_id": "c", "amount": 1, "currency": "INR"}
        await client.produce(PAYMENTS, charged, key=order)
        await client.produce(PAYMENTS, b"\x00\xff", key=order)


async def all_reach(client: Client, status: str, kitchen: Restaurant, name: str, /, **changes: object) -> None:
    """Some orders of a sort."""
    names = [f"{name}-{number}" for number in range(EACH)]
    answers = await asyncio.gather(*(client.place(an_order(kitchen, each, **changes)) for each in names))
    assert {answer.status_code for answer in answers} == {201}, answers[0].text
    for each in names:
        await client.reaches(order_id(each), status)


async def go_on(client: Client, kitchen: Restaurant, name: str, status: str) -> None:
    """One that is ready; with a driver of its own, who has picked it up, as far as its status wants that."""
    driver, order = Driver(client, name.replace("_", "-")), order_id(name)
    if status != "SCHEDULING_DELIVERY":
        await driver.available(kitchen.region, kitchen.position)
    assert (await client.place(an_order(kitchen, name))).status_code == 201
    await client.reaches(order, "IN_PREPARATION")
    assert (await client.ticket(kitchen, order, "finished")).status_code == 200
    if status == "IN_DELIVERY":
        await driver.has(order)
        assert (await driver.tell("pickup", {"delivery": order})).status_code == 200
    await client.reaches(order, status)


async def told(client: Client) -> list[str] | None:
    """The hash of each partition, by the command; None where one is not open."""
    status, said, _ = await asyncio.to_thread(
        client.stack.faust, "tasks", "--hash", "--json", DABBAWALA_URL=client.stack.url_of(client.number)
    )
    tasks: list[Body] = json.loads(said)["tasks"] if said else []
    return [task["hash"] for task in tasks] if status == 0 else None


async def settled(client: Client) -> list[str]:
    """The hashes when they stay as they are: nobody does anything any more."""
    seen: list[list[str] | None] = [None]

    async def same() -> bool:
        seen.append(await told(client))
        return seen[-1] is not None and seen[-1] == seen[-2]

    await client.until(same, "nothing changes any more", WITHIN_S)
    found = seen[-1]
    assert found is not None
    assert len(found) == PARTITIONS
    return found


def worker_directory(stack: Stack, number: int = 1) -> Path:
    return stack.directory / f"worker-{number}"


def wipe(stack: Stack, number: int = 1) -> None:
    (store,) = worker_directory(stack, number).glob("**/tasks")
    shutil.rmtree(store)


def warnings(stack: Stack) -> list[str]:
    """What the first worker's log says of local state that it did not believe."""
    lines = stack.workers[1].log.read_text(errors="replace").splitlines()
    return [line for line in lines if "its local state is not its changelogs'" in line]


async def test_hash_disk_and_changelogs_say_the_same_of_every_partition(stack: Stack, hashes: list[str]) -> None:
    stack.workers[1].stop()
    changelogs = await folded(stack.kafka, stack.name, PARTITIONS)
    disk, _ = on_disk(worker_directory(stack), PARTITIONS)
    stack.start_worker()
    assert disk == changelogs
    assert [hash_of(tables) for tables in disk] == hashes
    states = {json.loads(row)["stage"] for tables in disk for row in tables["orders"].values()}
    assert len(states) >= 8, states
    assert {"timers", "journal", "bodies", "dead_letters", "dispatch", "drivers"} <= set().union(*disk)


async def test_a_wiped_disk_is_restored_to_the_same_hashes(stack: Stack, hashes: list[str]) -> None:
    stack.workers[1].stop()
    wipe(stack)
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == hashes


async def test_partitions_that_move_have_the_same_hashes_at_their_new_owner(stack: Stack, hashes: list[str]) -> None:
    stack.start_worker(2)
    stack.workers[1].send(LEAVE_SIGNAL)
    async with Client(stack, 2) as client:
        assert await settled(client) == hashes
    stack.workers[2].send(LEAVE_SIGNAL)
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == hashes


def put_a_row(stores: Path) -> None:
    """By hand, into one partition."""
    options = Options(raw_mode=True)
    path = str(stores / "0")
    families = [family for family in Rdict.list_cf(path, options) if family != "default"]
    db = Rdict(path, options=options, column_families=dict.fromkeys(families, options))
    db.get_column_family("orders").put(b"my-shop:forged", b"{}")
    db.close()


def damage(stores: Path) -> None:
    """A byte in the middle of the largest file of rows of every partition."""
    for number in range(PARTITIONS):
        file = max((stores / str(number)).glob("*.sst"), key=lambda each: each.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)


def exchange(stores: Path) -> None:
    """Two partitions take each other's place."""
    (stores / "0").rename(stores / "other")
    (stores / "1").rename(stores / "0")
    (stores / "other").rename(stores / "1")


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (put_a_row, "somebody else has written to it"),
        (damage, "damaged: Corruption"),
        (exchange, "followed in partition"),
    ],
)
async def test_a_disk_that_is_not_as_we_left_it_is_noticed_and_restored(
    stack: Stack, hashes: list[str], happens: Callable[[Path], None], said: str
) -> None:
    stack.workers[1].stop()
    (stores,) = worker_directory(stack).glob("**/tasks")
    happens(stores)
    before = len(warnings(stack))
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == hashes
    assert any(said in warning for warning in warnings(stack)[before:]), warnings(stack)


async def test_the_disk_of_another_installation_is_noticed_and_restored(
    kafka: str, stack: Stack, hashes: list[str], unique: str, tmp_path: Path
) -> None:
    stack.workers[1].stop()
    (stores,) = worker_directory(stack).glob("**/tasks")
    with installed(kafka, unique, tmp_path, SLOW) as other:
        other.start_worker()
        other.workers[1].stop()
        (others,) = worker_directory(other).glob("**/tasks")
        shutil.rmtree(others)
        shutil.copytree(stores, others)
        other.start_worker()
        assert "the topic has been created anew" in warnings(other)[0]
        other.workers[1].stop()
        disk, _ = on_disk(worker_directory(other), PARTITIONS)
        assert disk == await folded(kafka, unique, PARTITIONS)
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == hashes


async def test_an_earlier_copy_of_the_disk_is_brought_up_to_date(
    stack: Stack, hashes: list[str], tmp_path: Path
) -> None:
    stack.workers[1].stop()
    (stores,) = worker_directory(stack).glob("**/tasks")
    shutil.copytree(stores, tmp_path / "earlier")
    stack.start_worker()
    async with Client(stack) as client:
        for number in range(EACH):
            letter = (await client.get("/v1/dead-letters", limit=1))["dead_letters"][0]["letter"]
            assert (await client.post(f"/v1/dead-letters/{letter}/discard")).status_code == 200, number
        newer = await settled(client)
        assert newer != hashes
    stack.workers[1].stop()
    shutil.rmtree(stores)
    shutil.copytree(tmp_path / "earlier", stores)
    before = len(warnings(stack))
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == newer
    assert len(warnings(stack)) == before, "it was read on, not made anew"


@pytest.mark.parametrize("failpoint", ["committed", "stored"])
async def test_what_a_kill_leaves_on_disk_is_what_the_changelogs_were_up_to_there(
    kafka: str, tmp_path: Path, failpoint: str
) -> None:
    """Rows and progress of all tables are one write: each table is at an offset, and has what is before it."""
    with at_work(kafka, tmp_path) as stack:
        stack.workers[1].stop()
        async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
            doomed = stack.start_worker(DABBAWALA_FAILPOINTS=f"{failpoint}:kill:50", wait=False)
            stack.place("killed", 30, rate=20)
            await feed.until(lambda: doomed.status is not None, "it is killed", WITHIN_S)
            assert doomed.status == -signal.SIGKILL
            disk, reached = on_disk(worker_directory(stack), PARTITIONS)
            assert sum(len(rows) for tables in disk for rows in tables.values()) > 20
            assert disk == await folded(kafka, stack.name, PARTITIONS, dict(enumerate(reached)))
            stack.start_worker()
            await ended(stack, feed, "killed", 30)
        for simulator in stack.simulators.values():
            simulator.stop()
        async with Client(stack) as client:
            hashes = await settled(client)
        stack.workers[1].stop()
        changelogs = await folded(kafka, stack.name, PARTITIONS)
        assert (await asyncio.to_thread(partial(on_disk, worker_directory(stack), PARTITIONS)))[0] == changelogs
        assert [hash_of(tables) for tables in changelogs] == hashes
