"""Where a restaurant's point of sale calls back about its tickets."""

import msgspec
from aiohttp import web

from streams.app import app
from streams.views.ask import ApiView, answered, decide, elsewhere, named, read_body
from topics.families import POS
from topics.identity import OrderId, PartyId
from topics.orders import Text
from topics.pos import PosRecord, PreparationFinished, TicketAccepted, TicketRejected
from topics.records import Instant, Reader


class TicketEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What the body may say besides what the address says."""

    reason: Text = ""
    at: Instant | None = None


_reader: Reader[TicketEvent] = Reader(TicketEvent)


@app.page("/v1/pos/{restaurant}/tickets/{order}/{event:accepted|rejected|finished}")
class TicketEvents(ApiView):
    """Accepted, rejected, finished."""

    async def post(self, request: web.Request, restaurant: str, order: str, event: str) -> web.Response:
        """What happened to a ticket."""
        named(restaurant, PartyId, "a restaurant")
        named(order, OrderId, "an order")
        said = await read_body(request, _reader)
        if (answer := await elsewhere(request, order)) is not None:
            return answer
        told = await decide(POS, _record(restaurant, order, event, said))
        return answered(told, f"ticket of order {order}", f"/v1/orders/{order}", {"order": order})


def _record(restaurant: str, order: str, event: str, said: TicketEvent) -> PosRecord:
    if event == "rejected":
        return TicketRejected(order=order, restaurant=restaurant, reason=said.reason, at=said.at)
    kind = TicketAccepted if event == "accepted" else PreparationFinished
    return kind(order=order, restaurant=restaurant, at=said.at)
