"""What parties outside were asked and have not answered; having it asked again, or giving it up."""

from typing import Any

from aiohttp import web

from streams.app import app, performer
from streams.calls.performer import ROWS
from streams.engine import Call, decode_call
from streams.views.ask import ApiView
from streams.views.listing import Listing
from topics.identity import owner_of
from topics.records import instant

CALLS = "calls"


@app.page("/v1/calls")
class Calls(ApiView):
    """Those that wait for an answer."""

    async def get(self, request: web.Request) -> web.Response:
        """In the order of their idempotency keys."""
        return await listing.answer(request)


def _shown(key: str, call: Call) -> dict[str, Any]:
    return {
        "key": key,
        "order": owner_of(key),
        "kind": ROWS.decode(call.request).kind,
        "url": performer.url(call.request),
        "attempts": call.attempt - 1,
        "next_attempt": instant(call.due_ms),
        "last_error": call.why or None,
    }


listing: Listing[tuple[str, Call]] = Listing(
    CALLS, "calls", lambda key, value: (key.decode(), decode_call(value)), lambda _, row: _shown(*row)
)
