"""Requests to outside parties. The performer of a call adds the URL for answers that come later."""

import msgspec


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Charge the customer ``amount`` minor units."""

    order: str
    amount: int
    currency: str


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Refund a whole charge."""

    order: str
    charge_id: str
    amount: int
    currency: str


class TicketModifier(msgspec.Struct, frozen=True, kw_only=True):
    """Addition to an item."""

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
    """Prepare these items. ``pos_url`` is the address of the restaurant's point of sale."""

    order: str
    restaurant: str
    pos_url: str
    display_number: str
    items: tuple[TicketItem, ...]
    note: str
