"""The restaurant's ticket of one order.

Rules:
1. The ticket is sent to the restaurant's point of sale under one idempotency key, until it is answered.
2. The restaurant may skip steps: a finished preparation counts as accepted. Late events are absorbed.
3. The restaurant cannot reject an accepted ticket, nor cook one that it rejected: the event is refused, and the order
   asks for attention.
4. A callback moves the ticket but does not cancel the call. Only an answer ends the call: a forged callback must not
   keep the ticket from the restaurant.
"""

import msgspec

from processors.call_kinds import CallKind, call_key
from processors.decision import Call, Decision, DecisionContext, Rows, StageEnum, Table, ignore_duplicate, refused
from processors.events import (
    OPERATOR,
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
from processors.parameters import Parameters
from processors.requests import PrepareRequest, TicketItem, TicketModifier
from topics.orders import Item, Placed
from topics.pos import PreparationFinished, TicketAccepted, TicketRejected


class Stage(StageEnum):
    """Progress of the ticket at the restaurant."""

    ASKED = "ASKED"
    RECEIVED = "RECEIVED"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    FINISHED = "FINISHED"


class Ticket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ticket that was sent to a restaurant."""

    order: str
    restaurant: str
    stage: Stage
    reason: str = ""
    unclear: bool = False
    """True if an unclear answer has raised attention."""


# -- guards ----------------------------------------------------------------------------------------------------------


def another_restaurant(
    ticket: Ticket, event: TicketAccepted | TicketRejected | PreparationFinished, _: DecisionContext
) -> bool:
    """the event comes from another restaurant"""
    return event.restaurant not in (None, ticket.restaurant)


def is_known_unclear(ticket: Ticket, _event: PrepareFailed, __: DecisionContext) -> bool:
    """an unclear answer has raised attention before"""
    return ticket.unclear


# -- effects ---------------------------------------------------------------------------------------------------------


def ask(_: None, event: TicketRequested, __: DecisionContext) -> Decision[Ticket]:
    """call the restaurant: prepare"""
    assert event.placed is not None
    placed = event.placed
    ticket = Ticket(order=placed.key, restaurant=placed.restaurant, stage=Stage.ASKED)
    return Decision(state=ticket, calls=(_call(placed, event.pos_url),))


def accept(_ticket: Ticket, _event: TicketAccepted, __: DecisionContext) -> Decision[Ticket]:
    """notify the order: accepted"""
    return Decision(internal_events=(RestaurantAccepted(),))


def reject(ticket: Ticket, event: TicketRejected, _: DecisionContext) -> Decision[Ticket]:
    """notify the order: rejected"""
    reason = event.reason or "the restaurant does not cook it"
    return Decision(state=msgspec.structs.replace(ticket, reason=reason), internal_events=(RestaurantRejected(reason),))


def finish(_ticket: Ticket, _event: PreparationFinished, __: DecisionContext) -> Decision[Ticket]:
    """notify the order: finished"""
    return Decision(internal_events=(RestaurantFinished(),))


def record_receipt(_ticket: Ticket, _event: TicketReceived, __: DecisionContext) -> Decision[Ticket]:
    """wait for the restaurant's answer"""
    return Decision()


def raise_attention(ticket: Ticket, event: PrepareFailed, _: DecisionContext) -> Decision[Ticket]:
    """raise attention"""
    needed = AttentionRaised(f"the restaurant's answer: {event.reason}")
    return Decision(state=msgspec.structs.replace(ticket, unclear=True), internal_events=(needed,))


def end_call(ticket: Ticket, _event: PrepareFailed, _: DecisionContext) -> Decision[Ticket]:
    """cancel the call: a callback has answered it"""
    return Decision(cancel_calls=(prepare_key(ticket.order),))


def ask_again(_ticket: Ticket, event: PrepareRetried, _: DecisionContext) -> Decision[Ticket]:
    """call at once: prepare"""
    assert event.placed is not None
    return Decision(reason=event.requested_by, calls=(_call(event.placed, event.pos_url),))


def abandon(ticket: Ticket, event: PrepareAbandoned, _: DecisionContext) -> Decision[Ticket]:
    """cancel the call; raise attention"""
    needed = AttentionRaised(f"the restaurant's answer, given up {event.requested_by}")
    return Decision(reason=event.requested_by, internal_events=(needed,), cancel_calls=(prepare_key(ticket.order),))


def abandon_call(ticket: Ticket, event: PrepareAbandoned, _: DecisionContext) -> Decision[Ticket]:
    """cancel the call: a callback has answered it"""
    return Decision(reason=event.requested_by, cancel_calls=(prepare_key(ticket.order),))


def refuse_rejection(ticket: Ticket, event: TicketRejected, _: DecisionContext) -> Decision[Ticket]:
    """refuse: the ticket is accepted already; raise attention"""
    contradiction = f"the restaurant rejects a ticket that is {ticket.stage.value}"
    return refused(contradiction, AttentionRaised(f"the restaurant to make up its mind: {contradiction}"))


def refuse_cooking(
    _ticket: Ticket, event: TicketAccepted | PreparationFinished, _: DecisionContext
) -> Decision[Ticket]:
    """refuse: the ticket is rejected; raise attention"""
    contradiction = "the restaurant cooks a ticket that is REJECTED"
    return refused(contradiction, AttentionRaised(f"an operator: {contradiction}", OPERATOR))


def refuse_other_restaurant(
    ticket: Ticket, event: TicketAccepted | TicketRejected | PreparationFinished, _: DecisionContext
) -> Decision[Ticket]:
    """refuse: the ticket is another restaurant's"""
    return refused(f"the ticket is {ticket.restaurant}'s, not {event.restaurant}'s")


# -- the table -------------------------------------------------------------------------------------------------------

ASKED, RECEIVED, ACCEPTED, REJECTED, FINISHED = (
    Stage.ASKED,
    Stage.RECEIVED,
    Stage.ACCEPTED,
    Stage.REJECTED,
    Stage.FINISHED,
)
ANY = (ASKED, RECEIVED, ACCEPTED, REJECTED, FINISHED)

Event = (
    TicketRequested
    | TicketAccepted
    | TicketRejected
    | PreparationFinished
    | TicketReceived
    | PrepareFailed
    | PrepareRetried
    | PrepareAbandoned
)
"""Union of the events of the table."""
row = Rows[Ticket, Stage]()
ROWS = (
    row((None,), TicketRequested, ASKED, ask),
    row(ANY, TicketAccepted, None, refuse_other_restaurant, when=another_restaurant),
    row(ANY, TicketRejected, None, refuse_other_restaurant, when=another_restaurant),
    row(ANY, PreparationFinished, None, refuse_other_restaurant, when=another_restaurant),
    row((ASKED,), TicketReceived, RECEIVED, record_receipt),
    row((ASKED,), PrepareFailed, None, ignore_duplicate, when=is_known_unclear),
    row((ASKED,), PrepareFailed, None, raise_attention),
    row((ASKED, RECEIVED), TicketAccepted, ACCEPTED, accept),
    row((ASKED, RECEIVED), TicketRejected, REJECTED, reject),
    row((ASKED, RECEIVED, ACCEPTED), PreparationFinished, FINISHED, finish),
    row((ACCEPTED, FINISHED), TicketAccepted, None, ignore_duplicate),
    row((FINISHED,), PreparationFinished, None, ignore_duplicate),
    row((REJECTED,), TicketRejected, None, ignore_duplicate),
    row((ACCEPTED, FINISHED), TicketRejected, None, refuse_rejection),
    row((RECEIVED, ACCEPTED, REJECTED, FINISHED), TicketReceived, None, ignore_duplicate),
    row((REJECTED,), TicketAccepted, None, refuse_cooking),
    row((REJECTED,), PreparationFinished, None, refuse_cooking),
    row((RECEIVED, ACCEPTED, REJECTED, FINISHED), PrepareFailed, None, end_call),
    # requests of operators
    row((ASKED, RECEIVED), PrepareRetried, ASKED, ask_again),
    row((ASKED,), PrepareAbandoned, None, abandon),
    row((RECEIVED, ACCEPTED, REJECTED, FINISHED), PrepareAbandoned, None, abandon_call),
)
TABLE = Table[Ticket, Stage, Event]("the ticket", ROWS)


def decide(ticket: Ticket | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Ticket]:
    """Decide an event of a ticket: a record of ``topics.pos``, or an event for the ticket in ``events``."""
    return TABLE.decide(ticket, event, now_ms, parameters)


def prepare_key(order: str) -> str:
    """Return the idempotency key of the call to the restaurant."""
    return call_key(order, CallKind.PREPARE)


def _call(placed: Placed, pos_url: str) -> Call:
    return Call(prepare_key(placed.key), CallKind.PREPARE, _request(placed, pos_url))


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
