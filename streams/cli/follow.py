"""Follow an order by the server-sent events of its updates, resumed after every disconnection.

The stream of `GET /v1/orders/{id}/events` is in the format of https://html.spec.whatwg.org/multipage/server-sent-events
and ends when the order has ended. A new connection sends the id of the last event, so no update is missed or repeated.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import httpx

from streams.cli.client import UNREACHABLE, ask, error_of, open_client, unreachable, worker_url
from streams.cli.errors import CommandError, NoWorker
from topics.order_updates import READER, OrderStatus, OrderUpdated
from topics.records import Undecodable

SILENCE_S = 60.0
"""A stream without any event or keep-alive for this long is opened again."""
PATIENCE_S = 60.0
"""Time without any worker after which the command gives up: a killed worker is back by then."""
RETRY_S = 0.5
UPDATED = "order-updated"


class Event(NamedTuple):
    """One server-sent event."""

    id: str
    kind: str
    data: str


def follow(order: str, show: Callable[[OrderUpdated, str], None]) -> OrderStatus:
    """Show each update of an order, with its JSON, until the order has ended; return its last status."""
    last_id, last_event_at = "", time.monotonic()
    status: OrderStatus | None = None
    while True:
        try:
            with _stream(order, last_id) as answer:
                for event in events(answer.iter_lines()):
                    last_event_at, last_id = time.monotonic(), event.id or last_id
                    if event.kind == UPDATED:
                        update = _read(event)
                        show(update, event.data)
                        status = update.status
            # the feed no longer holds the updates of an order that ended long ago
            status = status or OrderStatus(ask(f"/v1/orders/{order}")["status"])
            if status.ended:
                return status
        except (*UNREACHABLE, NoWorker) as error:
            if time.monotonic() - last_event_at > PATIENCE_S:
                raise unreachable(f"{worker_url()}/v1/orders/{order}/events", error) from None
            if isinstance(error, NoWorker) and not last_id:
                raise  # no worker has run since the command started
        time.sleep(RETRY_S)


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events in the lines of a stream, without one that is cut off in the middle."""
    last_id, kind, data = "", "", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(last_id, kind or "message", "\n".join(data))
            kind, data = "", []
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            last_id = value


class _stream:
    """One connection, open within the block; `NotFound` if the order does not exist."""

    def __init__(self, order: str, last_id: str) -> None:
        self._address = f"{worker_url()}/v1/orders/{order}/events"
        self._headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        self._client = open_client(self._address, httpx.Timeout(10.0, read=SILENCE_S))

    def __enter__(self) -> httpx.Response:
        request = self._client.build_request("GET", self._address, headers=self._headers)
        answer = self._client.send(request, stream=True)
        if answer.is_server_error:
            answer.raise_for_status()
        if not answer.is_success:
            answer.read()
            raise error_of(answer)
        return answer

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _read(event: Event) -> OrderUpdated:
    try:
        return READER.read(event.data.encode())
    except Undecodable as wrong:
        sentence = f"The worker's event {event.id} cannot be read ({wrong}): use the command of the worker's version."
        raise CommandError(sentence) from None
