"""The worker's side of its reader process: it is started when the first request comes, and again after it has ended."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from streams.sql.reader import ReadTable

IDLE_S = 60.0
"""Time without a request after which the reader ends."""
MAX_BYTES = 300 << 20
"""Memory of the reader above which it ends as soon as it reads nothing."""
SILENCE_S = 30.0
"""Time that the reader may take to its next bytes, also while it starts."""
CHUNK_BYTES = 256 << 10
BUFFER_BYTES = 512 << 10
"""Bytes of an answer that wait in the worker for its client; the reader waits meanwhile."""
STOP_S = 2.0


class ReaderFailed(Exception):
    """The reader does not answer, or its answer broke off."""


class ReaderProcess:
    """The reader process of this worker, if it runs."""

    def __init__(self, directory: Callable[[], Path], idle_s: float = IDLE_S, max_bytes: int = MAX_BYTES) -> None:
        """``directory`` returns the worker's data directory; the reader's scratch directory is inside."""
        self._directory = directory
        self._limits = str(idle_s), str(max_bytes)
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def read(self, request: ReadTable) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of the answer. Raises `ReaderFailed`."""
        answer, writer, first = await self._first_bytes(request)
        try:
            while first:
                yield first
                first = await _next_bytes(answer)
        finally:
            writer.close()

    @property
    def pid(self) -> int | None:
        """Id of the process; None if none was started."""
        return self._process.pid if self._process else None

    async def stop(self) -> None:
        """End the reader."""
        if self._control is not None:
            self._control.close()  # it ends by itself then
        if self._process is not None and self._process.returncode is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_S)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
        self._control = self._process = None

    async def _first_bytes(self, request: ReadTable) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """Send the request; again, to a new reader, if the one that runs ended just then."""
        for _ in range(2):
            ours, theirs = socket.socketpair()
            try:
                await self._hand_over(theirs)
                answer, writer = await asyncio.open_unix_connection(sock=ours, limit=BUFFER_BYTES)
            except OSError:
                ours.close()
                self._forget()
                continue
            finally:
                theirs.close()
            try:
                writer.write(msgspec.json.encode(request) + b"\n")
                if first := await _next_bytes(answer):
                    return answer, writer, first
            except BaseException:
                writer.close()
                raise
            writer.close()
            self._forget()
        raise ReaderFailed("the process that reads tables ended; the worker's log may say why")

    async def _hand_over(self, connection: socket.socket) -> None:
        async with self._starting:
            if self._control is None:
                await self._start()
            assert self._control is not None
            socket.send_fds(self._control, [b"r"], [connection.fileno()])

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        scratch = self._directory() / "reader"
        command = [sys.executable, "-m", "streams.sql.reader", str(theirs.fileno()), str(scratch), *self._limits]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the worker, with which the reader ends
            env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # each thread would keep its freed memory
        )
        theirs.close()
        self._control = ours

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


async def _next_bytes(answer: asyncio.StreamReader) -> bytes:
    """Return the next bytes; none at the end, also if the reader was killed. Raises `ReaderFailed`."""
    try:
        return await asyncio.wait_for(answer.read(CHUNK_BYTES), SILENCE_S)
    except ConnectionError:
        return b""
    except TimeoutError:
        raise ReaderFailed("the process that reads tables does not answer") from None
