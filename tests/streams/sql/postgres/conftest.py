"""A PostgreSQL server for each test."""

from collections.abc import AsyncIterator

import pytest

from tests.support.pg_server import Running, serving
from tests.support.sql_sessions import Sessions


@pytest.fixture
def sessions() -> Sessions:
    """Sessions that the server opens."""
    return Sessions()


@pytest.fixture
async def running(sessions: Sessions) -> AsyncIterator[Running]:
    """Return a server with the usual limits."""
    async with serving(sessions) as server:
        yield server
