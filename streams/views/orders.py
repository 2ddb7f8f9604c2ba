"""Placing and reading orders, their journal, and settlement of an attention by an operator."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from processors import delivery, payment, ticket
from processors.decision import Outcome
from processors.history import Retired
from processors.order import Order
from processors.workflow import JournalLine, Workflow
from streams.access.keys import ANY, Identity, Role
from streams.feed.order_history import HistoryUnavailable, RetiredOrder
from streams.services import Services
from streams.tracing.conventions import HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS
from streams.tracing.ids import context_of, root_of, span_id
from streams.tracing.spans import NS_PER_MS, Span, SpanKind
from streams.views.api_view import ApiView
from streams.views.calls import OpenCall, open_calls_of
from streams.web.deciding import Decided, to_problem, to_response
from streams.web.doorkeeper import is_forwarded, sender_of
from streams.web.listing import PAGE_QUERY, Listing
from streams.web.operation import operation
from streams.web.operators import OPERATOR_NOTE, OperatorNote, action_of
from streams.web.problems import SOON, FieldError, Problem
from streams.web.requests import (
    IDEMPOTENT,
    idempotency_key,
    key_part,
    parse_body,
    parse_id,
    read_body,
    read_bytes,
    respond,
)
from topics.families import ORDERS
from topics.headers import TRACEPARENT
from topics.identity import ExternalId, OrderId, PartyId, ProviderId, external_id_of
from topics.order_updates import OrderStatus
from topics.orders import PLACED, Amount, AttentionSettled, Currency, ErasureRequested, KeyUsed, OrderCommand, Placed
from topics.records import Instant, Reader, epoch_ms, instant
from topics.shapes import unknown_fields
from topics.text import plain

_OBJECT: Reader[dict[str, Any]] = Reader(dict[str, Any])
USED_KEY = "Dabbawala-Used-Key"
"""Header of a request that another worker forwards to have its `Idempotency-Key` stand for the order alone."""
MAX_UNKNOWN = 20
"""Fields in a refusal of unknown fields."""
MAX_POINTER = 200
"""Characters of a pointer to an unknown field."""
EXAMPLE = {
    "provider": "my-shop",
    "external_id": "1001",
    "restaurant": "ballard-slice",
    "items": [{"id": "1", "pos_code": "BS-01", "name": "Pizza Margherita", "quantity": 2, "unit_price": 32000}],
    "total": 64000,
    "currency": "INR",
    "customer": {"name": "Asha", "address": "12 Mint Road", "position": {"lat": 18.9387, "lon": 72.8353}},
}
"""An order."""


class OrderRef(msgspec.Struct, frozen=True, kw_only=True):
    """An order that is not decided on yet."""

    id: OrderId


class PlacedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that was placed."""

    id: OrderId
    provider: ProviderId
    external_id: ExternalId | None
    placed_at: Instant | None


class Paid(msgspec.Struct, frozen=True):
    """State of an order's payment."""

    status: payment.Stage


class Ticketed(msgspec.Struct, frozen=True):
    """State of an order's ticket."""

    status: ticket.Stage


class Delivering(msgspec.Struct, frozen=True):
    """State of an order's delivery. `attempt` counts the drivers that were asked for."""

    status: delivery.Stage
    attempt: int


class OrderAttention(msgspec.Struct, frozen=True):
    """The event that an order waits for, the start of the wait, and the call that is open."""

    waits_for: str
    since: Instant
    call: OpenCall | None


class OrderState(msgspec.Struct, frozen=True, kw_only=True):
    """State of an order."""

    id: OrderId
    display_number: str
    status: OrderStatus
    version: int
    restaurant: PartyId
    reason: str
    refunded: bool
    driver: str | None
    eta: Instant | None
    eta_s: int | None
    late: bool
    attention: OrderAttention | None
    placed_at: Instant
    updated_at: Instant
    total: Amount | None
    currency: Currency | None
    payment: Paid | None
    ticket: Ticketed | None
    delivery: Delivering | None
    retired_at: Instant | UnsetType = UNSET


