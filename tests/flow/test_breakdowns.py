"""A bug in a machine: one event of one order raises.

Nothing of the event is applied, it becomes a dead letter with its cause, and the other orders continue. Once the bug
is fixed, an operator replays the letter, and it is applied once. The event is a record, a timer or a call's answer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flow.client import Body, Client, an_order, order_id, place
from tests.flow.conftest import INSTANT
from tests.support.keys import REVEALED
from tests.support.stack import installed
from topics.families import ORDERS
from topics.restaurants import Restaurant

LATER_S = 10
"""Seconds from the placing of an order to the start of its preparation, so that each order has a timer."""


class Breakdown(NamedTuple):
    """An event on which the machine raises."""

    event: str
    origin: str
    """Part of the letter's `origin`."""
    status: str | None
    """Status of the order until the letter is replayed; None if the order does not exist yet."""


BREAKDOWNS = [
    Breakdown("Placed", ".orders/", None),
    Breakdown("TimerDue", "the timer {order}/start", "SCHEDULED"),
    Breakdown("CallAnswered", "the answer to the call {order}/charge", "CREATED"),
]


@pytest.mark.parametrize("broken", BREAKDOWNS, ids=lambda broken: broken.event)
async def test_a_record_that_breaks_a_handler_is_replayed_once_fixed(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant, broken: Breakdown
) -> None:
    bad, others = f"{unique}-bad", [f"{unique}-{n}" for n in range(3)]
    order = order_id(bad)
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker(app="tests.support.broken_app", BREAKS_ON=broken.event, BREAKS_FOR=order)
        stack.start_drivers(5, *INSTANT)
        async with Client(stack) as client:
            await place_all(client, tiffin, [*others, bad])
            for name in others:
                await client.reaches(order_id(name), "DELIVERED")
            letter = await the_letter(client, order)
            assert broken.origin.format(order=order) in letter["origin"]
            assert letter["reason"] == f"ZeroDivisionError: a bug that {order} brings to light"
            assert "in apply_and_store" in await stack_of(client, letter)
            assert await status_of(client, order) == broken.status
            assert stack.faust("dead-letters", "replay", letter["letter"])[0] in (0, 2), "the bug is still there"
            letter = await the_letter(client, order, before=letter if broken.origin.startswith(".") else None)
            assert await status_of(client, order) == broken.status
        stack.workers[1].stop()
        stack.start_worker()
        async with Client(stack) as client:
            status, printed, error = stack.faust("dead-letters", "replay", letter["letter"])
            assert (status, printed) == (0, f"{letter['letter']} is replayed.\n"), error
            await client.reaches(order, "DELIVERED")
            _, printed, _ = stack.faust("dead-letters", "replay", letter["letter"])
            assert (
                printed == f"{letter['letter']} does not exist, or was replayed or discarded before; nothing to do.\n"
            )
            assert await letters(client, order) == []
            assert len([entry for entry in client.payments(order) if not entry.replay]) == 1
            assert len({entry.key for entry in client.tickets(order)}) == 1


async def place_all(client: Client, kitchen: Restaurant, names: Sequence[str]) -> None:
    """Place orders for later over Kafka, where no response is awaited."""
    for name in names:
        wished = datetime.now(UTC) + timedelta(seconds=LATER_S + kitchen.preparation_s)
        body = an_order(kitchen, name, deliver_at=wished.isoformat())
        body["customer"]["position"] = place(kitchen.position)  # no distance to travel
        await client.produce(ORDERS, {"type": "Placed", **body}, key=order_id(name))


async def letters(client: Client, order: str) -> list[Body]:
    """Return the dead letters whose key has the order in it."""
    found = (await client.get("/v1/dead-letters", limit=1000, **REVEALED))["dead_letters"]
    return [letter for letter in found if order in letter["key"]["text"]]


async def the_letter(client: Client, order: str, before: Body | None = None) -> Body:
    """Wait for the order's only dead letter, and return it; `before` is an earlier letter that it must not be."""

    async def there() -> Body | None:
        found = await letters(client, order)
        return found[0] if len(found) == 1 and (before is None or found[0]["letter"] != before["letter"]) else None

    letter = await client.until(there, "the dead letter")
    assert letter is not None
    assert letter["not_replayable"] is None
    return letter


async def stack_of(client: Client, letter: Body) -> str:
    """Return the stack trace in the letter's headers."""
    headers = (await client.get(f"/v1/dead-letters/{letter['letter']}", **REVEALED))["headers"]
    return next(str(header["value"]["text"]) for header in headers if header["name"] == "exception.stack")


async def status_of(client: Client, order: str) -> str | None:
    """Return the order's status; None if it does not exist."""
    shown = await client.order(order)
    return None if shown is None else str(shown["status"])
