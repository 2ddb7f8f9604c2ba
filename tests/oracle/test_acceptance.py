"""Promise 1: an order that was accepted and is lost is found, and one that may still come is not taken for lost."""

from typing import Any

import pytest

from oracle.checks.acceptance import accepted_orders_are_known, open_orders_are_in_time, placed_orders_are_known
from oracle.facts import Letter, Reached, Where
from tests.oracle.planted import (
    LIFE,
    ORDERS,
    a_placing,
    an_answer,
    an_order,
    at,
    attention,
    known,
    lines,
    sentences,
    waited,
)
from topics.order_updates import OrderStatus
from topics.records import instant

APPLIED = {(ORDERS, 0): Reached(position=9, last=8)}
OPEN = [status for status in LIFE if not status.ended]


def test_an_accepted_order_that_is_known_is_not_complained_about() -> None:
    found = accepted_orders_are_known(known(an_order(), answers=lines(an_answer(), an_answer(outcome="refused"))))
    assert (found.checked, found.violations) == (1, [])
    refused = lines(an_answer("placing", ""), an_answer(outcome="refused"))
    assert not accepted_orders_are_known(known(answers=refused)).violations


def test_an_accepted_order_that_nobody_has_heard_of_is_found() -> None:
    answered = known(answers=lines(an_answer(status=201)))
    assert sentences(accepted_orders_are_known(answered)) == [
        "p:o was accepted (ledger.jsonl line 1, with 201), and nobody has heard of it since"
    ]
    assert not accepted_orders_are_known(known(answers=lines(an_answer()), now=0.1, patience_ms=2_000)).violations
    assert accepted_orders_are_known(known(answers=lines(an_answer()), now=0.1, final=True)).violations


def test_an_accepted_order_among_the_dead_letters_is_not_lost() -> None:
    by_key = Letter(Where("d.dead-letters", 0, 1), Where(ORDERS, 0, 5), b"p:o", b"{}")
    assert not accepted_orders_are_known(known(answers=lines(an_answer()), letters=[by_key])).violations
    by_place = by_key._replace(key=b"")
    placings = {"p:o": [a_placing()]}
    assert not accepted_orders_are_known(
        known(answers=lines(an_answer()), letters=[by_place], placings=placings)
    ).violations


def test_an_order_from_before_what_is_judged_is_not_missed() -> None:
    again = lines(an_answer("placing", ""), an_answer())
    assert not accepted_orders_are_known(known(answers=again, since_ms=at(1))).violations
    assert not accepted_orders_are_known(known(answers=again, older={"p:o"})).violations


def test_a_placed_order_that_became_nothing_is_found() -> None:
    lost = known(placings={"p:o": [a_placing()]}, reached=APPLIED)
    assert sentences(placed_orders_are_known(lost)) == [
        "p:o was placed (d.orders/0 at 5), and has become neither an order nor a dead letter"
    ]
    letter = Letter(Where("d.dead-letters", 0, 1), Where(ORDERS, 0, 5), b"", b"{}")
    asked = a_placing(asked=True, where=Where(ORDERS, 0, 6))
    lost = known(placings={"p:o": [asked, a_placing()]}, reached=APPLIED)
    assert len(placed_orders_are_known(lost).violations) == 1, "that a view asked for it too is no excuse"
    copy = a_placing(where=Where(ORDERS, 0, 7))
    copys = letter._replace(origin=copy.where)
    fine: list[dict[str, Any]] = [
        {"placings": {"p:o": [a_placing(), copy]}, "reached": APPLIED, "letters": [copys]},
        {"placings": {"p:o": [a_placing(), copy]}, "reached": {(ORDERS, 0): Reached(position=7, last=8)}},
        {"placings": {"p:o": [asked, a_placing()]}, "reached": APPLIED, "letters": [letter]},
        {"placings": {"p:o": [asked, a_placing()]}, "reached": APPLIED, "orders": {"p:o": an_order()}},
        {"placings": {"p:o": [a_placing(asked=True)]}, "reached": APPLIED},
        {"placings": {"p:o": [a_placing()]}, "reached": {(ORDERS, 0): Reached(position=5, last=8)}},
        {"placings": {"p:o": [a_placing()]}, "reached": APPLIED, "letters": [letter]},
        {"placings": {"p:o": [a_placing()]}, "reached": APPLIED, "orders": {"p:o": an_order()}},
    ]
    for facts in fine:
        assert not placed_orders_are_known(known(**facts)).violations, facts
    assert placed_orders_are_known(known(placings={"p:o": [a_placing()]}, reached=APPLIED, whole=False)).unjudged


@pytest.mark.parametrize("status", OPEN)
def test_an_open_order_is_lost_after_its_wait_and_not_before(status: OrderStatus) -> None:
    statuses = LIFE[: LIFE.index(status) + 1]
    ends = len(statuses) + waited(status)
    assert not open_orders_are_in_time(known(an_order(statuses), now=ends - 0.1)).violations
    assert not open_orders_are_in_time(known(an_order(statuses), now=ends + 0.1, patience_ms=2_000)).violations
    (wrong,) = sentences(open_orders_are_in_time(known(an_order(statuses), now=ends + 0.1)))
    assert wrong.startswith(f"p:o is {status.value} for ")
    assert open_orders_are_in_time(known(an_order(statuses), now=len(statuses), final=True)).violations
    assert not open_orders_are_in_time(known(an_order(statuses, attention=attention()), final=True)).violations
    assert open_orders_are_in_time(known(an_order(statuses), now=len(statuses) + waited(status) / 50, speed_up=100))[1]


def test_an_order_for_later_waits_for_its_time() -> None:
    order, wish = an_order(LIFE[:2]), 1_000.0
    late = wish + waited(OrderStatus.SCHEDULED) + 0.1
    told = lines(an_answer("placing", "", deliver_at=instant(at(wish))))
    placed = {"p:o": [a_placing(deliver_at_ms=at(wish))]}
    for facts in ({"answers": told}, {"placings": placed}):
        assert not open_orders_are_in_time(known(order, now=wish, **facts)).violations
        assert open_orders_are_in_time(known(order, now=late, **facts)).violations


def test_a_preparation_may_take_its_estimate_and_some_grace() -> None:
    cooking = an_order(LIFE[:3], eta_ms=at(500))
    assert not open_orders_are_in_time(known(cooking, now=500)).violations
    assert open_orders_are_in_time(known(cooking, now=500.1 + waited(OrderStatus.IN_PREPARATION))).violations


def test_news_of_an_eta_does_not_begin_a_wait_anew() -> None:
    order = an_order([*LIFE[:5], LIFE[4]])
    assert open_orders_are_in_time(known(order, now=5.1 + waited(LIFE[4]))).violations


def test_ended_orders_wait_for_nothing() -> None:
    assert not open_orders_are_in_time(known(an_order(), now=1e6, final=True)).violations