class OrderPage(msgspec.Struct, frozen=True):
    """Page of the list of orders."""

    orders: list[OrderState]
    next: str | None
    count: int | UnsetType = UNSET
    """Number of the orders that fit, on all pages; a page in the order of ids has none."""


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event that a machine of an order applied or refused."""

    seq: int
    at: Instant
    machine: str
    event: str
    event_id: str
    before: str = ""
    after: str = ""
    outcome: Outcome = Outcome.APPLIED
    reason: str = ""
    emitted: tuple[str, ...] = ()


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """Journal of an order."""

    order: OrderId
    entries: list[JournalEntry]
    retired_at: Instant | UnsetType = UNSET


class PendingOrder(msgspec.Struct, frozen=True):
    """An order with an event that is not decided on yet."""

    order: OrderId


class DecidedOrder(msgspec.Struct, frozen=True):
    """The decision on an event of an order."""

    order: OrderId
    outcome: Decided


DECIDED_ORDER: Mapping[int, Any] = MappingProxyType({200: DecidedOrder, 202: PendingOrder})
"""Types of the answers to an event of an order."""


class Orders(ApiView):
    """All orders."""

    scans = True

    @operation(
        "placeOrder",
        {201: PlacedOrder, 200: PlacedOrder, 202: OrderRef},
        body=Placed,
        optional=("type", "provider"),
        headers=IDEMPOTENT,
        example=EXAMPLE,
    )
    async def post(self, request: web.Request) -> web.Response:
        """Place an order. The body has the fields of the record `Placed` on the topic `orders`; `type` may be omitted.

        The provider is the one of your key; a key for several providers needs the field `provider`. A field that is not
        known is refused: a misspelt one would change the price or the time without a word. The worker's clock gives
        the time of the order.

        The order needs an `external_id`, an `Idempotency-Key`, or both. The header is a string of RFC 9651, such as
        `"8e03978e-40d5"`, of at most 255 characters (draft-ietf-httpapi-idempotency-key-header-07). It counts for one
        provider and this route. Without an `external_id` the order gets one from the header, which therefore counts as
        long as the order is kept. With an `external_id`, the header stands for this id for 48 hours, even if the order
        is refused. It costs a second transaction; an `external_id` alone also makes a repeated request harmless.

        - 201: the order is new: `{"id", "provider", "external_id", "placed_at"}`, and its address in `Location`.
        - 200: the same order was placed before; the body is that of the first answer.
        - 400: the order has neither an `external_id` nor an `Idempotency-Key`, or the key is not written as above.
        - 403: the order is of another provider than the key.
        - 409: a request with this `Idempotency-Key` is under way; send it again after `Retry-After`.
        - 422: a field is wrong, the order differs from the menu, the restaurant is closed, an order with another
          body has this id, or the `Idempotency-Key` was used for another order. `errors` has a JSON pointer and a
          reason for each wrong field.
        """
        key = idempotency_key(request)
        ordered = await _read_order(request)
        placed = msgspec.structs.replace(_identified(ordered, key), at=instant(self.services.now_ms()))
        used = KeyUsed(order=placed.key, key_id=external_id_of(key.encode()))
        needs_memory = key and used.key != placed.key  # else the order's id follows from the key
        if needs_memory and (answer := await self._use_key(request, used)) is not None:
            return answer
        if (answer := await self.services.forwarding.forward_to_owner(request, placed.key)) is not None:
            return answer
        with self.services.decisions.one_at_a_time(placed.key) if key else nullcontext():
            return await self._place(request, placed)

    async def _use_key(self, request: web.Request, used: KeyUsed) -> web.Response | None:
        """Have the key stand for the order; return the answer if the request ends here.

        The worker that the request reached first asks the owner of the key before it asks the owner of the order. If a
        worker fails in between, the key stands for an order that is placed when the request is repeated.
        """
        is_question = is_forwarded(request) and USED_KEY in request.headers
        if is_forwarded(request) and not is_question:
            return None
        answer = await self.services.forwarding.forward_to_owner(request, used.key, **{USED_KEY: "?1"})
        if answer is not None:
            return None if answer.status == HTTPStatus.NO_CONTENT else answer
        decision = await self.services.decisions.submit(ORDERS, used)
        if decision is None:
            raise Problem(503, "not-ready", "no order is placed yet; send it again with the same key", headers=SOON)
        if decision.outcome is Outcome.REFUSED or decision.failed:
            raise to_problem(decision, f"order {used.order}", HTTPStatus.UNPROCESSABLE_ENTITY)
        return web.Response(status=HTTPStatus.NO_CONTENT) if is_question else None

    async def _place(self, request: web.Request, placed: Placed) -> web.Response:
        """Return the answer for the decision on an order."""
        sender = request.headers.get(TRACEPARENT, "")
        decision = await self.services.decisions.submit(
            ORDERS,
            placed,
            action_of(request, self.services.new_id, placed.key),
            sender if context_of(sender) else "",
        )
        location = f"/v1/orders/{placed.key}"
        if decision is None:
            return respond(202, OrderRef(id=placed.key), Location=location)
        if decision.outcome is Outcome.REFUSED or decision.failed:
            raise to_problem(decision, f"order {placed.key}", HTTPStatus.UNPROCESSABLE_ENTITY)
        body = PlacedOrder(
            id=placed.key,
            provider=placed.provider,
            external_id=placed.external_id,
            placed_at=_placed_at(self.services, placed.key),
        )
        status = 201 if decision.outcome is Outcome.APPLIED else 200
        if status == HTTPStatus.CREATED and self.services.tracing.is_sampled(placed.key):
            self._trace(placed)
        return respond(status, body, Location=location, **self._trace_headers(placed.key))

    def _trace(self, placed: Placed) -> None:
        """Send the span of the request that placed an order."""
        assert placed.at is not None
        span = Span(
            order=placed.key,
            id=span_id(f"{placed.key}/request"),
            parent=root_of(placed.key),
            name="POST /v1/orders",
            kind=SpanKind.SERVER,
            start_ns=epoch_ms(placed.at) * NS_PER_MS,
            end_ns=self.services.now_ms() * NS_PER_MS,
            attributes={HTTP_METHOD: "POST", HTTP_ROUTE: "/v1/orders", HTTP_STATUS: HTTPStatus.CREATED.value},
        )
        self.services.tracing.send(span)

    def _trace_headers(self, order: str) -> dict[str, str]:
        """Return the header that names the order's trace to the provider (a draft of W3C), if orders are traced."""
        tracing = self.services.tracing
        return {"traceresponse": tracing.traceparent(order, root_of(order))} if tracing.is_on else {}

    @operation(
        "listOrders",
        {200: OrderPage},
        query={
            **PAGE_QUERY,
            "status": Annotated[OrderStatus, Meta(description="Status of the orders.")],
            "provider": Annotated[str, Meta(description="Their provider.")],
            "restaurant": Annotated[str, Meta(description="Their restaurant.")],
            "attention": Annotated[bool, Meta(description="Whether they need a person.")],
            "sort": Annotated[Literal["id", "newest"], Meta(description="Order of the list, by default `id`.")],
        },
    )
    async def get(self, request: web.Request) -> web.Response:
        """List the orders in the tables, page by page: by id, or with `?sort=newest` from the newest to the oldest.

        `?status=`, `?provider=`, `?restaurant=` and `?attention=` (`true` or `false`) select orders. A page of the
        newest orders reads every row, and has `count`, the number of orders on all pages.

        - 200: `{"orders": [...], "next"}`, each order as below.
        """
        provider, restaurant = request.query.get("provider"), request.query.get("restaurant")
        sort, status, attention = _sort(request), _status(request), attention_filter(request)
        sender = sender_of(request)

        def fits(row: Order) -> bool:
            return (
                sender.speaks_for(row.id.partition(":")[0])
                and (status is None or row.status is status)
                and (provider is None or row.id.startswith(f"{provider}:"))
                and (restaurant is None or row.restaurant == restaurant)
                and (attention is None or bool(row.attention) is attention)
            )

        return await listing(self.services, sender).answer(
            request, fits, (lambda row: row.placed_ms) if sort == "newest" else None
        )


