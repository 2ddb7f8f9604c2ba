"""Look-ups of host names in a separate thread pool.

Python's default pool has a handful of threads, and Kafka's look-ups use it too. A silent name server blocks a thread
for as long as the operating system retries. A few restaurants with such a name would block all other look-ups.
"""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver, ResolveResult

MAX_THREADS = 256
"""Look-ups at the same time: as many as calls, because aiohttp looks up a host once at a time. A thread is started only
if no other is idle."""
RESERVED_THREADS = 2
"""Look-ups at the same time of the reserved host."""
MAX_PER_DOMAIN = 2
"""Look-ups at the same time within one domain, whose name servers they share."""
LOOK_UP_S = 3.0
"""Time limit of a look-up. Its thread stays busy for as long as the operating system retries."""


class ThreadedResolver(AbstractResolver):
    """Resolver for aiohttp, which itself recognises IP addresses and caches names for a while."""

    def __init__(self, reserved_host: str = "") -> None:
        """``reserved_host`` has separate threads, so that other hosts cannot occupy all."""
        self._threads = ThreadPoolExecutor(MAX_THREADS, "names")
        self._reserved_threads = ThreadPoolExecutor(RESERVED_THREADS, "reserved-names")
        self._reserved_host = reserved_host
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """Domain -> its look-ups; a domain without any has no entry."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises `OSError` if it has none, or is not found within `LOOK_UP_S`."""
        look_up = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        try:
            async with asyncio.timeout(LOOK_UP_S):
                found = await self._look_up(host, look_up)
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, f"the name is not found within {LOOK_UP_S:g} s") from None
        except UnicodeError:  # a part of the name is too long
            raise socket.gaierror(socket.EAI_NONAME, "this cannot be a host name") from None
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=int(address[1]), family=kind, proto=protocol, flags=flags
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Stop the pools without waiting for look-ups that are running."""
        for threads in (self._threads, self._reserved_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str, look_up: Callable[[], Any]) -> Any:
        if host == self._reserved_host:
            return await asyncio.wrap_future(self._reserved_threads.submit(look_up))
        places = self._places.setdefault(domain_of(host), asyncio.Semaphore(MAX_PER_DOMAIN))
        await places.acquire()
        running = self._threads.submit(look_up)
        running.add_done_callback(partial(_release, asyncio.get_running_loop(), places))
        return await asyncio.wrap_future(running)


def domain_of(host: str) -> str:
    """Return the domain that was probably registered: the last two labels, or three for one such as `a.co.in`."""
    labels = host.rstrip(".").lower().split(".")
    is_deep = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3:] if is_deep else labels[-2:])


def _release(loop: asyncio.AbstractEventLoop, places: asyncio.Semaphore, _: "Future[Any]") -> None:
    """Give a place back when the thread has ended, and not when its caller has given up."""
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(places.release)
