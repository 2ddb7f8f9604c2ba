"""The public feed as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Any worker serves any feed, because it reads the topic `order-updates` itself.

| event | data | id |
|---|---|---|
| `order-updated` | the record, as on the topic | its position, see below |
| `gap` | `lost`: for each `partition` that lacks the next records, the `wanted` offset and the `oldest` one | none |
| `end` | `order` and `status`: the order has ended, and so does its feed; do not reconnect | none |

In the feed of one order, the id is `<partition>-<offset>` of the record. In the feed of all orders it is the offset of
the next record in every partition, such as `0-12.1-7.2-0.3-44`. A keep-alive, sent after 15 s of silence, carries this
id too, so that a client without matching updates knows its position. To resume, send the last id as `Last-Event-ID` or
as `?last_event_id=`. Without a `gap`, no event is missed or repeated.

After a `gap` the feed of all orders continues from the oldest record, and that of one order with its newest update.
"""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta
from yarl import URL

from exactly_once import PartitionNotOwned
from processors.order import Order, last_update
from streams.access.keys import ANY, Identity, Role
from streams.feed.feed import Gap, Listener, Positions
from streams.feed.update_log import Update
from streams.services import Services
from streams.views.api_view import ApiView
from streams.views.orders import attention_filter
from streams.web.doorkeeper import SENDER, sender_of
from streams.web.operation import operation
from streams.web.problems import SOON, Problem
from streams.web.requests import parse_id
from streams.worker.outbox import published
from streams.worker.tables import Rows
from topics.identity import OrderId, PartyId, ProviderId
from topics.order_updates import OrderStatus, OrderUpdated

T = TypeVar("T")
EVENT_STREAM = "text/event-stream"
HEADERS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx and others would buffer events
}
KEEP_ALIVE_S = 15.0
"""Longest silence. Proxies close silent connections, and only a write shows that a client has gone."""
RETRY_MS = 1000
"""Pause of a client before it reconnects, in milliseconds."""
ROW_TIMEOUT_S = 2.0
"""Time limit for the order's row when a client resumes, which is possible without the row."""
FILTERS: dict[str, Any] = {"status": OrderStatus, "restaurant": PartyId, "provider": ProviderId}
LAST_ID = Annotated[str, Meta(description="Id of the last event that the client has.")]
HEADER = {"Last-Event-ID": LAST_ID}
"""Type of the header of a client that resumes."""


class OrderEvents(ApiView):
    """The feed of one order."""

    @operation(
        "streamOrder",
        {200: str, 204: None},
        query={"last_event_id": LAST_ID},
        headers=HEADER,
        media=(EVENT_STREAM,),
        event=OrderUpdated,
    )
    async def get(self, request: web.Request, order: str) -> web.StreamResponse:
        """Stream the updates of one order until it ends: first its newest update, or those after `Last-Event-ID`.

        - 200: the stream.
        - 204: the order has ended and the client has its last update, or the order has left the tables.
        - 404: there is no such order.
        - 406: `Accept` excludes `text/event-stream`.
        - 422: `Last-Event-ID` is not the id of an event of this order.
        - 503: also if this worker stops.
        """
        parse_id(order, OrderId, "an order")
        _check(self.services, request)
        partition = self.services.engine.partition_of(order.encode())
        after = _last_offset(request, partition)
        try:
            row = (
                await _row(self.services, request, order)
                if after is None
                else await _row_if_its_owner_answers(self.services, request, order)
            )
        except _LeftTheTables:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        if request.method == "HEAD":
            return web.Response(headers=HEADERS)
        snapshot = None if row is None else published(last_update(row), self.services.tokens.pseudonym)
        if (
            after is not None
            and snapshot is not None
            and await _has_last_update(self.services, snapshot, partition, after, sender_of(request).name)
        ):
            return web.Response(status=HTTPStatus.NO_CONTENT)
        holder = sender_of(request).name
        listener = self.services.feed.of_order(order, partition, after=after, snapshot=snapshot, holder=holder)
        with self.services.limits.waiting.take(holder):
            return await _stream(request, listener, _record_id, lambda record: record.status.ended)


