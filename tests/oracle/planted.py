"""Builders of facts without a fault; a test plants one fault."""

from collections.abc import Sequence
from typing import Any

from oracle.checks.acceptance import WAIT_S
from oracle.facts import Facts, Location, Order, Period, Placing, Update
from oracle.findings import Finding
from oracle.ledgers import AnswerLine, ObserverLine, PaymentLine, TicketLine, TripLine
from oracle.speeds import Speeds
from topics.order_updates import Attention, OrderStatus
from topics.records import instant

BEGAN_MS = 1_800_000_000_000
STEP_MS = 10_000
"""Time between two updates of an order."""
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
    """Return the time of a step, in milliseconds since 1970."""
    return BEGAN_MS + round(step * STEP_MS)


def an_update(number: int, status: OrderStatus, **more: Any) -> Update:
    """Return the update with this version, at the step of this number."""
    return Update(number, status, at(number), Location(UPDATES, 0, number), "r", **more)


def an_order(statuses: Sequence[OrderStatus] = LIFE, name: str = "p:o", **last: Any) -> Order:
    """Return an order with these statuses. ``last`` are fields of its last update."""
    order = Order(name)
    for number, status in enumerate(statuses, 1):
        order.add(an_update(number, status, **(last if number == len(statuses) else {})))
    return order


def facts_of(*orders: Order, now: float = 20, **more: Any) -> Facts:
    """Return facts with these orders and fields. ``now`` is in steps; the patience is 0 by default."""
    period = {name: more.pop(name) for name in list(more) if name in Period._fields}
    speeds = Speeds(more.pop("runs", ()), more.pop("speed_up", 1.0))
    found = Facts(Period(now_ms=at(now), **{"patience_ms": 0, **period}), speeds, alive_ms=at(now))
    found.orders.update({order.name: order for order in orders})
    for name, value in more.items():
        current = getattr(found, name)
        if isinstance(current, dict):
            current.update(value)
        else:
            setattr(found, name, value)
    return found


def sentences(finding: Finding) -> list[str]:
    """Return the sentences of the violations."""
    return [violation.sentence for violation in finding.violations]


def wait_steps(status: OrderStatus) -> float:
    """Return the longest wait in a status, in steps."""
    return WAIT_S[status] * 1000 / STEP_MS


def attention(waits_for: str = "a person", since: float = 1) -> Attention:
    """Return a mark that a person should look, with the awaited event and the step at which it began."""
    return Attention(waits_for=waits_for, since=instant(at(since)))


def a_placing(name: str = "p:o", **changes: Any) -> Placing:
    """Return the record that placed an order of 200.00."""
    return Placing(name, at(0), Location(ORDERS, 0, 5), 200_00, "INR", None, False)._replace(**changes)


def lines(*found: Any) -> list[Any]:
    """Return the lines of a ledger, with their numbers."""
    for number, line in enumerate(found, 1):
        line.file, line.number = "ledger.jsonl", number
    return list(found)


def a_payment(outcome: str = "charged", key: str = "", step: float = 1, **more: Any) -> PaymentLine:
    """Return a charge or a refund of 200.00, by default under its usual key."""
    kind = "refund" if outcome == "refunded" else "charge"
    key = key or ("p:o/refund/c" if kind == "refund" else "p:o/charge")
    given = {"order": "p:o", "charge_id": "c", "amount": 200_00, "currency": "INR", **more}
    return PaymentLine(at=instant(at(step)), key=key, kind=kind, outcome=outcome, **given)


def a_ticket(event: str, key: str = "p:o/prepare", step: float = 2, **more: Any) -> TicketLine:
    """Return an action of a restaurant on the ticket."""
    return TicketLine(at=instant(at(step)), event=event, order="p:o", key=key, restaurant="r", **more)


def a_trip(driver: str, event: str, delivery: str = "p:o") -> TripLine:
    """Return an action of a driver."""
    return TripLine(at=instant(at(4)), driver=driver, event=event, delivery=delivery)


def an_answer(event: str = "answer", outcome: str = "accepted", order: str = "p:o", **more: Any) -> AnswerLine:
    """Return a line of the ordering provider."""
    return AnswerLine(at=instant(at(0)), event=event, order=order, outcome=outcome, **more)


def an_observation(version: int, status: str, observer: str = "x", order: str = "p:o") -> ObserverLine:
    """Return an observation of an order."""
    return ObserverLine(at=instant(at(9)), observer=observer, order=order, version=version, status=status, via="feed")