class OrderDetail(ApiView):
    """One order."""

    @operation("getOrder", {200: OrderState})
    async def get(self, request: web.Request, order: str) -> web.Response:
        """Return the state of an order, also of one that was moved to the history topic.

        - 200: `id`, `display_number`, `status`, `version` (number of its updates), `restaurant`, `reason`, `refunded`,
          `driver`, `eta`, `eta_s` (seconds until then), `late`, `attention`, `placed_at`, `updated_at`, `total` and
          `currency`; `payment`, `ticket` and `delivery`, each with its `status`. `attention` has `waits_for`, `since`
          and the open `call`. A value is null if there is none. A retired order also has `retired_at`. `reason` is a
          code, and `driver` a pseudonym that only this order has; operators see the driver's id.
        - 404: there is no such order, or the history topic no longer has it.
        - 410: the order was erased.
        - 503: the history topic cannot be read.
        """
        parse_id(order, OrderId, "an order")
        if (answer := await self.services.forwarding.forward_to_owner(request, order)) is not None:
            return answer
        flow = known_order(self.services, order)
        if flow.history is None:
            return respond(200, shown_order(self.services, flow, sender_of(request)))
        stored = await retired_order(self.services, request, order, flow.history)
        shown = shown_order(self.services, stored.workflow, sender_of(request))
        return respond(200, msgspec.structs.replace(shown, retired_at=instant(flow.history.retired_ms)))


