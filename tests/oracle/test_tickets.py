"""Promise 7: tickets with two keys, cooked twice or never received are found."""

import pytest

from oracle.checks.tickets import cooked_once, reports_move_orders
from oracle.ledgers import TicketLine
from tests.oracle.planted import LIFE, REJECTED, a_ticket, an_order, facts_of, lines, sentences

COOKED = [a_ticket("accepted"), a_ticket("replay"), a_ticket("finished"), a_ticket("told", told="finished")]


def test_correct_tickets_are_accepted() -> None:
    assert cooked_once(facts_of(an_order(), tickets=lines(*COOKED))) == (1, [], "")
    assert not cooked_once(facts_of(an_order(REJECTED), tickets=lines(a_ticket("rejected")))).violations
    assert not cooked_once(facts_of(an_order(REJECTED), tickets=[])).violations
    assert not cooked_once(facts_of(an_order(LIFE[:2]), tickets=[])).violations


@pytest.mark.parametrize(
    ("tickets", "wrong"),
    [
        (
            [*COOKED, a_ticket("accepted", "p:o/prepare/2")],
            "the restaurant received p:o under 2 keys: p:o/prepare/2 in ledger.jsonl line 5, "
            "p:o/prepare in ledger.jsonl line 1",
        ),
        ([*COOKED, a_ticket("finished")], "p:o was cooked 2 times: ledger.jsonl line 3, ledger.jsonl line 5"),
        ([a_ticket("accepted")], "p:o is DELIVERED (d.order-updates/0 at 7), but was never cooked"),
        ([], "p:o is in preparation (d.order-updates/0 at 3), but the restaurant never received it"),
    ],
)
def test_wrong_ticket_is_found(tickets: list[TicketLine], wrong: str) -> None:
    assert sentences(cooked_once(facts_of(an_order(), tickets=lines(*tickets)))) == [wrong]


def test_answered_report_has_to_move_the_order() -> None:
    reports = lines(
        a_ticket("told", told="accepted", status=200, step=3),
        a_ticket("told", told="finished", status=202, step=3),
        a_ticket("told", told="finished", status=409, step=3),
    )
    assert reports_move_orders(facts_of(an_order(), tickets=reports)) == (2, [], "")
    assert not reports_move_orders(facts_of(an_order(REJECTED), tickets=reports)).violations
    assert not reports_move_orders(facts_of(an_order(LIFE[:2]), tickets=reports, patience_ms=10**6)).violations
    assert sentences(reports_move_orders(facts_of(an_order(LIFE[:3]), tickets=reports))) == [
        "the restaurant reported p:o as finished and was answered 202 (ledger.jsonl line 2), but the order was never "
        "SCHEDULING_DELIVERY; it is IN_PREPARATION (d.order-updates/0 at 3)"
    ]
