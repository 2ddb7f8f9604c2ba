"""A TCP proxy with the faults of networks: delay, cut, late delivery, silent loss.

All traffic between two parties passes through one proxy. A mode applies to present and future connections until `heal`.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

from streams.local.ports import LOOPBACK

CHUNK = 1 << 16


class Mode(Enum):
    """Condition of a line."""

    PASS = "passes everything on"
    DELAY = "is slow"
    CUT = "cuts every connection and takes no other"
    HOLD = "delivers nothing, and all of it once healed: a network that comes back"
    SWALLOW = "takes everything and delivers nothing: half open"
    DEAF = "delivers what is asked and swallows what is answered"


class Address(NamedTuple):
    """Address of a listener on this machine."""

    port: int
    host: str = LOOPBACK

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Link:
    """A client connection and its connection to the target."""

    def __init__(self, *writers: StreamWriter) -> None:
        self.writers = list(writers)
        self.lost = False
        """True once bytes were swallowed: later bytes would make no sense to the receiver."""

    def abort(self) -> None:
        """Reset both connections and drop the bytes in flight, as a network does."""
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """A proxy that listens while its `async with` block lasts."""

    def __init__(self, name: str, targets: Callable[[], Sequence[Address]], port: int = 0) -> None:
        """`targets` is called for each connection; several targets take turns, and closed ones are skipped.

        `port` 0 chooses a free port.
        """
        self.name = name
        self.port = port
        self.mode = Mode.PASS
        self._delay_s = 0.0
        self._targets = targets
        self._turn = 0
        self._links: set[Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._healed = asyncio.Event()
        self._healed.set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Address of the proxy."""
        return Address(self.port)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def set_mode(self, mode: Mode, delay_s: float = 0.0) -> None:
        """Set the mode; `delay_s` delays each chunk, in each direction."""
        self.heal()
        self._healed.clear()
        self.mode = mode
        self._delay_s = delay_s
        if mode is Mode.CUT:
            self._abort(self._links)

    def heal(self) -> None:
        """Pass everything on again, and cut the connections that lost bytes."""
        self.mode = Mode.PASS
        self._abort([link for link in self._links if link.lost])
        self._healed.set()

    def cut(self, share: float, chance: Random) -> int:
        """Cut this share of the connections once; return their number."""
        links = [link for link in self._links if chance.random() < share]
        self._abort(links)
        return len(links)

    @property
    def connections(self) -> int:
        """Number of connections."""
        return len(self._links)

    @staticmethod
    def _abort(links: "Sequence[Link] | set[Link]") -> None:
        for link in list(links):
            link.abort()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        link = Link(writer)
        if self.mode is Mode.CUT:
            link.abort()
            return
        self._links.add(link)
        try:
            with contextlib.suppress(OSError):
                await self._join(link, reader, writer)
        finally:
            self._links.discard(link)
            link.abort()

    async def _join(self, link: Link, reader: StreamReader, writer: StreamWriter) -> None:
        if self.mode is Mode.SWALLOW:
            link.lost = True
        if self.mode in (Mode.HOLD, Mode.SWALLOW):
            await self._healed.wait()
        there_reader, there_writer = await self._connect()
        link.writers.append(there_writer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pass_on(link, reader, there_writer, answers=False))
            tasks.create_task(self._pass_on(link, there_reader, writer, answers=True))

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        """Connect to the next target that listens; raise `OSError` if none does."""
        targets = self._targets()
        for _ in targets:
            self._turn += 1
            target = targets[self._turn % len(targets)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(target.host, target.port, limit=CHUNK)
        raise ConnectionRefusedError(f"no target of {self.name} listens")

    async def _pass_on(self, link: Link, source: StreamReader, sink: StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if await self._lets_through(link, answers):
                    sink.write(data)
                    await sink.drain()
            if await self._lets_through(link, answers):
                sink.write_eof()
                return
            await self._healed.wait()  # the end of the connection is lost as well
        link.abort()

    async def _lets_through(self, link: Link, answers: bool) -> bool:
        match self.mode:
            case Mode.DELAY:
                await asyncio.sleep(self._delay_s)
            case Mode.HOLD:
                await self._healed.wait()
            case Mode.SWALLOW:
                link.lost = True
            case Mode.DEAF if answers:
                link.lost = True
        return not link.lost or (self.mode is Mode.DEAF and not answers)
