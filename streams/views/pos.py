"""Callbacks of a restaurant's point of sale about its tickets."""

import msgspec
from aiohttp import web

from streams.services import Services
from streams.views.api_view import ApiView
from streams.views.orders import DECIDED_ORDER
from streams.web.deciding import to_response
from streams.web.operation import operation
from streams.web.operators import action_of
from streams.web.requests import parse_id, read_body
from topics.families import POS
from topics.identity import OrderId, PartyId
from topics.pos import PosRecord, PreparationFinished, TicketAccepted, TicketRejected
from topics.records import Instant, Reader
from topics.text import Text


class TicketEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a callback. The path has the rest of the event."""

    reason: Text = ""
    """Reason of a rejection."""
    at: Instant | None = None


_reader: Reader[TicketEvent] = Reader(TicketEvent)


class TicketEvents(ApiView):
    """Events of a ticket."""

    @operation("reportTicket", DECIDED_ORDER, body=TicketEvent)
    async def post(self, request: web.Request, restaurant: str, order: str, event: str) -> web.Response:
        """Apply an event of the point of sale to the ticket of an order.

        The last part of the path is the event: `accepted`, `rejected` or `finished` (the food is ready). The body may
        be empty. It may hold `reason` (at most 1000 characters; used for `rejected`) and `at`, the time of the event.

        - 200: the event is applied, or a repeat (`outcome` is `ABSORBED`): `{"order", "outcome"}`.
        - 404: an id cannot be one, or there is no such order.
        - 409: the ticket belongs to another restaurant, or its state does not allow the event.
        """
        return await _submit(self.services, request, restaurant, order, event)


class TicketCallback(ApiView):
    """Callback address of one ticket."""

    @operation("callbackTicket", DECIDED_ORDER, body=TicketEvent)
    async def post(
        self, request: web.Request, capability: str, restaurant: str, order: str, event: str
    ) -> web.Response:
        """Apply an event of the point of sale to the ticket of this address: its `callback_url` and the event.

        The address needs no key: `capability` proves that a worker gave it out. Body and answers are as above.

        - 200: the event is applied, or a repeat (`outcome` is `ABSORBED`): `{"order", "outcome"}`.
        - 404: no worker gave out this address, or there is no such order.
        - 409: the ticket's state does not allow the event.
        """
        return await _submit(self.services, request, restaurant, order, event)


async def _submit(services: Services, request: web.Request, restaurant: str, order: str, event: str) -> web.Response:
    parse_id(restaurant, PartyId, "a restaurant")
    parse_id(order, OrderId, "an order")
    body = await read_body(request, _reader)
    if (answer := await services.forwarding.forward_to_owner(request, order)) is not None:
        return answer
    decision = await services.decisions.submit(
        POS, _record(restaurant, order, event, body), action_of(request, services.new_id, order)
    )
    return to_response(decision, f"ticket of order {order}", f"/v1/orders/{order}", {"order": order})


def _record(restaurant: str, order: str, event: str, body: TicketEvent) -> PosRecord:
    if event == "rejected":
        return TicketRejected(order=order, restaurant=restaurant, reason=body.reason, at=body.at)
    kind = TicketAccepted if event == "accepted" else PreparationFinished
    return kind(order=order, restaurant=restaurant, at=body.at)
