"""A TCP proxy that does what networks do: slow down, cut, deliver late, or swallow without a word.

Everything between two parties goes through one of these. What is set holds for the connections there are and for those
that come; `heal` ends it.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from types import TracebackType
from typing import NamedTuple, Self

from streams.embedded.ports import LOOPBACK

CHUNK = 1 << 16


class Mode(Enum):
    """How a line is."""

    PASS = "passes everything on"
    DELAY = "is slow"
    CUT = "cuts every connection and takes no other"
    HOLD = "delivers nothing, and all of it once healed: a network that comes back"
    SWALLOW = "takes everything and delivers nothing: half open"
    DEAF = "delivers what is asked and swallows what is answered"


class Address(NamedTuple):
    """Where something listens on this machine."""

    port: int
    host: str = LOOPBACK

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Link:
    """One connection of a client, and the one made for it."""

    def __init__(self, *writers: StreamWriter) -> None:
        self.writers = list(writers)
        self.lost = False
        """Whether something was swallowed: nothing that comes later would make sense to the other side."""

    def abort(self) -> None:
        """End it as a network would: at once, whatever was on its way."""
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Listens as long as its `async with` block lasts."""

    def __init__(self, name: str, targets: Callable[[], Sequence[Address]], port: int = 0) -> None:
        """`targets`: where the other side is, asked for each connection; of several, each in turn, and those
        that do not listen are passed over. `port` 0: any."""
        self.name, self.port = name, port
        self.mode = Mode.PASS
        self._delay_s = 0.0
        self._targets, self._turn = targets, 0
        self._links: set[Link] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._healed = asyncio.Event()
        self._healed.set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
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

    def become(self, mode: Mode, delay_s: float = 0.0) -> None:
        """From now on the line is like this; `delay_s`: of each piece, in each direction."""
        self.heal()
        self._healed.clear()
        self.mode, self._delay_s = mode, delay_s
        if mode is Mode.CUT:
            self._abort(self._links)

    def heal(self) -> None:
        """Everything passes again. A connection that something is missing from is cut."""
        self.mode = Mode.PASS
        self._abort([link for link in self._links if link.lost])
        self._healed.set()

    def cut(self, share: float, chance: Random) -> int:
        """Cut that share of the connections, once; how many."""
        links = [link for link in self._links if chance.random() < share]
        self._abort(links)
        return len(links)

    @property
    def connections(self) -> int:
        """How many there are."""
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
        """To the next one that listens; `OSError` where none does."""
        targets = self._targets()
        for _ in targets:
            self._turn += 1
            target = targets[self._turn % len(targets)]
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(target.host, target.port, limit=CHUNK)
        raise ConnectionRefusedError(f"nobody listens behind {self.name}")

    async def _pass_on(self, link: Link, source: StreamReader, sink: StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                if await self._lets_through(link, answers):
                    sink.write(data)
                    await sink.drain()
            if await self._lets_through(link, answers):
                sink.write_eof()
                return
            await self._healed.wait()  # nor does the other side hear that this one is gone
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
