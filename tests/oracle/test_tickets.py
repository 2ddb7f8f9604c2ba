"""Promise 7: a restaurant that is told twice, cooks twice or is never told is found."""

import pytest

from oracle.checks.tickets import cooked_once, what_was_said_counts
from oracle.ledgers import TicketLine
from tests.oracle.planted import LIFE, REJECTED, a_ticket, an_order, known, lines, sentences

COOKED = [a_ticket("accepted"), a_ticket("replay"), a_ticket("finished"), a_ticket("told", told="finished")]


def test_tickets_that_are_right_are_not_complained_about() -> None:
    assert cooked_once(known(an_order(), tickets=lines(*COOKED))) == (1, [], "")
    assert not cooked_once(known(an_order(REJECTED), tickets=lines(a_ticket("rejected")))).violations
    assert not cooked_once(known(an_order(REJECTED), tickets=[])).violations
    assert not cooked_once(known(an_order(LIFE[:2]), tickets=[])).violations


@pytest.mark.parametrize(
    ("tickets", "wrong"),
    [
        (
            [*COOKED, a_ticket("accepted", "p:o/prepare/2")],
            "the restaurant was told of p:o under 2 keys: p:o/prepare/2 in ledger.jsonl line 5, "
            "p:o/prepare in ledger.jsonl line 1",
        ),
        ([*COOKED, a_ticket("finished")], "p:o was cooked 2 times: ledger.jsonl line 3, ledger.jsonl line 5"),
        ([a_ticket("accepted")], "p:o is DELIVERED (d.order-updates/0 at 7) and was never cooked"),
        ([], "p:o is in preparation (d.order-updates/0 at 3), and the restaurant was never told of it"),
    ],
)
def test_tickets_that_are_wrong_are_found(tickets: list[TicketLine], wrong: str) -> None:
    assert sentences(cooked_once(known(an_order(), tickets=lines(*tickets)))) == [wrong]


def test_what_a_restaurant_said_has_to_count() -> None:
    said = lines(
        a_ticket("told", told="accepted", status=200, step=3),
        a_ticket("told", told="finished", status=202, step=3),
        a_ticket("told", told="finished", status=409, step=3),
    )
    assert what_was_said_counts(known(an_order(), tickets=said)) == (2, [], "")
    assert not what_was_said_counts(known(an_order(REJECTED), tickets=said)).violations
    assert not what_was_said_counts(known(an_order(LIFE[:2]), tickets=said, patience_ms=10**6)).violations
    assert sentences(what_was_said_counts(known(an_order(LIFE[:3]), tickets=said))) == [
        "the restaurant said of p:o that it is finished, answered 202 (ledger.jsonl line 2), and it has never been "
        "SCHEDULING_DELIVERY; it is IN_PREPARATION (d.order-updates/0 at 3)"
    ]
