"""Promises 2 and 3: second charges, and money that does not match the end, are found."""

from typing import Any

import pytest

from oracle.checks.money import charged_at_most_once, money_matches_the_end
from oracle.ledgers import PaymentLine
from tests.oracle.planted import LIFE, REJECTED, a_payment, a_placing, an_order, attention, facts_of, lines, sentences

PAID, BACK, DECLINED = a_payment(), a_payment("refunded"), a_payment("declined")


TWICE = "p:o was charged 2 times, 2 net of refunds: ledger.jsonl line 1, ledger.jsonl line 2"


def delivered(*payments: PaymentLine, **more: Any) -> list[str]:
    """Return the violations of a delivered order with these payments."""
    placed = {"p:o": [a_placing()]}
    facts = facts_of(an_order(), payments=lines(*payments), placings=placed, **more)
    return [*sentences(charged_at_most_once(facts)), *sentences(money_matches_the_end(facts))]


def rejected(*payments: PaymentLine, **more: Any) -> list[str]:
    """Return the violations of a rejected order with these payments."""
    last = {name: more.pop(name) for name in ("refunded", "attention") if name in more}
    facts = facts_of(an_order(REJECTED, **last), payments=lines(*payments), **more)
    return [*sentences(charged_at_most_once(facts)), *sentences(money_matches_the_end(facts))]


def test_correct_money_is_accepted() -> None:
    assert not delivered(a_payment(), a_payment(replay=True))
    assert not delivered(a_payment(), a_payment("charged", "p:o/charge", charge_id="d"), a_payment("refunded"))
    assert not rejected(a_payment(), a_payment("refunded"), refunded=True)
    assert not rejected(a_payment("declined"))
    assert not rejected(a_payment("refused"))
    assert not rejected()


@pytest.mark.parametrize(
    ("payments", "wrong"),
    [
        (
            [a_payment(), a_payment()],
            TWICE,
        ),
        (
            [a_payment(), a_payment(key="p:o/charge/2", replay=True)],
            "the charge of p:o was requested under 2 keys: p:o/charge in ledger.jsonl line 1, "
            "p:o/charge/2 in ledger.jsonl line 2",
        ),
        (
            [a_payment(), a_payment(charge_id="d"), BACK, a_payment("refunded", "p:o/other", replay=True)],
            "the refund of c of p:o was requested under 2 keys: p:o/refund/c in ledger.jsonl line 3, "
            "p:o/other in ledger.jsonl line 4",
        ),
        ([], "p:o is DELIVERED and was not charged: no line of payment.jsonl; d.order-updates/0 at 7"),
        ([DECLINED], "p:o is DELIVERED and was not charged: ledger.jsonl line 1; d.order-updates/0 at 7"),
        ([BACK], "p:o was refunded more than it was charged: ledger.jsonl line 1"),
        (
            [a_payment(amount=199_00)],
            "p:o is DELIVERED and has paid 19900 INR (ledger.jsonl line 1), "
            "but its total is 20000 INR (d.orders/0 at 5)",
        ),
    ],
)
def test_wrong_money_of_a_delivered_order_is_found(payments: list[PaymentLine], wrong: str) -> None:
    assert delivered(*payments) == [wrong]


def test_order_of_nothing_needs_no_charge() -> None:
    free = {"p:o": [a_placing()._replace(total=0)]}
    assert not sentences(money_matches_the_end(facts_of(an_order(), payments=[], placings=free)))
    assert delivered()


def test_money_kept_for_a_rejected_order_is_found() -> None:
    evidence = "ledger.jsonl line 1; d.order-updates/0 at 2"
    assert rejected(a_payment()) == [f"p:o is REJECTED with 1 net charge: {evidence}"]
    assert rejected(a_payment(), refunded=True, attention=attention()) == [
        f"p:o is REJECTED and refunded with 1 net charge: {evidence}"
    ]
    assert rejected(a_payment(), a_payment("refunded"), a_payment("refunded")) == [
        "p:o was refunded more than it was charged: ledger.jsonl line 1, ledger.jsonl line 2, ledger.jsonl line 3"
    ]


def test_refund_has_its_wait_and_then_needs_a_person() -> None:
    assert not rejected(a_payment(), now=4)
    assert rejected(a_payment(), now=4, final=True)
    assert not rejected(a_payment(), attention=attention(), final=True)
    twice = facts_of(an_order(LIFE[:3], attention=attention()), payments=lines(a_payment(), a_payment()))
    assert not charged_at_most_once(twice).violations


def test_charge_without_an_order_is_found() -> None:
    charged = facts_of(payments=lines(a_payment()))
    assert sentences(money_matches_the_end(charged)) == [
        "p:o was charged (ledger.jsonl line 1), but no such order exists"
    ]
    assert not money_matches_the_end(facts_of(payments=lines(a_payment()), older={"p:o"})).violations
    assert not money_matches_the_end(facts_of(payments=lines(a_payment("declined")))).violations


def test_without_ledger_nothing_is_judged() -> None:
    for check in (charged_at_most_once, money_matches_the_end):
        assert check(facts_of(an_order())) == (0, [], "there is no payment.jsonl")
