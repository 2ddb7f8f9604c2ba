"""Orders for later keep their time, whatever is down when it comes: late by the downtime alone."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flow.client import Client, an_order, order_id, place
from tests.flow.conftest import INSTANT
from tests.flow.hand_pos import HandPos
from tests.own_broker import own_broker
from tests.stack import Stack, installed

pytestmark = pytest.mark.timeout(180)

AT_ONCE = timedelta(seconds=10)
"""From when it may to when it does; a tenth of a second, on a machine that has nothing else to do."""


class Later(NamedTuple):
    """A stack, and its orders: id -> when they are wished for."""

    stack: Stack
    hand_pos: HandPos
    wished: dict[str, datetime]

    async def first_is_due(self) -> None:
        """Wait until its time has come: it is the clock itself that is waited for."""
        order, moment = min(self.wished.items(), key=lambda item: item[1])
        await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))
        assert not self.hand_pos.asked_for(order), "nobody is there to ask"

    async def keep_their_time(self) -> None:
        """Everybody is back. Each restaurant is asked once, not before it is time, and as soon as we can."""
        back_at = datetime.now(UTC)
        async with Client(self.stack) as client:
            for order, moment in self.wished.items():
                await client.reaches(order, "IN_PREPARATION")
                (asked,) = self.hand_pos.asked_for(order)
                assert moment <= asked.at <= max(moment, back_at) + AT_ONCE
                events = [entry["event"] for entry in await client.journal(order)]
                assert events.count("StartDue") == 1


@asynccontextmanager
async def waiting_for_later(kafka: str, directory: Path, hand_pos: HandPos, name: str) -> AsyncIterator[Later]:
    """A stack with two orders: the time of one comes while nobody is there, that of the other a while after."""
    kitchen = hand_pos.kitchens(1)[0]
    with installed(kafka, name, directory, 1.0, [kitchen]) as stack:
        stack.start_payment(*INSTANT)
        stack.start_worker()
        later = Later(stack, hand_pos, {})
        async with Client(stack) as client:
            for number, seconds in enumerate((6, 14)):
                wished = datetime.now(UTC) + timedelta(seconds=seconds)
                body = an_order(kitchen, f"{name}-{number}", deliver_at=wished.isoformat())
                body["customer"]["position"] = place(kitchen.position)  # no way to go, no time to cook
                assert (await client.place(body)).status_code == 201
                later.wished[order_id(f"{name}-{number}")] = wished
            for order in later.wished:
                await client.reaches(order, "SCHEDULED")
                assert list(await client.rows("timers", order)) == [f"{order}/start"]
        yield later


@pytest.mark.parametrize("disk", ["kept", "lost"])
async def test_an_order_whose_time_comes_while_the_worker_is_down_goes_on_when_it_is_back(
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


async def test_an_order_whose_time_comes_while_everything_is_down_goes_on_when_it_is_back(
    unique: str, tmp_path: Path, hand_pos: HandPos
) -> None:
    with own_broker(tmp_path / "kafka") as broker:
        kafka = await asyncio.to_thread(broker.start)
        async with waiting_for_later(kafka, tmp_path / "stack", hand_pos, unique) as later:
            later.stack.workers[1].kill()
            await asyncio.to_thread(broker.kill)
            await later.first_is_due()
            assert await asyncio.to_thread(broker.start) == kafka
            later.stack.start_worker()
            await later.keep_their_time()


async def test_an_order_whose_time_comes_while_the_broker_is_down_goes_on_when_it_is_back(
    unique: str, tmp_path: Path, hand_pos: HandPos
) -> None:
    """The worker stays: its timer fires, and what it leads to cannot be committed."""
    with own_broker(tmp_path / "kafka") as broker:
        kafka = await asyncio.to_thread(broker.start)
        async with waiting_for_later(kafka, tmp_path / "stack", hand_pos, unique) as later:
            await asyncio.to_thread(broker.kill)
            await later.first_is_due()
            await asyncio.to_thread(broker.start)
            later.stack.workers[1].wait_until_ready()
            await later.keep_their_time()
