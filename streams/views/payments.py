"""Where a payment provider calls back."""

from aiohttp import web

from processors.decision import Outcome
from streams.app import app
from streams.views.ask import ApiView, decide, elsewhere, read_body, refusal, respond
from topics.families import PAYMENTS
from topics.payments import READER


@app.page("/v1/payments/{provider}/events")
class PaymentEvents(ApiView):
    """Charged, Declined, Refunded."""

    async def post(self, request: web.Request, provider: str) -> web.Response:
        """What happened to the money of an order."""
        record = await read_body(request, READER)
        if (answer := await elsewhere(request, record.order)) is not None:
            return answer
        told = await decide(PAYMENTS, record)
        if told is None:
            return respond(202, {"order": record.order}, Location=f"/v1/orders/{record.order}")
        if told.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            raise refusal(told, f"order {record.order}")
        return respond(200, {"order": record.order, "outcome": told.outcome.value})
