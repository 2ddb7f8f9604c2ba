"""The ticket's machine, alone."""

import pytest

from processors.decision import Call
from processors.events import (
    AttentionNeeded,
    PrepareAbandoned,
    PrepareFailed,
    PrepareRetried,
    RestaurantAccepted,
    RestaurantFinished,
    RestaurantRefused,
    TicketAsked,
    TicketReceived,
)
from processors.requests import PrepareRequest, TicketItem, TicketModifier
from processors.restaurant import TABLE, Stage, Ticket, decide
from tests.processors import grid
from tests.processors.cases import NOW, ORDER, P, placed
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected

STATES: dict[str, Ticket | None] = {
    "-": None,
    **{stage.name: Ticket(order=ORDER, restaurant="lakshmi", stage=stage) for stage in Stage},
}
EVENTS = {
    "asked": TicketAsked("http://pos.example", placed()),
    "received": TicketReceived(),
    "failed": PrepareFailed("answered 404"),
    "accepted": TicketAccepted(order=ORDER),
    "accepted-by-name": TicketAccepted(order=ORDER, restaurant="lakshmi"),
    "rejected": TicketRejected(order=ORDER, reason="closed"),
    "finished": PreparationFinished(order=ORDER),
    "retry": PrepareRetried("by ana", "http://pos.example", placed()),
    "abandon": PrepareAbandoned("by ana"),
    "accepted-elsewhere": TicketAccepted(order=ORDER, restaurant="other"),
    "rejected-elsewhere": TicketRejected(order=ORDER, restaurant="other"),
    "finished-elsewhere": PreparationFinished(order=ORDER, restaurant="other"),
}
GRID = """
                   -     ASKED    TOLD     ACCEPTED REFUSED FINISHED
asked              ASKED x        x        x        x       x
retry              x     !        ASKED    x        x       x
abandon            x     !        x        x        x       x
received           x     TOLD     =        =        =       =
failed             x     !        =        =        =       =
accepted           x     ACCEPTED ACCEPTED =        x       =
accepted-by-name   x     ACCEPTED ACCEPTED =        x       =
rejected           x     REFUSED  REFUSED  x        =       x
finished           x     FINISHED FINISHED FINISHED x       =
accepted-elsewhere x     x        x        x        x       x
rejected-elsewhere x     x        x        x        x       x
finished-elsewhere x     x        x        x        x       x
"""


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == set()


def test_the_restaurant_is_asked_for_what_was_ordered_under_the_order_s_own_key() -> None:
    request = PrepareRequest(
        order=ORDER,
        restaurant="lakshmi",
        pos_url="http://pos.example",
        display_number="A7",
        items=(
            TicketItem(
                id="thali",
                pos_code="T1",
                name="Thali",
                quantity=2,
                modifiers=(TicketModifier(name="Ghee", pos_code="G"),),
                note="not hot",
            ),
        ),
        note="ring twice",
    )
    assert decide(None, EVENTS["asked"], NOW, P).calls == (Call(f"{ORDER}/prepare", "prepare", request),)


def test_an_operator_has_the_restaurant_asked_again_under_the_same_key_or_no_more() -> None:
    assert decide(STATES["TOLD"], EVENTS["retry"], NOW, P).calls == decide(None, EVENTS["asked"], NOW, P).calls
    abandoned = decide(STATES["ASKED"], EVENTS["abandon"], NOW, P)
    assert abandoned.cancel_calls == (f"{ORDER}/prepare",)
    assert abandoned.tell == (AttentionNeeded("the restaurant's answer, given up by ana"),)


@pytest.mark.parametrize("stage", ["ASKED", "TOLD"])
def test_the_order_hears_what_the_restaurant_says(stage: str) -> None:
    assert decide(STATES[stage], EVENTS["accepted"], NOW, P).tell == (RestaurantAccepted(),)
    assert decide(STATES[stage], EVENTS["rejected"], NOW, P).tell == (RestaurantRefused("closed"),)
    assert decide(STATES[stage], EVENTS["finished"], NOW, P).tell == (RestaurantFinished(),)


def test_a_restaurant_that_speaks_by_itself_is_not_asked_again() -> None:
    for event in ("accepted", "rejected", "finished"):
        assert decide(STATES["ASKED"], EVENTS[event], NOW, P).cancel_calls == (f"{ORDER}/prepare",)
        assert decide(STATES["TOLD"], EVENTS["finished"], NOW, P).cancel_calls == ()


def test_a_restaurant_that_takes_back_what_it_accepted_worries_a_person() -> None:
    [needed] = decide(STATES["ACCEPTED"], EVENTS["rejected"], NOW, P).tell
    assert isinstance(needed, AttentionNeeded)
    assert needed.wait == ""


def test_a_point_of_sale_that_will_not_talk_worries_a_person() -> None:
    assert decide(STATES["ASKED"], EVENTS["failed"], NOW, P).tell == (
        AttentionNeeded("the restaurant's answer: answered 404"),
    )
