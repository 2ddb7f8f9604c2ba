"""Promise 1, no order is lost: an accepted order ends or asks for a person, within its waits.

- The provider's order is accepted if the answer was 2xx, or if Kafka acknowledged the record (`answers.jsonl`).
- A record on `orders` that no view awaits counts as accepted, too. These records are judged only if `order-updates`
  still has its beginning.
- A dead letter counts as an end, because operators see it.
- A wait begins with the update that enters the status, and may take the documented time. If the run is over, no order
  may wait any more.
- An order for later starts at `deliver_at` at the latest, so its wait for the restaurant is counted from then.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from oracle.facts import Facts, Order, Period, Placing
from oracle.findings import Finding, Violation, finding, no_ledger, unknown_speed
from oracle.ledgers import AnswerLine, first_mentions
from topics.order_updates import OrderStatus
from topics.records import epoch_ms

CHARGE_S, REFUND_S, ACCEPTANCE_S, PREPARATION_GRACE_S = 30.0, 30.0, 120.0, 600.0
DRIVER_S, PICKUP_S, DELIVERY_S = 300.0, 900.0, 3600.0
WAIT_S: Mapping[OrderStatus, float] = {
    OrderStatus.CREATED: CHARGE_S,
    OrderStatus.SCHEDULED: ACCEPTANCE_S,
    OrderStatus.IN_PREPARATION: PREPARATION_GRACE_S,
    OrderStatus.SCHEDULING_DELIVERY: DRIVER_S,
    OrderStatus.WAITING_FOR_DRIVER: PICKUP_S,
    OrderStatus.IN_DELIVERY: DELIVERY_S,
}
"""Longest time in a status, in seconds, before the order asks for a person, or moves on because a timer fires.

In preparation it is added to the estimate, and for an order for later to the start. The wait in a status that is
missing here is judged only if the run is over.
"""
IDLE = "what fell due after the last commit of any worker"


def accepted_orders_are_known(facts: Facts) -> Finding:
    """Check that each order that was accepted by answer is on `order-updates` or among the dead letters."""
    if facts.answers is None:
        return no_ledger("answers")
    first = first_mentions(facts.answers)
    accepted = [
        line
        for line in facts.answers
        if line.event == "answer" and line.outcome == "accepted" and not facts.is_older(line.order, first[line.order])
    ]
    dead = _set_aside(facts)
    return finding(
        len({line.order for line in accepted}),
        (
            Violation(line.order, f"{line.order} was accepted ({_answer(line)}), but has no update and no dead letter")
            for line in accepted
            if line.order not in facts.orders and line.order not in dead and facts.period.overdue(line.at_ms)
        ),
    )


def placed_orders_are_known(facts: Facts) -> Finding:
    """Check that each record on `orders` has become an order, or is among the dead letters."""
    if not facts.whole:
        return Finding(0, [], "the records on `orders`: the beginning of `order-updates` is gone")
    letters = {letter.origin for letter in facts.dead_letters}
    return finding(len(facts.placings), _unknown(facts, letters))


def open_orders_are_in_time(facts: Facts) -> Finding:
    """Check that each open order is within its wait, or asks for attention."""
    requested = delivery_times(facts)
    waiting = [order for order in facts.orders.values() if order.end is None and order.newest.attention is None]
    ends = {order.name: _wait_ends_ms(order, requested.get(order.name, ()), facts) for order in waiting}
    overdue = [order for order in waiting if _is_overdue(ends[order.name], facts.period)]
    late = [order for order in overdue if facts.overdue_by_work(ends[order.name] or 0)]
    endless = [order for order in waiting if ends[order.name] is None and not facts.period.final]
    unjudged = (
        unknown_speed(order.name for order in endless if order.newest.status in WAIT_S),
        _without_limit(order.newest.status for order in endless),
        "" if len(late) == len(overdue) else IDLE,
    )
    return Finding(
        len(facts.orders),
        [Violation(order.name, _overdue_sentence(order, facts.period)) for order in late],
        "; ".join(filter(None, unjudged)),
    )


def _without_limit(statuses: Iterable[OrderStatus]) -> str:
    """Return the sentence that the waits in these statuses are not judged; empty if each of them has a longest time."""
    missing = sorted({status.value for status in statuses if status not in WAIT_S})
    return f"the waits in {', '.join(missing)}: the oracle has no longest time for it" if missing else ""


def _is_overdue(ends_ms: int | None, period: Period) -> bool:
    return period.final if ends_ms is None else period.overdue(ends_ms)


def delivery_times(facts: Facts) -> dict[str, list[int | None]]:
    """Return each order's requested delivery times, in milliseconds since 1970; None for an immediate delivery.

    An order that was placed several times has several: the topics do not show which of them the worker accepted.
    """
    requested: defaultdict[str, list[int | None]] = defaultdict(list)
    for placed in facts.placings.values():
        for each in placed:
            requested[each.order].append(each.deliver_at_ms)
    for line in facts.answers or ():
        if line.event == "placing" and line.order not in facts.placings:
            requested[line.order].append(None if line.deliver_at is None else epoch_ms(line.deliver_at))
    return requested


def _unknown(facts: Facts, letters: Iterable[object]) -> Iterator[Violation]:
    for name, placed in facts.placings.items():
        unawaited = [each for each in placed if not each.awaited]  # a view may have answered the others with a refusal
        if name in facts.orders or not unawaited:
            continue
        # One record is enough: a record in the wrong partition was forwarded, and only the copy is decided on.
        if any(each.where in letters or _is_pending(each, facts) for each in unawaited):
            continue
        yield Violation(name, f"{name} was placed ({unawaited[0].where}), but is neither an order nor a dead letter")


def _is_pending(placing: Placing, facts: Facts) -> bool:
    reached = facts.reached.get((placing.where.topic, placing.where.partition))
    return reached is None or reached.position <= placing.where.offset


def _set_aside(facts: Facts) -> set[str]:
    """Return the orders that dead letters are about, by the key of the letter or by its origin."""
    order_at = {each.where: each.order for placed in facts.placings.values() for each in placed}
    keys = {letter.key.decode(errors="replace").partition("/")[0] for letter in facts.dead_letters}
    return keys | {order_at[letter.origin] for letter in facts.dead_letters if letter.origin in order_at}


def _wait_ends_ms(order: Order, requested: Sequence[int | None], facts: Facts) -> int | None:
    """Return the end of the order's wait in milliseconds since 1970; None if its speed or its limit is unknown."""
    newest = order.newest
    if newest.status not in WAIT_S:
        return None
    wait_ms = facts.wait_ms(WAIT_S[newest.status], order.updates[0].at_ms, facts.period.now_ms)
    if wait_ms is None:
        return None
    begun_ms = order.since_ms
    if newest.status is OrderStatus.SCHEDULED:
        begun_ms = max(begun_ms, *(requested_ms or 0 for requested_ms in (*requested, 0)))
    cooking = order.first(OrderStatus.IN_PREPARATION)
    if newest.status is OrderStatus.IN_PREPARATION and cooking is not None and cooking.eta_ms is not None:
        begun_ms = max(begun_ms, cooking.eta_ms)
    return begun_ms + wait_ms


def _overdue_sentence(order: Order, period: Period) -> str:
    newest, waited_s = order.newest, (period.now_ms - order.since_ms) / 1000
    return (
        f"{order.name} has been {newest.status.value} for {waited_s:.0f} s and does not ask for attention "
        f"(version {newest.version}, {newest.where})"
    )


def _answer(line: AnswerLine) -> str:
    how = f"with {line.status}" if line.status else "by Kafka"
    return f"{line.where}, {how}"
