"""Promise 1: lost orders are found, and orders that may still come are not reported as lost."""

from typing import Any

import pytest

from oracle.checks.acceptance import accepted_orders_are_known, open_orders_are_in_time, placed_orders_are_known
from oracle.facts import DeadLetter, Location, SourceProgress
from tests.oracle.planted import (
    LIFE,
    ORDERS,
    a_placing,
    an_answer,
    an_order,
    at,
    attention,
    facts_of,
    lines,
    sentences,
    wait_steps,
)
from topics.order_updates import OrderStatus
from topics.records import instant

APPLIED = {(ORDERS, 0): SourceProgress(position=9, last=8)}
OPEN = [status for status in LIFE if not status.ended]


def test_accepted_order_with_updates_is_kept() -> None:
    found = accepted_orders_are_known(facts_of(an_order(), answers=lines(an_answer(), an_answer(outcome="refused"))))
    assert (found.checked, found.violations) == (1, [])
    refused = lines(an_answer("placing", ""), an_answer(outcome="refused"))
    assert not accepted_orders_are_known(facts_of(answers=refused)).violations


def test_accepted_order_without_updates_is_lost() -> None:
    answered = facts_of(answers=lines(an_answer(status=201)))
    assert sentences(accepted_orders_are_known(answered)) == [
        "p:o was accepted (ledger.jsonl line 1, with 201), but has no update and no dead letter"
    ]
    assert not accepted_orders_are_known(facts_of(answers=lines(an_answer()), now=0.1, patience_ms=2_000)).violations
    assert accepted_orders_are_known(facts_of(answers=lines(an_answer()), now=0.1, final=True)).violations


def test_accepted_order_among_dead_letters_is_kept() -> None:
    by_key = DeadLetter(Location("d.dead-letters", 0, 1), Location(ORDERS, 0, 5), b"p:o", b"{}")
    assert not accepted_orders_are_known(facts_of(answers=lines(an_answer()), dead_letters=[by_key])).violations
    by_origin = by_key._replace(key=b"")
    placings = {"p:o": [a_placing()]}
    assert not accepted_orders_are_known(
        facts_of(answers=lines(an_answer()), dead_letters=[by_origin], placings=placings)
    ).violations


def test_order_from_before_the_period_is_not_judged() -> None:
    answers = lines(an_answer("placing", ""), an_answer())
    assert not accepted_orders_are_known(facts_of(answers=answers, since_ms=at(1))).violations
    assert not accepted_orders_are_known(facts_of(answers=answers, older={"p:o"})).violations


def test_placed_order_without_any_trace_is_lost() -> None:
    lost = facts_of(placings={"p:o": [a_placing()]}, reached=APPLIED)
    assert sentences(placed_orders_are_known(lost)) == [
        "p:o was placed (d.orders/0 at 5), but is neither an order nor a dead letter"
    ]
    letter = DeadLetter(Location("d.dead-letters", 0, 1), Location(ORDERS, 0, 5), b"", b"{}")
    awaited = a_placing(awaited=True, where=Location(ORDERS, 0, 6))
    lost = facts_of(placings={"p:o": [awaited, a_placing()]}, reached=APPLIED)
    assert len(placed_orders_are_known(lost).violations) == 1, "the record that no view awaits counts"
    copy = a_placing(where=Location(ORDERS, 0, 7))
    letter_of_copy = letter._replace(origin=copy.where)
    kept: list[dict[str, Any]] = [
        {"placings": {"p:o": [a_placing(), copy]}, "reached": APPLIED, "dead_letters": [letter_of_copy]},
        {"placings": {"p:o": [a_placing(), copy]}, "reached": {(ORDERS, 0): SourceProgress(position=7, last=8)}},
        {"placings": {"p:o": [awaited, a_placing()]}, "reached": APPLIED, "dead_letters": [letter]},
        {"placings": {"p:o": [awaited, a_placing()]}, "reached": APPLIED, "orders": {"p:o": an_order()}},
        {"placings": {"p:o": [a_placing(awaited=True)]}, "reached": APPLIED},
        {"placings": {"p:o": [a_placing()]}, "reached": {(ORDERS, 0): SourceProgress(position=5, last=8)}},
        {"placings": {"p:o": [a_placing()]}, "reached": APPLIED, "dead_letters": [letter]},
        {"placings": {"p:o": [a_placing()]}, "reached": APPLIED, "orders": {"p:o": an_order()}},
    ]
    for facts in kept:
        assert not placed_orders_are_known(facts_of(**facts)).violations, facts
    assert placed_orders_are_known(facts_of(placings={"p:o": [a_placing()]}, reached=APPLIED, whole=False)).unjudged


@pytest.mark.parametrize("status", OPEN)
def test_open_order_is_late_after_its_wait_only(status: OrderStatus) -> None:
    statuses = LIFE[: LIFE.index(status) + 1]
    ends = len(statuses) + wait_steps(status)
    assert not open_orders_are_in_time(facts_of(an_order(statuses), now=ends - 0.1)).violations
    assert not open_orders_are_in_time(facts_of(an_order(statuses), now=ends + 0.1, patience_ms=2_000)).violations
    (sentence,) = sentences(open_orders_are_in_time(facts_of(an_order(statuses), now=ends + 0.1)))
    assert sentence.startswith(f"p:o has been {status.value} for ")
    assert open_orders_are_in_time(facts_of(an_order(statuses), now=len(statuses), final=True)).violations
    assert not open_orders_are_in_time(facts_of(an_order(statuses, attention=attention()), final=True)).violations
    assert open_orders_are_in_time(
        facts_of(an_order(statuses), now=len(statuses) + wait_steps(status) / 50, speed_up=100)
    )[1]


def test_order_for_later_waits_for_its_time() -> None:
    order, requested = an_order(LIFE[:2]), 1_000.0
    late = requested + wait_steps(OrderStatus.SCHEDULED) + 0.1
    answers = lines(an_answer("placing", "", deliver_at=instant(at(requested))))
    placed = {"p:o": [a_placing(deliver_at_ms=at(requested))]}
    for facts in ({"answers": answers}, {"placings": placed}):
        assert not open_orders_are_in_time(facts_of(order, now=requested, **facts)).violations
        assert open_orders_are_in_time(facts_of(order, now=late, **facts)).violations


def test_preparation_may_take_its_estimate_and_grace() -> None:
    cooking = an_order(LIFE[:3], eta_ms=at(500))
    assert not open_orders_are_in_time(facts_of(cooking, now=500)).violations
    assert open_orders_are_in_time(facts_of(cooking, now=500.1 + wait_steps(OrderStatus.IN_PREPARATION))).violations


def test_new_eta_does_not_restart_a_wait() -> None:
    order = an_order([*LIFE[:5], LIFE[4]])
    assert open_orders_are_in_time(facts_of(order, now=5.1 + wait_steps(LIFE[4]))).violations


def test_ended_order_is_never_late() -> None:
    assert not open_orders_are_in_time(facts_of(an_order(), now=1e6, final=True)).violations
