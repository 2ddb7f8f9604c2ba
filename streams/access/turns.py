"""Turns: holders of keys use a scarce thing one after another, however many of its users each of them has."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoTurn(Exception):
    """The turn of a holder did not come in time."""


class Turns:
    """A number of turns at a time. Holders get them in rotation, and each holder's requests in their order."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Holder -> its requests that wait. The holder that is next comes first."""

    @asynccontextmanager
    async def take(self, holder: str, within_s: float | None = None) -> AsyncIterator[None]:
        """Wait for a turn of the holder, and keep it within the block. Raises `NoTurn` if that takes too long."""
        try:
            async with asyncio.timeout(within_s):
                await self._wait(holder)
        except TimeoutError:
            raise NoTurn from None
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, holder: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a turn to the next holder, or keep it free."""
        while self._waiting:
            holder = next(iter(self._waiting))
            turns = self._waiting.pop(holder)
            turn = turns.popleft()
            if turns:
                self._waiting[holder] = turns
            if not turn.cancelled():
                turn.set_result(None)
                return
        self._free += 1
