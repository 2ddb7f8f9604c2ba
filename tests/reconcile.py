"""Compares what the parties outside wrote down: what must not be, as a list of sentences that must be empty."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from simulators.ledger import AnswerEntry, PaymentEntry, TicketEntry, TripEntry
from topics.order_updates import OrderStatus, OrderUpdated


def money(entries: Iterable[PaymentEntry], statuses: Mapping[str, str]) -> list[str]:
    """One net charge for an order that was delivered, none for one that was rejected, one key a purpose."""
    net: Counter[str] = Counter()
    charge_keys: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.kind == "charge":
            charge_keys[entry.order].add(entry.key)
        if not entry.replay and entry.outcome in ("charged", "refunded"):
            net[entry.order] += 1 if entry.outcome == "charged" else -1
    wrong = [
        f"{order} is {status} with {net[order]} net charges"
        for order, status in statuses.items()
        if net[order] != (1 if status == "DELIVERED" else 0)
    ]
    return wrong + [
        f"{order} was charged under {len(keys)} keys" for order, keys in charge_keys.items() if len(keys) > 1
    ]


def tickets(entries: Iterable[TicketEntry], statuses: Mapping[str, str]) -> list[str]:
    """One ticket an order, cooked once."""
    keys: defaultdict[str, set[str]] = defaultdict(set)
    cooked: Counter[str] = Counter()
    for entry in entries:
        keys[entry.order].add(entry.key)
        cooked[entry.order] += entry.event == "finished"
    wrong = [f"{order} has {len(found)} tickets" for order, found in keys.items() if len(found) > 1]
    wrong += [f"{order} was cooked {count} times" for order, count in cooked.items() if count > 1]
    return wrong + [
        f"{o} is DELIVERED, never cooked" for o, s in statuses.items() if s == "DELIVERED" and not cooked[o]
    ]


def trips(entries: Sequence[TripEntry]) -> list[str]:
    """No driver with two deliveries, no delivery with two drivers, at any time; each delivered once."""
    wrong: list[str] = []
    has: dict[str, str] = {}
    carried_by: dict[str, str] = {}
    delivered: Counter[str] = Counter()
    for entry in entries:
        if entry.event == "assigned":
            if has.get(entry.driver, entry.delivery) != entry.delivery:
                wrong.append(f"{entry.driver} has {has[entry.driver]} and was given {entry.delivery}")
            if carried_by.get(entry.delivery, entry.driver) != entry.driver:
                wrong.append(f"{entry.delivery} is {carried_by[entry.delivery]}'s and was given to {entry.driver}")
            has[entry.driver], carried_by[entry.delivery] = entry.delivery, entry.driver
        elif entry.event in ("delivered", "dropped"):
            has.pop(entry.driver, None)
            carried_by.pop(entry.delivery, None)
            delivered[entry.delivery] += entry.event == "delivered"
    return wrong + [f"{delivery} was delivered {count} times" for delivery, count in delivered.items() if count > 1]


LEGAL: Mapping[OrderStatus | None, Collection[OrderStatus]] = {
    None: {OrderStatus.CREATED},
    OrderStatus.CREATED: {OrderStatus.SCHEDULED, OrderStatus.REJECTED},
    OrderStatus.SCHEDULED: {OrderStatus.IN_PREPARATION, OrderStatus.REJECTED},
    OrderStatus.IN_PREPARATION: {OrderStatus.SCHEDULING_DELIVERY},
    OrderStatus.SCHEDULING_DELIVERY: {OrderStatus.WAITING_FOR_DRIVER},
    OrderStatus.WAITING_FOR_DRIVER: {OrderStatus.IN_DELIVERY},
    OrderStatus.IN_DELIVERY: {OrderStatus.DELIVERED},
}
"""What may follow on what; the same again always may."""


def updates(told: Iterable[OrderUpdated]) -> list[str]:
    """The public feed, in the order it was told: versions without a gap, and only steps that there are."""
    wrong: list[str] = []
    newest: dict[str, OrderUpdated] = {}
    for update in told:
        before = newest.get(update.order)
        expected, status = (before.version + 1, before.status) if before else (1, None)
        if update.version != expected:
            wrong.append(f"{update.order} was told as version {update.version}, after {expected - 1}")
        if update.status is not status and update.status not in LEGAL.get(status, ()):
            wrong.append(f"{update.order} went from {status and status.value} to {update.status.value}")
        newest[update.order] = update
    return wrong


def answers(entries: Iterable[AnswerEntry], statuses: Mapping[str, str]) -> list[str]:
    """What a provider was told is accepted has ended."""
    return [
        f"{entry.order} was accepted and is {statuses.get(entry.order, 'unknown')}"
        for entry in entries
        if entry.event == "answer" and entry.outcome == "accepted" and statuses.get(entry.order) not in ENDED
    ]


ENDED = ("DELIVERED", "REJECTED", "CANCELLED")
