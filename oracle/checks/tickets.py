"""Promise 7: the restaurant is told of an order at least once, always under one key, and cooks it once.

By the restaurants' ledger (`pos.jsonl`) and the statuses on `order-updates`: what is in preparation was told, and what
was delivered had been cooked. What a restaurant has said and was answered 2xx counts, however early it said so: the
order has gone on.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from oracle.facts import Facts, Order
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import TicketLine
from topics.order_updates import OrderStatus

GOES_ON_TO = {
    "accepted": OrderStatus.IN_PREPARATION,
    "rejected": OrderStatus.REJECTED,
    "finished": OrderStatus.SCHEDULING_DELIVERY,
}
"""What a restaurant says -> where its order comes to by that."""


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


def what_was_said_counts(facts: Facts) -> Finding:
    """Every word of a restaurant's that was answered 2xx."""
    said = [
        (line, facts.orders[line.order])
        for line in facts.tickets or ()
        if line.event == "told" and 200 <= line.status < 300 and line.told in GOES_ON_TO and line.order in facts.orders
    ]
    return found(
        len(said),
        (
            Violation(
                order.name,
                f"the restaurant said of {order.name} that it is {line.told}, answered {line.status} ({line.where}), "
                f"and it has never been {GOES_ON_TO[line.told].value}; it is {order.newest.status.value} "
                f"({order.newest.where})",
            )
            for line, order in said
            if not order.reused
            and order.first(GOES_ON_TO[line.told]) is None
            and order.end is not OrderStatus.REJECTED
            and facts.period.overdue(line.at_ms)
        ),
    )


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
