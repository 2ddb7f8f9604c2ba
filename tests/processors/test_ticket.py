"""The machine of the ticket."""

import pytest

from processors.call_kinds import CallKind
from processors.decision import Call, Outcome
from processors.events import (
    AttentionRaised,
    PrepareAbandoned,
    PrepareFailed,
    PrepareRetried,
    RestaurantAccepted,
    RestaurantFinished,
    RestaurantRejected,
    TicketReceived,
    TicketRequested,
)
from processors.requests import PrepareRequest, TicketItem, TicketModifier
from processors.ticket import TABLE, Stage, Ticket, decide
from tests.processors import grid
from tests.processors.cases import NOW, ORDER, P, placed
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected

UNCLEAR = Ticket(order=ORDER, restaurant="lakshmi", stage=Stage.ASKED, unclear=True)
STATES: dict[str, Ticket | None] = {
    "-": None,
    **{stage.name: Ticket(order=ORDER, restaurant="lakshmi", stage=stage) for stage in Stage},
    "ASKED,unclear": UNCLEAR,
}
EVENTS = {
    "asked": TicketRequested("http://pos.example", placed()),
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
                   -     ASKED    ASKED,unclear RECEIVED ACCEPTED REJECTED FINISHED
asked              ASKED x        x             x        x        x       x
retry              x     !        !             ASKED    x        x       x
abandon            x     !        !             !        !        !       !
received           x     RECEIVED RECEIVED      =        =        =       =
failed             x     !        =             !        !        !       !
accepted           x     ACCEPTED ACCEPTED      ACCEPTED =        x       =
accepted-by-name   x     ACCEPTED ACCEPTED      ACCEPTED =        x       =
rejected           x     REJECTED REJECTED      REJECTED x        =       x
finished           x     FINISHED FINISHED      FINISHED FINISHED x       =
accepted-elsewhere x     x        x             x        x        x       x
rejected-elsewhere x     x        x             x        x        x       x
finished-elsewhere x     x        x             x        x        x       x
"""


@grid.parameters(GRID)
def test_every_event_in_every_stage_does_what_the_grid_says(cell: grid.Cell) -> None:
    grid.check(cell, decide, STATES, EVENTS, Stage)


def test_every_row_of_the_table_is_taken() -> None:
    assert grid.rows_missed(GRID, TABLE, STATES, EVENTS) == set()


def test_ticket_has_the_order_s_items_and_key() -> None:
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
    assert decide(None, EVENTS["asked"], NOW, P).calls == (Call(f"{ORDER}/prepare", CallKind.PREPARE, request),)


def test_operator_retries_or_gives_up_the_call_to_the_restaurant() -> None:
    assert decide(STATES["RECEIVED"], EVENTS["retry"], NOW, P).calls == decide(None, EVENTS["asked"], NOW, P).calls
    abandoned = decide(STATES["ASKED"], EVENTS["abandon"], NOW, P)
    assert abandoned.cancel_calls == (f"{ORDER}/prepare",)
    assert abandoned.internal_events == (AttentionRaised("the restaurant's answer, given up by ana"),)


@pytest.mark.parametrize("stage", ["ASKED", "RECEIVED"])
def test_order_is_notified_of_the_restaurant_s_answer(stage: str) -> None:
    assert decide(STATES[stage], EVENTS["accepted"], NOW, P).internal_events == (RestaurantAccepted(),)
    assert decide(STATES[stage], EVENTS["rejected"], NOW, P).internal_events == (RestaurantRejected("closed"),)
    assert decide(STATES[stage], EVENTS["finished"], NOW, P).internal_events == (RestaurantFinished(),)


@pytest.mark.parametrize("stage", [stage.name for stage in Stage])
@pytest.mark.parametrize("event", ["accepted", "rejected", "finished"])
def test_callback_never_cancels_the_call(stage: str, event: str) -> None:
    assert decide(STATES[stage], EVENTS[event], NOW, P).cancel_calls == ()


@pytest.mark.parametrize("stage", ["RECEIVED", "ACCEPTED", "REJECTED", "FINISHED"])
@pytest.mark.parametrize("event", ["failed", "abandon"])
def test_call_that_a_callback_answered_ends(stage: str, event: str) -> None:
    decision = decide(STATES[stage], EVENTS[event], NOW, P)
    assert (decision.cancel_calls, decision.internal_events) == ((f"{ORDER}/prepare",), ())


@pytest.mark.parametrize("event", ["accepted", "finished"])
def test_cooking_a_rejected_ticket_raises_attention(event: str) -> None:
    decision = decide(STATES["REJECTED"], EVENTS[event], NOW, P)
    assert decision.outcome is Outcome.REFUSED
    [needed] = decision.internal_events
    assert isinstance(needed, AttentionRaised)
    assert needed.wait == "operator"


def test_rejection_of_an_accepted_ticket_raises_attention() -> None:
    [needed] = decide(STATES["ACCEPTED"], EVENTS["rejected"], NOW, P).internal_events
    assert isinstance(needed, AttentionRaised)
    assert needed.wait == ""


def test_unclear_answer_of_the_restaurant_raises_attention() -> None:
    assert decide(STATES["ASKED"], EVENTS["failed"], NOW, P).internal_events == (
        AttentionRaised("the restaurant's answer: answered 404"),
    )
