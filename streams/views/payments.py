"""Callbacks of the payment provider."""

from aiohttp import web

from streams.views.api_view import ApiView
from streams.web.deciding import to_response
from streams.web.problems import Problem
from streams.web.requests import read_body
from topics.families import PAYMENTS
from topics.payments import READER


class PaymentEvents(ApiView):
    """Events of charges and refunds."""

    async def post(self, request: web.Request, provider: str) -> web.Response:
        """Take a report of a payment: `Charged`, `Declined` or `Refunded`. It is a hint, not a fact.

        The open call to the provider is made again at once; only its answer moves money. A report that the answers
        contradict raises attention once for an order. The body has the fields of the record on the topic `payments`,
        with its `type`. `provider` is `DABBAWALA_PAYMENT_PROVIDER`.

        - 200: the report is taken; `outcome` is `ABSORBED` if it changes nothing: `{"order", "outcome"}`.
        - 404: there is no such provider or order.
        - 409: the order has left the tables.
        """
        if provider != self.services.settings.payment_provider:
            raise Problem(404, "unknown", f"there is no payment provider {provider!r} here")
        record = await read_body(request, READER)
        if (answer := await self.services.forwarding.forward_to_owner(request, record.order)) is not None:
            return answer
        decision = await self.services.decisions.submit(PAYMENTS, record)
        return to_response(decision, f"order {record.order}", f"/v1/orders/{record.order}", {"order": record.order})
