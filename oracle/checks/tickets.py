"""Promise 7: the restaurant receives a ticket at least once, always under one key, and cooks it once.

The checks compare the restaurants' ledger (`pos.jsonl`) with the statuses on `order-updates`:

- The restaurant has received each order that is in preparation, and has cooked each order that was delivered.
- A report of the restaurant that was answered 2xx has moved its order on, however early it came.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from oracle.facts import Facts, Order
from oracle.findings import Finding, Violation, finding, no_ledger
from oracle.ledgers import TicketLine
from topics.order_updates import OrderStatus

NEXT_STATUS = {
    "accepted": OrderStatus.IN_PREPARATION,
    "rejected": OrderStatus.REJECTED,
    "finished": OrderStatus.SCHEDULING_DELIVERY,
}
"""Report of a restaurant -> the status that the order reaches by it."""


def cooked_once(facts: Facts) -> Finding:
    """Check that each ticket is cooked once, and that each order that needs a ticket has one."""
    if facts.tickets is None:
        return no_ledger("pos")
    tickets: defaultdict[str, list[TicketLine]] = defaultdict(list)
    for line in facts.tickets:
        tickets[line.order].append(line)
    repeated = [wrong for order, lines in tickets.items() for wrong in _repeated(order, lines)]
    missing = [wrong for order in facts.judged() for wrong in _missing(order, tickets.get(order.name, ()))]
    return finding(len(tickets), [*repeated, *missing])


def reports_move_orders(facts: Facts) -> Finding:
    """Check that each report of a restaurant that was answered 2xx has moved its order."""
    reports = [
        (line, facts.orders[line.order])
        for line in facts.tickets or ()
        if line.event == "told" and 200 <= line.status < 300 and line.told in NEXT_STATUS and line.order in facts.orders
    ]
    return finding(
        len(reports),
        (
            Violation(
                order.name,
                f"the restaurant reported {order.name} as {line.told} and was answered {line.status} ({line.where}), "
                f"but the order was never {NEXT_STATUS[line.told].value}; it is {order.newest.status.value} "
                f"({order.newest.where})",
            )
            for line, order in reports
            if not order.reused
            and order.first(NEXT_STATUS[line.told]) is None
            and order.end is not OrderStatus.REJECTED
            and facts.period.overdue(line.at_ms)
        ),
    )


def _repeated(order: str, lines: Sequence[TicketLine]) -> Iterator[Violation]:
    keys = {line.key: line.where for line in reversed(lines)}
    if len(keys) > 1:
        evidence = ", ".join(f"{key} in {where}" for key, where in keys.items())
        yield Violation(order, f"the restaurant received {order} under {len(keys)} keys: {evidence}")
    cooked = [line.where for line in lines if line.event == "finished"]
    if len(cooked) > 1:
        yield Violation(order, f"{order} was cooked {len(cooked)} times: {', '.join(cooked)}")


def _missing(order: Order, lines: Sequence[TicketLine]) -> Iterator[Violation]:
    cooking = order.first(OrderStatus.IN_PREPARATION)
    if cooking is not None and not lines:
        yield Violation(
            order.name, f"{order.name} is in preparation ({cooking.where}), but the restaurant never received it"
        )
    elif order.end is OrderStatus.DELIVERED and not any(line.event == "finished" for line in lines):
        yield Violation(order.name, f"{order.name} is DELIVERED ({order.newest.where}), but was never cooked")
