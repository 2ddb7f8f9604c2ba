"""Look-ups of host names in a separate thread pool.

Python's default pool has a handful of threads, and Kafka's look-ups use it too. A silent name server blocks a thread
for as long as the operating system retries. A few restaurants with such a name would block all other look-ups.

Nor can many of them: the names of one domain get two threads, and the payment provider's name has threads of its own.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

T = TypeVar("T")
MAX_THREADS = 256
"""Look-ups at the same time: as many as calls, because aiohttp looks up a host once at a time. A thread is started only
if no other is idle."""
MAX_DOMAIN_THREADS = 2
"""Look-ups at the same time of names in one domain: its name servers may be silent."""
RESERVED_THREADS = 2
"""Threads for the reserved hosts."""


class ThreadedResolver(AbstractResolver):
    """Resolver for aiohttp, which itself recognises IP addresses and caches names for a while."""

    def __init__(self, reserved: Collection[str] = ()) -> None:
        """``reserved`` are hosts whose look-ups wait for no other host's."""
        self._threads = ThreadPoolExecutor(MAX_THREADS, "names")
        self._reserved = ThreadPoolExecutor(RESERVED_THREADS, "reserved-names")
        self._reserved_hosts = frozenset(reserved)
        self._domains = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(MAX_DOMAIN_THREADS))

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises `OSError` if it has none."""
        look_up = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await self._in_thread(host, look_up)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=flags
            )
            for kind, _, protocol, _, address in found
        ]

    async def _in_thread(self, host: str, look_up: Callable[[], T]) -> T:
        """Run a look-up in a thread. If its caller gives up, it keeps its place in the domain until the thread ends."""
        loop = asyncio.get_running_loop()
        if host in self._reserved_hosts:
            return await loop.run_in_executor(self._reserved, look_up)
        places = self._domains[_domain(host)]
        await places.acquire()
        looking = loop.run_in_executor(self._threads, look_up)
        looking.add_done_callback(partial(_release, places))
        return await asyncio.shield(looking)

    async def close(self) -> None:
        """Stop the pools without waiting for look-ups that are running."""
        for pool in (self._threads, self._reserved):
            pool.shutdown(wait=False, cancel_futures=True)


def _domain(host: str) -> str:
    """Return the last two labels of a host name, which one owner usually has."""
    return ".".join(host.lower().rstrip(".").split(".")[-2:])


def _release(places: asyncio.Semaphore, looking: "asyncio.Future[T]") -> None:
    places.release()
    if not looking.cancelled():
        looking.exception()  # nobody may wait for it any longer
