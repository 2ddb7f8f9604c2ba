"""Promise 6: a step that there is not, a version that is missing and an observer who saw something else are found."""

import pytest

from oracle.checks.updates import noted_ends_are_true, observers_see_the_same, updates_are_legal
from oracle.facts import Order
from oracle.ledgers import ObserverLine
from tests.oracle.planted import LIFE, REJECTED, a_look, an_answer, an_order, at, known, lines, sentences, told
from topics.order_updates import OrderStatus

CREATED, SCHEDULED, COOKING, *_, DELIVERED = LIFE
END = "d.order-updates/0 at"


def an_illegal(*steps: tuple[int, OrderStatus]) -> Order:
    """An order with these updates."""
    order = Order("p:o")
    for step in steps:
        order.add(told(*step))
    return order


def test_a_feed_that_is_right_is_not_complained_about() -> None:
    lives = [LIFE, REJECTED, (*LIFE[:5], *LIFE[4:]), (*REJECTED, REJECTED[-1]), (*LIFE[:2], REJECTED[-1])]
    for life in lives:
        assert updates_are_legal(known(an_order(life))) == (len(life), [], "")


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([(1, CREATED), (1, CREATED)], f"p:o was told as version 1, after 1 ({END} 1)"),
        ([(1, CREATED), (3, SCHEDULED)], f"p:o was told as version 3, after 1 ({END} 3)"),
        ([(2, CREATED)], f"p:o was told as version 2, after 0 ({END} 2)"),
        ([(1, SCHEDULED)], f"p:o went from nothing to SCHEDULED ({END} 1)"),
        ([(1, CREATED), (2, COOKING)], f"p:o went from CREATED to IN_PREPARATION ({END} 2)"),
        ([*enumerate(LIFE, 1), (8, LIFE[-2])], f"p:o went from DELIVERED to IN_DELIVERY ({END} 8)"),
        ([*enumerate(LIFE, 1), (8, REJECTED[1])], f"p:o went from DELIVERED to REJECTED ({END} 8)"),
    ],
)
def test_a_feed_that_is_wrong_is_found(steps: list[tuple[int, OrderStatus]], wrong: str) -> None:
    assert sentences(updates_are_legal(known(an_illegal(*steps)))) == [wrong]


def test_an_id_may_be_used_again_when_its_order_has_left_and_not_before() -> None:
    again = an_order(LIFE[:3])
    for number, status in enumerate(LIFE, 1):
        again.add(told(number, status)._replace(at_ms=at(20 + number)))
    assert len(again.lives) == 1, "an open order does not begin anew"
    again = an_order()
    for number, status in enumerate(LIFE, 1):
        again.add(told(number, status)._replace(at_ms=at(20 + number)))
    assert sentences(updates_are_legal(known(again))) == [
        f"p:o ended as DELIVERED ({END} 7) and began once more ({END} 1)"
    ]
    assert updates_are_legal(known(again, retired={"p:o": [at(25)]})).violations
    assert not updates_are_legal(known(again, retired={"p:o": [at(15)]})).violations


def test_observers_who_see_what_the_topic_says_are_not_complained_about() -> None:
    seen = lines(
        a_look(1, "CREATED"),
        a_look(1, "CREATED"),
        a_look(3, "IN_PREPARATION"),
        a_look(2, "SCHEDULED", "y"),
        a_look(7, "DELIVERED"),
    )
    assert observers_see_the_same(known(an_order(), observers=seen)) == (5, [], "")


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (
            [a_look(3, "IN_PREPARATION"), a_look(2, "SCHEDULED")],
            "x saw version 2 of p:o over feed, after version 3 (ledger.jsonl line 2)",
        ),
        (
            [a_look(2, "REJECTED")],
            f"x saw p:o as REJECTED in version 2 over feed (ledger.jsonl line 1), which is SCHEDULED ({END} 2)",
        ),
        ([a_look(8, "DELIVERED")], "x saw version 8 of p:o, which is none (ledger.jsonl line 1)"),
        ([a_look(1, "CREATED", order="p:z")], "x saw version 1 of p:z, which is none (ledger.jsonl line 1)"),
    ],
)
def test_an_observer_who_sees_something_else_is_found(seen: list[ObserverLine], wrong: str) -> None:
    assert sentences(observers_see_the_same(known(an_order(), observers=lines(*seen)))) == [wrong]


def test_what_an_observer_saw_of_an_older_order_is_not_judged() -> None:
    seen = lines(a_look(4, "SCHEDULED", order="p:z"))
    assert not observers_see_the_same(known(observers=seen, older={"p:z"})).violations
    assert not observers_see_the_same(known(observers=seen, since_ms=at(10))).violations


def test_an_end_that_was_noted_and_is_none_is_found() -> None:
    assert not noted_ends_are_true(known(an_order(), answers=lines(an_answer("ended", "DELIVERED")))).violations
    assert sentences(noted_ends_are_true(known(an_order(), answers=lines(an_answer("ended", "REJECTED"))))) == [
        f"p:o was seen to end as REJECTED (ledger.jsonl line 1) and is DELIVERED ({END} 7)"
    ]
