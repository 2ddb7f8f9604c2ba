"""The proxy passes everything on, and fails as networks do."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from random import Random

import pytest

from streams.local.ports import LOOPBACK
from tests.simulators.waiting import until
from verification.chaos.proxy import Address, Mode, Proxy

SOON_S = 0.3
"""Wait after which a test assumes that nothing arrives."""


class Echo:
    """A server that answers every line with the same line, and records the requests."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.ends = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            self.requests.append(line)
            writer.write(line)
        self.ends += 1
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, int]]:
    served = Echo()
    server = await asyncio.start_server(served.serve, LOOPBACK, 0)
    yield served, server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: tuple[Echo, int]) -> AsyncIterator[Proxy]:
    async with Proxy("line", lambda: [Address(echo[1])]) as proxy:
        yield proxy


class Connection:
    """A client's connection through the proxy."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, proxy: Proxy) -> "Connection":
        return cls(*await asyncio.open_connection(LOOPBACK, proxy.port))

    def send(self, line: bytes) -> None:
        self.writer.write(line)

    async def receive(self) -> bytes:
        """Return the next line; empty if the connection has ended."""
        try:
            return await asyncio.wait_for(self.reader.readline(), 120)
        except ConnectionError:
            return b""

    async def receives_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.readline(), SOON_S)
        except TimeoutError:
            return True
        return False


async def test_data_and_the_end_of_a_connection_pass_through(echo: tuple[Echo, int], proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    client.send(b"one\n" * 50_000)
    for _ in range(50_000):
        assert await client.receive() == b"one\n"
    client.writer.write_eof()
    assert await client.receive() == b""
    await until(lambda: echo[0].ends == 1, "the server sees the end")
    await until(lambda: proxy.connections == 0, "the proxy drops the connection")


async def test_a_slow_line_delivers_everything_in_its_order(proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    proxy.set_mode(Mode.DELAY, SOON_S)
    client.send(b"one\n")
    assert await client.receives_nothing()
    client.send(b"two\n")
    proxy.heal()
    assert [await client.receive(), await client.receive()] == [b"one\n", b"two\n"]


async def test_a_cut_line_ends_connections_and_accepts_none(proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    client.send(b"one\n")
    assert await client.receive() == b"one\n"
    proxy.set_mode(Mode.CUT)
    assert await client.receive() == b""
    assert await (await Connection.to(proxy)).receive() == b""
    proxy.heal()
    again = await Connection.to(proxy)
    again.send(b"two\n")
    assert await again.receive() == b"two\n"


async def test_a_held_line_delivers_late_after_it_heals(echo: tuple[Echo, int], proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    client.send(b"one\n")
    assert await client.receive() == b"one\n"
    proxy.set_mode(Mode.HOLD)
    client.send(b"two\n")
    newcomer = await Connection.to(proxy)
    newcomer.send(b"three\n")
    assert await client.receives_nothing()
    assert echo[0].requests == [b"one\n"]
    proxy.heal()
    assert await client.receive() == b"two\n"
    assert await newcomer.receive() == b"three\n"


async def test_a_half_open_line_is_cut_when_it_heals(echo: tuple[Echo, int], proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    client.send(b"one\n")
    assert await client.receive() == b"one\n"
    proxy.set_mode(Mode.SWALLOW)
    client.send(b"two\n")
    newcomer = await Connection.to(proxy)
    newcomer.send(b"three\n")
    assert await client.receives_nothing()
    assert await newcomer.receives_nothing()
    proxy.heal()
    assert [await client.receive(), await newcomer.receive()] == [b"", b""]
    assert echo[0].requests == [b"one\n"]


async def test_a_deaf_line_delivers_requests_and_no_answers(echo: tuple[Echo, int], proxy: Proxy) -> None:
    client = await Connection.to(proxy)
    proxy.set_mode(Mode.DEAF)
    client.send(b"one\n")
    await until(lambda: echo[0].requests == [b"one\n"], "the request arrives")
    client.send(b"two\n")
    await until(lambda: echo[0].requests == [b"one\n", b"two\n"], "the next request arrives")
    assert await client.receives_nothing()
    proxy.heal()
    assert await client.receive() == b""


async def test_a_line_continues_after_some_connections_are_cut(proxy: Proxy) -> None:
    clients = [await Connection.to(proxy) for _ in range(20)]
    for client in clients:
        client.send(b"one\n")
        assert await client.receive() == b"one\n"
    cut = proxy.cut(0.5, Random(1))
    assert 0 < cut < 20
    for client in clients:
        client.send(b"two\n")
    received = [await client.receive() for client in clients]
    assert received.count(b"") == cut
    assert received.count(b"two\n") == 20 - cut


async def test_a_target_that_does_not_listen_is_skipped(echo: tuple[Echo, int]) -> None:
    nobody = await asyncio.start_server(lambda *_: None, LOOPBACK, 0)
    port = nobody.sockets[0].getsockname()[1]
    nobody.close()
    await nobody.wait_closed()
    async with Proxy("front", lambda: [Address(port), Address(echo[1])]) as proxy:
        for _ in range(4):
            client = await Connection.to(proxy)
            client.send(b"one\n")
            assert await client.receive() == b"one\n"
