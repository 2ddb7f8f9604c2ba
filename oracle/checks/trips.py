"""Promise 4: at any time a driver has at most one delivery, and a delivery at most one driver.

By the drivers' trips (`trips.jsonl`), from the line with which a driver learnt of a delivery to the one with which it
was over; and by what their twins said on `deliveries` and `dispatch`, one driver's words in the order of their times,
which are those of one task. The driver that an order names never changes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from oracle.facts import Facts, Move, Order
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import TripLine


def trips_do_not_overlap(facts: Facts) -> Finding:
    """As the drivers wrote it down."""
    if facts.trips is None:
        return no_ledger("trips")
    return found(sum(line.event == "assigned" for line in facts.trips), _overlaps(facts.trips))


def twins_have_one_delivery(facts: Facts) -> Finding:
    """As the drivers' twins said it."""
    moves = sorted(facts.moves, key=lambda move: (move.driver, move.at_ms))
    wrong = [v for driver, of in groupby(moves, lambda move: move.driver) for v in _two_at_once(driver, of)]
    return found(sum(move.has is not None for move in moves), wrong)


def orders_keep_their_driver(facts: Facts) -> Finding:
    """As the orders were told of."""
    return found(len(facts.orders), (wrong for order in facts.orders.values() for wrong in _changed(order)))


def _overlaps(lines: Sequence[TripLine]) -> Iterator[Violation]:
    has: dict[str, TripLine] = {}
    carried: dict[str, TripLine] = {}
    delivered: Counter[str] = Counter()
    for line in lines:
        if line.event == "assigned":
            held, other = has.get(line.driver, line), carried.get(line.delivery, line)
            if held.delivery != line.delivery:
                yield Violation(
                    line.delivery,
                    f"{line.driver} has {held.delivery} ({held.where}) and was given {line.delivery} ({line.where})",
                )
            if other.driver != line.driver:
                yield Violation(
                    line.delivery,
                    f"{line.delivery} is {other.driver}'s ({other.where}), and was given to "
                    f"{line.driver} ({line.where})",
                )
            has[line.driver] = carried[line.delivery] = line
        elif line.event in ("delivered", "dropped"):
            has.pop(line.driver, None)
            carried.pop(line.delivery, None)
            delivered[line.delivery] += line.event == "delivered"
            if line.event == "delivered" and delivered[line.delivery] > 1:
                yield Violation(line.delivery, f"{line.delivery} was delivered once more ({line.where})")


def _two_at_once(driver: str, moves: Iterator[Move]) -> Iterator[Violation]:
    has: Move | None = None
    for move in moves:
        if move.has is None:
            has = None
            continue
        if has is not None and has.has != move.has:
            yield Violation(move.has, f"{driver} took {move.has} ({move.where}) while it had {has.has} ({has.where})")
        has = move


def _changed(order: Order) -> Iterator[Violation]:
    for life in order.lives:
        drivers = [told for told in life if told.driver is not None]
        for before, after in pairwise(drivers):
            if before.driver != after.driver:
                yield Violation(
                    order.name,
                    f"{order.name} is brought by {before.driver} ({before.where}), "
                    f"then by {after.driver} ({after.where})",
                )
