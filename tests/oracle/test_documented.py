"""The oracle's own word for what is documented is that of those whom it judges: it goes wrong with neither."""

from enum import Enum

from oracle.checks.acceptance import WAIT_S
from oracle.checks.timers import COMPLAINTS
from oracle.checks.updates import LEGAL
from processors.order import OTHERS_TURN, STATUS, TABLE, WAITS, Stage
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


def test_an_order_may_wait_as_long_as_it_is_let_wait() -> None:
    assert SECONDS.keys() == set(OTHERS_TURN)
    assert {WAITS[stage].waits_for: seconds for stage, seconds in SECONDS.items()} == COMPLAINTS
    assert {STATUS[stage]: seconds for stage, seconds in SECONDS.items() if not STATUS[stage].ended} == WAIT_S


def test_every_step_that_there_is_and_no_other_is_legal() -> None:
    moves = {(status_of(stage), status_of(row.to)) for row in TABLE.rows if row.to for stage in row.at}
    steps = {(before, after) for before, after in moves if before is not after}
    assert steps == {(before, after) for before, followers in LEGAL.items() for after in followers}


def status_of(stage: Enum | None) -> OrderStatus | None:
    """What the world is told in a stage."""
    return None if stage is None else STATUS[Stage(stage)]
