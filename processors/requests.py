"""What parties outside are asked. Who performs a call adds where answers that come later are to be sent."""

import msgspec


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Charge the customer ``amount`` minor units."""

    order: str
    amount: int
    currency: str


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Give that charge back, whole."""

    order: str
    charge_id: str
    amount: int
    currency: str


class TicketModifier(msgspec.Struct, frozen=True, kw_only=True):
    """Something added to an item."""

    name: str
    pos_code: str


class TicketItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a ticket."""

    id: str
    pos_code: str
    name: str
    quantity: int
    modifiers: tuple[TicketModifier, ...]
    note: str


class PrepareRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Cook this. ``pos_url`` is where the restaurant's point of sale listens."""

    order: str
    restaurant: str
    pos_url: str
    display_number: str
    items: tuple[TicketItem, ...]
    note: str
