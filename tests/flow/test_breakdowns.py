"""A machine breaks down on one event of one order: nothing of it is done, it is set aside with its cause, the others go
on; and when the machine is mended an operator puts it back, once, whether it was a record, a timer or an answer."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flow.client import Body, Client, an_order, order_id, place
from tests.flow.conftest import INSTANT
from tests.stack import installed
from topics.families import ORDERS
from topics.restaurants import Restaurant

pytestmark = pytest.mark.timeout(300)

LATER_S = 10
"""So long after it was placed an order is to be cooked: a timer of each is due."""


class Breakdown(NamedTuple):
    """An event that breaks a machine."""

    event: str
    origin: str
    """Where its letter says that it comes from."""
    status: str | None
    """How the order stands until it is put back."""


BREAKDOWNS = [
    Breakdown("Placed", ".orders/", None),
    Breakdown("TimerDue", "the timer {order}/start", "SCHEDULED"),
    Breakdown("CallAnswered", "the answer to the call {order}/charge", "CREATED"),
]


@pytest.mark.parametrize("broken", BREAKDOWNS, ids=lambda broken: broken.event)
async def test_what_breaks_a_machine_is_undone_and_set_aside_and_goes_on_when_it_is_mended(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant, broken: Breakdown
) -> None:
    bad, others = f"{unique}-bad", [f"{unique}-{n}" for n in range(3)]
    order = order_id(bad)
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stack.start_worker(app="tests.broken_app", BREAKS_ON=broken.event, BREAKS_FOR=order)
        stack.start_drivers(5, *INSTANT)
        async with Client(stack) as client:
            await place_all(client, tiffin, [*others, bad])
            for name in others:
                await client.reaches(order_id(name), "DELIVERED", 60)
            letter = await the_letter(client, order)
            assert broken.origin.format(order=order) in letter["origin"]
            assert letter["reason"] == f"ZeroDivisionError: a bug that {order} brings to light"
            assert "in _broken" in await stack_of(client, letter)
            assert await status_of(client, order) == broken.status
            assert stack.faust("dead-letters", "replay", letter["letter"])[0] in (0, 2), "to no avail"
            letter = await the_letter(client, order, before=letter if broken.origin.startswith(".") else None)
            assert await status_of(client, order) == broken.status
        stack.workers[1].stop()
        stack.start_worker()
        async with Client(stack) as client:
            status, said, error = stack.faust("dead-letters", "replay", letter["letter"])
            assert (status, said) == (0, f"{letter['letter']} is put back.\n"), error
            await client.reaches(order, "DELIVERED", 60)
            _, said, _ = stack.faust("dead-letters", "replay", letter["letter"])
            assert said == f"{letter['letter']} is not here any more, or never was; nothing was done.\n"
            assert await letters(client, order) == []
            assert len([entry for entry in client.payments(order) if not entry.replay]) == 1
            assert len({entry.key for entry in client.tickets(order)}) == 1


async def place_all(client: Client, kitchen: Restaurant, names: Sequence[str]) -> None:
    """Over Kafka, where nobody waits for an answer, and for later."""
    for name in names:
        wished = datetime.now(UTC) + timedelta(seconds=LATER_S + kitchen.preparation_s)
        body = an_order(kitchen, name, deliver_at=wished.isoformat())
        body["customer"]["position"] = place(kitchen.position)  # no way to go
        await client.produce(ORDERS, {"type": "Placed", **body}, key=order_id(name))


async def letters(client: Client, order: str) -> list[Body]:
    """Those that name the order."""
    found = (await client.get("/v1/dead-letters", limit=1000))["dead_letters"]
    return [letter for letter in found if order in letter["key"]["text"]]


async def the_letter(client: Client, order: str, before: Body | None = None) -> Body:
    """The only one of the order; `before`: another one than this."""

    async def there() -> Body | None:
        found = await letters(client, order)
        return found[0] if len(found) == 1 and (before is None or found[0]["letter"] != before["letter"]) else None

    letter = await client.until(there, "it is set aside", 60)
    assert letter is not None
    assert letter["not_replayable"] is None
    return letter


async def stack_of(client: Client, letter: Body) -> str:
    """Where it broke down."""
    headers = (await client.get(f"/v1/dead-letters/{letter['letter']}"))["headers"]
    return next(str(header["value"]["text"]) for header in headers if header["name"] == "exception.stack")


async def status_of(client: Client, order: str) -> str | None:
    """How the order stands; None where there is none."""
    shown = await client.order(order)
    return None if shown is None else str(shown["status"])