class Events(ApiView):
    """The feed of all orders."""

    @operation(
        "streamOrders",
        {200: str},
        query={
            "status": Annotated[str, Meta(description="Statuses, separated by commas.")],
            "restaurant": Annotated[str, Meta(description="Restaurants, separated by commas.")],
            "provider": Annotated[str, Meta(description="Providers, separated by commas.")],
            "attention": Annotated[bool, Meta(description="Whether the orders need a person.")],
            "last_event_id": LAST_ID,
        },
        headers=HEADER,
        media=(EVENT_STREAM,),
        event=OrderUpdated,
    )
    async def get(self, request: web.Request) -> web.StreamResponse:
        """Stream the updates of all orders, from now on or after `Last-Event-ID`.

        `?status=`, `?restaurant=` and `?provider=` (several values, separated by commas) and `?attention=` (`true` or
        `false`) select updates that match all of them.

        - 200: the stream.
        - 406: `Accept` excludes `text/event-stream`.
        - 422: there is no such filter or value, or `Last-Event-ID` is not an id of this feed.
        - 503: this worker stops.
        """
        _check(self.services, request)
        matches, positions = _filter(request), _last_positions(self.services, request)
        if request.method == "HEAD":
            return web.Response(headers=HEADERS)
        holder = sender_of(request).name
        listener = self.services.feed.of_all(matches, positions, holder=holder)
        with self.services.limits.waiting.take(holder):
            return await _stream(request, listener, _positions_id, lambda _: False)


class UpdateFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of updates. An empty set or None matches every value."""

    status: frozenset[OrderStatus]
    restaurant: frozenset[str]
    provider: frozenset[str]
    attention: bool | None
    sender: Identity
    """The sender, who sees its own orders only."""

    def __call__(self, update: OrderUpdated) -> bool:
        """Return whether an update matches."""
        return (
            self.sender.speaks_for(update.order.partition(":")[0])
            and (not self.status or update.status in self.status)
            and (not self.restaurant or update.restaurant in self.restaurant)
            and (not self.provider or update.order.partition(":")[0] in self.provider)
            and (self.attention is None or (update.attention is not None) is self.attention)
        )


# -- the stream ------------------------------------------------------------------------------------------------------


async def _stream(
    request: web.Request,
    listener: Listener,
    id_of: Callable[[Update, Positions], str],
    is_last: Callable[[OrderUpdated], bool],
) -> web.StreamResponse:
    """Write the listener's updates until the last one, until the client leaves, or until this feed ends."""
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    try:
        with listener:
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            await _write_events(response, listener, id_of, is_last)
    except ConnectionResetError:
        pass  # the client has gone
    return response


async def _write_events(
    response: web.StreamResponse,
    listener: Listener,
    id_of: Callable[[Update, Positions], str],
    is_last: Callable[[OrderUpdated], bool],
) -> None:
    while True:
        positions = dict(listener.positions)
        try:
            batch = await listener.next(KEEP_ALIVE_S)
        except Gap as gap:
            lost = [{"partition": p, "wanted": wanted, "oldest": oldest} for p, (wanted, oldest) in gap.lost.items()]
            await response.write(_event("gap", msgspec.json.encode({"lost": lost})))
            continue
        if batch is None:
            return
        last = next((number for number, update in enumerate(batch, 1) if is_last(update.record)), None)
        events = [_event("order-updated", update.value, id_of(update, positions)) for update in batch[:last]]
        if last is not None:
            record = batch[last - 1].record
            events.append(_event("end", msgspec.json.encode({"order": record.order, "status": record.status})))
        await response.write(b"".join(events) or _keep_alive(listener))
        if last is not None:
            return


def _event(name: str, data: bytes, event_id: str = "") -> bytes:
    head = f"id: {event_id}\nevent: {name}\n" if event_id else f"event: {name}\n"
    return b"%sdata: %s\n\n" % (head.encode(), data)


def _keep_alive(listener: Listener) -> bytes:
    event_id = f"id: {_joined(listener.positions)}\n" if listener.order is None and listener.positions else ""
    return f": keep-alive\n{event_id}\n".encode()


def _record_id(update: Update, _: Positions) -> str:
    return f"{update.partition}-{update.offset}"


def _positions_id(update: Update, positions: Positions) -> str:
    """Move the positions behind the update, and return them as an id."""
    positions[update.partition] = update.offset + 1
    return _joined(positions)


def _joined(positions: Positions) -> str:
    return ".".join(f"{partition}-{position}" for partition, position in sorted(positions.items()))


# -- the request -----------------------------------------------------------------------------------------------------


def _check(services: Services, request: web.Request) -> None:
    ranges = {part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "*/*").split(",")}
    if ranges.isdisjoint({EVENT_STREAM, "text/*", "*/*", ""}):
        raise Problem(406, "not-acceptable", f"the answer is {EVENT_STREAM}; send Accept: {EVENT_STREAM}")
    if services.feed.stopped:
        raise Problem(503, "not-ready", "this worker stops; try again", headers=SOON)


def _filter(request: web.Request) -> UpdateFilter:
    known = (*FILTERS, "attention", "last_event_id")
    if unknown := sorted(request.query.keys() - set(known)):
        raise Problem(422, "invalid", f"there is no filter {unknown[0]!r}; there are: {', '.join(known)}")
    return UpdateFilter(
        **{name: _values(request, name) for name in FILTERS},
        attention=attention_filter(request),
        sender=sender_of(request),
    )


