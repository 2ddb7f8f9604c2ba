"""The public feed over HTTP, as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Any worker answers: it reads `order-updates`, wherever the orders' tasks are.

| event | data | id |
|---|---|---|
| `order-updated` | the record, as on the topic | where it is, see below |
| `gap` | what comes next is no longer kept: of each such partition the offset wanted, and the oldest there is | none |
| `end` | order and status: the order has ended, and so does its feed; do not come back | none |

The id in the feed of one order is `<partition>-<offset>`, the record's own. In the feed of all orders it is the
position in every partition, `0-12.1-7.2-0.3-44`: the offsets of the records that come next. It also comes by itself,
with a keep-alive and no event, so that a client knows its place although nothing that it wants was said.

After a `gap` the feed of all orders goes on from the oldest record there is, and that of an order with how it stands.
"""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from yarl import URL

from processors.order import Order, last_update
from streams import tables
from streams.app import app, engine, feed, settings
from streams.engine import NotHere
from streams.feed import Gap, Listener, Positions
from streams.problems import SOON, Problem
from streams.update_log import Update
from streams.views.ask import ApiView, elsewhere, named
from topics.identity import OrderId, PartyId, ProviderId
from topics.order_updates import OrderStatus, OrderUpdated

T = TypeVar("T")
EVENT_STREAM = "text/event-stream"
HEADERS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx and others would keep events back
}
KEEP_ALIVE_S = 15.0
"""The longest silence: proxies cut silent connections off, and that a client has gone is noticed when writing to it."""
RETRY_MS = 1000
"""A client that has lost its connection comes back after so long."""
ROW_S = 2.0
"""So long is asked after the order of a client that comes back; it can be told what it missed without."""
FILTERS: dict[str, Any] = {"status": OrderStatus, "restaurant": PartyId, "provider": ProviderId}


@app.page("/v1/orders/{order}/events")
class OrderEvents(ApiView):
    """One order, live."""

    async def get(self, request: web.Request, order: str) -> web.StreamResponse:
        """How it stands, or what came after `Last-Event-ID`, and everything until it has ended; 204 if it has, and the
        client knows or it was so long ago that it has left the tables."""
        named(order, OrderId, "an order")
        _check(request)
        partition = engine.partition_of(order.encode())
        after = _last_offset(request, partition)
        try:
            row = await _row(request, order) if after is None else await _row_if_its_owner_answers(request, order)
        except _LeftTheTables:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        if request.method == "HEAD":
            return web.Response(headers=HEADERS)
        stands = None if row is None else last_update(row)
        if after is not None and stands is not None and await _knows_the_end(stands, partition, after):
            return web.Response(status=HTTPStatus.NO_CONTENT)
        listener = feed.of_order(order, partition, after=after, stands=stands)
        return await _stream(request, listener, _record_id, lambda said: said.status.ended)


@app.page("/v1/events")
class Events(ApiView):
    """All orders, live."""

    async def get(self, request: web.Request) -> web.StreamResponse:
        """From now on, or what came after `Last-Event-ID`. `?status=`, `?restaurant=`, `?provider=` (several by comma)
        and `?attention=true` narrow it down, together."""
        _check(request)
        wanted, positions = _wanted(request), _last_positions(request)
        if request.method == "HEAD":
            return web.Response(headers=HEADERS)
        return await _stream(request, feed.of_all(wanted, positions), _positions_id, lambda _: False)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which updates an operator wants; where nothing is named, any."""

    status: frozenset[OrderStatus]
    restaurant: frozenset[str]
    provider: frozenset[str]
    attention: bool | None

    def __call__(self, said: OrderUpdated) -> bool:
        """Whether this is one."""
        return (
            (not self.status or said.status in self.status)
            and (not self.restaurant or said.restaurant in self.restaurant)
            and (not self.provider or said.order.partition(":")[0] in self.provider)
            and (self.attention is None or (said.attention is not None) is self.attention)
        )


# -- telling ---------------------------------------------------------------------------------------------------------


async def _stream(
    request: web.Request,
    listener: Listener,
    id_of: Callable[[Update, Positions], str],
    is_last: Callable[[OrderUpdated], bool],
) -> web.StreamResponse:
    """Tell the listener's updates until the last one, until the client goes, or until this worker can tell no more."""
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    try:
        with listener:
            await response.write(f"retry: {RETRY_MS}\n\n".encode())
            await _tell(response, listener, id_of, is_last)
    except ConnectionResetError:
        pass  # it has gone
    return response


async def _tell(
    response: web.StreamResponse,
    listener: Listener,
    id_of: Callable[[Update, Positions], str],
    is_last: Callable[[OrderUpdated], bool],
) -> None:
    while True:
        told = dict(listener.positions)
        try:
            batch = await listener.next(KEEP_ALIVE_S)
        except Gap as gap:
            lost = [{"partition": p, "wanted": wanted, "oldest": oldest} for p, (wanted, oldest) in gap.lost.items()]
            await response.write(_event("gap", msgspec.json.encode({"lost": lost})))
            continue
        if batch is None:
            return
        last = next((number for number, update in enumerate(batch, 1) if is_last(update.said)), None)
        events = [_event("order-updated", update.value, id_of(update, told)) for update in batch[:last]]
        if last is not None:
            said = batch[last - 1].said
            events.append(_event("end", msgspec.json.encode({"order": said.order, "status": said.status})))
        await response.write(b"".join(events) or _keep_alive(listener))
        if last is not None:
            return


