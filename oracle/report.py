"""Report of a judgement: the books, and the promises with their violations."""

from collections import Counter
from datetime import datetime
from typing import NamedTuple

from oracle.checks import acceptance, doors, money, progress, tickets, timers, trips, updates, zombies
from oracle.facts import Facts, Unreadable
from oracle.findings import Finding, Violation
from topics.order_updates import OrderStatus
from topics.records import instant

CHECKS = (
    (
        1,
        "no order is lost",
        (acceptance.accepted_orders_are_known, acceptance.placed_orders_are_known, acceptance.open_orders_are_in_time),
    ),
    (2, "nobody is charged twice", (money.charged_at_most_once,)),
    (3, "money matches the end", (money.money_matches_the_end,)),
    (
        4,
        "one driver a delivery, one delivery a driver",
        (trips.trips_do_not_overlap, trips.drivers_have_one_delivery, trips.orders_keep_their_driver),
    ),
    (
        5,
        "timers fire: not early, not lost, once",
        (timers.timers_are_not_lost, timers.nothing_starts_early, timers.attention_is_in_time),
    ),
    (
        6,
        "observers see legal steps in order",
        (updates.updates_are_legal, updates.observers_see_the_same, updates.noted_ends_are_true),
    ),
    (7, "ticket received at least once, cooked once", (tickets.cooked_once, tickets.reports_move_orders)),
    (8, "recovery is exact", ()),
    (
        9,
        "no record stops a partition",
        (progress.partitions_move, progress.poison_is_set_aside, progress.malformed_records_are_set_aside),
    ),
    (10, "a replaced worker has no effect", (zombies.replaced_producers_write_nothing,)),
    (11, "nobody reads or changes what is not theirs", (doors.intruders_are_refused,)),
)
"""Number, title and checks of each promise."""
BY_TESTS = "not visible from outside: tests judge it"


class Promise(NamedTuple):
    """A promise and the result of its checks."""

    number: int
    title: str
    checked: int
    """Number of things that were checked."""
    violations: list[Violation]
    unjudged: str
    """Sentence about what could not be checked, and the reason; empty if everything was checked."""


class Report(NamedTuple):
    """Result of a judgement."""

    books: dict[str, int]
    """Name of a count -> number."""
    promises: tuple[Promise, ...]
    since: datetime | None
    """Start of the judged period; None if everything was judged."""
    unreadable: tuple[Unreadable, ...]
    speeds: tuple[float, ...] = ()
    """The speeds on record, slowest first; empty if no run is on record, or another speed was asked for."""

    @property
    def by_promise(self) -> dict[int, list[str]]:
        """Number of each broken promise -> a sentence for each violation."""
        return {
            promise.number: [violation.sentence for violation in promise.violations]
            for promise in self.promises
            if promise.violations
        }

    @property
    def violations(self) -> list[str]:
        """Sentences of all violations; empty if every promise that can be judged is kept."""
        return [sentence for sentences in self.by_promise.values() for sentence in sentences]

    @property
    def verdict(self) -> str:
        """Sentence that all promises are kept, or which of them are broken."""
        broken = [str(number) for number in self.by_promise]
        if not broken:
            return "Every promise that could be judged is kept."
        return f"{len(broken)} promise{' is' if len(broken) == 1 else 's are'} broken: {', '.join(broken)}."


def report_of(facts: Facts) -> Report:
    """Judge the facts."""
    promises = []
    for number, title, checks in CHECKS:
        finding = Finding(0, [], "" if checks else BY_TESTS)
        for check in checks:
            finding = finding + check(facts)
        promises.append(Promise(number, title, *finding))
    since = facts.period.since_ms
    return Report(
        _books(facts),
        tuple(promises),
        instant(since) if since else None,
        tuple(facts.unreadable),
        tuple(facts.speeds.on_record),
    )


def _books(facts: Facts) -> dict[str, int]:
    orders = list(facts.orders.values())
    ends = Counter(order.end for order in orders)
    books = {
        "orders": len(orders),
        "delivered": ends[OrderStatus.DELIVERED],
        "rejected": ends[OrderStatus.REJECTED],
        "cancelled": ends[OrderStatus.CANCELLED],
        "open": ends[None],
        "refunded": sum(order.newest.refunded for order in orders),
        "needing attention": sum(order.newest.attention is not None for order in orders),
        "dead letters": len(facts.dead_letters),
    }
    if facts.answers is not None:
        answers = [line for line in facts.answers if line.event == "answer"]
        books["accepted by answer"] = len({line.order for line in answers if line.outcome == "accepted"})
        books["refused by answer"] = len({line.order for line in answers if line.outcome == "refused"})
    if facts.payments is not None:
        books["charges"] = len(money.performed(facts.payments, "charged"))
        books["refunds"] = len(money.performed(facts.payments, "refunded"))
        books["net charges"] = money.net_charges(facts.payments)
    if facts.tickets is not None:
        books["tickets"] = len({line.order for line in facts.tickets})
        books["cooked"] = sum(line.event == "finished" for line in facts.tickets)
    if facts.trips is not None:
        books["trips"] = sum(line.event == "assigned" for line in facts.trips)
        books["trips completed"] = sum(line.event == "delivered" for line in facts.trips)
    return books
