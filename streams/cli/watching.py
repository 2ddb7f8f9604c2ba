"""Following an order: the server-sent events of its updates, taken up again wherever they were cut off.

The stream of `GET /v1/orders/{id}/events` is in the format of https://html.spec.whatwg.org/multipage/server-sent-events
and ends when the order has ended. It is asked for again with the id of the last event, so nothing is missed and nothing
comes twice.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import httpx

from streams.cli.asking import ask, refused, silent, worker_url
from streams.cli.errors import CommandError, NoWorker
from topics.order_updates import READER, OrderStatus, OrderUpdated
from topics.records import Undecodable

SILENCE_S = 60.0
"""A stream that says nothing for so long, not even that it is alive, is asked for again."""
PATIENCE_S = 60.0
"""How long nobody may answer: a worker that was killed is back by then, or another has taken over."""
AGAIN_S = 0.5
UPDATED = "order-updated"


class Event(NamedTuple):
    """One server-sent event."""

    id: str
    kind: str
    data: str


def follow(order: str, tell: Callable[[OrderUpdated, str], None]) -> OrderStatus:
    """Tell each update of an order, with its JSON as it came, until the order has ended; how it did."""
    last_id, heard = "", time.monotonic()
    status: OrderStatus | None = None
    while True:
        try:
            with _stream(order, last_id) as answer:
                for event in events(answer.iter_lines()):
                    heard, last_id = time.monotonic(), event.id or last_id
                    if event.kind == UPDATED:
                        update = _read(event)
                        tell(update, event.data)
                        status = update.status
            # of an order that ended long ago, the feed may hold nothing any more
            status = status or OrderStatus(ask(f"/v1/orders/{order}")["status"])
            if status.ended:
                return status
        except (httpx.HTTPError, NoWorker) as error:
            if time.monotonic() - heard > PATIENCE_S:
                raise silent(f"{worker_url()}/v1/orders/{order}/events", error) from None
            if isinstance(error, NoWorker) and not last_id:
                raise  # there was none to begin with
        time.sleep(AGAIN_S)


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events in the lines of a stream; one that is cut off in the middle is none."""
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
    """One connection, open within the block; `NotThere` where there is no such order."""

    def __init__(self, order: str, last_id: str) -> None:
        self._address = f"{worker_url()}/v1/orders/{order}/events"
        self._headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        self._client = httpx.Client(timeout=httpx.Timeout(10.0, read=SILENCE_S))

    def __enter__(self) -> httpx.Response:
        request = self._client.build_request("GET", self._address, headers=self._headers)
        answer = self._client.send(request, stream=True)
        if answer.is_server_error:
            answer.raise_for_status()
        if not answer.is_success:
            answer.read()
            raise refused(answer)
        return answer

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _read(event: Event) -> OrderUpdated:
    try:
        return READER.read(event.data.encode())
    except Undecodable as wrong:
        raise CommandError(f"The worker's event {event.id} cannot be read ({wrong}): is it newer than this?") from None
