"""Open calls to outside parties, and the destinations that they go to."""

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from exactly_once import Call, DestinationState, decode_call
from processors.call_kinds import CallKind, call_key_forms, possible_call_keys
from processors.workflow import Workflow
from streams.calls.http_performer import ROWS
from streams.services import Services
from streams.views.api_view import ApiView
from streams.web.deciding import Decided, to_response
from streams.web.doorkeeper import sender_of
from streams.web.listing import PAGE_QUERY, Listing
from streams.web.operation import operation
from streams.web.operators import OPERATOR_NOTE, OperatorNote, action_of
from streams.web.problems import Problem
from streams.web.requests import IDEMPOTENT, key_part, read_body, respond
from topics.families import ORDERS
from topics.identity import OrderId, owner_of
from topics.orders import CallAbandonRequested, CallKey, CallRetryRequested
from topics.records import Instant, instant

CALLS = "calls"
COMMANDS = {"retry": CallRetryRequested, "abandon": CallAbandonRequested}


class OpenCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has no answer yet."""

    key: CallKey
    order: OrderId
    kind: CallKind
    url: str
    attempts: int
    next_attempt: Instant
    last_error: str | None
    held_back: str | None


class CallPage(msgspec.Struct, frozen=True):
    """Page of the list of calls."""

    calls: list[OpenCall]
    next: str | None


class PendingCall(msgspec.Struct, frozen=True):
    """A call with a command that is not decided on yet."""

    call: CallKey


class DecidedCall(msgspec.Struct, frozen=True):
    """The decision on a command for a call."""

    call: CallKey
    outcome: Decided


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """A destination of calls, as one worker sees it."""

    party: str
    host: str
    worker: str
    state: str
    running: int
    waiting: int
    window: int
    failures: int
    silent_s: float
    tried_in_s: float
    last_error: str


class PartyList(msgspec.Struct, frozen=True):
    """Destinations of calls."""

    parties: list[Party]


class Calls(ApiView):
    """All calls without an answer."""

    scans = True

    @operation(
        "listCalls",
        {200: CallPage},
        query={
            **PAGE_QUERY,
            "order": Annotated[str, Meta(description="Order of the calls.")],
            "destination": Annotated[str, Meta(description="Text that their URL contains.")],
        },
    )
    async def get(self, request: web.Request) -> web.Response:
        """List the calls that have no answer yet, by key, page by page.

        `?order=` selects those of one order, `?destination=` those whose URL contains this text.

        - 200: `{"calls": [...], "next"}`. Each call has `key`, `order`, `kind`, `url`, `attempts` (made so far),
          `next_attempt` (time), `last_error` and `held_back`, the reason that its destination makes it wait. The last
          two are null if there is nothing to report.
        """
        order, destination = request.query.get("order"), request.query.get("destination", "")

        def fits(row: tuple[str, Call]) -> bool:
            return order in (None, owner_of(row[0])) and destination in self.services.performer.url(row[1].request)

        return await listing(self.services).answer(request, fits)


class CallCommand(ApiView):
    """An operator's command for a call."""

    @operation("commandCall", {200: DecidedCall, 202: PendingCall}, body=OperatorNote, headers=IDEMPOTENT)
    async def post(self, request: web.Request, order: str, purpose: str, command: str) -> web.Response:
        """Retry a call at once under the same idempotency key, also after it was abandoned; or abandon it.

        `{order}/{purpose}` is the key of the call. The body may hold a `reason` for the journal, of at most 1000
        characters. The journal also has the name of the operator's key.

        - 200: the command is applied, or a repeat of its `Idempotency-Key` (`outcome` is `ABSORBED`):
          `{"call", "outcome"}`.
        - 404: this cannot be the key of a call, or there is no such order.
        - 409: the order does not wait for the answer to this call.
        """
        call = _parse_key(f"{order}/{purpose}")
        note = await read_body(request, OPERATOR_NOTE)
        key = key_part(request, self.services.new_id)
        event = COMMANDS[command](
            id=f"{order}/{command}/{key}", call=call, by=sender_of(request).name, reason=note.reason
        )
        if (answer := await self.services.forwarding.forward_to_owner(request, order)) is not None:
            return answer
        decision = await self.services.decisions.submit(
            ORDERS, event, action_of(request, self.services.new_id, order, note.reason)
        )
        return to_response(decision, f"order {order}", f"/v1/orders/{order}", {"call": call})


