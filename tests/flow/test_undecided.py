"""A worker that cannot commit: who asks is told so in time, and nothing of what was asked is lost."""

from pathlib import Path

from tests.flow.client import Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.stack import installed
from topics.restaurants import Restaurant


async def test_an_order_that_is_not_decided_in_time_is_202_and_goes_on_when_it_is(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant
) -> None:
    order, body = order_id(unique), an_order(tiffin, unique)
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stuck = stack.start_worker(DABBAWALA_FAILPOINTS="produced:raise:1")
        async with Client(stack) as client:
            answer = await client.place(body)
            assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/orders/{order}")
            assert answer.json()["id"] == order
        stuck.kill()
        stack.start_worker()
        async with Client(stack) as client:
            await client.reaches(order, "SCHEDULING_DELIVERY")
            assert (await client.place(body)).status_code == 200