class OrderJournal(ApiView):
    """The journal of an order."""

    @operation("getJournal", {200: Journal})
    async def get(self, request: web.Request, order: str) -> web.Response:
        """List the events that the order's machines applied or refused, the oldest first, without pages.

        - 200: `{"order", "entries": [...]}`. An entry has `seq`, `at`, `machine`, `event` and `event_id`, and if they
          apply `before` and `after` (stages), `outcome`, `reason` and `emitted` (ids of records and keys of calls). A
          retired order also has `retired_at`.
        - 404: there is no such order, or the history topic no longer has it.
        - 410: the order was erased.
        - 503: the history topic cannot be read.
        """
        parse_id(order, OrderId, "an order")
        if (answer := await self.services.forwarding.forward_to_owner(request, order)) is not None:
            return answer
        flow = known_order(self.services, order)
        if flow.history is None:
            lines = [line async for _, line in self.services.tables.journal.pages(order, f"{order}/")]
            return respond(200, _journal(order, lines))
        stored = await retired_order(self.services, request, order, flow.history)
        journal = _journal(order, stored.journal)
        return respond(200, msgspec.structs.replace(journal, retired_at=instant(flow.history.retired_ms)))


class OrderSettled(ApiView):
    """Settlement by an operator."""

    @operation("settleOrder", DECIDED_ORDER, body=OperatorNote, headers=IDEMPOTENT)
    async def post(self, request: web.Request, order: str) -> web.Response:
        """Clear an attention that no later event clears, such as a provider that contradicts itself.

        The body may hold a `reason` for the journal, of at most 1000 characters. The journal also has the name of the
        operator's key.

        - 200: the attention is cleared; `outcome` is `ABSORBED` if there was none: `{"order", "outcome"}`.
        - 404: there is no such order.
        - 409: the attention will be cleared by an event; `detail` names it.
        """
        return await _command(self.services, request, order, AttentionSettled, "settled")


class OrderErased(ApiView):
    """Erasure by an operator."""

    @operation("eraseOrder", DECIDED_ORDER, body=OperatorNote, headers=IDEMPOTENT)
    async def post(self, request: web.Request, order: str) -> web.Response:
        """Erase the personal data of an ended order, because its customer asked for it.

        The order leaves the tables, and its rows in the history topic become unreadable. The answer is 200 once the
        worker has also rewritten its files of this partition. The topics `orders` and `dead-letters` lose their copies
        by their retention. The body may hold a `reason`, of at most 1000 characters.

        - 200: the order is erased; `outcome` is `ABSORBED` if it was erased before: `{"order", "outcome"}`.
        - 404: there is no such order.
        - 409: the order has not ended, or needs a person, or has an open call.
        """
        purge = self.services.engine.purge
        return await _command(self.services, request, order, ErasureRequested, "erased", then=purge)


