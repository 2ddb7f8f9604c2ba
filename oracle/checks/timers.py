"""Promise 5: timers fire, never early, never lost, and with one effect.

The checks use the visible effects of timers, and the times of records:

- *lost*: a row of the table `timers` (its changelog is a committed topic) is still there long after its due time,
  although a worker has committed since. Without such a commit no worker runs, and a timer may be late by that time.
- *early start*: an order for later is in preparation, or its ticket is at the restaurant, before its time. `eta` is the
  arrival that is estimated when the preparation starts; the start was early if `eta` is before the requested time. If
  an id has several requested times, the earliest counts: the topics do not show which of them the worker accepted.
- *early attention*: an order asks for attention because a wait took too long, before the documented wait was over.
- *twice*: an order asks for attention again for one wait (one awaited event and one start), after that attention
  was cleared. A second firing without a visible effect is allowed.

The checks do not measure how late a timer fired, because it is not visible from outside how long no worker ran.
"""

from collections.abc import Iterator, Mapping, Sequence

from oracle.checks.acceptance import (
    ACCEPTANCE_S,
    CHARGE_S,
    DELIVERY_S,
    DRIVER_S,
    IDLE,
    PICKUP_S,
    PREPARATION_GRACE_S,
    REFUND_S,
    delivery_times,
)
from oracle.facts import Facts, Order, Update
from oracle.findings import Finding, Violation, finding, unknown_speed
from oracle.ledgers import TicketLine
from topics.order_updates import OrderStatus
from topics.records import epoch_ms, instant

ATTENTION_AFTER_S: Mapping[str, float] = {
    "the payment": CHARGE_S,
    "the restaurant's answer": ACCEPTANCE_S,
    "the food": PREPARATION_GRACE_S,
    "a driver": DRIVER_S,
    "the driver to pick up": PICKUP_S,
    "the driver to deliver": DELIVERY_S,
    "the refund": REFUND_S,
}
"""Awaited event of an order -> seconds after which the order may ask for attention."""
MAX_CLOCK_SKEW_MS = 2_000
"""Tolerated difference between the clocks of two workers. For short waits it is half the wait, if that is less."""


def timers_are_not_lost(facts: Facts) -> Finding:
    """Check that no timer is set long after it was due, unless no worker has committed since."""
    period = facts.period
    judged_by_ms = period.now_ms if period.final else facts.alive_ms
    overdue = [row for row in facts.timers.values() if row.due_ms + period.patience_ms < period.now_ms]
    lost = [row for row in overdue if row.due_ms + period.patience_ms < judged_by_ms]
    return Finding(
        len(facts.timers),
        [
            Violation(
                row.name,
                f"the timer {row.name} was due at {instant(row.due_ms):%F %T} UTC, but is still set ({row.where})",
            )
            for row in lost
        ],
        "" if len(lost) == len(overdue) else IDLE,
    )


def nothing_starts_early(facts: Facts) -> Finding:
    """Check that no order for later started before its time."""
    requested = {
        name: min(times)
        for name, requested_ms in delivery_times(facts).items()
        if len(times := [time_ms for time_ms in requested_ms if time_ms is not None]) == len(requested_ms)
    }
    tickets: dict[str, TicketLine] = {}
    for line in facts.tickets or ():
        tickets.setdefault(line.order, line)
    judged = [order for order in facts.judged() if order.name in requested]
    return finding(
        len(judged),
        (wrong for order in judged for wrong in _early(order, requested[order.name], tickets.get(order.name))),
    )


def attention_is_in_time(facts: Facts) -> Finding:
    """Check that orders ask for attention once per wait, and only after the wait."""
    lives = [(order, life) for order in facts.orders.values() for life in order.lives]
    checked = sum(_is_overdue(update) for _, life in lives for update in life)
    unjudged = {order.name for order, life in lives if any(map(_is_overdue, life)) and _speed_is_unknown(life, facts)}
    wrong = [violation for order, life in lives for violation in _wrong_attention(order.name, life, facts)]
    return Finding(checked, wrong, unknown_speed(unjudged))


def _is_overdue(update: Update) -> bool:
    return update.attention is not None and update.attention.waits_for in ATTENTION_AFTER_S


def _speed_is_unknown(life: Sequence[Update], facts: Facts) -> bool:
    return facts.wait_ms(1.0, life[0].at_ms, life[-1].at_ms) is None


def _early(order: Order, requested_ms: int, ticket: TicketLine | None) -> Iterator[Violation]:
    cooking = order.first(OrderStatus.IN_PREPARATION)
    if cooking is None or cooking.eta_ms is None:
        return
    takes_ms = cooking.eta_ms - cooking.at_ms
    start_ms = requested_ms - takes_ms
    tolerance_ms = min(MAX_CLOCK_SKEW_MS, max(0, start_ms - order.updates[0].at_ms) // 2)
    seen = [(cooking.at_ms, f"{order.name} was in preparation", str(cooking.where))]
    if ticket is not None:
        seen.append((ticket.at_ms, f"the restaurant received {order.name}", ticket.where))
    for at_ms, what, where in seen:
        if at_ms < start_ms - tolerance_ms:
            yield Violation(order.name, f"{what} {(start_ms - at_ms) / 1000:.1f} s before its time ({where})")


def _wrong_attention(name: str, life: Sequence[Update], facts: Facts) -> Iterator[Violation]:
    shown, cleared = None, set()
    for update in life:
        attention = update.attention
        if attention == shown:
            continue
        if shown is not None:
            cleared.add((shown.waits_for, shown.since))
        shown = attention
        if attention is None or attention.waits_for not in ATTENTION_AFTER_S:
            continue
        wait_ms = facts.wait_ms(ATTENTION_AFTER_S[attention.waits_for], life[0].at_ms, life[-1].at_ms)
        waited_ms = update.at_ms - epoch_ms(attention.since)
        if (attention.waits_for, attention.since) in cleared:
            yield Violation(name, f"{name} asks for attention again because of {attention.waits_for} ({update.where})")
        elif wait_ms is not None and waited_ms < wait_ms - min(MAX_CLOCK_SKEW_MS, wait_ms // 2):
            yield Violation(
                name,
                f"{name} asks for attention because of {attention.waits_for} after {waited_ms / 1000:.1f} s, "
                f"instead of {wait_ms / 1000:.1f} s ({update.where})",
            )
