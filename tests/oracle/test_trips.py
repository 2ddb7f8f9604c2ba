"""Promise 4: two deliveries of a driver, and two drivers of a delivery, are found."""

import pytest

from oracle.checks.trips import drivers_have_one_delivery, orders_keep_their_driver, trips_do_not_overlap
from oracle.facts import DriverMove, Location, Order
from oracle.ledgers import TripLine
from tests.oracle.planted import DELIVERIES, LIFE, a_trip, an_order, an_update, at, facts_of, lines, sentences


def test_correct_trips_are_accepted() -> None:
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
    assert trips_do_not_overlap(facts_of(trips=trips)) == (4, [], "")


@pytest.mark.parametrize(
    ("trips", "wrong"),
    [
        (
            [a_trip("a", "assigned"), a_trip("a", "assigned", "p:p")],
            "a has p:o (ledger.jsonl line 1), but was assigned p:p (ledger.jsonl line 2)",
        ),
        (
            [a_trip("a", "assigned"), a_trip("b", "assigned")],
            "p:o has the driver a (ledger.jsonl line 1), but was assigned to b (ledger.jsonl line 2)",
        ),
        (
            [a_trip("a", "assigned"), a_trip("a", "delivered"), a_trip("a", "delivered")],
            "p:o was delivered again (ledger.jsonl line 3)",
        ),
    ],
)
def test_wrong_trip_is_found(trips: list[TripLine], wrong: str) -> None:
    assert sentences(trips_do_not_overlap(facts_of(trips=lines(*trips)))) == [wrong]


def a_move(driver: str, step: float, delivery: str | None, partition: int = 0) -> DriverMove:
    """Return a change of a driver's delivery."""
    return DriverMove(driver, at(step), Location(DELIVERIES, partition, round(step)), delivery)


def test_one_delivery_at_a_time_is_accepted() -> None:
    moves = [
        a_move("a", 3, "p:p", 1),  # partitions are read one after another
        a_move("a", 1, "p:o"),
        a_move("a", 1, "p:o"),
        a_move("a", 2, None),
        a_move("b", 1, "p:q"),
    ]
    assert drivers_have_one_delivery(facts_of(moves=moves)) == (4, [], "")


def test_two_deliveries_of_a_driver_are_found() -> None:
    moves = [a_move("a", 2, "p:p", 1), a_move("a", 1, "p:o"), a_move("b", 1, None)]
    assert sentences(drivers_have_one_delivery(facts_of(moves=moves))) == [
        "a took p:p (d.deliveries/1 at 2) during p:o (d.deliveries/0 at 1)"
    ]


def test_changed_driver_of_an_order_is_found() -> None:
    order = Order("p:o")
    for number, status in enumerate(LIFE, 1):
        order.add(an_update(number, status, driver={5: "a", 6: "b", 7: "b"}.get(number)))
    assert sentences(orders_keep_their_driver(facts_of(order))) == [
        "p:o had the driver a (d.order-updates/0 at 5), then b (d.order-updates/0 at 6)"
    ]
    assert not orders_keep_their_driver(facts_of(an_order(driver="a"))).violations