def _values(request: web.Request, name: str) -> frozenset[Any]:
    texts = [text for value in request.query.getall(name, []) for text in value.split(",")]
    try:
        return frozenset(msgspec.convert(text, FILTERS[name]) for text in texts)
    except msgspec.ValidationError:
        kind = FILTERS[name]
        names = ": " + ", ".join(status.value for status in OrderStatus) if kind is OrderStatus else ""
        raise Problem(
            422, "invalid", f"{name}={','.join(texts)}: each, separated by commas, must be a {name}{names}"
        ) from None


def _last_event_id(request: web.Request) -> str:
    """Return the id in the header, which a browser sends when it reconnects, or else the one in the query."""
    return request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")


def _last_offset(request: web.Request, partition: int) -> int | None:
    text = _last_event_id(request)
    if not text:
        return None
    positions = _parse_id(text)
    if positions is None or positions.keys() != {partition}:
        raise _wrong_id(
            text, f"{partition}-<offset>, the id of an event of this order", "to start with the newest update"
        )
    return positions[partition]


def _last_positions(services: Services, request: web.Request) -> Positions | None:
    text = _last_event_id(request)
    if not text:
        return None
    positions = _parse_id(text)
    if positions is None or positions.keys() != set(range(services.settings.partitions)):
        form = f"<partition>-<offset> for each of the {services.settings.partitions} partitions, joined by dots"
        raise _wrong_id(text, form, "to start now")
    return positions


def _wrong_id(text: str, form: str, otherwise: str) -> Problem:
    return Problem(422, "invalid", f"Last-Event-ID={text}: it must be {form}; leave it out {otherwise}")


_PLACES = re.compile(r"\d{1,9}-\d{1,18}(\.\d{1,9}-\d{1,18})*", re.ASCII)


def _parse_id(event_id: str) -> Positions | None:
    """Return the positions in an id, by partition; None if the text is no id."""
    if not _PLACES.fullmatch(event_id):
        return None
    places = [place.split("-") for place in event_id.split(".")]
    positions = {int(partition): int(offset) for partition, offset in places}
    return positions if len(positions) == len(places) else None


class _LeftTheTables(Exception):
    """The order has ended and is retired, so it has no row."""


async def _row(services: Services, request: web.Request, order: str) -> Order:
    """Return the order's row, from the worker that owns it. Raises `_LeftTheTables`, or a 404 or 503 problem."""
    if row := await _read_row(services, request, services.tables.orders, order):
        return row
    if await _read_row(services, request, services.tables.history, order):
        raise _LeftTheTables
    raise Problem(404, "unknown", f"there is no order {order} here")


async def _read_row(services: Services, request: web.Request, table: Rows[T], order: str) -> T | None:
    """Return the order's row in a table, from the worker that owns it; None if there is none."""
    path = f"/table/{table.name}/{order}"
    there = request.clone(method="GET", rel_url=URL(path), headers={"Accept": "application/json"})
    # the order is the sender's own, and this worker needs its row
    there[SENDER] = msgspec.structs.replace(sender_of(request), role=Role.OPERATOR, party=ANY)
    answer = await services.forwarding.forward_to_owner(there, order)
    if answer is None:
        return table.read(order, order)
    if answer.status != HTTPStatus.OK:
        raise Problem(503, "owner-unreachable", f"the worker that has {order} does not answer", headers=SOON)
    rows = msgspec.json.decode(answer.text or "", type=_Rows).rows
    return table.decode(order, rows[0].row) if rows else None


async def _row_if_its_owner_answers(services: Services, request: web.Request, order: str) -> Order | None:
    """Return the order's row; None if its owner does not answer within `ROW_TIMEOUT_S`."""
    try:
        async with asyncio.timeout(ROW_TIMEOUT_S):
            return await _row(services, request, order)
    except (PartitionNotOwned, TimeoutError):
        return None
    except Problem as problem:
        if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        raise


async def _has_last_update(services: Services, snapshot: OrderUpdated, partition: int, after: int, holder: str) -> bool:
    """Return whether the order has ended, and has no update after this offset."""
    if not snapshot.status.ended:
        return False
    with services.feed.of_order(snapshot.order, partition, snapshot=snapshot, holder=holder) as listener:
        newest = await listener.next(ROW_TIMEOUT_S)
    return newest is not None and any(update.offset <= after for update in newest)


class _OneRow(msgspec.Struct):
    row: msgspec.Raw


class _Rows(msgspec.Struct):
    rows: list[_OneRow]
