"""The matcher, alone."""

from typing import Any

import pytest
from msgspec.json import encode

from processors.decision import CancelTimer, Moment, Outcome, SetTimer, Transition
from processors.dispatch import (
    TABLE,
    Asked,
    DispatchDecision,
    PendingDelivery,
    Row,
    WaitingDriver,
    asked_key,
    decide,
    decode_row,
    driver_key,
    pending_key,
    situation,
)
from processors.events import TimerDue
from processors.waiting import DispatchIndex, Overlay
from tests.processors.cases import HOME, KITCHEN, NOW, ORDER, REGION, STREET, P
from topics.dispatch import DriverAvailable, DriverGone, DriverMoved, DriverRequested
from topics.drivers import Assign
from topics.places import Position

DAY_MS = 24 * 3600 * 1000


class Rows:
    """The rows of dispatch, none of them committed."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.index = DispatchIndex()
        self.view = Overlay(self.index, lambda key: encode(row) if (row := self.rows.get(key.decode())) else None)
        self.taken: set[Transition | None] = set()

    def decide(self, event: Any, now_ms: int = NOW) -> DispatchDecision:
        self.taken.add(TABLE.find(situation(self.view, event), event, Moment(now_ms, P)))
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


def test_the_first_to_come_waits_whoever_it_is(rows: Rows) -> None:
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


def test_two_deliveries_before_a_commit_do_not_get_the_same_driver(rows: Rows) -> None:
    rows.decide(available("asha"))
    rows.decide(available("ravi"))
    records = [assigned(rows.decide(requested(delivery=f"bites:{number}"))) for number in (1, 2)]
    assert {record.driver for record in records} == {"asha", "ravi"}
    assert rows.decide(requested(delivery="bites:3")).emit == ()


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_asked_for_again_is_absorbed_while_it_waits_and_after(rows: Rows, attempt: int) -> None:
    rows.decide(requested(2))
    before = dict(rows.rows)
    assert rows.decide(requested(attempt)).outcome is Outcome.ABSORBED
    assert rows.rows == before
    rows.decide(available())
    assert rows.decide(requested(attempt)).outcome is Outcome.ABSORBED
    assert rows.kinds() == ["asked"]


def test_a_further_attempt_replaces_the_one_that_waits_and_keeps_its_place(rows: Rows) -> None:
    rows.decide(requested(1), NOW)
    rows.decide(requested(1, "bites:2"), NOW + 1)
    decision = rows.decide(requested(2), NOW + 60_000)
    assert rows.kinds() == ["asked", "asked", "pending", "pending"]
    assert decision.timers == (
        CancelTimer(asked_key(REGION, ORDER), NOW + DAY_MS),
        SetTimer(asked_key(REGION, ORDER), NOW + 60_000 + DAY_MS),
    )
    record = assigned(rows.decide(available()))
    assert (record.delivery, record.attempt) == (ORDER, 2)


def test_a_further_attempt_that_finds_a_driver_waits_no_more(rows: Rows) -> None:
    rows.decide(requested(1))
    rows.rows |= {driver_key(REGION, "asha"): WaitingDriver(region=REGION, driver="asha", shift=1, position=STREET)}
    rows.index.write({driver_key(REGION, "asha"): rows.rows[driver_key(REGION, "asha")]})
    assert assigned(rows.decide(requested(2))).attempt == 2
    assert rows.kinds() == ["asked"]


def test_a_driver_who_waits_already_is_absorbed_and_a_later_shift_replaces_the_row(rows: Rows) -> None:
    rows.decide(available(shift=2))
    for shift in (1, 2):
        assert rows.decide(available(shift=shift, position=HOME)).outcome is Outcome.ABSORBED
    rows.decide(available(shift=3, position=HOME))
    assert rows.rows[driver_key(REGION, "asha")] == WaitingDriver(region=REGION, driver="asha", shift=3, position=HOME)


def test_a_driver_of_a_later_shift_who_is_matched_leaves_no_older_row(rows: Rows) -> None:
    rows.decide(available(shift=1))
    waits = PendingDelivery(
        region=REGION, delivery=ORDER, attempt=1, since_ms=NOW, restaurant="lakshmi", pickup=KITCHEN, dropoff=HOME
    )
    key = pending_key(REGION, NOW, ORDER)
    rows.rows[key] = waits
    rows.index.write({key: waits})
    assert assigned(rows.decide(available(shift=2))).shift == 2
    assert rows.kinds() == []


def test_moving_and_going_count_in_their_own_shift_only(rows: Rows) -> None:
    rows.decide(available(shift=2))
    for event in (moved(shift=1), gone(shift=1), moved(shift=3), gone(shift=3), moved("ravi"), gone("ravi")):
        assert rows.decide(event).outcome is Outcome.ABSORBED
    rows.decide(moved(shift=2))
    assert rows.rows[driver_key(REGION, "asha")] == WaitingDriver(region=REGION, driver="asha", shift=2, position=HOME)
    rows.decide(gone(shift=2))
    assert rows.kinds() == []


def test_what_was_asked_is_forgotten_after_a_day(rows: Rows) -> None:
    rows.decide(available())
    assert rows.decide(requested()).timers == (SetTimer(asked_key(REGION, ORDER), NOW + DAY_MS),)
    due = TimerDue(asked_key(REGION, ORDER))
    assert rows.decide(due, NOW + DAY_MS - 1).outcome is Outcome.ABSORBED
    rows.decide(due, NOW + DAY_MS)
    assert rows.kinds() == []
    assert rows.decide(due, NOW + DAY_MS).outcome is Outcome.ABSORBED


def test_what_still_waits_after_a_day_is_not_forgotten(rows: Rows) -> None:
    rows.decide(requested())
    decision = rows.decide(TimerDue(asked_key(REGION, ORDER)), NOW + DAY_MS)
    assert decision.timers == (SetTimer(asked_key(REGION, ORDER), NOW + 2 * DAY_MS),)
    assert rows.kinds() == ["asked", "pending"]


def test_every_row_of_the_table_is_taken(rows: Rows) -> None:
    timer = TimerDue(asked_key(REGION, ORDER))
    for event, now_ms in (
        (requested(), NOW),
        (requested(), NOW),
        (timer, NOW + DAY_MS),
        (available(), NOW),
        (available(), NOW),
        (available(), NOW),
        (moved(), NOW),
        (moved(shift=9), NOW),
        (requested(2), NOW),
        (gone(), NOW),
        (timer, NOW),
        (timer, NOW + 3 * DAY_MS),
        (available(), NOW),
        (gone(), NOW),
    ):
        rows.decide(event, now_ms)
    assert rows.taken == set(TABLE)


def test_rows_come_back_from_json_as_they_were(rows: Rows) -> None:
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
    assert {type(row) for row in rows.rows.values()} == {Asked, PendingDelivery}


def test_an_event_of_another_topic_is_a_mistake_of_ours(rows: Rows) -> None:
    with pytest.raises(TypeError, match="dispatch has no use for Moment"):
        rows.decide(Moment(NOW, P))
