"""Compares what the parties outside wrote down: what must not be, as a list of sentences that must be empty."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from simulators.ledger import PaymentEntry, TicketEntry, TripEntry


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
