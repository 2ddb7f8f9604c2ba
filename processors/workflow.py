"""The machines of one order, moved together: order, payment, ticket and delivery share a key and a transaction.

An event from outside goes to the machine it is for; what that machine tells its neighbours is applied to them at once,
until nobody has anything left to tell. The whole of it is one ``Step``, to be committed as one.
"""

from typing import Any

import msgspec

from processors.decision import Call, CancelTimer, Outcome, SetTimer
from processors.delivery import Delivery
from processors.intake import Problem
from processors.order import Order
from processors.parameters import Parameters
from processors.payment import Payment
from processors.restaurant import Ticket
from topics.orders import Placed
from topics.records import Record
from topics.restaurants import Restaurant


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one order, None where there is none yet. The field names are the names in ``Step.changed``."""

    order: Order | None = None
    placed: Placed | None = None
    """The order's body. Written once: rows are rewritten whole, and this is the largest."""
    payment: Payment | None = None
    ticket: Ticket | None = None
    delivery: Delivery | None = None


ROW_TYPES: dict[str, type[msgspec.Struct]] = {
    "order": Order, "placed": Placed, "payment": Payment, "ticket": Ticket, "delivery": Delivery,
}
"""The machine's name in a ``Workflow`` -> the type of its row, JSON by msgspec. Every row's key is the order's id."""


class JournalLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event that was applied to one machine, or refused by it."""

    seq: int
    at_ms: int
    machine: str
    event: str
    event_id: str
    before: str = ""
    after: str = ""
    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    emitted: tuple[str, ...] = ()
    """Ids of the records written and keys of the calls asked for."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one event from outside led to, to be committed as one.

    ``outcome``, ``reason`` and ``problems`` are for its sender. ``changed`` holds the rows to write, by the names of
    ``Workflow``'s fields. For an order nobody knows, nothing is written and nothing journalled.
    """

    outcome: Outcome
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    workflow: Workflow
    changed: dict[str, msgspec.Struct] = {}
    journal: tuple[JournalLine, ...] = ()
    emit: tuple[Record, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    calls: tuple[Call, ...] = ()
    cancel_calls: tuple[str, ...] = ()


def journal_key(order_id: str, seq: int) -> str:
    """The row key of a line: lines sort by their number."""
    return f"{order_id}/{seq:06d}"


def apply(
    workflow: Workflow, event: Any, now_ms: int, parameters: Parameters, restaurant: Restaurant | None = None
) -> Step:
    """Apply one event from outside to an order.

    Events: the records of the topics orders, payments, pos and deliveries; ``TimerDue``; ``CallAnswered``. A ``Placed``
    needs the ``restaurant`` it names (None: there is no such restaurant) and its time in ``at`` (the record's Kafka
    time where the sender gave none), for a wished time is judged against it.
    """
    raise NotImplementedError
