"""Promise 4: two deliveries of one driver, and two drivers of one delivery, are found."""

import pytest

from oracle.checks.trips import orders_keep_their_driver, trips_do_not_overlap, twins_have_one_delivery
from oracle.facts import Move, Order, Where
from oracle.ledgers import TripLine
from tests.oracle.planted import DELIVERIES, LIFE, a_trip, an_order, at, known, lines, sentences, told


def test_trips_that_are_right_are_not_complained_about() -> None:
    trips = lines(
        a_trip("a", "available", ""),
        a_trip("a", "assigned"),
        a_trip("a", "assigned"),
        a_trip("a", "dropped"),
        a_trip("b", "assigned"),
        a_trip("a", "assigned", "p:p"),
        a_trip("b", "picked_up"),
        a_trip("b", "delivered"),
    )
    assert trips_do_not_overlap(known(trips=trips)) == (4, [], "")


@pytest.mark.parametrize(
    ("trips", "wrong"),
    [
        (
            [a_trip("a", "assigned"), a_trip("a", "assigned", "p:p")],
            "a has p:o (ledger.jsonl line 1) and was given p:p (ledger.jsonl line 2)",
        ),
        (
            [a_trip("a", "assigned"), a_trip("b", "assigned")],
            "p:o is a's (ledger.jsonl line 1), and was given to b (ledger.jsonl line 2)",
        ),
        (
            [a_trip("a", "assigned"), a_trip("a", "delivered"), a_trip("a", "delivered")],
            "p:o was delivered once more (ledger.jsonl line 3)",
        ),
    ],
)
def test_trips_that_are_wrong_are_found(trips: list[TripLine], wrong: str) -> None:
    assert sentences(trips_do_not_overlap(known(trips=lines(*trips)))) == [wrong]


def a_move(driver: str, step: float, has: str | None, partition: int = 0) -> Move:
    """What a driver's twin said."""
    return Move(driver, at(step), Where(DELIVERIES, partition, round(step)), has)


def test_twins_that_have_one_delivery_at_a_time_are_not_complained_about() -> None:
    moves = [
        a_move("a", 3, "p:p", 1),  # a partition is read after another
        a_move("a", 1, "p:o"),
        a_move("a", 1, "p:o"),
        a_move("a", 2, None),
        a_move("b", 1, "p:q"),
    ]
    assert twins_have_one_delivery(known(moves=moves)) == (4, [], "")


def test_a_twin_with_two_deliveries_is_found() -> None:
    moves = [a_move("a", 2, "p:p", 1), a_move("a", 1, "p:o"), a_move("b", 1, None)]
    assert sentences(twins_have_one_delivery(known(moves=moves))) == [
        "a took p:p (d.deliveries/1 at 2) while it had p:o (d.deliveries/0 at 1)"
    ]


def test_an_order_whose_driver_changes_is_found() -> None:
    order = Order("p:o")
    for number, status in enumerate(LIFE, 1):
        order.add(told(number, status, driver={5: "a", 6: "b", 7: "b"}.get(number)))
    assert sentences(orders_keep_their_driver(known(order))) == [
        "p:o is brought by a (d.order-updates/0 at 5), then by b (d.order-updates/0 at 6)"
    ]
    assert not orders_keep_their_driver(known(an_order(driver="a"))).violations
