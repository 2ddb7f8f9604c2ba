"""The oracle's copies of waits and legal steps agree with `processors`."""

from collections import defaultdict
from enum import Enum

import pytest

from oracle.checks.acceptance import WAIT_S, open_orders_are_in_time
from oracle.checks.tickets import NEXT_STATUS
from oracle.checks.timers import ATTENTION_AFTER_S
from oracle.checks.updates import LEGAL
from processors.events import RestaurantAccepted, RestaurantFinished, RestaurantRejected
from processors.order import FINAL_STAGES, STAGES_WITH_DEADLINE, STATUS, TABLE, WAITS, Stage
from processors.parameters import Parameters
from tests.oracle.planted import LIFE, an_order, facts_of
from topics.order_updates import OrderStatus
from verification.simulation.judge import MAX_WAIT_S

SECONDS = {
    Stage.CREATED: Parameters().charge_wait_s,
    Stage.ASKED: Parameters().acceptance_wait_s,
    Stage.IN_PREPARATION: Parameters().preparation_grace_s,
    Stage.SCHEDULING_DELIVERY: Parameters().driver_wait_s,
    Stage.WAITING_FOR_DRIVER: Parameters().pickup_wait_s,
    Stage.IN_DELIVERY: Parameters().delivery_wait_s,
    Stage.REFUND_DUE: Parameters().refund_wait_s,
}
"""Stage that an awaited event ends -> seconds after which the order asks for attention."""
DURATIONS = {Stage.SCHEDULED: 0.0}
"""Stage that a timer ends -> seconds until it fires. The oracle counts an order for later from its start."""


def test_waits_agree_with_the_machine_of_the_order() -> None:
    assert SECONDS.keys() == set(STAGES_WITH_DEADLINE)
    assert DURATIONS.keys() == WAITS.keys() - SECONDS.keys() - set(FINAL_STAGES)
    assert {WAITS[stage].waits_for: seconds for stage, seconds in SECONDS.items()} == ATTENTION_AFTER_S
    longest: defaultdict[OrderStatus, float] = defaultdict(float)
    for stage, seconds in (SECONDS | DURATIONS).items():
        if not STATUS[stage].ended:
            longest[STATUS[stage]] += seconds
    assert longest == WAIT_S
    assert MAX_WAIT_S.keys() == WAIT_S.keys()


@pytest.mark.parametrize("status", WAIT_S)
def test_status_without_a_longest_time_is_named(status: OrderStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(WAIT_S, status)
    order = an_order(LIFE[: LIFE.index(status) + 1])
    sentence = f"the waits in {status.value}: the oracle has no longest time for it"
    assert open_orders_are_in_time(facts_of(order, now=1e6)) == (1, [], sentence)
    assert len(open_orders_are_in_time(facts_of(order, final=True)).violations) == 1


def test_legal_steps_agree_with_the_machine_of_the_order() -> None:
    moves = {(status_of(stage), status_of(row.to)) for row in TABLE.rows if row.to for stage in row.at}
    steps = {(before, after) for before, after in moves if before is not after}
    assert steps == {(before, after) for before, followers in LEGAL.items() for after in followers}


def test_reports_of_the_restaurant_lead_where_the_machine_leads() -> None:
    events = {"accepted": RestaurantAccepted, "rejected": RestaurantRejected, "finished": RestaurantFinished}
    for name, event in events.items():
        rows = [row for row in TABLE.rows if row.event is event and row.to and not row.reapply]
        assert {NEXT_STATUS[name]} == {status_of(row.to) for row in rows}, name


def status_of(stage: Enum | None) -> OrderStatus | None:
    """Return the public status in a stage."""
    return None if stage is None else STATUS[Stage(stage)]
