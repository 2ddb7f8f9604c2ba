"""Callbacks of the payment provider."""

from aiohttp import web

from streams.services import Services
from streams.views.api_view import ApiView
from streams.views.orders import DECIDED_ORDER
from streams.web.deciding import to_response
from streams.web.operation import operation
from streams.web.operators import action_of
from streams.web.problems import FieldError, Problem
from streams.web.requests import read_body
from topics.families import PAYMENTS
from topics.payments import READER, PaymentRecord


class PaymentEvents(ApiView):
    """Events of charges and refunds."""

    @operation("reportPayment", DECIDED_ORDER, body=PaymentRecord)
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
        return await _submit(self.services, request, await read_body(request, READER))


class PaymentCallback(ApiView):
    """Callback address of the payments of one order."""

    @operation("callbackPayment", DECIDED_ORDER, body=PaymentRecord)
    async def post(self, request: web.Request, capability: str, provider: str, order: str) -> web.Response:
        """Apply a payment event to the order of this address, which is the `callback_url` of a charge or refund.

        The address needs no key: `capability` proves that a worker gave it out. Body and answers are as above.

        - 200: the event is applied, or a repeat (`outcome` is `ABSORBED`): `{"order", "outcome"}`.
        - 404: no worker gave out this address, or there is no such order.
        - 409: the payment's state does not allow the event.
        - 422: the body names another order.
        """
        record = await read_body(request, READER)
        if record.order != order:
            wrong = f"this address is for the order {order}"
            raise Problem(422, "invalid", wrong, [FieldError("/order", wrong)])
        return await _submit(self.services, request, record)


async def _submit(services: Services, request: web.Request, record: PaymentRecord) -> web.Response:
    if (answer := await services.forwarding.forward_to_owner(request, record.order)) is not None:
        return answer
    decision = await services.decisions.submit(PAYMENTS, record, action_of(request, services.new_id, record.order))
    return to_response(decision, f"order {record.order}", f"/v1/orders/{record.order}", {"order": record.order})
