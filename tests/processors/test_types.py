"""Rows that mypy rejects. mypy reports each ``type: ignore`` here that is not needed."""

import re
from pathlib import Path

import processors
from processors.decision import Rows, Table, ignore_duplicate
from processors.delivery import Stage as DeliveryStage
from processors.events import TicketReceived
from processors.ticket import Event, Stage, Ticket, accept, record_receipt
from topics.payments import Declined
from topics.pos import TicketAccepted, TicketRejected

row = Rows[Ticket, Stage]()


def test_mypy_rejects_rows_with_wrong_types() -> None:
    right = (
        row((Stage.ASKED,), TicketAccepted, Stage.ACCEPTED, accept),
        row((Stage.ASKED,), TicketReceived, Stage.RECEIVED, record_receipt),
    )
    assert len(Table[Ticket, Stage, Event]("the ticket", right).rows) == 2
    row((Stage.ASKED,), TicketRejected, Stage.REJECTED, accept)  # type: ignore[arg-type]  # effect of another event
    row((Stage.ASKED,), TicketAccepted, DeliveryStage.DELIVERED, accept)  # type: ignore[call-overload]  # another stage
    foreign = (row((Stage.ASKED,), Declined, None, ignore_duplicate),)
    Table[Ticket, Stage, Event]("the ticket", foreign)  # type: ignore[arg-type]  # an event of another machine


def test_processors_do_not_import_any() -> None:
    for file in Path(processors.__path__[0]).glob("*.py"):
        assert not re.search(r"import.*\bAny\b", file.read_text()), file
