"""The restaurant's ticket of one order.

Rules:
1. The restaurant's point of sale is asked once, under one idempotency key, until it has answered.
2. It may skip steps: a preparation that is finished was accepted. What comes late is absorbed.
3. It cannot take back what it accepted: that is refused, and a person is told.
"""

import msgspec

from processors.decision import Call, Decision, Moment, Named, Table, Transition, absorb, refused
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
from processors.parameters import Parameters
from processors.requests import PrepareRequest, TicketItem, TicketModifier
from topics.orders import Item, Placed
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected


class Stage(Named):
    """How far the restaurant is with the ticket."""

    ASKED = "ASKED"
    TOLD = "TOLD"
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    FINISHED = "FINISHED"


class Ticket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a restaurant was asked to cook."""

    order: str
    restaurant: str
    stage: Stage
    reason: str = ""


# -- guards ----------------------------------------------------------------------------------------------------------


def another_restaurant(ticket: Ticket, event: TicketAccepted | TicketRejected | PreparationFinished, _: Moment) -> bool:
    """another restaurant says so"""
    return event.restaurant not in (None, ticket.restaurant)


# -- effects ---------------------------------------------------------------------------------------------------------


def ask(_: None, event: TicketAsked, __: Moment) -> Decision[Ticket]:
    """call: prepare"""
    assert event.placed is not None
    placed = event.placed
    ticket = Ticket(order=placed.key, restaurant=placed.restaurant, stage=Stage.ASKED)
    return Decision(state=ticket, calls=(_call(placed, event.pos_url),))


def accept(ticket: Ticket, _event: TicketAccepted, __: Moment) -> Decision[Ticket]:
    """order: accepted"""
    return Decision(tell=(RestaurantAccepted(),), cancel_calls=_unanswered(ticket))


def reject(ticket: Ticket, event: TicketRejected, _: Moment) -> Decision[Ticket]:
    """order: refused"""
    reason = event.reason or "the restaurant does not cook it"
    return Decision(
        state=msgspec.structs.replace(ticket, reason=reason),
        tell=(RestaurantRefused(reason),),
        cancel_calls=_unanswered(ticket),
    )


def finish(ticket: Ticket, _event: PreparationFinished, __: Moment) -> Decision[Ticket]:
    """order: finished"""
    return Decision(tell=(RestaurantFinished(),), cancel_calls=_unanswered(ticket))


def note(_ticket: Ticket, _event: TicketReceived, __: Moment) -> Decision[Ticket]:
    """the answer will come later"""
    return Decision()


def report(_ticket: Ticket, event: PrepareFailed, _: Moment) -> Decision[Ticket]:
    """attention"""
    return Decision(tell=(AttentionNeeded(f"the restaurant's answer: {event.reason}"),))


def ask_again(_ticket: Ticket, event: PrepareRetried, _: Moment) -> Decision[Ticket]:
    """call: prepare, at once"""
    assert event.placed is not None
    return Decision(reason=event.asked, calls=(_call(event.placed, event.pos_url),))


def give_up(ticket: Ticket, event: PrepareAbandoned, _: Moment) -> Decision[Ticket]:
    """call: prepare no more; attention"""
    needed = AttentionNeeded(f"the restaurant's answer, given up {event.asked}")
    return Decision(reason=event.asked, tell=(needed,), cancel_calls=(prepare_key(ticket.order),))


def refuse_rejection(ticket: Ticket, event: TicketRejected, _: Moment) -> Decision[Ticket]:
    """refused; attention"""
    contradiction = f"the restaurant rejects a ticket that is {ticket.stage.value}"
    return refused(contradiction, AttentionNeeded(f"the restaurant to make up its mind: {contradiction}"))


def refuse_stranger(ticket: Ticket, event: TicketAccepted, _: Moment) -> Decision[Ticket]:
    """refused"""
    return refused(f"the ticket is {ticket.restaurant}'s, not {event.restaurant}'s")


# -- the table -------------------------------------------------------------------------------------------------------

ASKED, TOLD, ACCEPTED, REFUSED, FINISHED = Stage.ASKED, Stage.TOLD, Stage.ACCEPTED, Stage.REFUSED, Stage.FINISHED
ANY = (ASKED, TOLD, ACCEPTED, REFUSED, FINISHED)

TABLE: Table[Ticket] = Table(
    "the ticket",
    (
        Transition((None,), TicketAsked, ASKED, ask),
        Transition(ANY, TicketAccepted, None, refuse_stranger, when=another_restaurant),
        Transition(ANY, TicketRejected, None, refuse_stranger, when=another_restaurant),
        Transition(ANY, PreparationFinished, None, refuse_stranger, when=another_restaurant),
        Transition((ASKED,), TicketReceived, TOLD, note),
        Transition((ASKED,), PrepareFailed, None, report),
        Transition((ASKED, TOLD), TicketAccepted, ACCEPTED, accept),
        Transition((ASKED, TOLD), TicketRejected, REFUSED, reject),
        Transition((ASKED, TOLD, ACCEPTED), PreparationFinished, FINISHED, finish),
        Transition((ACCEPTED, FINISHED), TicketAccepted, None, absorb),
        Transition((FINISHED,), PreparationFinished, None, absorb),
        Transition((REFUSED,), TicketRejected, None, absorb),
        Transition((ACCEPTED, FINISHED), TicketRejected, None, refuse_rejection),
        Transition((TOLD, ACCEPTED, REFUSED, FINISHED), TicketReceived, None, absorb),
        Transition((TOLD, ACCEPTED, REFUSED, FINISHED), PrepareFailed, None, absorb),
        # what operators want
        Transition((ASKED, TOLD), PrepareRetried, ASKED, ask_again),
        Transition((ASKED,), PrepareAbandoned, None, give_up),
    ),
)


def decide(ticket: Ticket | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Ticket]:
    """What an event does to a ticket: records of topics.pos and the ticket's in ``events``."""
    return TABLE.decide(ticket, event, now_ms, parameters)


def prepare_key(order: str) -> str:
    """The idempotency key under which the restaurant is asked."""
    return f"{order}/prepare"


def _unanswered(ticket: Ticket) -> tuple[str, ...]:
    """The call that asks for what the restaurant has just told by itself."""
    return (prepare_key(ticket.order),) if ticket.stage is Stage.ASKED else ()


def _call(placed: Placed, pos_url: str) -> Call:
    return Call(prepare_key(placed.key), "prepare", _request(placed, pos_url))


def _request(placed: Placed, pos_url: str) -> PrepareRequest:
    return PrepareRequest(
        order=placed.key,
        restaurant=placed.restaurant,
        pos_url=pos_url,
        display_number=placed.display_number,
        items=tuple(_line(item) for item in placed.items),
        note=placed.customer.note,
    )


def _line(item: Item) -> TicketItem:
    modifiers = tuple(TicketModifier(name=modifier.name, pos_code=modifier.pos_code) for modifier in item.modifiers)
    return TicketItem(
        id=item.id,
        pos_code=item.pos_code,
        name=item.name,
        quantity=item.quantity,
        modifiers=modifiers,
        note=item.note,
    )
