"""Agent of the topic `orders`: placed orders, idempotency keys, and operators' commands. See `processors.order`."""

import msgspec

from exactly_once import Record, RejectRecord, Task
from processors import used_keys
from processors.decision import Outcome
from processors.timers import TimerKind
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.order_workflow import DecisionReply, reply
from streams.worker.outbox import set_timers
from topics.headers import IDEMPOTENCY_KEY
from topics.identity import KEY_ID_PREFIX, MAX_IDEMPOTENCY_KEY_BYTES, external_id_of, owner_of
from topics.orders import READER, ErasureRequested, KeyUsed, Placed

TIMER = TimerKind.USED_KEY.value
"""Payload of the timers of used keys, by which a due timer finds its handler."""


def orders(services: Services, task: Task, record: Record) -> DecisionReply | None:
    """Validate a placed order and start its workflow, remember a key, or apply an operator's command to an order."""
    event = decode_or_reject(task, READER, record)
    if isinstance(event, Placed):
        event = _complete(event, record)
    if not forward_unless_owned(task, record, event.key):
        return None
    if isinstance(event, KeyUsed):
        return _use_key(services, task, event, record)
    if isinstance(event, Placed) and (other := _order_of_key(services, task, event)):
        return reply(task, record, DecisionReply(Outcome.REFUSED, used_keys.refusal(other)), f"order {event.key}")
    if isinstance(event, ErasureRequested) and not services.audit.is_of_operator(record):
        refusal = DecisionReply(Outcome.REFUSED, "an erasure needs the key of an operator: use `dabbawala erase`")
        return reply(task, record, refusal, f"order {event.key}")
    restaurant = services.catalogue.get(event.restaurant) if isinstance(event, Placed) else None
    return services.order_workflow.apply_record(task, event.key, event, record, restaurant)


def timer_due(services: Services, task: Task, name: str) -> None:
    """Delete the row of a key whose time is over."""
    services.tables.used_keys.put(task, owner_of(name), None)


def _use_key(services: Services, task: Task, event: KeyUsed, record: Record) -> DecisionReply:
    """Have a key stand for an order, answer the view that waits for the decision, and return the decision."""
    tables = services.tables
    decision = used_keys.use_key(
        tables.used_keys.get(task, event.key),
        event,
        task.now_ms,
        names_order=bool(tables.orders.get(task, event.key) or tables.history.get(task, event.key)),
    )
    if decision.row is not None and decision.timer is not None:
        tables.used_keys.put(task, event.key, decision.row)
        set_timers(task, (decision.timer,), TIMER)
    return reply(task, record, DecisionReply(decision.outcome, decision.reason), f"order {event.order}")


def _order_of_key(services: Services, task: Task, placed: Placed) -> str:
    """Return the other order that the key of an order without an external id stands for; empty if there is none."""
    if not (placed.external_id or "").startswith(KEY_ID_PREFIX):
        return ""
    used = services.tables.used_keys.get(task, placed.key)
    return "" if used is None or used.order == placed.key else used.order


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
