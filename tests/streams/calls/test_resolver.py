"""Look-ups of names: they end in time, share threads fairly by domain, and leave some for the reserved host."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from streams.calls import resolver as module
from streams.calls.resolver import MAX_PER_DOMAIN, ThreadedResolver, domain_of

BANK = "bank.silent.test"


class NameServer:
    """Name server that never answers for names below `silent`, until it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def look_up(self, host: str, port: int, **_: Any) -> Any:
        """Stand in for `socket.getaddrinfo`."""
        self.asked.append(host)
        if "silent" in host and host != BANK:
            self.released.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.look_up)
    yield server
    server.released.set()


@pytest.fixture
async def resolver(names: NameServer) -> AsyncIterator[ThreadedResolver]:
    made = ThreadedResolver(BANK)
    yield made
    names.released.set()
    await made.close()


async def test_a_look_up_ends_in_time(resolver: ThreadedResolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_UP_S", 0.05)
    with pytest.raises(OSError, match=r"the name is not found within 0\.05 s$"):
        await resolver.resolve("a.silent.test", 80)


async def test_silent_names_of_one_domain_occupy_few_threads(
    resolver: ThreadedResolver, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_UP_S", 0.2)
    silent = [asyncio.create_task(resolver.resolve(f"{number}.silent.test")) for number in range(20)]
    assert (await resolver.resolve("well.test", 80))[0]["host"] == "192.0.2.1"
    ended = await asyncio.gather(*silent, return_exceptions=True)
    assert all(isinstance(each, OSError) for each in ended)
    assert sum("silent" in name for name in names.asked) == MAX_PER_DOMAIN, "a place is kept while its thread runs"
    monkeypatch.setattr(module, "LOOK_UP_S", 60.0)
    names.released.set()
    assert await resolver.resolve("0.silent.test", 80)


async def test_the_reserved_host_is_found_while_all_threads_are_busy(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_THREADS", 4)
    resolver = ThreadedResolver(BANK)
    silent = [asyncio.create_task(resolver.resolve(f"x.silent-{number}.test")) for number in range(8)]
    while len(names.asked) < 4:  # noqa: ASYNC110 - threads do it
        await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        assert await resolver.resolve(BANK, 443)
    for each in silent:
        each.cancel()
        with suppress(asyncio.CancelledError):
            await each
    names.released.set()
    await resolver.close()


async def test_a_name_that_cannot_be_is_an_error_of_its_party() -> None:
    resolver = ThreadedResolver()
    with pytest.raises(OSError, match="cannot be a host name"):
        await resolver.resolve("a" * 64 + ".test")
    await resolver.close()


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("pos.shop.example", "shop.example"),
        ("shop.example", "shop.example"),
        ("a.b.shop.co.in", "shop.co.in"),
        ("shop.co.in", "shop.co.in"),
        ("co.in", "co.in"),
        ("Pos.Example.COM.", "example.com"),
        ("localhost", "localhost"),
    ],
)
def test_names_of_one_domain_share_their_places(host: str, domain: str) -> None:
    assert domain_of(host) == domain
