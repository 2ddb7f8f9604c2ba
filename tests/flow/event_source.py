"""A client of server-sent events that behaves as in browsers: it reconnects with the id of the last event.

It parses a stream as https://html.spec.whatwg.org/multipage/server-sent-events.html specifies.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec

from tests.flow.reading import WITHIN_S
from tests.support.keys import HEADERS
from tests.support.plain_http import NO_CERTIFICATES
from topics.order_updates import READER, OrderUpdated

POLL_S = 0.02


class Event(NamedTuple):
    """A dispatched event, with the last event id at that moment."""

    id: str
    name: str
    data: str


class EventSource:
    """Listens within an `async with` block until the feed ends or the server answers with an error."""

    def __init__(
        self,
        *urls: str | Callable[[], str],
        last_event_id: str = "",
        headers: Mapping[str, str] | None = None,
        read: bool = True,
        come_back: bool = False,
    ) -> None:
        """Connect to ``urls`` in turn, the next one at each reconnection; a function returns a URL that may change.

        With ``read`` false it connects, then reads nothing until `reading` is set. With ``come_back`` it reconnects
        after an error response too, which browsers treat as final.
        """
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.answers: list[httpx.Response] = []
        """Response of each connection."""
        self.last_event_id = last_event_id
        self.retry_s = 0.2
        self.reading = asyncio.Event()
        if read:
            self.reading.set()
        self._urls = urls
        self._headers = dict(headers or {})
        self._comes_back = come_back
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # -- what was received ---------------------------------------------------------------------------------------------

    def updates(self, marked: str = "") -> list[OrderUpdated]:
        """Return the updates of the orders with this in their id."""
        found = [READER.read(event.data.encode()) for event in self.events if event.name == "order-updated"]
        return [update for update in found if marked in update.order]

    def statuses(self) -> list[str]:
        """Return the status of each update, in order."""
        return [update.status.value for update in self.updates()]

    def named(self, name: str) -> list[Any]:
        """Return the decoded data of the events of this name."""
        return [msgspec.json.decode(event.data) for event in self.events if event.name == name]

    async def placed(self) -> str:
        """Wait for the first event id, and return it."""
        return str(await self.until(lambda: self.last_event_id, "an event id"))

    @property
    def done(self) -> bool:
        """True once it has stopped listening for good."""
        assert self._task is not None
        return self._task.done()

    async def until(self, condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
        """Listen until the condition returns something true, and return it."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}; last events: {self.events[-3:]}"
            await asyncio.sleep(POLL_S)
        return found

    # -- listening -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        turn = 0
        async with httpx.AsyncClient(timeout=httpx.Timeout(60, read=None), verify=NO_CERTIFICATES) as http:
            while True:
                url = self._urls[turn % len(self._urls)]
                turn += 1
                try:
                    if await self._listen(http, url if isinstance(url, str) else url()):
                        return
                except (httpx.HTTPError, OSError):
                    pass
                await asyncio.sleep(self.retry_s)

    async def _listen(self, http: httpx.AsyncClient, url: str) -> bool:
        """Listen on one connection; return True if it was the last one."""
        headers = {"Accept": "text/event-stream", **HEADERS, **self._headers}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        async with http.stream("GET", url, headers=headers) as answer:
            self.answers.append(answer)
            if answer.status_code != 200:
                await answer.aread()
                return not self._comes_back
            await self.reading.wait()
            return await self._parse(answer)

    async def _parse(self, answer: httpx.Response) -> bool:
        name, data = "message", list[str]()
        async for line in answer.aiter_lines():
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "" and data:
                self.events.append(Event(self.last_event_id, name, "\n".join(data)))
                if name == "end":
                    return True
            if line == "":
                name, data = "message", []
            elif field == "":
                self.comments.append(value)
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                self.last_event_id = value
            elif field == "retry":
                self.retry_s = int(value) / 1000
        return False
