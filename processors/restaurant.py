"""The restaurant's ticket of one order."""

from enum import Enum

import msgspec

from processors.decision import Decision
from processors.parameters import Parameters


class Stage(Enum):
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


def decide(ticket: Ticket | None, event: object, now_ms: int, parameters: Parameters) -> Decision[Ticket]:
    """What an event does to a ticket: records of topics.pos and the ticket's in ``events``."""
    raise NotImplementedError
