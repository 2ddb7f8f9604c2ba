"""A line passes everything on, and fails as networks do."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from random import Random

import pytest

from streams.embedded.ports import LOOPBACK
from tests.chaos.proxy import Address, Mode, Proxy
from tests.simulators.waiting import until

SOON_S = 0.3
"""What does not come within this time, does not come."""


class Echo:
    """Answers every line with itself, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.ends = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            self.asked.append(line)
            writer.write(line)
        self.ends += 1
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, int]]:
    there = Echo()
    server = await asyncio.start_server(there.serve, LOOPBACK, 0)
    yield there, server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: tuple[Echo, int]) -> AsyncIterator[Proxy]:
    async with Proxy("line", lambda: [Address(echo[1])]) as proxy:
        yield proxy


class Connection:
    """A client's."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, proxy: Proxy) -> "Connection":
        return cls(*await asyncio.open_connection(LOOPBACK, proxy.port))

    def say(self, line: bytes) -> None:
        self.writer.write(line)

    async def hears(self) -> bytes:
        """The next line; nothing where the connection has ended."""
        try:
            return await asyncio.wait_for(self.reader.readline(), 20)
        except ConnectionError:
            return b""

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.readline(), SOON_S)
        except TimeoutError:
            return True
        return False


async def test_what_is_said_comes_through_and_so_does_the_end(echo: tuple[Echo, int], proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    client.say(b"one\n" * 50_000)
    for _ in range(50_000):
        assert await client.hears() == b"one\n"
    client.writer.write_eof()
    assert await client.hears() == b""
    await until(lambda: echo[0].ends == 1, "the other side hears of the end")
    await until(lambda: proxy.connections == 0, "the connection is forgotten")


async def test_a_slow_line_delivers_everything_in_its_order(proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    proxy.become(Mode.DELAY, SOON_S)
    client.say(b"one\n")
    assert await client.hears_nothing()
    client.say(b"two\n")
    proxy.heal()
    assert [await client.hears(), await client.hears()] == [b"one\n", b"two\n"]


async def test_a_line_that_is_cut_ends_connections_and_takes_no_other(proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    client.say(b"one\n")
    assert await client.hears() == b"one\n"
    proxy.become(Mode.CUT)
    assert await client.hears() == b""
    assert await (await Connection.to(proxy)).hears() == b""
    proxy.heal()
    again = await Connection.to(proxy)
    again.say(b"two\n")
    assert await again.hears() == b"two\n"


async def test_a_network_that_comes_back_delivers_late_what_was_sent_meanwhile(
    echo: tuple[Echo, int], proxy: Proxy
) -> None:
    client = await Connection.to(proxy)
    client.say(b"one\n")
    assert await client.hears() == b"one\n"
    proxy.become(Mode.HOLD)
    client.say(b"two\n")
    newcomer = await Connection.to(proxy)
    newcomer.say(b"three\n")
    assert await client.hears_nothing()
    assert echo[0].asked == [b"one\n"]
    proxy.heal()
    assert await client.hears() == b"two\n"
    assert await newcomer.hears() == b"three\n"


async def test_a_half_open_line_takes_everything_and_ends_when_it_is_healed(
    echo: tuple[Echo, int], proxy: Proxy
) -> None:
    client = await Connection.to(proxy)
    client.say(b"one\n")
    assert await client.hears() == b"one\n"
    proxy.become(Mode.SWALLOW)
    client.say(b"two\n")
    newcomer = await Connection.to(proxy)
    newcomer.say(b"three\n")
    assert await client.hears_nothing()
    assert await newcomer.hears_nothing()
    proxy.heal()
    assert [await client.hears(), await newcomer.hears()] == [b"", b""]
    assert echo[0].asked == [b"one\n"]


async def test_a_deaf_line_has_things_done_and_says_nothing_of_it(echo: tuple[Echo, int], proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    proxy.become(Mode.DEAF)
    client.say(b"one\n")
    await until(lambda: echo[0].asked == [b"one\n"], "it is done")
    client.say(b"two\n")
    await until(lambda: echo[0].asked == [b"one\n", b"two\n"], "so is what comes after it")
    assert await client.hears_nothing()
    proxy.heal()
    assert await client.hears() == b""


async def test_some_connections_are_cut_and_the_line_goes_on(proxy: Proxy) -> None:
    clients = [await Connection.to(proxy) for _ in range(20)]
    for client in clients:
        client.say(b"one\n")
        assert await client.hears() == b"one\n"
    cut = proxy.cut(0.5, Random(1))
    assert 0 < cut < 20
    for client in clients:
        client.say(b"two\n")
    heard = [await client.hears() for client in clients]
    assert heard.count(b"") == cut
    assert heard.count(b"two\n") == 20 - cut


async def test_who_does_not_listen_is_passed_over(echo: tuple[Echo, int]) -> None:
    nobody = await asyncio.start_server(lambda *_: None, LOOPBACK, 0)
    port = nobody.sockets[0].getsockname()[1]
    nobody.close()
    await nobody.wait_closed()
    async with Proxy("front", lambda: [Address(port), Address(echo[1])]) as proxy:
        for _ in range(4):
            client = await Connection.to(proxy)
            client.say(b"one\n")
            assert await client.hears() == b"one\n"