async def _command(
    services: Services,
    request: web.Request,
    order: str,
    command: type[OrderCommand],
    word: str,
    then: Callable[[bytes], Awaitable[None]] | None = None,
) -> web.Response:
    """Have the order's owner submit an operator's command; return the answer for the decision.

    ``word`` is the part of the record's id that tells commands with the same `Idempotency-Key` apart. The owner calls
    ``then`` with the order's key once the decision is committed.
    """
    parse_id(order, OrderId, "an order")
    note = await read_body(request, OPERATOR_NOTE)
    key = key_part(request, services.new_id)
    if (answer := await services.forwarding.forward_to_owner(request, order)) is not None:
        return answer
    event = command(id=f"{order}/{word}/{key}", order=order, by=sender_of(request).name, reason=note.reason)
    acted = action_of(request, services.new_id, order, note.reason)
    decision = await services.decisions.submit(ORDERS, event, acted)
    answer = to_response(decision, f"order {order}", f"/v1/orders/{order}", {"order": order})
    if decision is not None and then is not None:
        await then(order.encode())
    return answer


async def _read_order(request: web.Request) -> Placed:
    """Return the order in the body, of the provider that the key is for. Raises a 400, 403 or 422 problem."""
    sender = sender_of(request)
    body = await read_bytes(request)
    if sender.role is Role.PROVIDER and not sender.party.endswith(ANY):
        body = _with_provider(body, sender.party)
    placed = parse_body(body, PLACED)
    _refuse_unknown_fields(parse_body(body, _OBJECT))
    if not sender.speaks_for(placed.provider):
        wrong = f"your key is for the provider {sender.party}"
        raise Problem(403, "not-yours", wrong, [FieldError("/provider", wrong)])
    return placed


