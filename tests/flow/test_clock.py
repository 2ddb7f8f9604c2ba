"""A worker with a wrong clock opens no task: no timer fires early and nothing is committed with a wrong time.

Once its clock is right, the worker continues without a restart.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.flow.client import Client, an_order, order_id, place, room_for
from tests.flow.conftest import INSTANT
from tests.support.stack import Stack, installed
from topics.families import ORDERS
from topics.restaurants import Restaurant

HOUR_S = 3600
HALF_AN_HOUR = timedelta(minutes=30)


@pytest.fixture
def stack(kafka: str, unique: str, tmp_path: Path) -> Iterator[Stack]:
    """Run a stack without drivers, so that each order stops at SCHEDULING_DELIVERY."""
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker()
        yield stack


async def scheduled(client: Client, kitchen: Restaurant, name: str, cooked: datetime) -> str:
    """Place an order to be cooked from this time on, and return its id."""
    wished = cooked + timedelta(seconds=kitchen.preparation_s)
    body = an_order(kitchen, name, deliver_at=wished.isoformat())
    body["customer"]["position"] = place(kitchen.position)  # no distance to travel
    assert (await client.place(body)).status_code == 201
    await client.reaches(order_id(name), "SCHEDULED")
    return order_id(name)


async def are_held(client: Client, how: str) -> bool:
    """Return whether all tasks are held for this reason."""
    try:
        answer = await client.http.get("/v1/tasks")
    except httpx.TransportError:  # the worker does not listen yet
        return False
    tasks = answer.json()["tasks"] if answer.status_code == 200 else []
    return bool(tasks) and all(how in task.get("why", "") for task in tasks)


@pytest.mark.parametrize(("wrong_s", "how"), [(HOUR_S - 60, "s ahead of"), (-HOUR_S, "s behind")])
async def test_a_worker_with_a_wrong_clock_holds_its_tasks(
    stack: Stack, tiffin: Restaurant, unique: str, tmp_path: Path, wrong_s: int, how: str
) -> None:
    clock, began = tmp_path / "clock", datetime.now(UTC)
    async with Client(stack) as client:
        later = await scheduled(client, tiffin, f"{unique}-later", began + HALF_AN_HOUR)
        due = datetime.now(UTC) + room_for(datetime.now(UTC) - began)
        soon = await scheduled(client, tiffin, f"{unique}-soon", due)
        journal, timers = await client.journal(later), await client.rows("timers", later)
    stack.workers[1].stop()
    clock.write_text(str(wrong_s))
    stack.start_worker(wait=False, app="tests.support.clock_app", CLOCK_FILE=str(clock))
    async with Client(stack) as client:
        await client.until(partial(are_held, client, how), "all tasks are held")
        now = order_id(f"{unique}-now")
        await client.produce(ORDERS, {"type": "Placed", **an_order(tiffin, f"{unique}-now")}, key=now)
        ready, shown = await client.http.get("/readyz"), await client.http.get(f"/v1/orders/{later}")
        assert (ready.status_code, shown.status_code) == (503, 503)
        assert f"{how} the broker's, set right the one that is wrong" in ready.json()["detail"]
        assert "is held" in shown.json()["detail"]
        status, printed, error = stack.faust("tasks")
        assert (status, printed.count("held")) == (1, 4)
        assert "Held: this machine's clock is" in error
        await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))  # until the earlier order is due
        clock.write_text("0")
        stack.workers[1].wait_until_ready()
        await client.reaches(soon, "SCHEDULING_DELIVERY")
        await client.reaches(now, "SCHEDULING_DELIVERY")
        clock.write_text(str(wrong_s))  # open tasks do not compare the clocks again
        assert (await client.http.get("/readyz")).status_code == 200
        assert await client.journal(later) == journal
        assert await client.rows("timers", later) == timers
