"""Promise 6: whoever observes an order sees it take only steps that there are, in the order of its versions.

On `order-updates`: versions from 1 without a gap, and statuses that may follow on each other; after an end nothing but
the same status again, unless the history has the order and its id begins anew. Others (`observers.jsonl`: those who
read over HTTP or listen to the feed) see versions that never go back, and under each what the topic has under it. The
end that the ordering provider noted (`answers.jsonl`) is the topic's.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from oracle.facts import Facts, Order, Told
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import ObserverLine
from topics.order_updates import OrderStatus

LEGAL: Mapping[OrderStatus | None, Collection[OrderStatus]] = {
    None: {OrderStatus.CREATED},
    OrderStatus.CREATED: {OrderStatus.SCHEDULED, OrderStatus.REJECTED},
    OrderStatus.SCHEDULED: {OrderStatus.IN_PREPARATION, OrderStatus.REJECTED},
    OrderStatus.IN_PREPARATION: {OrderStatus.SCHEDULING_DELIVERY},
    OrderStatus.SCHEDULING_DELIVERY: {OrderStatus.WAITING_FOR_DRIVER},
    OrderStatus.WAITING_FOR_DRIVER: {OrderStatus.IN_DELIVERY},
    OrderStatus.IN_DELIVERY: {OrderStatus.DELIVERED},
}
"""What may follow on what; the same again always may."""


def updates_are_legal(facts: Facts) -> Finding:
    """Every order on `order-updates`."""
    wrong = [
        violation for order in facts.orders.values() for violation in illegal(order, facts.retired.get(order.name, ()))
    ]
    return found(sum(len(life) for order in facts.orders.values() for life in order.lives), wrong)


def observers_see_the_same(facts: Facts) -> Finding:
    """Every observer's sequence of every order."""
    if facts.observers is None:
        return no_ledger("observers")
    seen: defaultdict[tuple[str, str], list[ObserverLine]] = defaultdict(list)
    for line in facts.observers:
        seen[line.observer, line.order].append(line)
    wrong = [violation for lines in seen.values() for violation in _unlike_the_topic(lines, facts)]
    return found(len(facts.observers), wrong)


def noted_ends_are_true(facts: Facts) -> Finding:
    """The provider's word for how an order ended."""
    if facts.answers is None:
        return no_ledger("answers")
    judged = {order.name for order in facts.judged()}
    ends = [line for line in facts.answers if line.event == "ended" and line.order in judged]
    return found(
        len(ends),
        (
            Violation(
                line.order,
                f"{line.order} was seen to end as {line.outcome} ({line.where}) and is {newest.status.value} "
                f"({newest.where})",
            )
            for line in ends
            if (newest := facts.orders[line.order].newest).status.value != line.outcome
        ),
    )


def illegal(order: Order, retired_ms: Sequence[int] = ()) -> Iterator[Violation]:
    """What is wrong with the updates of one order; ``retired_ms``: when its id had become free again."""
    for life in order.lives:
        yield from _illegal_steps(order.name, life)
    for before, after in pairwise(order.lives):
        end, begin = before[-1], after[0]
        if not any(end.at_ms <= at_ms <= begin.at_ms for at_ms in retired_ms):
            yield Violation(
                order.name,
                f"{order.name} ended as {end.status.value} ({end.where}) and began once more ({begin.where})",
            )


def _illegal_steps(name: str, life: Sequence[Told]) -> Iterator[Violation]:
    version, status = 0, None
    for told in life:
        if told.version != version + 1:
            yield Violation(name, f"{name} was told as version {told.version}, after {version} ({told.where})")
        if told.status is not status and told.status not in LEGAL.get(status, ()):
            before = "nothing" if status is None else status.value
            yield Violation(name, f"{name} went from {before} to {told.status.value} ({told.where})")
        version, status = told.version, told.status


def _unlike_the_topic(lines: Sequence[ObserverLine], facts: Facts) -> Iterator[Violation]:
    order, newest = facts.orders.get(lines[0].order), 0
    known = {} if order is None else {told.version: told for life in order.lives for told in life}
    for line in lines:
        if line.version < newest and (order is None or not order.reused):
            yield Violation(
                line.order,
                f"{line.observer} saw version {line.version} of {line.order} over {line.via}, "
                f"after version {newest} ({line.where})",
            )
        newest = max(newest, line.version)
        told = known.get(line.version)
        if told is None:
            if not facts.is_older(line.order, lines[0].at_ms) and facts.period.overdue(line.at_ms):
                yield Violation(
                    line.order,
                    f"{line.observer} saw version {line.version} of {line.order}, which is none ({line.where})",
                )
        elif told.status.value != line.status and not (order and order.reused):
            yield Violation(
                line.order,
                f"{line.observer} saw {line.order} as {line.status} in version {line.version} over {line.via} "
                f"({line.where}), which is {told.status.value} ({told.where})",
            )
