"""Waits are judged by the speed on record, and not at all if several speeds were in force."""

from typing import Any

import msgspec
import pytest

from oracle.checks.acceptance import open_orders_are_in_time
from oracle.checks.money import money_matches_the_end
from oracle.checks.timers import attention_is_in_time
from oracle.ledgers import RunLine
from oracle.speeds import Speeds
from tests.oracle.planted import (
    LIFE,
    REJECTED,
    a_payment,
    an_order,
    at,
    attention,
    facts_of,
    lines,
    sentences,
    wait_steps,
)
from topics.records import instant

CHANGED = "the speed changed during the order's life, or is not on record"


def a_run(speed: float, step: float = 0, party: str = "worker-1", *running: str) -> RunLine:
    """Return the start of a party at a step: of a worker, or of a simulator."""
    workers = running or ((party,) if party.startswith("worker") else ())
    return RunLine(at=instant(at(step)), party=party, speed=speed, running=workers)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], {7.0}),
        ([a_run(60)], {60.0}),
        ([a_run(60), a_run(60, 5)], {60.0}),
        ([a_run(60), a_run(1, 5)], {60.0, 1.0}),
        ([a_run(60), a_run(1, 20)], {60.0}),
        ([a_run(1), a_run(60, 2)], {60.0}),
        ([a_run(60, 5)], set()),
        ([a_run(60), a_run(1, 1, "worker-2", "worker-1", "worker-2")], {60.0, 1.0}),
        ([a_run(60, 0, "worker-2"), a_run(1, 1, "worker-1", "worker-1")], {1.0}),
        ([a_run(60), a_run(1, 0, "payment")], {60.0}),
        ([a_run(60, 0, "pos"), a_run(60, 0, "payment")], {60.0}),
        ([a_run(60, 0, "pos"), a_run(1, 0, "payment")], {60.0, 1.0}),
    ],
)
def test_speeds_in_force(runs: list[RunLine], expected: set[float]) -> None:
    assert Speeds(runs, otherwise=7.0).between(at(3), at(10)) == expected


def test_one_speed_judges_open_orders() -> None:
    order, late = an_order(LIFE[:1]), 1.1 + wait_steps(LIFE[0]) / 60
    assert open_orders_are_in_time(facts_of(order, now=late, runs=[a_run(60)])).violations
    assert not open_orders_are_in_time(facts_of(order, now=late, runs=[a_run(1)])).violations


def test_changed_speed_leaves_open_orders_unjudged() -> None:
    runs = [a_run(120), a_run(1, 2)]
    finding = open_orders_are_in_time(facts_of(an_order(LIFE[:1]), an_order(LIFE[:2], "p:z"), now=1e6, runs=runs))
    assert finding == (2, [], f"the waits of 2 orders, p:o .. p:z: {CHANGED}")
    assert open_orders_are_in_time(facts_of(an_order(LIFE[:1]), now=3, runs=runs, final=True)).violations


def test_stopped_worker_leaves_open_orders_unjudged() -> None:
    finding = open_orders_are_in_time(facts_of(an_order(LIFE[:1]), now=1e6, alive_ms=at(1)))
    assert finding == (1, [], "what fell due after the last commit of any worker")


@pytest.mark.parametrize(("runs", "wrong"), [([a_run(1)], 1), ([a_run(60)], 0), ([a_run(1), a_run(60, 1.05)], 0)])
def test_attention_is_judged_by_the_speed_on_record(runs: list[RunLine], wrong: int) -> None:
    order = an_order([LIFE[0], LIFE[0]], attention=attention("the payment", 1.9))
    finding = attention_is_in_time(facts_of(order, runs=runs))
    assert (finding.checked, len(finding.violations)) == (1, wrong)
    assert bool(finding.unjudged) == (len(runs) > 1)


def test_changed_speed_leaves_the_wait_for_a_refund_unjudged() -> None:
    left: dict[str, Any] = {"payments": lines(a_payment()), "now": 1e6}
    assert sentences(money_matches_the_end(facts_of(an_order(REJECTED), runs=[a_run(60)], **left)))
    assert not money_matches_the_end(facts_of(an_order(REJECTED), runs=[a_run(60), a_run(1, 1.5)], **left)).violations


def test_record_of_a_run_is_read() -> None:
    text = b'{"type":"Run","at":"2027-01-15T08:00:00Z","party":"worker-1","speed":60,"running":["worker-1"]}'
    assert msgspec.json.decode(text, type=RunLine).is_worker
