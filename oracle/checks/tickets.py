"""Promise 7: the restaurant is told of an order at least once, always under one key, and cooks it once.

By the restaurants' ledger (`pos.jsonl`) and the statuses on `order-updates`: what is in preparation was told, and what
was delivered had been cooked.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from oracle.facts import Facts, Order
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import TicketLine
from topics.order_updates import OrderStatus


def cooked_once(facts: Facts) -> Finding:
    """Every ticket, and every order that needs one."""
    if facts.tickets is None:
        return no_ledger("pos")
    tickets: defaultdict[str, list[TicketLine]] = defaultdict(list)
    for line in facts.tickets:
        tickets[line.order].append(line)
    twice = [wrong for order, lines in tickets.items() for wrong in _twice(order, lines)]
    missing = [wrong for order in facts.judged() for wrong in _missing(order, tickets.get(order.name, ()))]
    return found(len(tickets), [*twice, *missing])


def _twice(order: str, lines: Sequence[TicketLine]) -> Iterator[Violation]:
    keys = {line.key: line.where for line in reversed(lines)}
    if len(keys) > 1:
        told = ", ".join(f"{key} in {where}" for key, where in keys.items())
        yield Violation(order, f"the restaurant was told of {order} under {len(keys)} keys: {told}")
    cooked = [line.where for line in lines if line.event == "finished"]
    if len(cooked) > 1:
        yield Violation(order, f"{order} was cooked {len(cooked)} times: {', '.join(cooked)}")


def _missing(order: Order, lines: Sequence[TicketLine]) -> Iterator[Violation]:
    cooking = order.first(OrderStatus.IN_PREPARATION)
    if cooking is not None and not lines:
        yield Violation(
            order.name, f"{order.name} is in preparation ({cooking.where}), and the restaurant was never told of it"
        )
    elif order.end is OrderStatus.DELIVERED and not any(line.event == "finished" for line in lines):
        yield Violation(order.name, f"{order.name} is DELIVERED ({order.newest.where}) and was never cooked")
