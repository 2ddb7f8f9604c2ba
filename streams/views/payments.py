"""Where a payment provider calls back."""

from aiohttp import web

from streams.app import app, settings
from streams.problems import Problem
from streams.views.ask import ApiView, answered, decide, elsewhere, read_body
from topics.families import PAYMENTS
from topics.payments import READER


@app.page("/v1/payments/{provider}/events")
class PaymentEvents(ApiView):
    """Charged, Declined, Refunded."""

    async def post(self, request: web.Request, provider: str) -> web.Response:
        """What happened to the money of an order."""
        if provider != settings.payment_provider:
            raise Problem(404, "unknown", f"there is no payment provider {provider!r} here")
        record = await read_body(request, READER)
        if (answer := await elsewhere(request, record.order)) is not None:
            return answer
        told = await decide(PAYMENTS, record)
        return answered(told, f"order {record.order}", f"/v1/orders/{record.order}", {"order": record.order})
