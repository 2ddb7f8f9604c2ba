"""Promise 1, no order is lost: what was accepted ends, or shows that a person should look, within its waits.

Accepted is what an answer of 2xx or Kafka's acknowledgement says (`answers.jsonl`); without that ledger, every record
on `orders` that places an order counts. A record on the dead letters is as good as an end: it is listed for operators.
A wait begins with the update that tells of the status, and may take as long as is documented for it; where the run is
over nothing may wait any more. The start of an order for later follows from `deliver_at` alone and is no later than
that. What was placed without a view that waits for the answer is judged where the topics still have everything.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from oracle.facts import Facts, Order, Period, Placing
from oracle.findings import Finding, Violation, found, no_ledger
from oracle.ledgers import AnswerLine, mentioned
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
"""Seconds that may pass in a status before a person is asked to look; on top of the estimate in preparation, and of
its start where an order is for later."""


def accepted_orders_are_known(facts: Facts) -> Finding:
    """What the provider was told is accepted was told of on `order-updates`, or lies with the dead letters."""
    if facts.answers is None:
        return no_ledger("answers")
    first = mentioned(facts.answers)
    accepted = [
        line
        for line in facts.answers
        if line.event == "answer" and line.outcome == "accepted" and not facts.is_older(line.order, first[line.order])
    ]
    dead = _set_aside(facts)
    return found(
        len({line.order for line in accepted}),
        (
            Violation(line.order, f"{line.order} was accepted ({_answer(line)}), and nobody has heard of it since")
            for line in accepted
            if line.order not in facts.orders and line.order not in dead and facts.period.overdue(line.at_ms)
        ),
    )


def placed_orders_are_known(facts: Facts) -> Finding:
    """What lies on `orders` has become an order, or lies with the dead letters."""
    if not facts.whole:
        return Finding(0, [], "which records on `orders` are new, as older topics are not whole")
    letters = {letter.origin for letter in facts.letters}
    return found(len(facts.placings), _unknown(facts, letters))


def open_orders_are_in_time(facts: Facts) -> Finding:
    """An order that has not ended is within its wait, or shows attention."""
    wished = wishes(facts)
    return found(
        len(facts.orders),
        (
            Violation(order.name, _waits(order, facts.period))
            for order in facts.orders.values()
            if order.end is None
            and order.newest.attention is None
            and facts.period.overdue(_wait_ends_ms(order, wished.get(order.name, ()), facts.period))
        ),
    )


def wishes(facts: Facts) -> dict[str, list[int | None]]:
    """Order id -> when it was wished for, in milliseconds since 1970, by each who placed it; None: at once. Which of
    them counted, if there are several, is not known here."""
    found: defaultdict[str, list[int | None]] = defaultdict(list)
    for placed in facts.placings.values():
        for each in placed:
            found[each.order].append(each.deliver_at_ms)
    for line in facts.answers or ():
        if line.event == "placing" and line.order not in facts.placings:
            found[line.order].append(None if line.deliver_at is None else epoch_ms(line.deliver_at))
    return found


def _unknown(facts: Facts, letters: Iterable[object]) -> Iterator[Violation]:
    for name, placed in facts.placings.items():
        unasked = [each for each in placed if not each.asked]  # of the others, somebody may have been told a refusal
        if name in facts.orders or not unasked:
            continue
        # not all of them: one that lay in the wrong partition was forwarded, and only the copy is decided
        if any(each.where in letters or _is_to_come(each, facts) for each in unasked):
            continue
        yield Violation(
            name, f"{name} was placed ({unasked[0].where}), and has become neither an order nor a dead letter"
        )


def _is_to_come(placing: Placing, facts: Facts) -> bool:
    reached = facts.reached.get((placing.where.topic, placing.where.partition))
    return reached is None or reached.position <= placing.where.offset


def _set_aside(facts: Facts) -> set[str]:
    """The orders that a dead letter is about, by its key or by what it was."""
    of_places = {each.where: each.order for placed in facts.placings.values() for each in placed}
    keys = {letter.key.decode(errors="replace").partition("/")[0] for letter in facts.letters}
    return keys | {of_places[letter.origin] for letter in facts.letters if letter.origin in of_places}


def _wait_ends_ms(order: Order, wished: Sequence[int | None], period: Period) -> int:
    newest = order.newest
    begun_ms = order.since_ms
    if newest.status is OrderStatus.SCHEDULED:
        begun_ms = max(begun_ms, *(wished_ms or 0 for wished_ms in (*wished, 0)))
    cooking = order.first(OrderStatus.IN_PREPARATION)
    if newest.status is OrderStatus.IN_PREPARATION and cooking is not None and cooking.eta_ms is not None:
        begun_ms = max(begun_ms, cooking.eta_ms)
    return begun_ms + period.wait_ms(WAIT_S[newest.status])


def _waits(order: Order, period: Period) -> str:
    newest, waited_s = order.newest, (period.now_ms - order.since_ms) / 1000
    return (
        f"{order.name} is {newest.status.value} for {waited_s:.0f} s and asks nobody to look at it "
        f"(version {newest.version}, {newest.where})"
    )


def _answer(line: AnswerLine) -> str:
    how = f"with {line.status}" if line.status else "by Kafka"
    return f"{line.where}, {how}"
