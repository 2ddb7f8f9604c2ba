"""Names of events, as people read them in the reason of a refusal."""

from typing import Any, get_args

import pytest

from processors import delivery, driver, history, order, payment, ticket
from processors.event_names import EVENT_NAMES, event_name
from processors.events import PrepareRetried
from tests.processors.cases import NOW, ORDER, P, placed
from topics import deliveries, drivers, orders, payments, pos
from topics.pos import PreparationFinished

UNIONS: tuple[Any, ...] = (
    *(machine.Event for machine in (order, payment, ticket, delivery, history, driver)),
    *(topic.READER.types for topic in (orders, payments, pos, deliveries, drivers)),
)


def test_every_event_of_a_machine_has_a_name() -> None:
    missing = {event.__name__ for union in UNIONS for event in get_args(union) if event not in EVENT_NAMES}
    assert not missing


@pytest.mark.parametrize("name", EVENT_NAMES.values())
def test_names_are_noun_phrases_that_end_no_sentence(name: str) -> None:
    assert name[0].islower()
    assert name[-1].isalpha()


def test_an_unknown_event_is_named_by_its_class() -> None:
    assert event_name(3) == "int"


def test_a_refusal_speaks_of_what_the_operator_asked_for() -> None:
    retry = PrepareRetried("by ana", "http://pos.example", placed())
    accepted = ticket.Ticket(order=ORDER, restaurant="lakshmi", stage=ticket.Stage.ACCEPTED)
    assert ticket.decide(accepted, retry, NOW, P).reason == (
        "the ticket is ACCEPTED: a retry of the call to the restaurant is not possible"
    )
    assert ticket.decide(None, PreparationFinished(order=ORDER), NOW, P).reason == (
        "the ticket has not begun: the end of the preparation is not possible"
    )
