"""Promise 4: at any time a driver has at most one delivery, and a delivery at most one driver.

The checks use three sources:

- the drivers' ledger (`trips.jsonl`): a trip lasts from its line `assigned` to its line `delivered` or `dropped`;
- the records of the drivers' state machines on `deliveries` and `dispatch`. The records of one driver are ordered by
  their times, because one task writes all of them;
- `order-updates`: the driver of an order never changes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from oracle.facts import DriverMove, Facts, Order
from oracle.findings import Finding, Violation, finding, no_ledger
from oracle.ledgers import TripLine


def trips_do_not_overlap(facts: Facts) -> Finding:
    """Check the drivers' ledger."""
    if facts.trips is None:
        return no_ledger("trips")
    return finding(sum(line.event == "assigned" for line in facts.trips), _overlaps(facts.trips))


def drivers_have_one_delivery(facts: Facts) -> Finding:
    """Check the records of the drivers' state machines."""
    moves = sorted(facts.moves, key=lambda move: (move.driver, move.at_ms))
    by_driver = groupby(moves, lambda move: move.driver)
    wrong = [violation for driver, group in by_driver for violation in _two_at_once(driver, group)]
    return finding(sum(move.delivery is not None for move in moves), wrong)


def orders_keep_their_driver(facts: Facts) -> Finding:
    """Check that the updates of an order name one driver."""
    return finding(len(facts.orders), (wrong for order in facts.orders.values() for wrong in _changed(order)))


def _overlaps(lines: Sequence[TripLine]) -> Iterator[Violation]:
    by_driver: dict[str, TripLine] = {}
    by_delivery: dict[str, TripLine] = {}
    delivered: Counter[str] = Counter()
    for line in lines:
        if line.event == "assigned":
            held, other = by_driver.get(line.driver, line), by_delivery.get(line.delivery, line)
            if held.delivery != line.delivery:
                yield Violation(
                    line.delivery,
                    f"{line.driver} has {held.delivery} ({held.where}), but was assigned {line.delivery} "
                    f"({line.where})",
                )
            if other.driver != line.driver:
                yield Violation(
                    line.delivery,
                    f"{line.delivery} has the driver {other.driver} ({other.where}), but was assigned to "
                    f"{line.driver} ({line.where})",
                )
            by_driver[line.driver] = by_delivery[line.delivery] = line
        elif line.event in ("delivered", "dropped"):
            by_driver.pop(line.driver, None)
            by_delivery.pop(line.delivery, None)
            delivered[line.delivery] += line.event == "delivered"
            if line.event == "delivered" and delivered[line.delivery] > 1:
                yield Violation(line.delivery, f"{line.delivery} was delivered again ({line.where})")


def _two_at_once(driver: str, moves: Iterator[DriverMove]) -> Iterator[Violation]:
    current: DriverMove | None = None
    for move in moves:
        if move.delivery is None:
            current = None
            continue
        if current is not None and current.delivery != move.delivery:
            sentence = f"{driver} took {move.delivery} ({move.where}) during {current.delivery} ({current.where})"
            yield Violation(move.delivery, sentence)
        current = move


def _changed(order: Order) -> Iterator[Violation]:
    for life in order.lives:
        drivers = [update for update in life if update.driver is not None]
        for before, after in pairwise(drivers):
            if before.driver != after.driver:
                yield Violation(
                    order.name,
                    f"{order.name} had the driver {before.driver} ({before.where}), "
                    f"then {after.driver} ({after.where})",
                )
