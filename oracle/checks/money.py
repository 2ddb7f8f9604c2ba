"""Promises 2 and 3: nobody is charged twice, and the money matches the end of the order.

The checks compare the payment provider's ledger (`payment.jsonl`) with the ends on `order-updates`.

- A charge and its refund cancel each other.
- A refund may take its wait. After that the order has to ask for attention; while it does, a person is responsible.
- A delivered order has paid the total it was placed with, if `orders` still has the record. A total of 0 needs no
  charge.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from oracle.checks.acceptance import REFUND_S
from oracle.facts import Facts, Order
from oracle.findings import Finding, Violation, finding, no_ledger
from oracle.ledgers import PaymentLine
from topics.order_updates import OrderStatus


def charged_at_most_once(facts: Facts) -> Finding:
    """Check that each order has at most one net charge, and one idempotency key per charge or refund."""
    if facts.payments is None:
        return no_ledger("payment")
    return finding(
        len(_by_order(facts)),
        (wrong for order, lines in _by_order(facts).items() for wrong in _repeated(order, lines, facts)),
    )


def money_matches_the_end(facts: Facts) -> Finding:
    """Check that delivered orders have one net charge, and rejected or cancelled orders none."""
    if facts.payments is None:
        return no_ledger("payment")
    lines = _by_order(facts)
    judged = list(facts.judged())
    wrong = [violation for order in judged for violation in _money_against_end(order, lines.get(order.name, []), facts)]
    return finding(len(judged), [*wrong, *_charges_without_order(lines, facts)])


def performed(lines: Sequence[PaymentLine], outcome: str) -> list[PaymentLine]:
    """Return the lines with this outcome, without the repeated answers to requests that were performed before."""
    return [line for line in lines if line.outcome == outcome and not line.replay]


def net_charges(lines: Sequence[PaymentLine]) -> int:
    """Return the number of charges minus the number of refunds."""
    return len(performed(lines, "charged")) - len(performed(lines, "refunded"))


def _by_order(facts: Facts) -> dict[str, list[PaymentLine]]:
    by_order: defaultdict[str, list[PaymentLine]] = defaultdict(list)
    for line in facts.payments or ():
        if line.kind != "callback":
            by_order[line.order].append(line)
    return {order: lines for order, lines in by_order.items() if not facts.is_older(order, lines[0].at_ms)}


def _repeated(name: str, lines: Sequence[PaymentLine], facts: Facts) -> Iterator[Violation]:
    keys: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        keys[f"the refund of {line.charge_id}" if line.kind == "refund" else "the charge"].setdefault(
            line.key, line.where
        )
    for what, used in keys.items():
        if len(used) > 1:
            evidence = ", ".join(f"{key} in {where}" for key, where in used.items())
            yield Violation(name, f"{what} of {name} was requested under {len(used)} keys: {evidence}")
    charges, order, net = performed(lines, "charged"), facts.orders.get(name), net_charges(lines)
    if net > 1 and not _may_be_pending(order, charges[-1].at_ms, facts):
        evidence = ", ".join(line.where for line in charges)
        yield Violation(name, f"{name} was charged {len(charges)} times, {net} net of refunds: {evidence}")


def _money_against_end(order: Order, lines: Sequence[PaymentLine], facts: Facts) -> Iterator[Violation]:
    count = net_charges(lines)
    evidence = ", ".join(line.where for line in lines if not line.replay) or "no line of payment.jsonl"
    status = order.newest.status.value
    if count < 0:
        yield Violation(order.name, f"{order.name} was refunded more than it was charged: {evidence}")
    elif order.end is OrderStatus.DELIVERED and count == 0 and not _is_free(order, facts):
        yield Violation(order.name, f"{order.name} is DELIVERED and was not charged: {evidence}; {order.newest.where}")
    elif order.end is OrderStatus.DELIVERED and count == 1:
        yield from _wrong_total(order, lines, facts)
    elif order.end not in (None, OrderStatus.DELIVERED) and count and _refund_is_missing(order, facts):
        yield Violation(
            order.name,
            f"{order.name} is {status}{' and refunded' if order.newest.refunded else ''} with {count} net charge"
            f"{'s' if count > 1 else ''}: {evidence}; {order.newest.where}",
        )


def _is_free(order: Order, facts: Facts) -> bool:
    """Return whether the order may have been placed with a total of 0, which is paid without a charge."""
    return any(placed.total == 0 for placed in facts.placings.get(order.name, ()))


def _wrong_total(order: Order, lines: Sequence[PaymentLine], facts: Facts) -> Iterator[Violation]:
    placed = facts.placings.get(order.name)
    if not placed:
        return
    totals = {(each.total, each.currency) for each in placed}  # several if the worker refused a second body
    charges, refunds = performed(lines, "charged"), performed(lines, "refunded")
    paid = sum(line.amount for line in charges) - sum(line.amount for line in refunds)
    if (paid, charges[0].currency) not in totals:
        yield Violation(
            order.name,
            f"{order.name} is DELIVERED and has paid {paid} {charges[0].currency} ({charges[-1].where}), "
            f"but its total is {placed[0].total} {placed[0].currency} ({placed[0].where})",
        )


def _charges_without_order(lines: Mapping[str, Sequence[PaymentLine]], facts: Facts) -> Iterator[Violation]:
    for name, of_order in lines.items():
        charges = performed(of_order, "charged")
        if charges and name not in facts.orders and facts.period.overdue(charges[0].at_ms):
            yield Violation(name, f"{name} was charged ({charges[0].where}), but no such order exists")


def _refund_is_missing(order: Order, facts: Facts) -> bool:
    return order.newest.refunded or not _may_be_pending(order, order.since_ms, facts)


def _may_be_pending(order: Order | None, since_ms: int, facts: Facts) -> bool:
    """Return whether a refund may still come: the order asks for a person, or the wait for the refund is not over."""
    if order is not None and order.newest.attention is not None:
        return True
    began_ms = since_ms if order is None else order.updates[0].at_ms
    wait_ms = facts.wait_ms(REFUND_S, began_ms, since_ms)
    return not facts.period.final and (wait_ms is None or not facts.overdue_by_work(since_ms + wait_ms))
