"""Who looks on from outside, and what each has seen in which order.

observers.jsonl   {at, observer, order, version, status, via}, via "http" or "feed"
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import httpx

from simulators.ledger import now
from tests.flow.event_source import EventSource

LOOK_S = 0.1
"""Between two looks of a reader."""
HEARD_S = 0.1
TIMEOUT_S = 5.0
RECENT = 30
"""A reader looks at one of so many orders that were placed last: those are the ones that change."""


class Observers:
    """One follows the feed, one asks for orders, at another worker each time."""

    def __init__(self, ledger: Path, seed: int, urls: Callable[[], Sequence[str]], front: str) -> None:
        self.seen = 0
        self._ledger, self._chance = ledger.open("a", buffering=1), Random(f"observers/{seed}")
        self._urls, self._front = urls, front

    async def run(self, orders: Callable[[], Sequence[str]]) -> None:
        """Until cancelled. `orders`: those that are known, the oldest first."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._ask(orders))
        finally:
            self._ledger.close()

    async def _listen(self) -> None:
        async with EventSource(f"{self._front}/v1/events", come_back=True) as feed:
            heard = 0
            while True:
                for event in feed.events[heard:]:
                    if event.name == "order-updated":
                        self._note("feed-1", json.loads(event.data), "feed")
                heard = len(feed.events)
                await asyncio.sleep(HEARD_S)

    async def _ask(self, orders: Callable[[], Sequence[str]]) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as http:
            while True:
                await asyncio.sleep(LOOK_S)
                known, urls = orders()[-RECENT:], self._urls()
                if known and urls:
                    await self._look(http, f"{self._chance.choice(urls)}/v1/orders/{self._chance.choice(known)}")

    async def _look(self, http: httpx.AsyncClient, url: str) -> None:
        try:
            answer = await http.get(url)
        except httpx.HTTPError:
            return
        if answer.status_code == 200:
            order = answer.json()
            self._note("reader-1", {**order, "order": order["id"]}, "http")

    def _note(self, observer: str, order: dict[str, object], via: str) -> None:
        entry: dict[str, object] = {"at": now().isoformat(), "observer": observer, "via": via}
        entry |= {name: order[name] for name in ("order", "version", "status")}
        self._ledger.write(json.dumps(entry) + "\n")
        self.seen += 1
