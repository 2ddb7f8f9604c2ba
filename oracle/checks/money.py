"""Promises 2 and 3: nobody is charged twice, and the money matches how the order ended.

By the payment provider's ledger (`payment.jsonl`) and the ends on `order-updates`. What was charged and given back
again counts as nothing. A refund may take its wait; after that the order has to show that a person should look, and as
long as it does the money is that person's. What a delivered order has paid must be the total it was placed with, where
`orders` still has that.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from oracle.checks.acceptance import REFUND_S
from oracle.facts import Facts, Order, Period
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import PaymentLine
from topics.order_updates import OrderStatus


def charged_at_most_once(facts: Facts) -> Finding:
    """At most one charge an order, net of refunds, and one idempotency key for each thing that was asked."""
    if facts.payments is None:
        return no_ledger("payment")
    return found(
        len(_by_order(facts)),
        (wrong for order, lines in _by_order(facts).items() for wrong in _twice(order, lines, facts)),
    )


def money_matches_the_end(facts: Facts) -> Finding:
    """Delivered: charged once. Rejected or cancelled: nothing is left of it."""
    if facts.payments is None:
        return no_ledger("payment")
    lines = _by_order(facts)
    judged = list(facts.judged())
    wrong = [violation for order in judged for violation in _unlike_its_end(order, lines.get(order.name, []), facts)]
    return found(len(judged), [*wrong, *_charged_unheard(lines, facts)])


def made(lines: Sequence[PaymentLine], outcome: str) -> list[PaymentLine]:
    """What was done, without what was only answered again."""
    return [line for line in lines if line.outcome == outcome and not line.replay]


def net(lines: Sequence[PaymentLine]) -> int:
    """Charges less refunds."""
    return len(made(lines, "charged")) - len(made(lines, "refunded"))


def _by_order(facts: Facts) -> dict[str, list[PaymentLine]]:
    found: defaultdict[str, list[PaymentLine]] = defaultdict(list)
    for line in facts.payments or ():
        if line.kind != "callback":
            found[line.order].append(line)
    return {order: lines for order, lines in found.items() if not facts.is_older(order, lines[0].at_ms)}


def _twice(name: str, lines: Sequence[PaymentLine], facts: Facts) -> Iterator[Violation]:
    keys: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        keys[f"the refund of {line.charge_id}" if line.kind == "refund" else "the charge"].setdefault(
            line.key, line.where
        )
    for what, used in keys.items():
        if len(used) > 1:
            told = ", ".join(f"{key} in {where}" for key, where in used.items())
            yield Violation(name, f"{what} of {name} was asked for under {len(used)} keys: {told}")
    charges, order = made(lines, "charged"), facts.orders.get(name)
    if net(lines) > 1 and not _is_seen_to(order, charges[-1].at_ms, facts.period):
        told = ", ".join(line.where for line in charges)
        yield Violation(name, f"{name} was charged {len(charges)} times, {net(lines)} net of refunds: {told}")


def _unlike_its_end(order: Order, lines: Sequence[PaymentLine], facts: Facts) -> Iterator[Violation]:
    count, evidence = (
        net(lines),
        ", ".join(line.where for line in lines if not line.replay) or "no line of payment.jsonl",
    )
    status = order.newest.status.value
    if count < 0:
        yield Violation(order.name, f"{order.name} was given back more than it was charged: {evidence}")
    elif order.end is OrderStatus.DELIVERED and count == 0:
        yield Violation(order.name, f"{order.name} is DELIVERED and was not charged: {evidence}; {order.newest.where}")
    elif order.end is OrderStatus.DELIVERED and count == 1:
        yield from _another_total(order, lines, facts)
    elif order.end not in (None, OrderStatus.DELIVERED) and count and _is_to_blame(order, facts.period):
        yield Violation(
            order.name,
            f"{order.name} is {status}{' and refunded' if order.newest.refunded else ''} with {count} net charge"
            f"{'s' if count > 1 else ''}: {evidence}; {order.newest.where}",
        )


def _another_total(order: Order, lines: Sequence[PaymentLine], facts: Facts) -> Iterator[Violation]:
    placed = facts.placings.get(order.name)
    if not placed:
        return
    totals = {(each.total, each.currency) for each in placed}  # more than one: another body, which was refused
    charges, refunds = made(lines, "charged"), made(lines, "refunded")
    paid = sum(line.amount for line in charges) - sum(line.amount for line in refunds)
    if (paid, charges[0].currency) not in totals:
        yield Violation(
            order.name,
            f"{order.name} is DELIVERED and has paid {paid} {charges[0].currency} ({charges[-1].where}), "
            f"but its total is {placed[0].total} {placed[0].currency} ({placed[0].where})",
        )


def _charged_unheard(lines: Mapping[str, Sequence[PaymentLine]], facts: Facts) -> Iterator[Violation]:
    for name, of_order in lines.items():
        charges = made(of_order, "charged")
        if charges and name not in facts.orders and facts.period.overdue(charges[0].at_ms):
            yield Violation(name, f"{name} was charged ({charges[0].where}), and there is no such order")


def _is_to_blame(order: Order, period: Period) -> bool:
    return order.newest.refunded or not _is_seen_to(order, order.since_ms, period)


def _is_seen_to(order: Order | None, since_ms: int, period: Period) -> bool:
    """Whether a person has been asked to look, or a refund has still time."""
    if order is not None and order.newest.attention is not None:
        return True
    return not period.overdue(since_ms + period.wait_ms(REFUND_S))
