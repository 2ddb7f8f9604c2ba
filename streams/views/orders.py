"""Placing an order, and looking at one."""

import time
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from uuid import uuid4

import msgspec
from aiohttp import web

from processors.decision import Outcome
from processors.history import Retired
from processors.order import Order
from processors.workflow import JournalLine, Workflow
from streams import history, tables
from streams.app import app
from streams.problems import SOON, FieldError, Problem
from streams.views.ask import (
    ApiView,
    answered,
    decide,
    elsewhere,
    idempotency_key,
    named,
    read_body,
    refusal,
    respond,
)
from streams.views.calls import ASKED
from streams.views.listing import Listing
from topics.families import ORDERS
from topics.identity import OrderId, external_id_of
from topics.order_updates import OrderStatus
from topics.orders import PLACED, AttentionSettled, Placed
from topics.records import instant

LONGEST_KEY = 255


@app.page("/v1/orders")
class Orders(ApiView):
    """Place one, list them."""

    async def post(self, request: web.Request) -> web.Response:
        """201 for a new order, 200 with the same body for the same one again."""
        placed = _identified(await read_body(request, PLACED), idempotency_key(request))
        placed = msgspec.structs.replace(placed, at=instant(_now_ms()))
        if (answer := await elsewhere(request, placed.key)) is not None:
            return answer
        told = await decide(ORDERS, placed)
        location = f"/v1/orders/{placed.key}"
        if told is None:
            return respond(202, {"id": placed.key}, Location=location)
        if told.outcome is Outcome.REFUSED or told.failed:
            raise refusal(told, f"order {placed.key}", HTTPStatus.UNPROCESSABLE_ENTITY)
        body = {
            "id": placed.key,
            "provider": placed.provider,
            "external_id": placed.external_id,
            "placed_at": _placed_at(placed.key),
        }
        return respond(201 if told.outcome is Outcome.APPLIED else 200, body, Location=location)

    async def get(self, request: web.Request) -> web.Response:
        """In the order of their ids; `?status=`, `?restaurant=` and `?attention=true` narrow it down."""
        status, restaurant, attention = _status(request), request.query.get("restaurant"), _attention(request)

        def fits(row: Order) -> bool:
            return (
                (status is None or row.status is status)
                and (restaurant is None or row.restaurant == restaurant)
                and (attention is None or bool(row.concerns) is attention)
            )

        return await listing.answer(request, fits)


@app.page("/v1/orders/{order}")
class OneOrder(ApiView):
    """How an order stands."""

    async def get(self, request: web.Request, order: str) -> web.Response:
        """Status, ETA, and where its payment, ticket and delivery are."""
        named(order, OrderId, "an order")
        if (answer := await elsewhere(request, order)) is not None:
            return answer
        flow = _known(order)
        if flow.history is None:
            return respond(200, _shown(flow))
        kept = await _kept(order, flow.history)
        return respond(200, {**_shown(kept.workflow), "retired_at": instant(flow.history.retired_ms)})


@app.page("/v1/orders/{order}/journal")
class OrderJournal(ApiView):
    """Everything that happened to an order."""

    async def get(self, request: web.Request, order: str) -> web.Response:
        """One entry an event: when, which, what it led to."""
        named(order, OrderId, "an order")
        if (answer := await elsewhere(request, order)) is not None:
            return answer
        flow = _known(order)
        if flow.history is None:
            return respond(200, _journal(order, [line async for _, line in tables.journal.pages(order, f"{order}/")]))
        kept = await _kept(order, flow.history)
        return respond(200, {**_journal(order, kept.journal), "retired_at": instant(flow.history.retired_ms)})


@app.page("/v1/orders/{order}/settled")
class OrderSettled(ApiView):
    """What an operator has seen to, where nothing that comes later settles it."""

    async def post(self, request: web.Request, order: str) -> web.Response:
        """200 when it is decided; 409 where the order's attention is over by itself."""
        named(order, OrderId, "an order")
        asked = await read_body(request, ASKED)
        key = idempotency_key(request)[:LONGEST_KEY] or uuid4().hex
        if (answer := await elsewhere(request, order)) is not None:
            return answer
        event = AttentionSettled(id=f"{order}/settled/{key}", order=order, by=asked.by, reason=asked.reason)
        return answered(await decide(ORDERS, event), f"order {order}", f"/v1/orders/{order}", {"order": order})


