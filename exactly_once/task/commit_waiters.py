"""Views that wait for the answer to an event, or for a change of a row. Both come after the RocksDB write."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class PendingAnswer:
    """The answer to one event, once it is committed."""

    def __init__(self) -> None:
        self.future: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def get(self, timeout_s: float) -> object:
        """Wait for the handler's answer. ``TimeoutError`` if this worker does not commit it in time."""
        return await asyncio.wait_for(asyncio.shield(self.future), timeout_s)


class CommitWaiters:
    def __init__(self) -> None:
        self._answers: defaultdict[str, list[asyncio.Future[object]]] = defaultdict(list)
        self._rows: defaultdict[str, defaultdict[bytes, list[asyncio.Future[None]]]] = defaultdict(
            lambda: defaultdict(list)
        )

    @contextmanager
    def answer(self, event_id: str) -> Iterator[PendingAnswer]:
        """Wait for an event's answer. Enter *before* the event is produced, or the answer may be missed:

        with engine.watch.answer(event_id) as answer:
            await produce(...)
            decision = await answer.get(timeout_s=5)
        """
        awaited = PendingAnswer()
        self._answers[event_id].append(awaited.future)
        try:
            yield awaited
        finally:
            waiting = self._answers[event_id]
            waiting.remove(awaited.future)
            if not waiting:
                del self._answers[event_id]
            awaited.future.cancel()

    def is_awaited(self, event_id: str) -> bool:
        """Return whether a view of this worker waits for this event's answer."""
        return event_id in self._answers

    async def changed(self, table: str, key: bytes, timeout_s: float) -> bool:
        """Wait until the row is written, or its task closes or opens; False if neither happens in time.

        No change is missed between reading the row and awaiting this, as long as nothing is awaited in between.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watched = self._rows[table]
        watched[key].append(future)
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return False
        finally:
            watched[key].remove(future)
            if not watched[key]:
                del watched[key]
        return True

    def committed(
        self, answers: Iterable[tuple[str, object]], rows: Mapping[str, Mapping[bytes, bytes | None]]
    ) -> None:
        """Deliver the answers and row changes of a transaction that is in RocksDB."""
        for event_id, answer in answers if self._answers else ():
            for heard in self._answers.get(event_id, ()):
                if not heard.done():
                    heard.set_result(answer)
        for table, watched in self._rows.items():
            for key in watched.keys() & rows.get(table, {}).keys():
                for waiting in watched[key]:
                    if not waiting.done():
                        waiting.set_result(None)

    def released(self) -> None:
        """Wake all waiters for rows, because tasks closed or opened. The views then ask again where the row is.

        Otherwise a long poll would delay the end of the worker, and miss what another worker has written.
        """
        for watched in self._rows.values():
            for waiting in (each for futures in watched.values() for each in futures):
                if not waiting.done():
                    waiting.set_result(None)

    def stopped(self) -> None:
        """Raise ``TimeoutError`` in all waiters for answers: this worker opens no task any longer."""
        for waiting in (each for futures in self._answers.values() for each in futures):
            if not waiting.done():
                waiting.set_exception(TimeoutError())
                waiting.exception()  # marks it as retrieved: nobody may have begun to wait
