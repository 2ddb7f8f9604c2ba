"""A PostgreSQL server on a free port, in the event loop of the test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection

from streams.sql.postgres.authentication import Verifier
from streams.sql.postgres.connection import Limits
from streams.sql.postgres.server import Address, OpenSession, Server
from tests.support.pg_client import PgClient

PASSWORD = "the-password-of-a-test"


class Running(NamedTuple):
    """A server that listens."""

    server: Server
    port: int

    async def client(self, **options: Any) -> PgClient:
        """Log in a client that sends bytes."""
        return await PgClient.log_in(self.port, PASSWORD, **options)

    async def psycopg(self, **options: Any) -> AsyncConnection[Any]:
        """Log in a client of psycopg."""
        options = {"user": "operator", "dbname": "dabbawala", "password": PASSWORD, "autocommit": True, **options}
        return await psycopg.AsyncConnection.connect(host="127.0.0.1", port=self.port, **options)


@asynccontextmanager
async def serving(open_session: OpenSession, limits: Limits = Limits()) -> AsyncIterator[Running]:  # noqa: B008
    """Start a server, and close it at the end of the block."""
    server = Server(open_session, Verifier.of(PASSWORD), limits)
    address = await server.start(Address("127.0.0.1", 0))
    try:
        yield Running(server, address.port)
    finally:
        await server.close()