def _identified(placed: Placed, key: str) -> Placed:
    """An order without an external id is called after its `Idempotency-Key`."""
    if placed.external_id is not None:
        return placed
    if not key or len(key) > LONGEST_KEY:
        advice = "give the order an external_id, or the request an Idempotency-Key of up to 255 characters"
        raise Problem(422, "invalid", advice, [FieldError("/external_id", advice)])
    return msgspec.structs.replace(placed, external_id=external_id_of(key))


def _journal(order: str, lines: Iterable[JournalLine]) -> dict[str, object]:
    return {"order": order, "entries": [_line(line) for line in lines]}


def _line(line: JournalLine) -> dict[str, object]:
    shown: dict[str, object] = msgspec.to_builtins(line)
    del shown["at_ms"]
    return {"seq": shown.pop("seq"), "at": instant(line.at_ms), **shown}


def _known(order: str) -> Workflow:
    """The order in the tables, or that it has left them."""
    flow = tables.committed_workflow_of(order)
    if flow.order is None and flow.history is None:
        raise Problem(404, "unknown", f"there is no order {order} here")
    return flow


def _placed_at(order: str) -> datetime | None:
    """When it was placed; None if there is no such order."""
    row = tables.orders.read(order, order) or tables.history.read(order, order)
    return None if row is None else instant(row.placed_ms)


async def _kept(order: str, retired: Retired) -> history.Kept:
    """An order that has left the tables, as it was then."""
    try:
        return await history.read(order, retired)
    except history.Unread as unread:
        if unread.gone:
            raise Problem(404, "unknown", str(unread)) from None
        raise Problem(503, "history-unread", f"{unread}; try again", headers=SOON) from None


def _shown(flow: Workflow) -> dict[str, object]:
    row, body, payment, ticket, delivery = flow.order, flow.placed, flow.payment, flow.ticket, flow.delivery
    assert row is not None
    concern = row.concerns[0] if row.concerns else None
    eta_ms = None if row.status.ended else row.eta_ms
    return {
        "id": row.id,
        "display_number": body.display_number if body else "",
        "status": row.status.value,
        "version": row.version,
        "restaurant": row.restaurant,
        "reason": row.reason,
        "refunded": row.refunded,
        "driver": row.driver,
        "eta": instant(eta_ms) if eta_ms is not None else None,
        "eta_s": max(0, round((eta_ms - _now_ms()) / 1000)) if eta_ms is not None else None,
        "attention": {"waits_for": concern.waits_for, "since": instant(concern.since_ms)} if concern else None,
        "placed_at": instant(row.placed_ms),
        "updated_at": instant(row.updated_ms),
        "total": body.total if body else None,
        "currency": body.currency if body else None,
        "payment": {"status": payment.stage.value} if payment else None,
        "ticket": {"status": ticket.stage.value} if ticket else None,
        "delivery": {"status": delivery.stage.value, "attempt": delivery.attempt} if delivery else None,
    }


listing = Listing(
    tables.orders.name,
    "orders",
    lambda key, value: tables.orders.decode(key.decode(), value),
    lambda _, row: _shown(msgspec.structs.replace(tables.committed_workflow_of(row.id), order=row)),
)


def _status(request: web.Request) -> OrderStatus | None:
    text = request.query.get("status")
    if text is None:
        return None
    try:
        return OrderStatus(text)
    except ValueError:
        names = ", ".join(status.value for status in OrderStatus)
        raise Problem(422, "invalid", f"status={text}: it must be one of {names}") from None


def _attention(request: web.Request) -> bool | None:
    text = request.query.get("attention")
    if text not in (None, "true", "false"):
        raise Problem(422, "invalid", f"attention={text}: it must be true or false")
    return None if text is None else text == "true"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
