"""The machine of the delivery."""

from typing import Any

from processors.delivery import TABLE, Delivery, Stage, decide
from processors.events import (
    DeliveryAssigned,
    DeliveryCompleted,
    DeliveryEtaChanged,
    DeliveryPickedUp,
    DeliveryStarted,
)
from tests.processors import grid
from tests.processors.cases import HOME, KITCHEN, NOW, ORDER, P, later
from topics.deliveries import Delivered, DriverAssigned, DriverRefused, EtaChanged, PickedUp
from topics.dispatch import DriverRequested
from topics.drivers import Unassign
from topics.records import instant


def at(stage: Stage) -> Delivery:
    """Return a delivery in this stage, in its second attempt."""
    return Delivery(
        order=ORDER,
        stage=stage,
        attempt=2,
        region="fort",
        restaurant="lakshmi",
        pickup=KITCHEN,
        dropoff=HOME,
        driver=None if stage is Stage.REQUESTED else "asha",
        last_eta_ms=0 if stage is Stage.REQUESTED else NOW,
    )


STATES: dict[str, Delivery | None] = {"-": None, **{stage.name: at(stage) for stage in Stage}}
EVENTS: dict[str, Any] = {
    "started": DeliveryStarted(ORDER, "fort", "lakshmi", KITCHEN, HOME),
    "assigned-2": DriverAssigned(order=ORDER, driver="asha", attempt=2, eta_s=60),
    "assigned-2-ravi": DriverAssigned(order=ORDER, driver="ravi", attempt=2, eta_s=60),
    "assigned-1": DriverAssigned(order=ORDER, driver="asha", attempt=1, eta_s=60),
    "assigned-3": DriverAssigned(order=ORDER, driver="asha", attempt=3, eta_s=60),
    "refused-1": DriverRefused(order=ORDER, driver="ravi", attempt=1),
    "refused-2": DriverRefused(order=ORDER, driver="asha", attempt=2),
    "refused-3": DriverRefused(order=ORDER, driver="asha", attempt=3),
    "picked-up-2": PickedUp(order=ORDER, driver="asha", attempt=2, eta_s=40),
    "picked-up-1": PickedUp(order=ORDER, driver="asha", attempt=1, eta_s=40),
    "picked-up-ravi": PickedUp(order=ORDER, driver="ravi", attempt=1, eta_s=40),
    "delivered-2": Delivered(order=ORDER, driver="asha", attempt=2),
    "delivered-ravi": Delivered(order=ORDER, driver="ravi", attempt=2),
    "eta": EtaChanged(order=ORDER, driver="asha", attempt=2, eta_s=30, at=later(1)),
    "eta-old": EtaChanged(order=ORDER, driver="asha", attempt=2, eta_s=30, at=later(0)),
    "eta-ravi": EtaChanged(order=ORDER, driver="ravi", attempt=1, eta_s=30, at=later(1)),
}
GRID = """
                -         REQUESTED ASSIGNED  PICKED_UP DELIVERED
started         REQUESTED x         x         x         x
assigned-2      x         ASSIGNED  =         =         =
assigned-2-ravi x         ASSIGNED  x         x         x
assigned-1      x         x         x         x         x
assigned-3      x         x         x         x         x
refused-1       x         =         =         =         =
refused-2       x         !         x         x         x
refused-3       x         x         x         x         x
picked-up-2     x         ASSIGNED  PICKED_UP =         =
picked-up-1     x         x         x         x         x
picked-up-ravi  x         x         x         x         x
delivered-2     x         x         x         DELIVERED =
delivered-ravi  x         x         x         x         x
eta             x         =         !         !         =
eta-old         x         =         =         =         =
eta-ravi        x         x         =         =         =
"""


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == set()


def test_a_delivery_asks_its_region_for_a_driver() -> None:
    request = DriverRequested(
        id=f"{ORDER}/driver/1",
        at=instant(NOW),
        region="fort",
        delivery=ORDER,
        attempt=1,
        restaurant="lakshmi",
        pickup=KITCHEN,
        dropoff=HOME,
    )
    assert decide(None, EVENTS["started"], NOW, P).emit == (request,)


def test_a_driver_who_refuses_is_replaced() -> None:
    decision = decide(STATES["REQUESTED"], EVENTS["refused-2"], NOW, P)
    assert decision.state is not None
    assert decision.state.attempt == 3
    [request] = decision.emit
    assert isinstance(request, DriverRequested)
    assert (request.attempt, request.id) == (3, f"{ORDER}/driver/3")


def test_order_is_notified_of_every_step() -> None:
    assigned = decide(STATES["REQUESTED"], EVENTS["assigned-2"], NOW, P)
    assert assigned.internal_events == (DeliveryAssigned("asha", NOW + 60_000),)
    picked_up = decide(assigned.state, EVENTS["picked-up-2"], NOW, P)
    assert picked_up.internal_events == (DeliveryPickedUp(NOW + 40_000),)
    closer = decide(picked_up.state, EVENTS["eta"], NOW, P)
    assert closer.internal_events == (DeliveryEtaChanged(NOW + 1_000 + 30_000),)
    assert decide(closer.state, EVENTS["delivered-2"], NOW, P).internal_events == (DeliveryCompleted(),)


def test_pickup_before_assignment_counts_as_both() -> None:
    first = decide(STATES["REQUESTED"], EVENTS["picked-up-2"], NOW, P)
    assert first.reapply
    assert first.internal_events == (DeliveryAssigned("asha", NOW + 40_000),)
    second = decide(first.state, EVENTS["picked-up-2"], NOW, P)
    assert second.state is not None
    assert (second.state.stage, second.reapply) == (Stage.PICKED_UP, False)


def test_late_driver_is_unassigned() -> None:
    for state, event in (("ASSIGNED", "assigned-2-ravi"), ("DELIVERED", "assigned-1"), ("REQUESTED", "assigned-1")):
        [unassign] = decide(STATES[state], EVENTS[event], NOW, P).emit
        assert isinstance(unassign, Unassign)
        assert (unassign.driver, unassign.attempt) == (EVENTS[event].driver, EVENTS[event].attempt)
