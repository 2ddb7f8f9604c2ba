"""The HTTP server of a worker: idle connections end, and connections never use up the descriptors of the tasks."""

import asyncio
import resource
from typing import Any

from aiohttp import web

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
REFUSAL_S = 1.0
"""Time in which a client without a place may send its request and so receive the refusal."""
ENOUGH_DESCRIPTORS = 65_536


class BoundedRunner(web.AppRunner):
    """Runner of an application that serves a limited number of connections and answers others with 503."""

    def __init__(self, application: web.Application, *, max_connections: int, **settings: Any) -> None:
        """``settings`` are those of ``AppRunner``."""
        super().__init__(application, **settings)
        self._max_connections = max_connections

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _BoundedServer(
            self._max_connections,
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,
        )


class _BoundedServer(web.Server):
    def __init__(self, max_connections: int, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._max_connections = max_connections

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""
        return super().__call__() if len(self.connections) < self._max_connections else _Refusing()


class _Refusing(asyncio.Protocol):
    """A connection that gets one answer, 503, as soon as its request arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        asyncio.get_running_loop().call_later(REFUSAL_S, transport.abort)

    def data_received(self, _: bytes) -> None:
        self._transport.write(REFUSAL)
        self._transport.close()


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as it may; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
