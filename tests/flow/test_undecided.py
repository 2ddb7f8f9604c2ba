"""A worker that cannot commit answers 202 in time, and applies the request later."""

from pathlib import Path

from tests.flow.client import Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.support.stack import installed
from topics.restaurants import Restaurant


async def test_a_late_decision_is_answered_202_and_still_applied(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant
) -> None:
    order, body = order_id(unique), an_order(tiffin, unique)
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_pos(*INSTANT)
        stuck = stack.start_worker(DABBAWALA_FAILPOINTS="produced:raise:1", DABBAWALA_DECISION_S="1")
        async with Client(stack) as client:
            answer = await client.place(body)
            assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/orders/{order}")
            assert answer.json()["id"] == order
        stuck.kill()
        stack.start_worker()
        async with Client(stack) as client:
            await client.reaches(order, "SCHEDULING_DELIVERY")
            assert (await client.place(body)).status_code == 200
