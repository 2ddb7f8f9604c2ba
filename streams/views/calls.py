"""What parties outside were asked and have not answered; having it asked again, or giving it up; how they stand."""

from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from streams.app import app, engine, performer
from streams.calls.performer import ROWS
from streams.engine import Call, PartyState, decode_call
from streams.problems import Problem
from streams.views.ask import (
    ApiView,
    answered,
    decide,
    elsewhere,
    everywhere,
    idempotency_key,
    read_body,
    respond,
    this_worker,
)
from streams.views.listing import Listing
from topics.families import ORDERS
from topics.identity import owner_of
from topics.orders import CallAbandonAsked, CallKey, CallRetryAsked, Text
from topics.records import Reader, instant

CALLS = "calls"
LONGEST_KEY = 64
WISHES = {"retry": CallRetryAsked, "abandon": CallAbandonAsked}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `retry`, `abandon` and of what is settled: who asks for it, and why."""

    by: Text = ""
    reason: Text = ""


ASKED: Reader[Asked] = Reader(Asked)


@app.page("/v1/calls")
class Calls(ApiView):
    """Those that wait for an answer."""

    async def get(self, request: web.Request) -> web.Response:
        """In the order of their idempotency keys."""
        return await listing.answer(request)


@app.page("/v1/calls/{order}/{purpose:.+}/{wish:retry|abandon}")
class CallWish(ApiView):
    """What an operator wants done with a call, answered or not."""

    async def post(self, request: web.Request, order: str, purpose: str, wish: str) -> web.Response:
        """200 when it is decided; 409 where the order waits for no answer to such a call."""
        call, asked = f"{order}/{purpose}", await read_body(request, ASKED)
        key = idempotency_key(request)[:LONGEST_KEY] or uuid4().hex
        event = WISHES[wish](id=f"{order}/{wish}/{key}", call=_known(call), by=asked.by, reason=asked.reason)
        if (answer := await elsewhere(request, order)) is not None:
            return answer
        told = await decide(ORDERS, event)
        return answered(told, f"order {order}", f"/v1/orders/{order}", {"call": call})


@app.page("/v1/parties")
class Parties(ApiView):
    """Those that are called just now, for whom something waits, or who have failed to answer."""

    async def get(self, request: web.Request) -> web.Response:
        """As each worker has it: one that a party answers may stand beside one that it does not."""
        own = [{**msgspec.to_builtins(state), "worker": this_worker()} for state in engine.calls.parties()]
        found = await everywhere(request, own, "parties")
        return respond(200, {"parties": sorted(found, key=lambda row: (row["party"], row["worker"]))})


def _known(call: str) -> str:
    try:
        return str(msgspec.convert(call, CallKey))
    except msgspec.ValidationError:
        advice = "<order>/charge, <order>/prepare or <order>/refund/<charge>"
        raise Problem(404, "unknown", f"{call!r} cannot be the key of a call: that is {advice}") from None


def _shown(key: str, call: Call) -> dict[str, Any]:
    return {
        "key": key,
        "order": owner_of(key),
        "kind": ROWS.decode(call.request).kind,
        "url": performer.url(call.request),
        "attempts": call.attempt - 1,
        "next_attempt": instant(call.due_ms),
        "last_error": call.why or None,
        "held_back": _held_back(engine.calls.party(call.request)),
    }


def _held_back(party: PartyState | None) -> str | None:
    """Why a call that is due may not be made, or has no answer; None where it is nothing about its party."""
    if party is None or party.state == "answers":
        return None
    if party.state == "silent":
        return f"its party has said nothing for {party.silent_s:.0f} s"
    failed = f"its party failed {party.failures} times in a row"
    return f"{failed} and rests for {party.tried_in_s:.0f} s" if party.state == "rests" else failed


listing: Listing[tuple[str, Call]] = Listing(
    CALLS, "calls", lambda key, value: (key.decode(), decode_call(value)), lambda _, row: _shown(*row)
)
