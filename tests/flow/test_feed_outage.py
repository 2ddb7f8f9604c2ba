"""The public feed while Kafka is killed and restarted."""

import asyncio
from pathlib import Path

from tests.flow.client import Client, an_order, order_id
from tests.flow.conftest import INSTANT
from tests.flow.event_source import EventSource
from tests.flow.hand_pos import HandPos
from tests.support.own_broker import own_broker
from tests.support.stack import installed


async def test_listeners_stay_connected_through_a_broker_outage(hand_pos: HandPos, tmp_path: Path, unique: str) -> None:
    kitchens = hand_pos.kitchens(1)
    with own_broker(tmp_path / "kafka") as broker:
        kafka = await asyncio.to_thread(broker.start)
        with installed(kafka, "outage", tmp_path / "stack", 1.0, kitchens) as stack:
            stack.start_payment(*INSTANT)
            await asyncio.to_thread(stack.start_worker)
            async with Client(stack) as client:
                await client.place(an_order(kitchens[0], unique))
                await client.reaches(order_id(unique), "IN_PREPARATION")
                async with (
                    EventSource(f"{stack.url}/v1/orders/{order_id(unique)}/events") as one,
                    EventSource(f"{stack.url}/v1/events?last_event_id=0-0.1-0.2-0.3-0") as everything,
                ):
                    await one.until(one.updates, "the current update")
                    await everything.until(lambda: len(everything.updates()) == 3, "the updates so far")
                    await asyncio.to_thread(broker.kill)
                    async with EventSource(f"{stack.url}/v1/events?last_event_id=0-0.1-0.2-0.3-0") as late:
                        await late.until(lambda: late.answers, "the connection")
                        await asyncio.to_thread(broker.start)
                        await client.until(lambda: ready(client), "the tasks are open again")
                        finished = await client.ticket(kitchens[0], order_id(unique), "finished")
                        assert finished.status_code in (200, 202)
                        await late.until(lambda: len(late.updates()) == 4, "all updates")
                    await one.until(lambda: len(one.updates()) == 2, "the update after the outage")
                    await everything.until(lambda: len(everything.updates()) == 4, "the update after the outage")
                assert [update.version for update in everything.updates()] == [1, 2, 3, 4]
                assert [update.version for update in one.updates()] == [3, 4]
                assert len(one.answers) == len(everything.answers) == len(late.answers) == 1, "no listener reconnected"


async def ready(client: Client) -> bool:
    """Return whether the worker has its tasks open."""
    return (await client.http.get("/readyz")).status_code == 200
