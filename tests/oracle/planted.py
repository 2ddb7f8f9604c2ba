"""A small world without a fault, of which a test spoils one thing."""

from collections.abc import Sequence
from typing import Any

from oracle.checks.acceptance import WAIT_S
from oracle.facts import Facts, Order, Period, Placing, Told, Where
from oracle.findings import Finding
from oracle.ledgers import AnswerLine, ObserverLine, PaymentLine, TicketLine, TripLine
from topics.order_updates import Attention, OrderStatus
from topics.records import instant

BEGAN_MS = 1_800_000_000_000
STEP_MS = 10_000
"""From one update of an order to the next."""
UPDATES, ORDERS, DELIVERIES = "d.order-updates", "d.orders", "d.deliveries"
LIFE = (
    OrderStatus.CREATED,
    OrderStatus.SCHEDULED,
    OrderStatus.IN_PREPARATION,
    OrderStatus.SCHEDULING_DELIVERY,
    OrderStatus.WAITING_FOR_DRIVER,
    OrderStatus.IN_DELIVERY,
    OrderStatus.DELIVERED,
)
REJECTED = (OrderStatus.CREATED, OrderStatus.REJECTED)


def at(step: float) -> int:
    """When a step is taken, in milliseconds since 1970."""
    return BEGAN_MS + round(step * STEP_MS)


def told(number: int, status: OrderStatus, **more: Any) -> Told:
    """An order's update of this number."""
    return Told(number, status, at(number), Where(UPDATES, 0, number), "r", **more)


def an_order(statuses: Sequence[OrderStatus] = LIFE, name: str = "p:o", **last: Any) -> Order:
    """One that went through these; ``last``: of its last update."""
    order = Order(name)
    for number, status in enumerate(statuses, 1):
        order.add(told(number, status, **(last if number == len(statuses) else {})))
    return order


def known(*orders: Order, now: float = 20, **more: Any) -> Facts:
    """These orders, and what else is known; ``now`` in steps. Nothing may be later than it may."""
    period = {name: more.pop(name) for name in list(more) if name in Period._fields}
    found = Facts(Period(now_ms=at(now), **{"patience_ms": 0, **period}))
    found.orders.update({order.name: order for order in orders})
    for name, value in more.items():
        current = getattr(found, name)
        if isinstance(current, dict):
            current.update(value)
        else:
            setattr(found, name, value)
    return found


def sentences(finding: Finding) -> list[str]:
    """What is wrong."""
    return [violation.sentence for violation in finding.violations]


def waited(status: OrderStatus) -> float:
    """How long an order may wait in a status, in steps."""
    return WAIT_S[status] * 1000 / STEP_MS


def attention(waits_for: str = "a person", since: float = 1) -> Attention:
    """What asks for a person."""
    return Attention(waits_for=waits_for, since=instant(at(since)))


def a_placing(name: str = "p:o", **changes: Any) -> Placing:
    """The record that placed an order of 200.00."""
    return Placing(name, at(0), Where(ORDERS, 0, 5), 200_00, "INR", None, False)._replace(**changes)


def lines(*found: Any) -> list[Any]:
    """The lines of a ledger, numbered."""
    for number, line in enumerate(found, 1):
        line.file, line.number = "ledger.jsonl", number
    return list(found)


def a_payment(outcome: str = "charged", key: str = "", step: float = 1, **more: Any) -> PaymentLine:
    """A charge or a refund of 200.00, under the key that it has."""
    kind = "refund" if outcome == "refunded" else "charge"
    key = key or ("p:o/refund/c" if kind == "refund" else "p:o/charge")
    given = {"order": "p:o", "charge_id": "c", "amount": 200_00, "currency": "INR", **more}
    return PaymentLine(at=instant(at(step)), key=key, kind=kind, outcome=outcome, **given)


def a_ticket(event: str, key: str = "p:o/prepare", step: float = 2, **more: Any) -> TicketLine:
    """What a restaurant did with the ticket."""
    return TicketLine(at=instant(at(step)), event=event, order="p:o", key=key, restaurant="r", **more)


def a_trip(driver: str, event: str, delivery: str = "p:o") -> TripLine:
    """What a driver did."""
    return TripLine(at=instant(at(4)), driver=driver, event=event, delivery=delivery)


def an_answer(event: str = "answer", outcome: str = "accepted", order: str = "p:o", **more: Any) -> AnswerLine:
    """What the provider noted."""
    return AnswerLine(at=instant(at(0)), event=event, order=order, outcome=outcome, **more)


def a_look(version: int, status: str, observer: str = "x", order: str = "p:o") -> ObserverLine:
    """What somebody saw."""
    return ObserverLine(at=instant(at(9)), observer=observer, order=order, version=version, status=status, via="feed")
