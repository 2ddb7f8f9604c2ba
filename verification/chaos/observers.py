"""Observers outside the workers, with a ledger of the order states that each one receives.

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
from tests.support.keys import HEADERS

REQUEST_INTERVAL_S = 0.1
"""Time between two requests of a reader."""
FEED_INTERVAL_S = 0.1
"""Time between two looks at the events of the feed."""
TIMEOUT_S = 5.0
RECENT = 30
"""Newest orders that a reader chooses from: these still change."""


class Observers:
    """One observer follows the feed; another requests orders, from a random worker each time."""

    def __init__(self, ledger: Path, seed: int, urls: Callable[[], Sequence[str]], front: str) -> None:
        self.seen = 0
        """Number of noted order states."""
        self._ledger = ledger.open("a", buffering=1)
        self._chance = Random(f"observers/{seed}")
        self._urls = urls
        self._front = front

    async def run(self, orders: Callable[[], Sequence[str]]) -> None:
        """Observe until cancelled. `orders` returns the known orders, oldest first."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_feed())
                tasks.create_task(self._poll_orders(orders))
        finally:
            self._ledger.close()

    async def _follow_feed(self) -> None:
        async with EventSource(f"{self._front}/v1/events", come_back=True) as feed:
            noted = 0
            while True:
                for event in feed.events[noted:]:
                    if event.name == "order-updated":
                        self._note("feed-1", json.loads(event.data), "feed")
                noted = len(feed.events)
                await asyncio.sleep(FEED_INTERVAL_S)

    async def _poll_orders(self, orders: Callable[[], Sequence[str]]) -> None:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, headers=HEADERS) as http:
            while True:
                await asyncio.sleep(REQUEST_INTERVAL_S)
                known, urls = orders()[-RECENT:], self._urls()
                if known and urls:
                    await self._read_order(http, f"{self._chance.choice(urls)}/v1/orders/{self._chance.choice(known)}")

    async def _read_order(self, http: httpx.AsyncClient, url: str) -> None:
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
