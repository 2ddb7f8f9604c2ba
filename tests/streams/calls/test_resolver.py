"""Look-ups of silent names leave threads for the other names."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from streams.calls.resolver import MAX_DOMAIN_THREADS, ThreadedResolver


class Names:
    """Name servers of which those of `silent.test` do not answer."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.asked: list[str] = []

    def look_up(self, host: str, port: int, **_: Any) -> list[Any]:
        """Stand in for ``socket.getaddrinfo``."""
        self.asked.append(host)
        if host.endswith("silent.test"):
            self.answered.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    yield made
    made.answered.set()


async def test_a_silent_domain_gets_two_threads_although_callers_give_up(names: Names) -> None:
    resolver = ThreadedResolver()
    for number in range(20):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await resolver.resolve(f"thali-{number}.silent.test", 80)
    assert len(names.asked) == MAX_DOMAIN_THREADS
    assert (await resolver.resolve("thali.well.test", 80))[0]["host"] == "192.0.2.1"
    names.answered.set()
    assert await resolver.resolve("pizza.silent.test", 80), "the places are free again"
    await resolver.close()


async def test_the_reserved_host_waits_for_nobody(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.calls.resolver.MAX_THREADS", 1)
    resolver = ThreadedResolver(["bank.test"])
    hung = asyncio.create_task(resolver.resolve("thali.silent.test", 80))
    while not names.asked:  # noqa: ASYNC110 - a thread does it
        await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        assert await resolver.resolve("bank.test", 443)
    names.answered.set()
    await hung
    await resolver.close()
