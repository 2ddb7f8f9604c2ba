"""Promise 5: timers fire, never early, never lost, once in effect.

Judged from outside, so by what a timer brings about, and by the times of records:

- *lost*: a row of the table `timers` (its changelog is a committed topic) that is long due and still there, although
  a worker has committed something since. Where nobody has, no worker runs, and a timer may be late by that long.
- *early, a start*: an order that was wished for later is in preparation, or its ticket at the restaurant, before its
  time. In preparation its arrival is `eta`, counted from that moment: one before the wish is one that began too early.
  (Of several wishes under one id the earliest is taken: which of them was refused is not known here.)
- *early, a wait*: attention because something took too long, told before the wait documented for it was over.
- *twice*: the same complaint (what is waited for, since when) told once more after it was over. What a second firing
  does not show to anybody has no effect.

How late a timer fired cannot be told from outside: nobody knows here for how long no worker ran.
"""

from collections.abc import Iterator, Mapping, Sequence

from oracle.checks.acceptance import (
    ACCEPTANCE_S,
    CHARGE_S,
    DELIVERY_S,
    DRIVER_S,
    PICKUP_S,
    PREPARATION_GRACE_S,
    REFUND_S,
    wishes,
)
from oracle.facts import Facts, Order, Period, Told
from oracle.findings import Finding, Violation, found
from oracle.ledgers import TicketLine
from topics.order_updates import OrderStatus
from topics.records import epoch_ms, instant

COMPLAINTS: Mapping[str, float] = {
    "the payment": CHARGE_S,
    "the restaurant's answer": ACCEPTANCE_S,
    "the food": PREPARATION_GRACE_S,
    "a driver": DRIVER_S,
    "the driver to pick up": PICKUP_S,
    "the driver to deliver": DELIVERY_S,
    "the refund": REFUND_S,
}
"""What an order says when only its wait was too long -> seconds after which it may say so."""
CLOCKS_MS = 2_000
"""The clocks of two workers may differ by so much; of shorter waits it is half of them."""


def timers_are_not_lost(facts: Facts) -> Finding:
    """Every timer that is set."""
    period = facts.period
    judged_by_ms = period.now_ms if period.final else facts.alive_ms
    overdue = [row for row in facts.timers.values() if row.due_ms + period.patience_ms < period.now_ms]
    lost = [row for row in overdue if row.due_ms + period.patience_ms < judged_by_ms]
    return Finding(
        len(facts.timers),
        [
            Violation(
                row.name, f"the timer {row.name} was due at {instant(row.due_ms):%F %T} UTC, and is set ({row.where})"
            )
            for row in lost
        ],
        "" if len(lost) == len(overdue) else "what is due since no worker has committed anything",
    )


def nothing_starts_early(facts: Facts) -> Finding:
    """Every order for later that is, or was, in preparation."""
    wished = {
        name: min(moments)
        for name, found in wishes(facts).items()
        if len(moments := [moment for moment in found if moment is not None]) == len(found)
    }
    tickets: dict[str, TicketLine] = {}
    for line in facts.tickets or ():
        tickets.setdefault(line.order, line)
    judged = [order for order in facts.judged() if order.name in wished]
    return found(
        len(judged),
        (wrong for order in judged for wrong in _early(order, wished[order.name], tickets.get(order.name))),
    )


def complaints_are_in_time(facts: Facts) -> Finding:
    """Every complaint about a wait: after it, and once."""
    lives = [(order, life) for order in facts.orders.values() for life in order.lives]
    complaints = sum(told.attention is not None and told.attention.waits_for in COMPLAINTS for _, told in _each(lives))
    return found(complaints, (wrong for order, life in lives for wrong in _complaints(order.name, life, facts.period)))


def _each(lives: Sequence[tuple[Order, Sequence[Told]]]) -> Iterator[tuple[Order, Told]]:
    return ((order, told) for order, life in lives for told in life)


def _early(order: Order, wished_ms: int, ticket: TicketLine | None) -> Iterator[Violation]:
    cooking = order.first(OrderStatus.IN_PREPARATION)
    if cooking is None or cooking.eta_ms is None:
        return
    takes_ms = cooking.eta_ms - cooking.at_ms
    start_ms = wished_ms - takes_ms
    early = min(CLOCKS_MS, max(0, start_ms - order.told[0].at_ms) // 2)
    seen = [(cooking.at_ms, f"{order.name} was in preparation", str(cooking.where))]
    if ticket is not None:
        seen.append((ticket.at_ms, f"the restaurant was told of {order.name}", ticket.where))
    for at_ms, what, where in seen:
        if at_ms < start_ms - early:
            yield Violation(order.name, f"{what} {(start_ms - at_ms) / 1000:.1f} s before its time ({where})")


def _complaints(name: str, life: Sequence[Told], period: Period) -> Iterator[Violation]:
    shown, over = None, set()
    for told in life:
        attention = told.attention
        if attention == shown:
            continue
        if shown is not None:
            over.add((shown.waits_for, shown.since))
        shown = attention
        if attention is None or attention.waits_for not in COMPLAINTS:
            continue
        wait_ms = period.wait_ms(COMPLAINTS[attention.waits_for])
        waited_ms = told.at_ms - epoch_ms(attention.since)
        if (attention.waits_for, attention.since) in over:
            yield Violation(
                name, f"{name} asks for attention once more because of {attention.waits_for} ({told.where})"
            )
        elif waited_ms < wait_ms - min(CLOCKS_MS, wait_ms // 2):
            yield Violation(
                name,
                f"{name} asks for attention because of {attention.waits_for} after {waited_ms / 1000:.1f} s, "
                f"and not after {wait_ms / 1000:.1f} s ({told.where})",
            )
