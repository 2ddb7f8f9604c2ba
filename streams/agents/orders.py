"""The `orders` topic: orders as their providers placed them. See `processors.order` for what becomes of them."""

import msgspec

from streams import workflow
from streams.agents.intake import decoded, from_here
from streams.app import catalogue, engine
from streams.app import orders as topic
from streams.engine import Record, Refuse, Task
from topics.identity import external_id_of
from topics.orders import READER, Placed
from topics.records import instant

IDEMPOTENCY_KEY = "idempotency-key"


@engine.agent(topic)
def orders(task: Task, record: Record) -> None:
    """Take orders: check them at the door, have them paid. Do what operators want done with them."""
    event = decoded(task, READER, record)
    if isinstance(event, Placed):
        event = _complete(event, record)
    if from_here(task, record, event.key):
        restaurant = catalogue.get(event.restaurant) if isinstance(event, Placed) else None
        workflow.apply(task, event.key, event, record, restaurant)


def _complete(placed: Placed, record: Record) -> Placed:
    """The order's id from its `idempotency-key` header and its time from Kafka, where the body has none."""
    if placed.external_id is None:
        keys = [value for name, value in record.headers if name.lower() == IDEMPOTENCY_KEY]
        if not keys:
            raise Refuse("/external_id: give the order an external_id, or the record an idempotency-key header")
        placed = msgspec.structs.replace(placed, external_id=external_id_of(keys[0].decode(errors="replace")))
    return placed if placed.at else msgspec.structs.replace(placed, at=instant(record.timestamp))
