"""The server: it listens on a loopback address, and gives each client a connection and a session of the engine.

It runs in the process of its user. TLS is missing, so it binds to no other address.
"""

import asyncio
import hmac
import ipaddress
import logging
import shlex
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import NamedTuple

from streams.sql.interfaces import Session
from streams.sql.postgres.authentication import USER, Verifier, default_file, generate_once, read_password
from streams.sql.postgres.catalogue import DATABASE, SETUP
from streams.sql.postgres.connection import Connection, Limits

log = logging.getLogger(__name__)

OpenSession = Callable[[Sequence[str]], Session]
"""Open a session of the engine: it runs these statements in its database, after it has made the tables and before it
locks the database. Raises `SqlError`."""
READ_BUFFER_BYTES = 64 << 10
BACKLOG = 20


class WrongAddress(ValueError):
    """The server cannot listen on an address. The message says why and what to do."""


class Address(NamedTuple):
    """An address to listen on."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Return the address of a text `HOST:PORT`. Raises `WrongAddress`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise WrongAddress(f"{text!r} is not HOST:PORT: write it as 127.0.0.1:5433.")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_loopback(host):
        raise WrongAddress(
            f"The server cannot listen on {host!r}, because its connections are not encrypted: use 127.0.0.1, and a "
            f"tunnel (ssh -L) from other machines."
        )
    return Address(host, int(port))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def psql_command(address: Address, file: Path) -> str:
    """Return a command line for psql, which reads the password from its file."""
    password = f'PGPASSWORD="$(cat {shlex.quote(str(file.resolve()))})"'
    return f"{password} psql -h {address.host} -p {address.port} -U {USER} {DATABASE}"


def serve(
    address: str,
    open_session: OpenSession,
    *,
    directory: Path,
    echo: Callable[[str], None],
    password_file: Path | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> None:
    """Serve clients until SIGINT or SIGTERM; ``echo`` prints a line that helps to connect.

    The password is in ``password_file``, else in a file of the data ``directory``, where the first call generates it.
    Raises `WrongAddress` and `WrongPasswordFile`.
    """
    place = parse_address(address)
    file = password_file or default_file(directory)
    if password_file is None:
        generate_once(file)
    server = Server(open_session, Verifier.of(read_password(file)), limits)
    asyncio.run(_serve_until_signal(server, place, lambda bound: _invite(bound, file, echo)))


def _invite(address: Address, file: Path, echo: Callable[[str], None]) -> None:
    echo(f"PostgreSQL clients can connect to {address.host}:{address.port}, for example:")
    echo(f"  {psql_command(address, file)}")


async def _serve_until_signal(server: "Server", address: Address, announce: Callable[[Address], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        announce(await server.start(address))
        await stop.wait()
    finally:
        await server.close()


class Server:
    """The connections of one address."""

    def __init__(self, open_session: OpenSession, verifier: Verifier, limits: Limits = Limits()) -> None:  # noqa: B008
        """Listen on nothing yet."""
        self.limits = limits
        self.verifier = verifier
        self.executor: Executor = ThreadPoolExecutor(limits.connections, thread_name_prefix="sql")
        self._open = open_session
        self._server: asyncio.Server | None = None
        self._numbers = count(1)
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._admitted: dict[int, Connection] = {}

    async def start(self, address: Address) -> Address:
        """Listen, and return the address with the port that the system chose for port 0. Raises `WrongAddress`."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._protocol, address.host, address.port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            raise WrongAddress(
                f"The server cannot listen on {address.host}:{address.port}: {error.strerror or error}. Choose another "
                f"port."
            ) from None
        return Address(address.host, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, end all statements and close all connections."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.executor.shutdown(wait=False)

    @property
    def connections(self) -> int:
        """Number of the connections, authenticated or not."""
        return len(self._tasks)

    def open_session(self) -> Session:
        """Open a session of the engine with the catalogue; blocks."""
        return self._open(SETUP)

    def admit(self, connection: Connection) -> bool:
        """Count an authenticated connection; False if there are too many."""
        if len(self._admitted) >= self.limits.connections:
            return False
        self._admitted[connection.process] = connection
        return True

    def cancel(self, process: int, secret: bytes) -> None:
        """End the statement of the connection with this key; nothing if the key is wrong."""
        connection = self._admitted.get(process)
        if connection is not None and hmac.compare_digest(connection.secret, secret):
            connection.interrupt()

    def _protocol(self) -> "_ClientProtocol":
        return _ClientProtocol(self)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Connection | None:
        """Serve a new connection; None if too many clients have not authenticated yet."""
        if len(self._tasks) - len(self._admitted) >= self.limits.unauthenticated:
            writer.close()
            return None
        connection = Connection(reader, writer, self, next(self._numbers))
        task = asyncio.get_running_loop().create_task(connection.run())
        self._tasks[connection] = task
        task.add_done_callback(lambda task: self._forget(connection, task))
        return connection

    def gone(self, connection: Connection) -> None:
        """End the work for a client that closed its connection; a connection that waits for it finds out by itself."""
        if connection.client_gone() and connection in self._tasks:
            self._tasks[connection].cancel()

    def _forget(self, connection: Connection, task: asyncio.Task[None]) -> None:
        self._tasks.pop(connection, None)
        self._admitted.pop(connection.process, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("A connection did not end cleanly: %s: %s", type(error).__name__, error)


class _ClientProtocol(asyncio.StreamReaderProtocol):
    """Streams that report the end of the client's side at once, also while a statement runs and none reads them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: Connection | None = None
        super().__init__(asyncio.StreamReader(READ_BUFFER_BYTES), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection = self._server.connected(reader, writer)

    def eof_received(self) -> bool:
        self._report()
        return super().eof_received() or False

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._report()

    def _report(self) -> None:
        if self._connection is not None:
            self._server.gone(self._connection)