def _event(name: str, data: bytes, event_id: str = "") -> bytes:
    head = f"id: {event_id}\nevent: {name}\n" if event_id else f"event: {name}\n"
    return b"%sdata: %s\n\n" % (head.encode(), data)


def _keep_alive(listener: Listener) -> bytes:
    place = f"id: {_written(listener.positions)}\n" if listener.order is None and listener.positions else ""
    return f": keep-alive\n{place}\n".encode()


def _record_id(update: Update, _: Positions) -> str:
    return f"{update.partition}-{update.offset}"


def _positions_id(update: Update, told: Positions) -> str:
    told[update.partition] = update.offset + 1
    return _written(told)


def _written(positions: Positions) -> str:
    return ".".join(f"{partition}-{position}" for partition, position in sorted(positions.items()))


# -- asking ----------------------------------------------------------------------------------------------------------


def _check(request: web.Request) -> None:
    ranges = {part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "*/*").split(",")}
    if ranges.isdisjoint({EVENT_STREAM, "text/*", "*/*", ""}):
        raise Problem(
            406, "not-acceptable", f"this is {EVENT_STREAM} and nothing else; ask with Accept: {EVENT_STREAM}"
        )
    if feed.stopped:
        raise Problem(503, "not-ready", "this worker ends; try again", headers=SOON)


def _wanted(request: web.Request) -> Wanted:
    known = (*FILTERS, "attention", "last_event_id")
    if unknown := sorted(request.query.keys() - set(known)):
        raise Problem(422, "invalid", f"there is no filter {unknown[0]!r}; there are: {', '.join(known)}")
    return Wanted(**{name: _values(request, name) for name in FILTERS}, attention=_attention(request))


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


def _attention(request: web.Request) -> bool | None:
    text = request.query.get("attention")
    if text not in (None, "true", "false"):
        raise Problem(422, "invalid", f"attention={text}: it must be true or false")
    return None if text is None else text == "true"


def _last_event_id(request: web.Request) -> str:
    """By the header, which a browser sends when it comes back, or else by the query."""
    return request.headers.get("Last-Event-ID") or request.query.get("last_event_id", "")


def _last_offset(request: web.Request, partition: int) -> int | None:
    text = _last_event_id(request)
    if not text:
        return None
    positions = _read(text)
    if positions is None or positions.keys() != {partition}:
        raise _wrong_id(text, f"{partition}-<offset>, the id of an event of this order", "to hear how the order stands")
    return positions[partition]


def _last_positions(request: web.Request) -> Positions | None:
    text = _last_event_id(request)
    if not text:
        return None
    positions = _read(text)
    if positions is None or positions.keys() != set(range(settings.partitions)):
        form = f"<partition>-<offset> for each of the {settings.partitions} partitions, joined by dots"
        raise _wrong_id(text, form, "to listen from now on")
    return positions


def _wrong_id(text: str, form: str, otherwise: str) -> Problem:
    return Problem(422, "invalid", f"Last-Event-ID={text}: it must be {form}; leave it out {otherwise}")


_PLACES = re.compile(r"\d{1,9}-\d{1,18}(\.\d{1,9}-\d{1,18})*", re.ASCII)


def _read(event_id: str) -> Positions | None:
    """Partition -> offset; None if it cannot be read so."""
    if not _PLACES.fullmatch(event_id):
        return None
    places = [place.split("-") for place in event_id.split(".")]
    positions = {int(partition): int(offset) for partition, offset in places}
    return positions if len(positions) == len(places) else None


class _LeftTheTables(Exception):
    """The order has ended, so long ago that its row is gone."""


async def _row(request: web.Request, order: str) -> Order:
    """The order's row, from the worker that has it."""
    if row := await _found(request, tables.orders, order):
        return row
    if await _found(request, tables.history, order):
        raise _LeftTheTables
    raise Problem(404, "unknown", f"there is no order {order} here")


async def _found(request: web.Request, table: tables.Rows[T], order: str) -> T | None:
    path = f"/table/{table.name}/{order}"
    there = request.clone(method="GET", rel_url=URL(path), headers={"Accept": "application/json"})
    answer = await elsewhere(there, order)
    if answer is None:
        return table.read(order, order)
    if answer.status != HTTPStatus.OK:
        raise Problem(503, "owner-unreachable", f"the worker that has {order} does not answer", headers=SOON)
    rows = msgspec.json.decode(answer.text or "", type=_Rows).rows
    return table.decode(order, rows[0].row) if rows else None


async def _row_if_its_owner_answers(request: web.Request, order: str) -> Order | None:
    try:
        async with asyncio.timeout(ROW_S):
            return await _row(request, order)
    except (NotHere, TimeoutError):
        return None
    except Problem as problem:
        if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        raise


async def _knows_the_end(stands: OrderUpdated, partition: int, after: int) -> bool:
    """Whether the order has ended, and nothing was said of it after that offset."""
    if not stands.status.ended:
        return False
    with feed.of_order(stands.order, partition, stands=stands) as listener:
        newest = await listener.next(ROW_S)
    return newest is not None and any(update.offset <= after for update in newest)


class _OneRow(msgspec.Struct):
    row: msgspec.Raw


class _Rows(msgspec.Struct):
    rows: list[_OneRow]
