"""One client's connection: start, authentication, and then its statements until it leaves.

The simple protocol runs the statements of one text. The extended one prepares a statement (Parse), gives it parameters
(Bind) and runs it (Execute); after an error the server skips to the next Sync. See
https://www.postgresql.org/docs/current/protocol-flow.html.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from msgspec import Struct

from streams.sql.interfaces import Session, SqlError
from streams.sql.postgres import messages, portals, statements
from streams.sql.postgres.authentication import MECHANISM, USER, AuthenticationFailed, Exchange, Verifier
from streams.sql.postgres.catalogue import ALL_SETTINGS, SETTINGS, parameter_types, rewrite
from streams.sql.postgres.messages import Fields, ProtocolViolation, StartupCode
from streams.sql.postgres.portals import Portal, Rows, Statement

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_STATEMENTS = 1000
"""Prepared statements of a connection; pgx keeps up to 512."""
MAX_STATEMENT_BYTES = 16 << 20
"""Length of the prepared statements of a connection, in sum."""
MAX_PORTALS = 64
MAX_SETTINGS = 200
INTERRUPT_S = 0.5
"""Pause before a statement is interrupted again, if it goes on."""
OUTPUT_BYTES = 64 << 10
"""Length of answers that are held until the client asks for them."""
NEGOTIATIONS = 2
"""Requests for encryption before the first packet: one each for TLS and for GSSAPI."""


class Limits(Struct, frozen=True):
    """Limits of a server."""

    connections: int = 10
    """Clients at a time; each has a thread, and a database with its own limit of memory."""
    unauthenticated: int = 50
    """Connections at a time that are not authenticated yet."""
    authentication_s: float = 10.0
    """Time from the connection to the end of the authentication."""
    write_s: float = 600.0
    """Time that a client may leave its answer unread."""
    rows: int = 10_000_000
    """Rows of one result: far above a table of orders, so that only a mistake reaches it."""


class Server(Protocol):
    """The server, as a connection sees it."""

    limits: Limits
    verifier: Verifier
    executor: Executor

    def open_session(self) -> Session:
        """Open a session of the engine; blocks."""
        ...

    def admit(self, connection: "Connection") -> bool:
        """Count an authenticated connection; False if there are too many."""
        ...

    def cancel(self, process: int, secret: bytes) -> None:
        """End the statement of the connection with this key."""
        ...


class Fatal(Exception):
    """An error that ends the connection."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class Connection:
    """The state of one client's connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server, process: int
    ) -> None:
        """Take over a new connection; ``process`` is its number, by which a client cancels a statement."""
        self.process = process
        self.secret = secrets.token_bytes(4)
        self._reader = reader
        self._writer = writer
        self._server = server
        self._limits = server.limits
        self._session: Session | None = None
        self._is_running = False
        """True while a thread works for the connection."""
        self._is_gone = False
        """True once the client has closed its side."""
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._status = "I"
        self._is_skipping = False
        """True if messages are ignored until the next Sync."""
        self._settings = dict(ALL_SETTINGS)
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Portal] = {}
        self._handlers: Mapping[bytes, Callable[[bytes], Awaitable[None]]] = {
            b"Q": self._query,
            b"P": self._parse,
            b"B": self._bind,
            b"D": self._describe,
            b"E": self._execute,
            b"C": self._close,
            b"H": self._flush_message,
            b"F": self._function_call,
        }

    async def run(self) -> None:
        """Serve the client until it leaves."""
        try:
            async with asyncio.timeout(self._limits.authentication_s):
                options = await self._start()
            if options is not None:
                await self._serve(options)
        except (ProtocolViolation, Fatal, SqlError) as error:
            await self._farewell(error)
        except TimeoutError:
            self._writer.transport.abort()  # Closing would wait until the client has read everything.
        except (asyncio.IncompleteReadError, OSError):
            log.debug("a client left")
        except Exception as error:
            log.error("A connection of dabbawala sql failed: %s: %s", type(error).__name__, error)
            log.debug("its place", exc_info=True)
            await self._farewell(Fatal("The server failed: see its log.", "XX000"))
        finally:
            await self._end()

    def interrupt(self) -> None:
        """End the statement under way, if there is one."""
        if self._is_running and self._session is not None:
            self._session.interrupt()

    def client_gone(self) -> bool:
        """Note that the client has closed its side; return whether a statement is under way, which should end."""
        self._is_gone = True
        return self._is_running

    # --- start ---

    async def _start(self) -> dict[str, str] | None:
        """Read the first packets and authenticate the client; return its options, None if it wants no session."""
        for _ in range(NEGOTIATIONS + 1):
            payload = await self._startup_packet()
            code = Fields(payload).int32()
            if code in (StartupCode.SSL, StartupCode.GSS_ENCRYPTION):
                self._writer.write(b"N")
                continue
            if code == StartupCode.CANCEL:
                fields = Fields(payload)
                fields.int32()
                self._server.cancel(fields.int32(), fields.rest())
                return None
            return await self._authenticated(payload)
        raise ProtocolViolation("the client asks for encryption too often")

    async def _startup_packet(self) -> bytes:
        length = Fields(await self._reader.readexactly(4)).int32()
        if not 8 <= length <= messages.MAX_STARTUP_BYTES:
            raise ProtocolViolation("the first packet is none of PostgreSQL's protocol")
        return await self._reader.readexactly(length - 4)

    async def _authenticated(self, payload: bytes) -> dict[str, str]:
        startup = messages.read_startup(payload)
        if startup.version >> 16 != messages.PROTOCOL >> 16:
            raise Fatal(f"Protocol {startup.version >> 16} is not supported: use protocol 3.", "0A000")
        unknown = [name for name in startup.options if name.startswith("_pq_.")]
        if startup.version > messages.PROTOCOL or unknown:
            self._send(messages.negotiate_version(unknown))
        self._send(messages.sasl_mechanisms(MECHANISM))
        await self._authenticate(startup.options.get("user", ""))
        return startup.options

    async def _authenticate(self, user: str) -> None:
        exchange = Exchange(self._server.verifier)
        try:
            challenge = exchange.challenge(self._initial_response(await self._password_message()))
            self._send(messages.sasl_continue(challenge.encode()))
            proof = exchange.verify(messages.decoded(await self._password_message()))
        except AuthenticationFailed as error:
            raise Fatal(str(error), "28P01") from None
        if user != USER:
            raise Fatal(f"There is no user {user!r}: the name of the only user is {USER}.", "28000")
        self._send(messages.sasl_final(proof.encode()))

    async def _password_message(self) -> bytes:
        await self._flush()
        kind, payload = await self._message(messages.MAX_STARTUP_BYTES)
        if kind != b"p":
            raise ProtocolViolation("the client does not authenticate")
        return payload

    def _initial_response(self, payload: bytes) -> str:
        fields = Fields(payload)
        mechanism = fields.text()
        response = fields.value()
        fields.end()
        if mechanism != MECHANISM or response is None:
            raise Fatal(f"The client does not authenticate by {MECHANISM}: use a newer driver.", "28000")
        return messages.decoded(response)

    # --- messages ---

    async def _serve(self, options: Mapping[str, str]) -> None:
        if not self._server.admit(self):
            raise Fatal(f"The server has {self._limits.connections} connections, its limit: close one.", "53300")
        self._session = await self._in_thread(self._server.open_session)
        self._settings["application_name"] = options.get("application_name", "")
        self._send(messages.AUTHENTICATION_OK)
        for name in SETTINGS:
            self._send(messages.parameter_status(name, self._settings[name]))
        self._send(messages.backend_key(self.process, self.secret))
        await self._ready()
        while True:
            kind, payload = await self._message(messages.MAX_MESSAGE_BYTES)
            if kind == b"X":
                return
            await self._handle(kind, payload)
            if self._output_bytes > OUTPUT_BYTES:
                await self._flush()

    async def _message(self, limit: int) -> tuple[bytes, bytes]:
        head = await self._reader.readexactly(5)
        length = Fields(head[1:]).int32()
        if not 4 <= length <= limit:
            raise ProtocolViolation(f"a message is longer than {limit} bytes, or has no length")
        return head[:1], await self._reader.readexactly(length - 4)

    async def _handle(self, kind: bytes, payload: bytes) -> None:
        if kind == b"S":
            self._is_skipping = False
            await self._ready()
            return
        handler = self._handlers.get(kind)
        if handler is None:
            raise ProtocolViolation(f"the server does not expect a message of type {kind!r}")
        if self._is_skipping:
            return
        try:
            await handler(payload)
        except SqlError as error:
            self._fail(error)
            self._is_skipping = True

    def _fail(self, error: SqlError, sql: str = "") -> None:
        text, position = statements.located(str(error), sql)
        self._send(messages.error(text, error.sqlstate, position=position))
        if self._status == "T":
            self._status = "E"

    async def _ready(self) -> None:
        if self._status == "I":
            for name in list(self._portals):
                await self._drop_portal(name)
        self._send(messages.ready(self._status))
        await self._flush()

    # --- simple protocol ---

    async def _query(self, payload: bytes) -> None:
        parts: list[str] = []
        try:
            parts = statements.split(messages.read_query(payload))
            await self._drop_portal("")
            for sql in parts:
                await self._run_simply(sql)
            if not parts:
                self._send(messages.EMPTY_QUERY)
        except SqlError as error:
            self._fail(error, parts[0] if len(parts) == 1 else "")
        await self._ready()

    async def _run_simply(self, sql: str) -> None:
        statement = await self._prepared(sql, ())
        if statement.prepared.parameters:
            raise SqlError("The statement has parameters: send it with the extended protocol.", "42P02")
        portal = Portal(statement)
        try:
            if statement.command is None:
                rows = await self._start_rows(portal)
                self._send(portals.description(rows.columns))
            elif statement.columns:
                self._send(portals.description(statement.columns))
            await self._send_result(portal, 0)
        finally:
            await self._close_rows(portal)

    # --- extended protocol ---

    async def _parse(self, payload: bytes) -> None:
        message = messages.read_parse(payload)
        if message.name and message.name in self._statements:
            raise SqlError(f"The prepared statement {message.name!r} exists already: deallocate it first.", "42P05")
        parts = statements.split(message.sql)
        if len(parts) > 1:
            raise SqlError("A prepared statement has one statement: prepare them one by one.", "42601")
        self._statements.pop(message.name, None)
        self._check_room(message.sql)
        sql = parts[0] if parts else ""
        try:
            self._statements[message.name] = await self._prepared(sql, message.oids)
        except SqlError as error:
            self._fail(error, message.sql)
            self._is_skipping = True
            return
        self._send(messages.PARSE_COMPLETE)

    def _check_room(self, sql: str) -> None:
        length = len(sql) + sum(len(statement.sql) for statement in self._statements.values())
        if len(self._statements) >= MAX_STATEMENTS or length > MAX_STATEMENT_BYTES:
            raise SqlError("The connection has too many prepared statements: deallocate some.", "54000")

    async def _bind(self, payload: bytes) -> None:
        message = messages.read_bind(payload)
        statement = self._statement(message.statement)
        if len(message.values) != (count := statement.prepared.parameters):
            raise SqlError(f"The statement has {count} parameters, the message {len(message.values)}.", "08P01")
        if message.portal and message.portal in self._portals:
            raise SqlError(f"The portal {message.portal!r} exists already: close it first.", "42P03")
        await self._drop_portal(message.portal)
        if len(self._portals) >= MAX_PORTALS:
            raise SqlError(f"The connection has {MAX_PORTALS} open portals, its limit: close one.", "54000")
        values = statement.values(message.values, message.formats)
        portals.formats_of(len(statement.columns), message.result_formats)
        self._portals[message.portal] = Portal(statement, values, message.result_formats)
        self._send(messages.BIND_COMPLETE)

    async def _describe(self, payload: bytes) -> None:
        kind, name = messages.read_target(payload)
        if kind == "S":
            statement = self._statement(name)
            self._send(messages.parameter_description(statement.parameter_oids))
            self._send(portals.description(statement.columns))
            return
        portal = self._portal(name)
        columns = portal.statement.columns
        if columns and portal.statement.command is None and not portal.is_done:
            self._check_transaction(None)
            # The types of some columns are known only with the values of the parameters.
            columns = (await self._start_rows(portal)).columns
        self._send(portals.description(columns, portal.formats))

    async def _execute(self, payload: bytes) -> None:
        name, limit = messages.read_execute(payload)
        portal = self._portal(name)
        if portal.statement.sql == "":
            self._send(messages.EMPTY_QUERY)
            return
        await self._send_result(portal, limit)

    async def _close(self, payload: bytes) -> None:
        kind, name = messages.read_target(payload)
        if kind == "S":
            self._statements.pop(name, None)
        else:
            await self._drop_portal(name)
        self._send(messages.CLOSE_COMPLETE)

    async def _flush_message(self, payload: bytes) -> None:
        await self._flush()

    async def _function_call(self, payload: bytes) -> None:
        self._fail(SqlError("Function calls of the protocol are not supported: use SELECT.", "0A000"))
        await self._ready()

    def _statement(self, name: str) -> Statement:
        try:
            return self._statements[name]
        except KeyError:
            raise SqlError(f"There is no prepared statement {name!r}: prepare it first.", "26000") from None

    def _portal(self, name: str) -> Portal:
        try:
            return self._portals[name]
        except KeyError:
            raise SqlError(
                f"There is no portal {name!r}: it ended with its transaction, or another statement ran.", "34000"
            ) from None

    # --- statements ---

    async def _prepared(self, sql: str, oids: tuple[int, ...]) -> Statement:
        if not sql:
            return Statement(sql)
        command = statements.command(sql)
        if isinstance(command, statements.Show) and self._setting(command.name) is None:
            command = None  # The engine has other things to show.
        self._check_transaction(command)
        if command is not None:
            return Statement(sql, command, oids=oids)
        engine_sql = rewrite(sql)
        await self._suspend_others(None)
        prepared = await self._in_thread(self._open_session().prepare, engine_sql)
        return Statement(sql, None, prepared, oids, parameter_types(engine_sql))

    def _check_transaction(self, command: statements.Command | None) -> None:
        if self._status == "E" and not isinstance(command, statements.End | statements.RollBackTo):
            raise SqlError("The transaction has failed: roll it back before the next statement.", "25P02")

    async def _start_rows(self, portal: Portal) -> Rows:
        if portal.rows is None:
            await self._suspend_others(portal)
            portal.rows = await self._in_thread(portals.started, self._open_session(), portal)
        return portal.rows

    async def _suspend_others(self, portal: Portal | None) -> None:
        """Close the other portals that have rows left, because the engine runs one statement at a time."""
        for name, other in list(self._portals.items()):
            if other is not portal and other.rows is not None:
                await self._drop_portal(name)

    async def _send_result(self, portal: Portal, limit: int) -> None:
        self._check_transaction(portal.statement.command)
        if portal.is_done:
            self._send(messages.command_complete("SELECT 0"))
        elif portal.statement.command is not None:
            await self._send_answer(portal)
        else:
            await self._send_rows(portal, limit)

    async def _send_rows(self, portal: Portal, limit: int) -> None:
        rows = await self._start_rows(portal)
        count, most = 0, limit or self._limits.rows
        while count < most and portal.sent < self._limits.rows:
            chunk = await self._in_thread(rows.take, min(most - count, self._limits.rows - portal.sent))
            if chunk.is_last:
                await self._complete(portal, count)
                return
            self._send(chunk.data)
            await self._flush()
            count += chunk.count
            portal.sent += chunk.count
        if portal.sent < self._limits.rows:
            self._send(messages.PORTAL_SUSPENDED)
            return
        await self._cut(portal, rows, count)

    async def _cut(self, portal: Portal, rows: Rows, count: int) -> None:
        """End a result that has reached the limit of rows."""
        if not (await self._in_thread(rows.take, 1)).is_last:
            text = f"The result was cut after {portal.sent} rows, the limit of the server: use LIMIT or a condition."
            self._send(messages.notice(text, "01004"))
        await self._complete(portal, count)

    async def _complete(self, portal: Portal, count: int) -> None:
        await self._close_rows(portal)
        portal.is_done = True
        first = portal.statement.sql.split(None, 1)[0].upper()
        self._send(messages.command_complete("EXPLAIN" if first == "EXPLAIN" else f"SELECT {count}"))

    async def _close_rows(self, portal: Portal) -> None:
        rows, portal.rows = portal.rows, None
        if rows is not None:
            await self._in_thread(rows.close)

    async def _drop_portal(self, name: str) -> None:
        portal = self._portals.pop(name, None)
        if portal is not None:
            await self._close_rows(portal)

    # --- statements that the server answers by itself ---

    async def _send_answer(self, portal: Portal) -> None:
        command = portal.statement.command
        portal.is_done = isinstance(command, statements.Show)
        match command:
            case statements.Begin(tag):
                self._status = "T"
            case statements.End(tag):
                tag = "ROLLBACK" if self._status == "E" else tag
                self._status = "I"
            case statements.RollBackTo():
                self._status, tag = "T", "ROLLBACK"
            case statements.Set(name, value):
                self._set(name, value)
                tag = "SET"
            case statements.Show(name):
                self._send(self._shown(name, portal))
                tag = "SHOW"
            case statements.Deallocate(name, tag):
                self._deallocate(name)
            case statements.NoEffect(tag):
                pass
            case None:
                raise AssertionError("a statement of the engine")
        self._send(messages.command_complete(tag))

    def _setting(self, name: str) -> str | None:
        return next((value for key, value in self._settings.items() if key.lower() == name.lower()), None)

    def _set(self, name: str, value: str) -> None:
        key = next((key for key in self._settings if key.lower() == name.lower()), name)
        if key in SETTINGS and key != "application_name":
            if value.lower().replace("-", "") not in SETTINGS[key].lower():
                self._send(messages.notice(f"The server has {key} {SETTINGS[key]} and keeps it."))
        elif key in self._settings or len(self._settings) < MAX_SETTINGS:
            self._settings[key] = value

    def _shown(self, name: str, portal: Portal) -> bytes:
        functions = portals.encoders(portal.statement.columns, portal.formats)
        return portals.encoded([(self._setting(name) or "",)], functions)

    def _deallocate(self, name: str | None) -> None:
        if name is None:
            self._statements.clear()
        elif self._statements.pop(name, None) is None:
            raise SqlError(f"There is no prepared statement {name!r}.", "26000")

    # --- input and output ---

    def _open_session(self) -> Session:
        if self._session is None:
            raise AssertionError("the session opens before the first statement")
        return self._session

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        """Run a blocking call in a thread; if the connection ends meanwhile, interrupt it and wait for its end."""
        if self._is_gone:
            raise ConnectionResetError("the client is gone")
        future = asyncio.get_running_loop().run_in_executor(self._server.executor, call, *arguments)
        self._is_running = True
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():  # The engine may lose an interrupt that comes before the statement starts.
                self.interrupt()
                await asyncio.wait([future], timeout=INTERRUPT_S)
            future.exception()
            raise
        finally:
            self._is_running = False

    def _send(self, data: bytes) -> None:
        self._output.append(data)
        self._output_bytes += len(data)

    async def _flush(self) -> None:
        """Write the answers, and wait until the client has taken most of them."""
        output, self._output, self._output_bytes = self._output, [], 0
        self._writer.write(b"".join(output))
        async with asyncio.timeout(self._limits.write_s):
            await self._writer.drain()

    async def _farewell(self, error: Exception) -> None:
        """Send the error that ends the connection."""
        sqlstate = error.sqlstate if isinstance(error, Fatal | SqlError) else "08P01"
        text = f"Protocol error: {error}." if isinstance(error, ProtocolViolation) else str(error)
        self._send(messages.error(text, sqlstate, "FATAL"))
        try:
            await self._flush()
        except (TimeoutError, OSError):
            log.debug("the client left before its error")

    async def _end(self) -> None:
        self._writer.close()
        session, self._session = self._session, None
        if session is not None:
            await asyncio.get_running_loop().run_in_executor(self._server.executor, session.close)