def _with_provider(body: bytes, provider: str) -> bytes:
    """Return the body of an order with the provider, unless it names one or is not a JSON object."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body  # its reader says what is wrong
    return body if "provider" in fields else msgspec.json.encode({**fields, "provider": provider})


def _refuse_unknown_fields(order: dict[str, Any]) -> None:
    """Raise a problem that names each field that an order does not have, and the field that may be meant.

    `fulfilment` was a field with one value, which older clients send. They may, but no other value.
    """
    if order.get("fulfilment") == "delivery":
        del order["fulfilment"]
    unknown = [
        FieldError(
            plain(found.pointer)[:MAX_POINTER],
            "an order has no such field here; " + (f"is `{found.nearest}` meant?" if found.nearest else "leave it out"),
        )
        for found in islice(unknown_fields(order, Placed), MAX_UNKNOWN)
    ]
    if unknown:
        named = "; ".join(f"{error.pointer}: {error.detail}" for error in unknown)
        raise Problem(422, "invalid", f"the body cannot be used: {named}", unknown)


def _identified(placed: Placed, key: str) -> Placed:
    """Return the order with an external id, by default one that is derived from the `Idempotency-Key`."""
    if placed.external_id is not None:
        return placed
    if not key:
        advice = "give the order an external_id, or the request an Idempotency-Key"
        raise Problem(400, "invalid", advice, [FieldError("/external_id", advice)])
    return msgspec.structs.replace(placed, external_id=external_id_of(key.encode()))


def _journal(order: str, lines: Iterable[JournalLine]) -> Journal:
    return Journal(order=order, entries=[journal_entry(line) for line in lines])


def journal_entry(line: JournalLine) -> JournalEntry:
    """Return a line of the journal as the API shows it."""
    fields = msgspec.structs.asdict(line)
    return JournalEntry(at=instant(fields.pop("at_ms")), **fields)


def known_order(services: Services, order: str) -> Workflow:
    """Return the rows of an order, or its row in `history`. Raises a 404 problem if it has neither."""
    flow = services.tables.committed_workflow_of(order)
    if flow.order is None and flow.history is None:
        raise Problem(404, "unknown", f"there is no order {order} here")
    return flow


def _placed_at(services: Services, order: str) -> datetime | None:
    """Return the time at which an order was placed; None if there is no such order."""
    row = services.tables.orders.read(order, order) or services.tables.history.read(order, order)
    return None if row is None else instant(row.placed_ms)


async def retired_order(services: Services, request: web.Request, order: str, retired: Retired) -> RetiredOrder:
    """Return an order that has left the tables, from the history topic. Raises a 404, 410 or 503 problem."""
    if retired.erased_ms is not None:
        raise Problem(410, "erased", f"the order {order} was erased at {instant(retired.erased_ms).isoformat()}")
    try:
        return await services.history.read(order, retired, sender_of(request).name)
    except HistoryUnavailable as error:
        if error.gone:
            raise Problem(404, "unknown", str(error)) from None
        raise Problem(503, "history-unread", f"{error}; try again", headers=SOON) from None


def shown_order(services: Services, flow: Workflow, sender: Identity) -> OrderState:
    """Return an order as this sender may see it."""
    row, body = flow.order, flow.placed
    assert row is not None
    eta, eta_s, late = _eta(row, services.now_ms())
    return OrderState(
        id=row.id,
        display_number=body.display_number if body else "",
        status=row.status,
        version=row.version,
        restaurant=row.restaurant,
        reason=row.reason.value if row.reason else "",
        refunded=row.refunded,
        driver=_driver(services, row, sender),
        eta=eta,
        eta_s=eta_s,
        late=late,
        attention=_attention(services, flow, row),
        placed_at=instant(row.placed_ms),
        updated_at=instant(row.updated_ms),
        total=body.total if body else None,
        currency=body.currency if body else None,
        payment=Paid(flow.payment.stage) if flow.payment else None,
        ticket=Ticketed(flow.ticket.stage) if flow.ticket else None,
        delivery=Delivering(flow.delivery.stage, flow.delivery.attempt) if flow.delivery else None,
    )


def _driver(services: Services, row: Order, sender: Identity) -> str | None:
    """Return the driver's id for an operator, and for anybody else the pseudonym that the order's updates have."""
    if row.driver is None or sender.role is Role.OPERATOR:
        return row.driver
    return services.tokens.pseudonym(row.id, row.driver)


def _eta(row: Order, now_ms: int) -> tuple[datetime | None, int | None, bool]:
    """Return the estimated time of arrival, the seconds until then, and whether it is over."""
    if row.status.ended or row.eta_ms is None:
        return None, None, False
    left_ms = row.eta_ms - now_ms
    return instant(row.eta_ms), round(left_ms / 1000) if left_ms >= 0 else None, left_ms < 0


def _attention(services: Services, flow: Workflow, row: Order) -> OrderAttention | None:
    """Return the oldest attention of an order, with the call that is open; None if the order needs no attention."""
    if not row.attention:
        return None
    first = row.attention[0]
    call = next(iter(open_calls_of(services, flow)), None)
    return OrderAttention(first.waits_for, instant(first.since_ms), call)


def listing(services: Services, sender: Identity) -> Listing[Order]:
    """Return the list of all orders, with the table and the form of its rows for this sender."""
    return Listing(
        services.engine,
        services.forwarding,
        services.tables.orders.name,
        "orders",
        lambda key, value: services.tables.orders.decode(key.decode(), value),
        lambda _, row: shown_order(
            services, msgspec.structs.replace(services.tables.committed_workflow_of(row.id), order=row), sender
        ),
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


def _sort(request: web.Request) -> str:
    text = request.query.get("sort", "id")
    if text not in ("id", "newest"):
        raise Problem(422, "invalid", f"sort={text}: it must be id or newest")
    return text


def attention_filter(request: web.Request) -> bool | None:
    """Return the value of `?attention=`; None without it. Raises a 422 problem for another value."""
    text = request.query.get("attention")
    if text not in (None, "true", "false"):
        raise Problem(422, "invalid", f"attention={text}: it must be true or false")
    return None if text is None else text == "true"