class Parties(ApiView):
    """Destinations of calls."""

    @operation("listParties", {200: PartyList})
    async def get(self, request: web.Request) -> web.Response:
        """List the destinations that have calls running or waiting, or that failed last, as each worker sees them.

        The circuit breaker of a destination can be open in one worker and closed in another.

        - 200: `{"parties": [...]}`, sorted by party. Each has `party`, `host`, `worker` and `state`: `open`,
          `half-open`, `failing`, `unresponsive` or `closed`. `running` and `waiting` count calls, `window` limits the
          running ones, and `failures` counts those in a row. `silent_s` is the age of the oldest unanswered attempt,
          `tried_in_s` the time until the open breaker admits a call, both in seconds. `last_error` may be empty.
        """
        own = [
            {**msgspec.to_builtins(state), "worker": self.services.forwarding.this_worker()}
            for state in self.services.engine.calls.destinations()
        ]
        found = await self.services.forwarding.ask_all_workers(request, own, "parties")
        return respond(200, {"parties": sorted(found, key=lambda row: (row["party"], row["worker"]))})


def _parse_key(call: str) -> str:
    try:
        return str(msgspec.convert(call, CallKey))
    except msgspec.ValidationError:
        forms = call_key_forms("<order>", "<charge>")
        raise Problem(404, "unknown", f"{call!r} cannot be the key of a call: that is {forms}") from None


def _shown(services: Services, key: str, call: Call) -> OpenCall:
    return OpenCall(
        key=key,
        order=owner_of(key),
        kind=ROWS.decode(call.request).kind,
        url=services.performer.url(call.request),
        attempts=call.attempt - 1,
        next_attempt=instant(call.due_ms),
        last_error=call.last_error or None,
        held_back=_held_back(services.engine.calls.destination(call.request)),
    )


def open_calls_of(services: Services, flow: Workflow) -> list[OpenCall]:
    """Return the open calls of an order's payment and ticket, as the list shows them."""
    return [_shown(services, key, call) for key, call in call_rows_of(services, flow)]


def call_rows_of(services: Services, flow: Workflow) -> list[tuple[str, Call]]:
    """Return the open calls of an order's payment and ticket, by their keys."""
    assert flow.order is not None
    order, refunds = flow.order.id, flow.payment.refunds if flow.payment else ()
    keys = possible_call_keys(order, (refund.charge_id for refund in refunds))
    partition = services.engine.partition_of(order.encode())
    rows = ((key, services.engine.read(CALLS, partition, key.encode())) for key in keys)
    return [(key, decode_call(row)) for key, row in rows if row is not None]


def _held_back(party: DestinationState | None) -> str | None:
    """Return the reason that a destination makes its calls wait, or leaves them unanswered; None if it does neither."""
    if party is None or party.state == "closed":
        return None
    if party.state == "unresponsive":
        return f"its party has not answered for {party.silent_s:.0f} s"
    times = "once" if party.failures == 1 else f"{party.failures} times in a row"
    failed = f"its party failed {times}"
    return f"{failed} and is not called for {party.tried_in_s:.0f} s" if party.state == "open" else failed


def listing(services: Services) -> Listing[tuple[str, Call]]:
    """Return the list of all calls, with the table and the form of its rows."""
    return Listing(
        services.engine,
        services.forwarding,
        CALLS,
        "calls",
        lambda key, value: (key.decode(), decode_call(value)),
        lambda _, row: _shown(services, *row),
    )
