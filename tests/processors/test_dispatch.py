"""Matching of drivers and deliveries."""

from typing import Any, get_args, get_type_hints

import pytest
from msgspec.json import encode

from processors.decision import CancelTimer, DecisionContext, Outcome, SetTimer
from processors.dispatch import (
    HANDLERS,
    DispatchDecision,
    DriverRequestSeen,
    Event,
    PendingDelivery,
    Row,
    WaitingDriver,
    decide,
    decode_row,
    driver_key,
    pending_key,
    request_key,
)
from processors.events import TimerDue
from processors.spatial_index import DispatchIndex, Overlay
from tests.processors.cases import HOME, KITCHEN, NOW, ORDER, REGION, STREET, P
from tools.state_machines import dispatch_cases
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved, DriverRequested
from topics.drivers import Assign
from topics.places import Position

DAY_MS = 24 * 3600 * 1000
REYKJAVIK = Position(64.1, -21.9)


class Rows:
    """Rows of dispatch, none of them committed."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.index = DispatchIndex()
        self.view = Overlay(self.index, lambda key: encode(row) if (row := self.rows.get(key.decode())) else None)

    def decide(self, event: Any, now_ms: int = NOW) -> DispatchDecision:
        decision = decide(self.view, event, now_ms, P)
        self.rows |= {key: row for key, row in decision.rows.items() if row is not None}
        for key in [key for key, row in decision.rows.items() if row is None]:
            del self.rows[key]
        self.index.write(decision.rows)
        return decision

    def kinds(self) -> list[str]:
        return sorted(key.split("/")[1] for key in self.rows)


@pytest.fixture
def rows() -> Rows:
    return Rows()


def requested(attempt: int = 1, delivery: str = ORDER) -> DriverRequested:
    return DriverRequested(
        region=REGION, delivery=delivery, attempt=attempt, restaurant="lakshmi", pickup=KITCHEN, dropoff=HOME
    )


def available(driver: str = "asha", shift: int = 1, position: Position = STREET) -> DriverAvailable:
    return DriverAvailable(region=REGION, driver=driver, shift=shift, position=position)


def moved(driver: str = "asha", shift: int = 1, position: Position = HOME) -> DriverMoved:
    return DriverMoved(region=REGION, driver=driver, shift=shift, position=position)


def gone(driver: str = "asha", shift: int = 1) -> DriverGone:
    return DriverGone(region=REGION, driver=driver, shift=shift)


def assigned(decision: DispatchDecision) -> Assign:
    [record] = decision.emit
    assert isinstance(record, Assign)
    return record


def test_delivery_or_driver_without_a_match_waits(rows: Rows) -> None:
    rows.decide(requested())
    assert rows.kinds() == ["asked", "pending"]
    other = Rows()
    other.decide(available())
    assert other.kinds() == ["driver"]


def test_a_delivery_gets_the_nearest_driver(rows: Rows) -> None:
    rows.decide(available("far", position=HOME))
    rows.decide(available("near", position=STREET))
    record = assigned(rows.decide(requested()))
    assert (record.driver, record.shift, record.delivery, record.attempt) == ("near", 1, ORDER, 1)
    assert (record.restaurant, record.pickup, record.dropoff) == ("lakshmi", KITCHEN, HOME)
    assert record.id == f"{ORDER}/assign/1"
    assert rows.kinds() == ["asked", "driver"]


def test_a_driver_gets_the_delivery_that_has_waited_longest(rows: Rows) -> None:
    rows.decide(requested(delivery="bites:2"), NOW)
    rows.decide(requested(delivery="bites:1"), NOW + 5)
    record = assigned(rows.decide(available("asha", shift=7)))
    assert (record.driver, record.shift, record.delivery) == ("asha", 7, "bites:2")
    assert rows.kinds() == ["asked", "asked", "pending"]


def test_two_deliveries_before_a_commit_get_two_drivers(rows: Rows) -> None:
    rows.decide(available("asha"))
    rows.decide(available("ravi"))
    records = [assigned(rows.decide(requested(delivery=f"bites:{number}"))) for number in (1, 2)]
    assert {record.driver for record in records} == {"asha", "ravi"}
    assert rows.decide(requested(delivery="bites:3")).emit == ()


@pytest.mark.parametrize("attempt", [1, 2])
def test_repeated_attempt_is_absorbed(rows: Rows, attempt: int) -> None:
    rows.decide(requested(2))
    before = dict(rows.rows)
    assert rows.decide(requested(attempt)).outcome is Outcome.ABSORBED
    assert rows.rows == before
    rows.decide(available())
    assert rows.decide(requested(attempt)).outcome is Outcome.ABSORBED
    assert rows.kinds() == ["asked"]


def test_later_attempt_keeps_the_place_in_the_queue(rows: Rows) -> None:
    rows.decide(requested(1), NOW)
    rows.decide(requested(1, "bites:2"), NOW + 1)
    decision = rows.decide(requested(2), NOW + 60_000)
    assert rows.kinds() == ["asked", "asked", "pending", "pending"]
    assert decision.timers == (
        CancelTimer(request_key(REGION, ORDER), NOW + DAY_MS),
        SetTimer(request_key(REGION, ORDER), NOW + 60_000 + DAY_MS),
    )
    record = assigned(rows.decide(available()))
    assert (record.delivery, record.attempt) == (ORDER, 2)


def test_later_attempt_with_a_driver_leaves_the_queue(rows: Rows) -> None:
    rows.decide(requested(1))
    rows.rows |= {driver_key(REGION, "asha"): WaitingDriver(region=REGION, driver="asha", shift=1, position=STREET)}
    rows.index.write({driver_key(REGION, "asha"): rows.rows[driver_key(REGION, "asha")]})
    assert assigned(rows.decide(requested(2))).attempt == 2
    assert rows.kinds() == ["asked"]


def test_later_shift_replaces_the_row_of_a_waiting_driver(rows: Rows) -> None:
    rows.decide(available(shift=2))
    for shift in (1, 2):
        assert rows.decide(available(shift=shift, position=HOME)).outcome is Outcome.ABSORBED
    rows.decide(available(shift=3, position=HOME))
    assert rows.rows[driver_key(REGION, "asha")] == WaitingDriver(region=REGION, driver="asha", shift=3, position=HOME)


def test_matched_driver_of_a_later_shift_leaves_no_row(rows: Rows) -> None:
    rows.decide(available(shift=1))
    waits = PendingDelivery(
        region=REGION, delivery=ORDER, attempt=1, since_ms=NOW, restaurant="lakshmi", pickup=KITCHEN, dropoff=HOME
    )
    key = pending_key(REGION, NOW, ORDER)
    rows.rows[key] = waits
    rows.index.write({key: waits})
    assert assigned(rows.decide(available(shift=2))).shift == 2
    assert rows.kinds() == []


def test_moves_and_departures_count_only_in_their_shift(rows: Rows) -> None:
    rows.decide(available(shift=2))
    for event in (moved(shift=1), gone(shift=1), moved(shift=3), gone(shift=3), moved("ravi"), gone("ravi")):
        assert rows.decide(event).outcome is Outcome.ABSORBED
    rows.decide(moved(shift=2))
    assert rows.rows[driver_key(REGION, "asha")] == WaitingDriver(region=REGION, driver="asha", shift=2, position=HOME)
    rows.decide(gone(shift=2))
    assert rows.kinds() == []


def test_request_is_deleted_after_a_day(rows: Rows) -> None:
    rows.decide(available())
    assert rows.decide(requested()).timers == (SetTimer(request_key(REGION, ORDER), NOW + DAY_MS),)
    due = TimerDue(request_key(REGION, ORDER))
    assert rows.decide(due, NOW + DAY_MS - 1).outcome is Outcome.ABSORBED
    rows.decide(due, NOW + DAY_MS)
    assert rows.kinds() == []
    assert rows.decide(due, NOW + DAY_MS).outcome is Outcome.ABSORBED


def test_request_of_a_waiting_delivery_is_kept(rows: Rows) -> None:
    rows.decide(requested())
    decision = rows.decide(TimerDue(request_key(REGION, ORDER)), NOW + DAY_MS)
    assert decision.timers == (SetTimer(request_key(REGION, ORDER), NOW + 2 * DAY_MS),)
    assert rows.kinds() == ["asked", "pending"]


TIMER = TimerDue(request_key(REGION, ORDER))
STEPS: tuple[tuple[Any, str, int, list[str]], ...] = (
    (TIMER, "the request has no row", NOW, []),
    (requested(), "no driver waits near enough", NOW, ["asked", "pending"]),
    (requested(), "an attempt seen before", NOW, ["asked", "pending"]),
    (TIMER, "the delivery still waits", NOW + DAY_MS, ["asked", "pending"]),
    (available(), "a delivery waits near enough", NOW, ["asked"]),
    (available(), "no delivery waits near enough", NOW, ["asked", "driver"]),
    (available(), "the driver waits already, in this shift or a later one", NOW, ["asked", "driver"]),
    (moved(), "no delivery waits near enough", NOW, ["asked", "driver"]),
    (moved(shift=9), "the driver does not wait in this shift", NOW, ["asked", "driver"]),
    (requested(2), "a driver waits near enough", NOW, ["asked"]),
    (gone(), "the driver does not wait in this shift", NOW, ["asked"]),
    (TIMER, "the row has not expired yet", NOW, ["asked"]),
    (TIMER, "the row has expired", NOW + 3 * DAY_MS, []),
    (available(), "no delivery waits near enough", NOW, ["driver"]),
    (gone(), "the driver waits in this shift", NOW, []),
    (available(position=REYKJAVIK), "no delivery waits near enough", NOW, ["driver"]),
    (requested(), "no driver waits near enough", NOW, ["asked", "driver", "pending"]),
    (moved(position=REYKJAVIK), "no delivery waits near enough", NOW, ["asked", "driver", "pending"]),
    (moved(), "a delivery waits near enough now", NOW, ["asked"]),
)
"""Events one after the other: event, case in docs/state-machines.md, time, kinds of rows afterwards."""


def test_every_event_of_dispatch_has_a_handler_with_cases() -> None:
    assert [get_type_hints(handler)["event"] for handler in HANDLERS] == list(get_args(Event))
    assert {case.event for case in dispatch_cases()} == set(get_args(Event))


def test_every_documented_case_does_what_it_says(rows: Rows) -> None:
    effects = {(case.event, case.condition): case.effect for case in dispatch_cases()}
    for event, condition, now_ms, kinds in STEPS:
        ignored = effects[type(event), condition] == "ignore"
        outcome = Outcome.ABSORBED if ignored else Outcome.APPLIED
        assert (rows.decide(event, now_ms).outcome, rows.kinds()) == (outcome, kinds), (event, condition)


def test_every_documented_case_is_tested() -> None:
    tested = {(type(event), condition) for event, condition, _, _ in STEPS}
    assert tested == {(case.event, case.condition) for case in dispatch_cases()}


def test_rows_survive_json(rows: Rows) -> None:
    rows.decide(requested())
    rows.decide(requested(delivery="bites:2"))
    rows.decide(available())
    rows.decide(available("ravi"))
    rows.decide(available("kiran"))
    assert rows.kinds() == ["asked", "asked", "driver"]
    rows.decide(requested(delivery="bites:3"))
    rows.decide(requested(delivery="bites:4"))
    for key, row in rows.rows.items():
        assert decode_row(key, encode(row)) == row
    assert {type(row) for row in rows.rows.values()} == {DriverRequestSeen, PendingDelivery}


def test_unknown_event_raises_type_error(rows: Rows) -> None:
    with pytest.raises(TypeError, match="dispatch does not handle DecisionContext"):
        rows.decide(DecisionContext(NOW, P))
