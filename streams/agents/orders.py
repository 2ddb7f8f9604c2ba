"""Agent of the topic `orders`: placed orders, and operators' commands. See `processors.order`."""

import msgspec

from exactly_once import Record, RejectRecord, Task
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.order_workflow import DecisionReply
from topics.headers import IDEMPOTENCY_KEY
from topics.identity import MAX_IDEMPOTENCY_KEY_BYTES, external_id_of
from topics.orders import READER, Placed


def orders(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Validate a placed order and start its workflow, or apply an operator's command to an order."""
    event = decode_or_reject(task, READER, record)
    if isinstance(event, Placed):
        event = _complete(event, record)
    if not forward_unless_owned(task, record, event.key):
        return None
    restaurant = services.catalogue.get(event.restaurant) if isinstance(event, Placed) else None
    return services.order_workflow.apply_record(task, event.key, event, record, restaurant)


def _complete(placed: Placed, record: Record) -> Placed:
    """Return the order with an id, by default one that is derived from the `idempotency-key` header.

    The first header of this name counts, and its bytes may be any. Raises `RejectRecord` if the order has no id and the
    record has no such header, or one that is empty, null or too long.
    """
    if placed.external_id is None:
        keys = [value for name, value in record.headers if name.lower() == IDEMPOTENCY_KEY.lower()]
        key = keys[0] if keys else None
        if not key or len(key) > MAX_IDEMPOTENCY_KEY_BYTES:
            advice = "give the order an external_id, or the record an idempotency-key header of 1 to 255 bytes"
            raise RejectRecord(f"/external_id: {advice}")
        placed = msgspec.structs.replace(placed, external_id=external_id_of(key))
    return placed
