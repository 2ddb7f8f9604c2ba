"""The judge of the books finds what is wrong with them, each thing alone, and nothing where nothing is."""

from typing import Any

import pytest

from simulators.ledger import AnswerEntry, PaymentEntry, TicketEntry, TripEntry
from tests import reconcile
from topics.order_updates import OrderStatus, OrderUpdated

DELIVERED, REJECTED = {"o": "DELIVERED"}, {"o": "REJECTED"}


def payment(outcome: Any = "charged", key: str = "o/charge", replay: bool = False) -> PaymentEntry:
    kind: Any = "refund" if outcome == "refunded" else "charge"
    return PaymentEntry(key=key, kind=kind, order="o", outcome=outcome, replay=replay)


def ticket(event: Any, key: str = "o/prepare") -> TicketEntry:
    return TicketEntry(event=event, order="o", key=key, restaurant="r")


def trip(driver: str, event: Any, delivery: str = "o") -> TripEntry:
    return TripEntry(driver=driver, event=event, delivery=delivery)


def update(version: int, status: OrderStatus) -> OrderUpdated:
    return OrderUpdated(order="o", version=version, status=status, restaurant="r")


def answer(outcome: str = "accepted") -> AnswerEntry:
    return AnswerEntry(event="answer", order="o", outcome=outcome)


@pytest.mark.parametrize(
    ("entries", "statuses"),
    [
        ([payment(), payment(replay=True)], DELIVERED),
        ([payment(), payment("refunded", "o/refund/c")], REJECTED),
        ([payment("declined")], REJECTED),
        ([payment("refused")], REJECTED),
        ([], REJECTED),
    ],
)
def test_money_that_is_right_is_not_complained_about(entries: list[PaymentEntry], statuses: dict[str, str]) -> None:
    assert not reconcile.money(entries, statuses)


@pytest.mark.parametrize(
    ("entries", "statuses", "wrong"),
    [
        ([payment(), payment()], DELIVERED, "o is DELIVERED with 2 net charges"),
        ([], DELIVERED, "o is DELIVERED with 0 net charges"),
        ([payment("declined")], DELIVERED, "o is DELIVERED with 0 net charges"),
        ([payment()], REJECTED, "o is REJECTED with 1 net charges"),
        ([payment(), *[payment("refunded")] * 2], REJECTED, "o is REJECTED with -1 net charges"),
        ([payment(), payment(key="o/charge/2", replay=True)], DELIVERED, "o was charged under 2 keys"),
    ],
)
def test_money_that_is_wrong_is_found(entries: list[PaymentEntry], statuses: dict[str, str], wrong: str) -> None:
    assert reconcile.money(entries, statuses) == [wrong]


def test_tickets_that_are_right_are_not_complained_about() -> None:
    assert not reconcile.tickets([ticket("accepted"), ticket("replay"), ticket("finished"), ticket("told")], DELIVERED)
    assert not reconcile.tickets([ticket("rejected")], REJECTED)


@pytest.mark.parametrize(
    ("entries", "wrong"),
    [
        ([ticket("finished"), ticket("accepted", "o/prepare/2")], "o has 2 tickets"),
        ([ticket("finished"), ticket("finished")], "o was cooked 2 times"),
        ([ticket("accepted")], "o is DELIVERED, never cooked"),
    ],
)
def test_tickets_that_are_wrong_are_found(entries: list[TicketEntry], wrong: str) -> None:
    assert reconcile.tickets(entries, DELIVERED) == [wrong]


def test_trips_that_are_right_are_not_complained_about() -> None:
    entries = [
        trip("a", "available", ""),
        trip("a", "assigned"),
        trip("a", "assigned"),
        trip("a", "dropped"),
        trip("b", "assigned"),
        trip("a", "assigned", "p"),
        trip("b", "picked_up"),
        trip("b", "delivered"),
    ]
    assert not reconcile.trips(entries)


@pytest.mark.parametrize(
    ("entries", "wrong"),
    [
        ([trip("a", "assigned"), trip("a", "assigned", "p")], "a has o and was given p"),
        ([trip("a", "assigned"), trip("b", "assigned")], "o is a's and was given to b"),
        ([trip("a", "assigned"), *[trip("a", "delivered")] * 2], "o was delivered 2 times"),
    ],
)
def test_trips_that_are_wrong_are_found(entries: list[TripEntry], wrong: str) -> None:
    assert reconcile.trips(entries) == [wrong]


LIFE = [
    OrderStatus.CREATED,
    OrderStatus.SCHEDULED,
    OrderStatus.IN_PREPARATION,
    OrderStatus.SCHEDULING_DELIVERY,
    OrderStatus.WAITING_FOR_DRIVER,
    OrderStatus.WAITING_FOR_DRIVER,
    OrderStatus.IN_DELIVERY,
    OrderStatus.DELIVERED,
]


def test_a_feed_that_is_right_is_not_complained_about() -> None:
    assert not reconcile.updates(update(version, status) for version, status in enumerate(LIFE, 1))


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ([(1, LIFE[0]), (1, LIFE[0])], "o was told as version 1, after 1"),
        ([(1, LIFE[0]), (3, LIFE[1])], "o was told as version 3, after 1"),
        ([(2, LIFE[0])], "o was told as version 2, after 0"),
        ([(1, LIFE[1])], "o went from None to SCHEDULED"),
        ([(1, LIFE[0]), (2, LIFE[2])], "o went from CREATED to IN_PREPARATION"),
        ([*enumerate(LIFE, 1), (9, LIFE[-2])], "o went from DELIVERED to IN_DELIVERY"),
    ],
)
def test_a_feed_that_is_wrong_is_found(told: list[tuple[int, OrderStatus]], wrong: str) -> None:
    assert reconcile.updates(update(*each) for each in told) == [wrong]


def test_an_accepted_order_that_was_lost_is_found() -> None:
    assert not reconcile.answers([answer()], DELIVERED)
    assert not reconcile.answers([answer("refused")], {})
    assert reconcile.answers([answer()], {"o": "CREATED"}) == ["o was accepted and is CREATED"]
    assert reconcile.answers([answer()], {}) == ["o was accepted and is unknown"]
