"""Orders for later that become due during an outage: the restaurant is asked as soon as the outage is over."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flow.client import Client, an_order, order_id, partition_of, place, room_for
from tests.flow.conftest import INSTANT
from tests.flow.hand_pos import HandPos
from tests.support.own_broker import own_broker
from tests.support.stack import Stack, installed
from topics.restaurants import Restaurant


class Later(NamedTuple):
    """A stack with orders for later."""

    stack: Stack
    hand_pos: HandPos
    kitchen: Restaurant
    wished: dict[str, datetime]
    """Order id -> time at which its restaurant is to be asked."""

    async def first_is_due(self) -> None:
        """Wait until the first order is due, by the clock."""
        order, moment = min(self.wished.items(), key=lambda item: item[1])
        await until(moment)
        assert not self.hand_pos.asked_for(order), "the restaurant cannot be asked during the outage"

    async def keep_their_time(self) -> None:
        """Check after the outage that the restaurant is asked once for each order, not early and not late.

        An order that is placed once both are due takes two transactions more until its restaurant is asked. So by then
        the restaurant must have been asked for the order that is due.
        """
        async with Client(self.stack) as client:
            for order, moment in self.wished.items():
                await until(moment)
                await place_and_cook(client, self.kitchen, order)
                (asked,) = self.hand_pos.asked_for(order)
                assert moment <= asked.at
                await client.reaches(order, "IN_PREPARATION")
                events = [entry["event"] for entry in await client.journal(order)]
                assert events.count("PreparationDue") == 1


async def until(moment: datetime) -> None:
    """Sleep until this time of the clock."""
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


async def place_and_cook(client: Client, kitchen: Restaurant, other: str) -> None:
    """Place an order in the partition of another order, and wait until its restaurant cooks."""
    names = (f"{other.partition(':')[2]}-then-{number}" for number in range(1000))
    name = next(each for each in names if partition_of(order_id(each)) == partition_of(other))

    async def placed() -> bool:
        return (await client.place(an_order(kitchen, name))).status_code in (200, 201, 202)

    await client.until(placed, "an order is placed")
    await client.reaches(order_id(name), "IN_PREPARATION")


async def place_for(client: Client, kitchen: Restaurant, name: str, wished: datetime) -> None:
    """Place an order without ride and preparation, so that the restaurant is asked at the wished time."""
    body = an_order(kitchen, name, deliver_at=wished.isoformat())
    body["customer"]["position"] = place(kitchen.position)
    assert (await client.place(body)).status_code == 201


@asynccontextmanager
async def waiting_for_later(kafka: str, directory: Path, hand_pos: HandPos, name: str) -> AsyncIterator[Later]:
    """Run a stack with two orders: one becomes due during the outage, the other some time later."""
    kitchen = hand_pos.kitchens(1)[0]
    with installed(kafka, name, directory, 1.0, [kitchen]) as stack:
        stack.start_payment(*INSTANT)
        stack.start_worker()
        async with Client(stack) as client:
            began = datetime.now(UTC)
            await place_for(client, kitchen, f"{name}-first", began + timedelta(hours=1))
            await client.reaches(order_id(f"{name}-first"), "SCHEDULED")
            later = Later(stack, hand_pos, kitchen, {})
            room = room_for(datetime.now(UTC) - began)
            for number, wished in enumerate((datetime.now(UTC) + room, datetime.now(UTC) + 2 * room)):
                await place_for(client, kitchen, f"{name}-{number}", wished)
                later.wished[order_id(f"{name}-{number}")] = wished
            for order in later.wished:
                await client.reaches(order, "SCHEDULED")
                assert list(await client.rows("timers", order)) == [f"{order}/start"]
        yield later


@pytest.mark.parametrize("disk", ["kept", "lost"])
async def test_an_order_due_while_the_worker_is_down_resumes(
    kafka: str, unique: str, tmp_path: Path, hand_pos: HandPos, disk: str
) -> None:
    async with waiting_for_later(kafka, tmp_path, hand_pos, unique) as later:
        later.stack.workers[1].kill()
        if disk == "lost":
            for store in later.stack.directory.glob("worker-1/**/tasks"):
                shutil.rmtree(store)
        await later.first_is_due()
        later.stack.start_worker()
        await later.keep_their_time()


async def test_an_order_due_while_everything_is_down_resumes(unique: str, tmp_path: Path, hand_pos: HandPos) -> None:
    with own_broker(tmp_path / "kafka") as broker:
        kafka = await asyncio.to_thread(broker.start)
        async with waiting_for_later(kafka, tmp_path / "stack", hand_pos, unique) as later:
            later.stack.workers[1].kill()
            await asyncio.to_thread(broker.kill)
            await later.first_is_due()
            assert await asyncio.to_thread(broker.start) == kafka
            later.stack.start_worker()
            await later.keep_their_time()


async def test_an_order_due_while_the_broker_is_down_resumes(unique: str, tmp_path: Path, hand_pos: HandPos) -> None:
    """The worker stays up: its timer fires, but the transaction cannot be committed."""
    with own_broker(tmp_path / "kafka") as broker:
        kafka = await asyncio.to_thread(broker.start)
        async with waiting_for_later(kafka, tmp_path / "stack", hand_pos, unique) as later:
            await asyncio.to_thread(broker.kill)
            await later.first_is_due()
            await asyncio.to_thread(broker.start)
            later.stack.workers[1].wait_until_ready()
            await later.keep_their_time()
