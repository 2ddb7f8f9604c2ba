"""A client of server-sent events as browsers have it: it remembers the last id and comes back with it.

What it does with a stream is what https://html.spec.whatwg.org/multipage/server-sent-events.html says.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec

from topics.order_updates import READER, OrderUpdated

WITHIN_S = 40.0
POLL_S = 0.02


class Event(NamedTuple):
    """One event that was dispatched, and the last id as of then."""

    id: str
    name: str
    data: str


class EventSource:
    """Listens within an `async with` block, until the feed ends, it is told not to come back, or the block does."""

    def __init__(
        self,
        *urls: str | Callable[[], str],
        last_event_id: str = "",
        headers: Mapping[str, str] | None = None,
        read: bool = True,
        come_back: bool = False,
    ) -> None:
        """``urls``: asked in turn, the next one at each return; a function gives one that changes.
        ``read`` false: connects, and then reads nothing until `reading` is set. ``come_back``: also when it is answered
        with an error, which browsers take for final."""
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.answers: list[httpx.Response] = []
        """Of each connection."""
        self.last_event_id, self.retry_s = last_event_id, 0.2
        self.reading = asyncio.Event()
        if read:
            self.reading.set()
        self._urls, self._headers, self._comes_back = urls, dict(headers or {}), come_back
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

    # -- what was heard ----------------------------------------------------------------------------------------------

    def updates(self, marked: str = "") -> list[OrderUpdated]:
        """What was told of the orders with this in their id."""
        told = [READER.read(event.data.encode()) for event in self.events if event.name == "order-updated"]
        return [update for update in told if marked in update.order]

    def statuses(self) -> list[str]:
        """Of all updates, in order."""
        return [update.status.value for update in self.updates()]

    def named(self, name: str) -> list[Any]:
        """The data of the events of this name."""
        return [msgspec.json.decode(event.data) for event in self.events if event.name == name]

    async def placed(self) -> str:
        """Wait until it knows its place; that."""
        return str(await self.until(lambda: self.last_event_id, "its place"))

    @property
    def done(self) -> bool:
        """Whether it will not come back."""
        assert self._task is not None
        return self._task.done()

    async def until(self, condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
        """Listen until the condition holds; what it gave then."""
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"after {within_s:g} s, still not so: {what}; heard {self.events[-3:]}"
            await asyncio.sleep(POLL_S)
        return found

    # -- listening ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        turn = 0
        async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=None)) as http:
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
        """One connection; whether it was the last one."""
        headers = {"Accept": "text/event-stream", **self._headers}
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
