"""Restored state equals the lost state byte for byte: hashes, disk and changelogs agree."""

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

from exactly_once import LEAVE_SIGNAL
from tests.flow.client import Body, Client, Driver, an_order, order_id
from tests.flow.conftest import INSTANT, RULES
from tests.flow.hand_pos import RECEIVED, HandPos
from tests.flow.reading import PARTITIONS, Following
from tests.support.changelogs import folded, hash_of, on_disk
from tests.support.stack import Stack, installed
from topics.families import ORDER_UPDATES, PAYMENTS
from topics.restaurants import Restaurant
from verification.kills.flow import at_work, ended

EACH = 5
"""Number of orders in each state."""
CUT_OFF = "the worker has not stopped in time"
"""Line in the log of a worker that exceeds the limit of its stop."""
SLOW = 0.01
"""Speed-up: all waits take a hundred times as long, so that no timer fires while hashes are compared."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker and parties that send nothing by themselves once all orders have their final state."""
    name, directory = f"recovery-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("recovery")
    with installed(kafka, name, directory, SLOW, hand_pos.kitchens(4)) as stack:
        stack.start_payment(*INSTANT, *RULES["payment"])
        stack.start_pos(*INSTANT, *RULES["pos"])
        stack.start_worker()
        yield stack


@pytest.fixture(scope="module")
def hashes(stack: Stack, hand_pos: HandPos, tiffin: Restaurant) -> list[str]:
    """Fill the tables with orders in every state, and return the hash of each partition."""

    async def filled() -> list[str]:
        async with Client(stack) as client:
            await fill(client, hand_pos, tiffin)
            return await settled(client)

    return asyncio.run(filled())


async def fill(client: Client, hand_pos: HandPos, tiffin: Restaurant) -> None:
    """Make orders in every state, drivers, timers and dead letters."""
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
            await advance(client, kitchen, f"{status.lower()}-{number}", status)
    for number in range(EACH):
        order = order_id(f"unknown-{number}")
        charged = {"type": "Charged", "order": order, "charge_id": "c", "amount": 1, "currency": "INR"}
        await client.produce(PAYMENTS, charged, key=order)
        await client.produce(PAYMENTS, b"\x00\xff", key=order)


async def all_reach(client: Client, status: str, kitchen: Restaurant, name: str, /, **changes: object) -> None:
    """Place `EACH` orders, and wait until each has this status."""
    names = [f"{name}-{number}" for number in range(EACH)]
    answers = await asyncio.gather(*(client.place(an_order(kitchen, each, **changes)) for each in names))
    assert {answer.status_code for answer in answers} == {201}, answers[0].text
    for each in names:
        await client.reaches(order_id(each), status)


async def advance(client: Client, kitchen: Restaurant, name: str, status: str) -> None:
    """Place an order and advance it to this status, with a driver for it if the status needs one."""
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


async def printed_hashes(client: Client) -> list[str] | None:
    """Return the hash of each partition as the command prints it; None unless all are open."""
    status, printed, _ = await asyncio.to_thread(
        client.stack.faust, "tasks", "--hash", "--json", DABBAWALA_URL=client.stack.url_of(client.number)
    )
    tasks: list[Body] = json.loads(printed)["tasks"] if printed else []
    return [task["hash"] for task in tasks] if status == 0 else None


async def settled(client: Client) -> list[str]:
    """Wait until two readings of the hashes are equal, and return them."""
    seen: list[list[str] | None] = [None]

    async def same() -> bool:
        seen.append(await printed_hashes(client))
        return seen[-1] is not None and seen[-1] == seen[-2]

    await client.until(same, "the hashes stay the same")
    found = seen[-1]
    assert found is not None
    assert len(found) == PARTITIONS
    return found


def worker_directory(stack: Stack, number: int = 1) -> Path:
    """Return the directory of a worker."""
    return stack.directory / f"worker-{number}"


def wipe(stack: Stack, number: int = 1) -> None:
    """Delete the stores of a worker."""
    (store,) = worker_directory(stack, number).glob("**/tasks")
    shutil.rmtree(store)


def warnings(stack: Stack) -> list[str]:
    """Return the first worker's warnings about local state that it did not trust."""
    lines = stack.workers[1].log.read_text(errors="replace").splitlines()
    return [line for line in lines if "its local state does not match its changelogs" in line]


async def test_hashes_disk_and_changelogs_agree(stack: Stack, hashes: list[str]) -> None:
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


def test_ordinary_stop_is_not_cut_off(stack: Stack) -> None:
    assert not all(_is_cut_off(stack) for _ in range(3)), "a busy machine may be too slow once"


def _is_cut_off(stack: Stack) -> bool:
    """Stop the worker and start it again; return whether its stop was cut off."""
    worker = stack.workers[1]
    before = worker.log.read_text(errors="replace").count(CUT_OFF)
    worker.stop()
    assert worker.status == 0
    after = worker.log.read_text(errors="replace").count(CUT_OFF)
    stack.start_worker()
    return after > before


async def test_moved_partitions_keep_their_hashes(stack: Stack, hashes: list[str]) -> None:
    stack.start_worker(2)
    stack.workers[1].send(LEAVE_SIGNAL)
    async with Client(stack, 2) as client:
        assert await settled(client) == hashes
    stack.workers[2].send(LEAVE_SIGNAL)
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == hashes


def put_a_row(stores: Path) -> None:
    """Write a row into the store of one partition, behind the worker's back."""
    options = Options(raw_mode=True)
    path = str(stores / "0")
    families = [family for family in Rdict.list_cf(path, options) if family != "default"]
    db = Rdict(path, options=options, column_families=dict.fromkeys(families, options))
    db.get_column_family("orders").put(b"my-shop:forged", b"{}")
    db.close()


def damage(stores: Path) -> None:
    """Change a byte in the middle of each partition's largest file of rows."""
    for number in range(PARTITIONS):
        file = max((stores / str(number)).glob("*.sst"), key=lambda each: each.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)


def exchange(stores: Path) -> None:
    """Exchange the stores of two partitions."""
    (stores / "0").rename(stores / "other")
    (stores / "1").rename(stores / "0")
    (stores / "other").rename(stores / "1")


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (put_a_row, "another process has written to it"),
        (damage, "damaged: Corruption"),
        (exchange, "the store is of partition"),
    ],
)
async def test_a_changed_disk_is_detected_and_restored(
    stack: Stack, hashes: list[str], change: Callable[[Path], None], warning: str
) -> None:
    stack.workers[1].stop()
    (stores,) = worker_directory(stack).glob("**/tasks")
    change(stores)
    before = len(warnings(stack))
    stack.start_worker()
    async with Client(stack) as client:
        assert await settled(client) == hashes
    assert any(warning in line for line in warnings(stack)[before:]), warnings(stack)


async def test_a_disk_of_another_installation_is_restored(
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
        assert "the topic was recreated" in warnings(other)[0]
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
    assert len(warnings(stack)) == before, "the store follows the changelogs from its checkpoint"


@pytest.mark.parametrize("failpoint", ["committed", "stored"])
async def test_after_a_kill_the_disk_matches_the_changelogs(kafka: str, tmp_path: Path, failpoint: str) -> None:
    """One write has the rows and checkpoints of all tables: each table equals its changelog up to its checkpoint."""
    with at_work(kafka, tmp_path) as stack:
        stack.workers[1].stop()
        async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
            doomed = stack.start_worker(DABBAWALA_FAILPOINTS=f"{failpoint}:kill:50", wait=False)
            stack.place("killed", 30, rate=20)
            await feed.until(lambda: doomed.status is not None, "the failpoint kills the worker")
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
