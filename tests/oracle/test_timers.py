"""Promise 5: timers that are lost, fire early or fire twice are found."""

from oracle.checks.timers import attention_is_in_time, nothing_starts_early, timers_are_not_lost
from oracle.facts import Facts, Location, Order, TimerRow, Update
from tests.oracle.planted import (
    LIFE,
    a_placing,
    a_ticket,
    an_order,
    an_update,
    at,
    attention,
    facts_of,
    lines,
    sentences,
)
from topics.order_updates import OrderStatus

CHANGELOG = Location("d-timers-changelog", 0, 3)
DUE = {(0, b"k"): TimerRow("p:o/charge-wait", at(5), CHANGELOG)}
REQUESTED = 300.0
"""Requested delivery time, in steps."""
DURATION = 100.0
"""Time of preparation and journey, in steps."""


def test_overdue_timer_is_lost_once_a_worker_commits() -> None:
    assert not timers_are_not_lost(facts_of(timers=DUE, now=4.9, alive_ms=at(4.9))).violations
    assert not timers_are_not_lost(facts_of(timers=DUE, now=5.9, alive_ms=at(5.9), patience_ms=10_000)).violations
    (wrong,) = sentences(timers_are_not_lost(facts_of(timers=DUE, now=9, alive_ms=at(6))))
    assert wrong.startswith("the timer p:o/charge-wait was due at ")
    assert wrong.endswith(" UTC, but is still set (d-timers-changelog/0 at 3)")


def test_timer_may_be_late_while_no_worker_runs() -> None:
    idle = timers_are_not_lost(facts_of(timers=DUE, now=9, alive_ms=at(4)))
    assert not idle.violations
    assert idle.unjudged == "what fell due after the last commit of any worker"
    assert timers_are_not_lost(facts_of(timers=DUE, now=9, alive_ms=at(4), final=True)).violations


def for_later(cooking_at: float, ticket_at: float) -> Facts:
    """Return facts with an order for later, with the steps at which its preparation began and its ticket arrived."""
    order = an_order(LIFE[:2])
    cooking = an_update(3, LIFE[2], eta_ms=at(cooking_at + DURATION))._replace(at_ms=at(cooking_at))
    order.add(cooking)
    placed = {"p:o": [a_placing(deliver_at_ms=at(REQUESTED))]}
    return facts_of(order, placings=placed, tickets=lines(a_ticket("accepted", step=ticket_at)), now=REQUESTED)


def test_early_start_of_an_order_for_later_is_found() -> None:
    assert nothing_starts_early(for_later(200, 200)) == (1, [], "")
    assert not nothing_starts_early(for_later(250, 240)).violations
    for also in (at(50), None):
        twice = for_later(3, 3)
        twice.placings["p:o"].append(a_placing(deliver_at_ms=also))
        assert not nothing_starts_early(twice).violations, "the accepted one of the two is unknown"
    assert sentences(nothing_starts_early(for_later(199.7, 200))) == [
        "p:o was in preparation 3.0 s before its time (d.order-updates/0 at 3)"
    ]
    assert sentences(nothing_starts_early(for_later(200, 3))) == [
        "the restaurant received p:o 1970.0 s before its time (ledger.jsonl line 1)"
    ]


def asking_for_attention(*shown: tuple[float, tuple[str, float] | None]) -> Order:
    """Return an order that waits for its payment from step 1 on, with its attention at later steps."""
    updates = [an_update(1, LIFE[0])]
    for number, (step, shown_attention) in enumerate(shown, 2):
        asks = shown_attention and attention(*shown_attention)
        updates.append(Update(number, OrderStatus.CREATED, at(step), Location("u", 0, number), attention=asks or None))
    order = Order("p:o")
    for update in updates:
        order.add(update)
    return order


def test_attention_before_the_end_of_a_wait_is_found() -> None:
    payment = ("the payment", 1.0)
    assert attention_is_in_time(facts_of(asking_for_attention((4, payment), (5, payment)))) == (2, [], "")
    assert not attention_is_in_time(
        facts_of(asking_for_attention((1.1, ("the charge: it makes no sense", 1.0))))
    ).violations
    assert not attention_is_in_time(facts_of(asking_for_attention((1.04, payment)), speed_up=100)).violations
    assert sentences(attention_is_in_time(facts_of(asking_for_attention((3, payment))))) == [
        "p:o asks for attention because of the payment after 20.0 s, instead of 30.0 s (u/0 at 2)"
    ]


def test_repeated_attention_for_one_wait_is_found() -> None:
    payment, other = ("the payment", 1.0), ("an operator: odd", 2.0)
    twice = asking_for_attention((4, payment), (5, None), (6, payment))
    assert sentences(attention_is_in_time(facts_of(twice))) == [
        "p:o asks for attention again because of the payment (u/0 at 4)"
    ]
    assert attention_is_in_time(facts_of(asking_for_attention((4, payment), (5, other), (6, payment)))).violations
    again = asking_for_attention((4, payment), (5, None), (8, ("the payment", 5.0)))
    assert not attention_is_in_time(facts_of(again)).violations, "this is another wait"
