"""Look-ups of host names in a separate thread pool.

Python's default pool has a handful of threads, and Kafka's look-ups use it too. A silent name server blocks a thread
for as long as the operating system retries. A few restaurants with such a name would block all other look-ups.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

MAX_THREADS = 256
"""Look-ups at the same time: as many as calls, because aiohttp looks up a host once at a time. A thread is started only
if no other is idle."""


class ThreadedResolver(AbstractResolver):
    """Resolver for aiohttp, which itself recognises IP addresses and caches names for a while."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_THREADS, "names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises `OSError` if it has none."""
        look_up = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=flags
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Stop the pool without waiting for look-ups that are running."""
        self._threads.shutdown(wait=False, cancel_futures=True)
