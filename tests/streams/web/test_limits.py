"""Limits of a worker: places for streams and hashes, turns for scans, pages by rows looked at, connections."""

import asyncio
import resource
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from aiohttp import web

from exactly_once.faust.http_server import BoundedRunner, raise_descriptor_limit
from streams.views import ROUTES
from streams.web import limits
from streams.web.limits import CUT, FIRST_LIMIT, LEAST_LIMIT, MAX_SCANS, MOST_LIMIT, Backlog, Limits, Places
from streams.web.problems import Problem


def test_a_request_without_a_place_is_refused_at_once() -> None:
    places = Places(2, "streams")
    with ExitStack() as taken:
        taken.enter_context(places.take("a"))
        with pytest.raises(ZeroDivisionError), places.take("b"):
            raise ZeroDivisionError
        taken.enter_context(places.take("b"))
        with pytest.raises(Problem, match="as many streams as it can") as refused, places.take("c"):
            pass
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    with places.take("a"), places.take("c"):
        pass


def test_a_holder_has_half_of_the_places() -> None:
    places = Places(4, "streams")
    with places.take("greedy"), places.take("greedy"):
        with pytest.raises(Problem, match="the key greedy has 2 streams open") as refused, places.take("greedy"):
            pass
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        with places.take("other"):
            pass
    with places.take("greedy"):
        pass


class Clocked:
    """A backlog whose decisions take the time that a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backlog = Backlog(in_time_s=0.5)
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    def accept_all(self, partition: int = 1) -> ExitStack:
        """Accept requests until one is refused."""
        accepted = ExitStack()
        with pytest.raises(Problem, match="more requests for partition 1") as refused:
            self._accept(partition, accepted)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        return accepted

    def _accept(self, partition: int, accepted: ExitStack) -> None:
        while True:
            accepted.enter_context(self.backlog.wait(partition))

    def accepted(self) -> int:
        """Return the number of requests that would be accepted now."""
        return int(self.backlog._limits[1])

    def decide(self, rounds: int, took_s: float) -> None:
        """Accept as many requests as possible, and decide them together after this time."""
        for _ in range(rounds):
            accepted = self.accept_all()
            self.now += took_s
            accepted.close()


async def test_slow_decisions_let_fewer_requests_in(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Clocked(monkeypatch)
    assert task.accepted() == FIRST_LIMIT
    task.decide(1, took_s=2)
    assert task.accepted() == int(FIRST_LIMIT * CUT), "requests of one round cut the limit once"
    task.decide(20, took_s=2)
    assert task.accepted() == LEAST_LIMIT
    with task.accept_all(), task.backlog.wait(2):
        pass  # another partition is not affected
    task.decide(10, took_s=0.1)
    assert task.accepted() == pytest.approx(LEAST_LIMIT + 5, abs=2), "rounds in time raise it one by one"


async def test_decisions_in_time_let_more_requests_in(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Clocked(monkeypatch)
    task.decide(1, took_s=0.1)
    assert FIRST_LIMIT + 4 < task.accepted() <= FIRST_LIMIT * 2, "each decision raises it"
    task.decide(20, took_s=0.1)
    assert task.accepted() == MOST_LIMIT
    task.decide(1, took_s=2)
    assert task.accepted() == int(MOST_LIMIT * CUT)


async def test_a_limit_that_is_not_reached_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Clocked(monkeypatch)
    for _ in range(1000):
        with task.backlog.wait(1):
            task.now += 0.1
    assert task.accepted() == FIRST_LIMIT


async def test_scans_take_turns_and_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Limits()
    async with AsyncExitStack() as running:
        for _ in range(MAX_SCANS):
            await running.enter_async_context(worker.scan("ops"))
        waiting = asyncio.create_task(_scanned(worker))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        monkeypatch.setattr(limits, "MAX_SCAN_WAIT_S", 0.01)
        with pytest.raises(Problem, match="reads tables for others"):
            await _scanned(worker)
    assert await waiting


async def _scanned(worker: Limits) -> bool:
    async with worker.scan("ops"):
        return True


def test_every_list_takes_turns() -> None:
    lists = {
        path for path, view in ROUTES.items() if "GET" in _methods(view) and '[...], "next"' in (view.get.__doc__ or "")
    }
    assert len(lists) == 6
    assert not [path for path in lists if not ROUTES[path].scans]
    assert ROUTES["/table/{name}/"].scans
    assert ROUTES["/v1/regions/{region}"].scans


def _methods(view: Any) -> set[str]:
    return {name.upper() for name in ("get", "post") if name in view.__dict__}


async def test_connections_beyond_the_limit_get_503() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="served")

    application = web.Application()
    application.router.add_get("/", answer)
    runner = BoundedRunner(application, max_connections=3, access_log=None, keepalive_timeout=75.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return (await reader.readline()).split()[1]

    try:
        held = [await connect() for _ in range(3)]
        assert [await status(*each) for each in held] == [b"200"] * 3
        refused = await connect()
        assert await status(*refused) == b"503"
        assert b"Connection: close" in await refused[0].read()
        for each in held:
            assert await status(*each) != b"503", "a connection that is served stays so"
            each[1].close()
        async with asyncio.timeout(60):
            while await status(*(await connect())) == b"503":  # noqa: ASYNC110 - the server closes in its time
                await asyncio.sleep(0.01)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("soft", "hard", "limit"),
    [
        (1024, 4096, 4096),
        (1024, 1_048_576, 65_536),
        (100_000, 1_048_576, 100_000),
        (256, resource.RLIM_INFINITY, 65_536),
    ],
)
def test_the_limit_of_open_files_is_raised(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, limit: int) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    assert raise_descriptor_limit() == limit
    assert set_to == ([] if limit == soft else [(limit, hard)])
