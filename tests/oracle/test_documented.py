"""The oracle's copies of waits and legal steps agree with `processors`."""

from enum import Enum

from oracle.checks.acceptance import WAIT_S
from oracle.checks.tickets import NEXT_STATUS
from oracle.checks.timers import ATTENTION_AFTER_S
from oracle.checks.updates import LEGAL
from processors.events import RestaurantAccepted, RestaurantFinished, RestaurantRejected
from processors.order import STAGES_WITH_DEADLINE, STATUS, TABLE, WAITS, Stage
from processors.parameters import Parameters
from topics.order_updates import OrderStatus

SECONDS = {
    Stage.CREATED: Parameters().charge_wait_s,
    Stage.ASKED: Parameters().acceptance_wait_s,
    Stage.IN_PREPARATION: Parameters().preparation_grace_s,
    Stage.SCHEDULING_DELIVERY: Parameters().driver_wait_s,
    Stage.WAITING_FOR_DRIVER: Parameters().pickup_wait_s,
    Stage.IN_DELIVERY: Parameters().delivery_wait_s,
    Stage.REFUND_DUE: Parameters().refund_wait_s,
}


def test_waits_agree_with_the_machine_of_the_order() -> None:
    assert SECONDS.keys() == set(STAGES_WITH_DEADLINE)
    assert {WAITS[stage].waits_for: seconds for stage, seconds in SECONDS.items()} == ATTENTION_AFTER_S
    assert {STATUS[stage]: seconds for stage, seconds in SECONDS.items() if not STATUS[stage].ended} == WAIT_S


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
