"""Promise 5: a timer that is lost, early or fires twice is found."""

from oracle.checks.timers import complaints_are_in_time, nothing_starts_early, timers_are_not_lost
from oracle.facts import Facts, Order, TimerRow, Told, Where
from tests.oracle.planted import LIFE, a_placing, a_ticket, an_order, at, attention, known, lines, sentences, told
from topics.order_updates import OrderStatus

CHANGELOG = Where("d-timers-changelog", 0, 3)
DUE = {(0, b"k"): TimerRow("p:o/charge-wait", at(5), CHANGELOG)}
WISH = 300.0
TAKES = 100.0
"""Preparation and journey, in steps."""


def test_a_timer_that_is_due_and_still_set_is_lost_once_somebody_works_again() -> None:
    assert not timers_are_not_lost(known(timers=DUE, now=4.9, alive_ms=at(4.9))).violations
    assert not timers_are_not_lost(known(timers=DUE, now=5.9, alive_ms=at(5.9), patience_ms=10_000)).violations
    (wrong,) = sentences(timers_are_not_lost(known(timers=DUE, now=9, alive_ms=at(6))))
    assert wrong.startswith("the timer p:o/charge-wait was due at ")
    assert wrong.endswith(" UTC, and is set (d-timers-changelog/0 at 3)")


def test_a_timer_may_be_late_for_as_long_as_nobody_works() -> None:
    idle = timers_are_not_lost(known(timers=DUE, now=9, alive_ms=at(4)))
    assert not idle.violations
    assert idle.unjudged == "what is due since no worker has committed anything"
    assert timers_are_not_lost(known(timers=DUE, now=9, alive_ms=at(4), final=True)).violations


def for_later(cooking_at: float, ticket_at: float) -> Facts:
    """An order wished for later, in preparation at some time, and its ticket."""
    order = an_order(LIFE[:2])
    cooking = told(3, LIFE[2], eta_ms=at(cooking_at + TAKES))._replace(at_ms=at(cooking_at))
    order.add(cooking)
    placed = {"p:o": [a_placing(deliver_at_ms=at(WISH))]}
    return known(order, placings=placed, tickets=lines(a_ticket("accepted", step=ticket_at)), now=WISH)


def test_an_order_for_later_that_starts_too_early_is_found() -> None:
    assert nothing_starts_early(for_later(200, 200)) == (1, [], "")
    assert not nothing_starts_early(for_later(250, 240)).violations
    for also in (at(50), None):
        twice = for_later(3, 3)
        twice.placings["p:o"].append(a_placing(deliver_at_ms=also))
        assert not nothing_starts_early(twice).violations, "which of the two was taken is not known"
    assert sentences(nothing_starts_early(for_later(199.7, 200))) == [
        "p:o was in preparation 3.0 s before its time (d.order-updates/0 at 3)"
    ]
    assert sentences(nothing_starts_early(for_later(200, 3))) == [
        "the restaurant was told of p:o 1970.0 s before its time (ledger.jsonl line 1)"
    ]


def complaining(*shown: tuple[float, tuple[str, float] | None]) -> Order:
    """An order that waits for its payment from step 1 on, and asks for attention, or does not, at these steps."""
    updates = [told(1, LIFE[0])]
    for number, (step, concern) in enumerate(shown, 2):
        asks = concern and attention(*concern)
        updates.append(Told(number, OrderStatus.CREATED, at(step), Where("u", 0, number), attention=asks or None))
    order = Order("p:o")
    for update in updates:
        order.add(update)
    return order


def test_a_complaint_before_its_wait_is_over_is_found() -> None:
    payment = ("the payment", 1.0)
    assert complaints_are_in_time(known(complaining((4, payment), (5, payment)))) == (2, [], "")
    assert not complaints_are_in_time(known(complaining((1.1, ("the charge: it makes no sense", 1.0))))).violations
    assert not complaints_are_in_time(known(complaining((1.04, payment)), speed_up=100)).violations
    assert sentences(complaints_are_in_time(known(complaining((3, payment))))) == [
        "p:o asks for attention because of the payment after 20.0 s, and not after 30.0 s (u/0 at 2)"
    ]


def test_a_complaint_that_comes_once_more_is_found() -> None:
    payment, other = ("the payment", 1.0), ("an operator: odd", 2.0)
    twice = complaining((4, payment), (5, None), (6, payment))
    assert sentences(complaints_are_in_time(known(twice))) == [
        "p:o asks for attention once more because of the payment (u/0 at 4)"
    ]
    assert complaints_are_in_time(known(complaining((4, payment), (5, other), (6, payment)))).violations
    again = complaining((4, payment), (5, None), (8, ("the payment", 5.0)))
    assert not complaints_are_in_time(known(again)).violations, "of another wait"
