"""The reader process of one worker: it reads whole tables for SQL, so that the worker's event loop does not.

The worker starts it with one end of a socket pair, and sends over it a socket for each request. The reader ends when
it is idle, and when its worker ends: the pair is closed then. It opens the partitions' stores as secondaries and writes
to nothing but its scratch directory.
"""

import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from exactly_once.state.secondary import SecondaryStore
from exactly_once.task.interfaces import StoreError
from streams.sql.projection import Failed, Opened, line, lines_of
from streams.sql.tables import TABLES

NICENESS = 10
"""The worker and its tasks come first."""
SEND_TIMEOUT_S = 30.0
"""Time that the worker may take to take some bytes: it may wait for a slow client."""


class ReadPartition(Struct, frozen=True):
    """A partition to read."""

    opened: Opened
    path: str
    """Directory of its store."""
    opening: int
    """Number of the opening of its task: with a new one the store may be another."""


class ReadTable(Struct, frozen=True, kw_only=True):
    """A request: one line of JSON on its socket."""

    table: str
    fields: tuple[str, ...]
    is_masked: bool
    limit: int | None
    partitions: tuple[ReadPartition, ...]


_decode = msgspec.json.Decoder(ReadTable).decode


class Stores:
    """The stores that are open, one a partition."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._open: dict[int, tuple[int, SecondaryStore]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def caught_up(self, wanted: ReadPartition) -> SecondaryStore:
        """Return the store of a partition, with everything that the worker has committed. Raises `StoreError`."""
        with self._lock:
            opening, store = self._open.get(wanted.opened.partition, (None, None))
            if store is None or opening != wanted.opening:
                self._count += 1
                store = SecondaryStore(Path(wanted.path), self._scratch / str(self._count))
                self._open[wanted.opened.partition] = wanted.opening, store
            else:
                store.catch_up()
            return store


class Reader:
    """Answers requests, each in a thread, until it is idle, has grown too large, or its worker has ended."""

    def __init__(self, control: socket.socket, scratch: Path, idle_s: float, max_bytes: int) -> None:
        self._control = control
        self._stores = Stores(scratch)
        self._idle_s = idle_s
        self._max_bytes = max_bytes
        self._running = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Take requests."""
        self._control.settimeout(self._idle_s)
        while True:
            try:
                token, handles, *_ = socket.recv_fds(self._control, 1, 1)
            except TimeoutError:
                if self._running == 0:
                    return
                continue
            except OSError:
                return
            if not token:  # the worker has ended
                return
            self._count(1)
            threading.Thread(target=self._answer, args=(socket.socket(fileno=handles[0]),), daemon=True).start()

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(SEND_TIMEOUT_S)
            try:
                for each in self._lines(connection):
                    connection.sendall(each)
            except OSError:
                pass  # the client has gone, or takes nothing: the answer is not complete without its last line
            finally:
                self._count(-1)
                self._end_if_large()

    def _end_if_large(self) -> None:
        """End once nothing is read: secondaries that follow a worker for long keep memory. The worker starts another
        reader."""
        if self._running == 0 and psutil.Process().memory_info().rss > self._max_bytes:
            self._control.shutdown(socket.SHUT_RDWR)

    def _lines(self, connection: socket.socket) -> Iterator[bytes]:
        with connection.makefile("rb") as requests:
            request = _decode(requests.readline())
        for each in request.partitions:
            try:
                yield from self._partition(request, each)
            except (StoreError, msgspec.MsgspecError, ValueError) as error:
                yield line(Failed(f"{request.table}, partition {each.opened.partition}: {error}"))
                return

    def _partition(self, request: ReadTable, wanted: ReadPartition) -> Iterator[bytes]:
        rows = self._stores.caught_up(wanted).rows(request.table)
        table = TABLES[request.table]
        return lines_of(wanted.opened, table, request.fields, rows, is_masked=request.is_masked, limit=request.limit)


def main(arguments: list[str]) -> None:
    """Run the reader.

    Arguments: file descriptor of its end of the socket pair, scratch directory, idle time in s, memory in bytes.
    """
    control, scratch = socket.socket(fileno=int(arguments[0])), Path(arguments[1])
    os.nice(NICENESS)
    shutil.rmtree(scratch, ignore_errors=True)  # an earlier reader of this worker may have been killed
    own = scratch / str(os.getpid())
    own.mkdir(parents=True)
    try:
        Reader(control, own, float(arguments[2]), int(arguments[3])).run()
    finally:
        shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
