"""Promise 6: observers of an order see only legal steps, in the order of its versions.

- On `order-updates` the versions count from 1 without a gap, and each status may follow the one before. After an end
  the status stays. The id may begin again once the order is in the history.
- Observers over HTTP or the feed (`observers.jsonl`) see versions that never decrease, each with the status that it has
  on the topic.
- The end that the ordering provider noted (`answers.jsonl`) is the end on the topic.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from oracle.facts import Facts, Order, Update
from oracle.findings import Finding, Violation, finding, no_ledger
from oracle.ledgers import ObserverLine
from topics.order_updates import OrderStatus

# A copy, made by hand, of the steps that the tables of `processors` permit. It must stay independent of `processors`,
# because a judge that shares the code it judges also shares its mistakes. `tests/processors/world.py` has another copy
# for the same reason.
LEGAL: Mapping[OrderStatus | None, Collection[OrderStatus]] = {
    None: {OrderStatus.CREATED},
    OrderStatus.CREATED: {OrderStatus.SCHEDULED, OrderStatus.REJECTED},
    OrderStatus.SCHEDULED: {OrderStatus.IN_PREPARATION, OrderStatus.REJECTED},
    OrderStatus.IN_PREPARATION: {OrderStatus.SCHEDULING_DELIVERY},
    OrderStatus.SCHEDULING_DELIVERY: {OrderStatus.WAITING_FOR_DRIVER},
    OrderStatus.WAITING_FOR_DRIVER: {OrderStatus.IN_DELIVERY},
    OrderStatus.IN_DELIVERY: {OrderStatus.DELIVERED},
}
"""Status -> the statuses that may follow it. An update may always repeat the status."""


def updates_are_legal(facts: Facts) -> Finding:
    """Check the versions and statuses of each order on `order-updates`."""
    wrong = [
        violation for order in facts.orders.values() for violation in illegal(order, facts.retired.get(order.name, ()))
    ]
    return finding(sum(len(life) for order in facts.orders.values() for life in order.lives), wrong)


def observers_see_the_same(facts: Facts) -> Finding:
    """Check the versions and statuses that each observer saw of each order."""
    if facts.observers is None:
        return no_ledger("observers")
    seen: defaultdict[tuple[str, str], list[ObserverLine]] = defaultdict(list)
    for line in facts.observers:
        seen[line.observer, line.order].append(line)
    wrong = [violation for lines in seen.values() for violation in _unlike_the_topic(lines, facts)]
    return finding(len(facts.observers), wrong)


def noted_ends_are_true(facts: Facts) -> Finding:
    """Check the ends that the ordering provider noted."""
    if facts.answers is None:
        return no_ledger("answers")
    judged = {order.name for order in facts.judged()}
    ends = [line for line in facts.answers if line.event == "ended" and line.order in judged]
    return finding(
        len(ends),
        (
            Violation(
                line.order,
                f"{line.order} was noted as ended in {line.outcome} ({line.where}), but is {newest.status.value} "
                f"({newest.where})",
            )
            for line in ends
            if (newest := facts.orders[line.order].newest).status.value != line.outcome
        ),
    )


def illegal(order: Order, retired_ms: Sequence[int] = ()) -> Iterator[Violation]:
    """Return the violations in the updates of one order.

    ``retired_ms``: the times at which the order's id became free again, in milliseconds since 1970.
    """
    for life in order.lives:
        yield from _illegal_steps(order.name, life)
    for before, after in pairwise(order.lives):
        end, begin = before[-1], after[0]
        if not any(end.at_ms <= at_ms <= begin.at_ms for at_ms in retired_ms):
            yield Violation(
                order.name,
                f"{order.name} ended as {end.status.value} ({end.where}), but began again ({begin.where})",
            )


def _illegal_steps(name: str, life: Sequence[Update]) -> Iterator[Violation]:
    version, status = 0, None
    for update in life:
        if update.version != version + 1:
            yield Violation(name, f"{name} has version {update.version} after version {version} ({update.where})")
        if update.status is not status and update.status not in LEGAL.get(status, ()):
            before = "no status" if status is None else status.value
            yield Violation(name, f"{name} went from {before} to {update.status.value} ({update.where})")
        version, status = update.version, update.status


def _unlike_the_topic(lines: Sequence[ObserverLine], facts: Facts) -> Iterator[Violation]:
    order, newest = facts.orders.get(lines[0].order), 0
    known = {} if order is None else {update.version: update for life in order.lives for update in life}
    for line in lines:
        if line.version < newest and (order is None or not order.reused):
            yield Violation(
                line.order,
                f"{line.observer} saw version {line.version} of {line.order} over {line.via}, "
                f"after version {newest} ({line.where})",
            )
        newest = max(newest, line.version)
        update = known.get(line.version)
        if update is None:
            if not facts.is_older(line.order, lines[0].at_ms) and facts.period.overdue(line.at_ms):
                yield Violation(
                    line.order,
                    f"{line.observer} saw version {line.version} of {line.order}, which does not exist ({line.where})",
                )
        elif update.status.value != line.status and not (order and order.reused):
            yield Violation(
                line.order,
                f"{line.observer} saw {line.order} as {line.status} in version {line.version} over {line.via} "
                f"({line.where}), but that version is {update.status.value} ({update.where})",
            )
