"""Promise 6: illegal steps, missing versions and observations that differ from the topic are found."""

import pytest

from oracle.checks.updates import noted_ends_are_true, observers_see_the_same, updates_are_legal
from oracle.facts import Order
from oracle.ledgers import ObserverLine
from tests.oracle.planted import (
    LIFE,
    REJECTED,
    an_answer,
    an_observation,
    an_order,
    an_update,
    at,
    facts_of,
    lines,
    sentences,
)
from topics.order_updates import OrderStatus

CREATED, SCHEDULED, COOKING, *_, DELIVERED = LIFE
END = "d.order-updates/0 at"


def order_with(*steps: tuple[int, OrderStatus]) -> Order:
    """Return an order with updates of these versions and statuses."""
    order = Order("p:o")
    for step in steps:
        order.add(an_update(*step))
    return order


def test_legal_updates_are_accepted() -> None:
    lives = [LIFE, REJECTED, (*LIFE[:5], *LIFE[4:]), (*REJECTED, REJECTED[-1]), (*LIFE[:2], REJECTED[-1])]
    for life in lives:
        assert updates_are_legal(facts_of(an_order(life))) == (len(life), [], "")


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([(1, CREATED), (1, CREATED)], f"p:o has version 1 after version 1 ({END} 1)"),
        ([(1, CREATED), (3, SCHEDULED)], f"p:o has version 3 after version 1 ({END} 3)"),
        ([(2, CREATED)], f"p:o has version 2 after version 0 ({END} 2)"),
        ([(1, SCHEDULED)], f"p:o went from no status to SCHEDULED ({END} 1)"),
        ([(1, CREATED), (2, COOKING)], f"p:o went from CREATED to IN_PREPARATION ({END} 2)"),
        ([*enumerate(LIFE, 1), (8, LIFE[-2])], f"p:o went from DELIVERED to IN_DELIVERY ({END} 8)"),
        ([*enumerate(LIFE, 1), (8, REJECTED[1])], f"p:o went from DELIVERED to REJECTED ({END} 8)"),
    ],
)
def test_illegal_update_is_found(steps: list[tuple[int, OrderStatus]], wrong: str) -> None:
    assert sentences(updates_are_legal(facts_of(order_with(*steps)))) == [wrong]


def test_id_may_be_used_again_only_after_retirement() -> None:
    again = an_order(LIFE[:3])
    for number, status in enumerate(LIFE, 1):
        again.add(an_update(number, status)._replace(at_ms=at(20 + number)))
    assert len(again.lives) == 1, "an open order does not begin again"
    again = an_order()
    for number, status in enumerate(LIFE, 1):
        again.add(an_update(number, status)._replace(at_ms=at(20 + number)))
    assert sentences(updates_are_legal(facts_of(again))) == [
        f"p:o ended as DELIVERED ({END} 7), but began again ({END} 1)"
    ]
    assert updates_are_legal(facts_of(again, retired={"p:o": [at(25)]})).violations
    assert not updates_are_legal(facts_of(again, retired={"p:o": [at(15)]})).violations


def test_observations_like_the_topic_are_accepted() -> None:
    seen = lines(
        an_observation(1, "CREATED"),
        an_observation(1, "CREATED"),
        an_observation(3, "IN_PREPARATION"),
        an_observation(2, "SCHEDULED", "y"),
        an_observation(7, "DELIVERED"),
    )
    assert observers_see_the_same(facts_of(an_order(), observers=seen)) == (5, [], "")


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (
            [an_observation(3, "IN_PREPARATION"), an_observation(2, "SCHEDULED")],
            "x saw version 2 of p:o over feed, after version 3 (ledger.jsonl line 2)",
        ),
        (
            [an_observation(2, "REJECTED")],
            "x saw p:o as REJECTED in version 2 over feed (ledger.jsonl line 1), but that version is SCHEDULED "
            f"({END} 2)",
        ),
        ([an_observation(8, "DELIVERED")], "x saw version 8 of p:o, which does not exist (ledger.jsonl line 1)"),
        (
            [an_observation(1, "CREATED", order="p:z")],
            "x saw version 1 of p:z, which does not exist (ledger.jsonl line 1)",
        ),
    ],
)
def test_observation_unlike_the_topic_is_found(seen: list[ObserverLine], wrong: str) -> None:
    assert sentences(observers_see_the_same(facts_of(an_order(), observers=lines(*seen)))) == [wrong]


def test_observation_of_an_older_order_is_not_judged() -> None:
    seen = lines(an_observation(4, "SCHEDULED", order="p:z"))
    assert not observers_see_the_same(facts_of(observers=seen, older={"p:z"})).violations
    assert not observers_see_the_same(facts_of(observers=seen, since_ms=at(10))).violations


def test_noted_end_unlike_the_topic_is_found() -> None:
    assert not noted_ends_are_true(facts_of(an_order(), answers=lines(an_answer("ended", "DELIVERED")))).violations
    assert sentences(noted_ends_are_true(facts_of(an_order(), answers=lines(an_answer("ended", "REJECTED"))))) == [
        f"p:o was noted as ended in REJECTED (ledger.jsonl line 1), but is DELIVERED ({END} 7)"
    ]
