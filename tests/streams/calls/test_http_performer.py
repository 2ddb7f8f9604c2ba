"""A call ends in time, with an answer of limited size or an error, in any state of the connection."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from exactly_once import Completed, Health, Retry, Unsettled
from processors.call_kinds import CallKind
from processors.call_results import NOT_SENT
from processors.decision import Call
from processors.requests import ChargeRequest, PrepareRequest, RefundRequest
from streams.calls import http_performer as module
from streams.calls.http_performer import (
    ANSWERS,
    MAX_BODY_BYTES,
    QUICK_ATTEMPTS,
    SLOW_RETRY_S,
    HttpPerformer,
    row_of,
)

Party = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KEY, US = "shop:1/charge", "http://us"
CHARGE = row_of(Call(KEY, CallKind.CHARGE, ChargeRequest(order="shop:1", amount=1, currency="INR")), US, "bank")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def prepare(restaurant: str, pos_url: str) -> bytes:
    """Return the row of a call to a restaurant."""
    asked = PrepareRequest(
        order="shop:1", restaurant=restaurant, pos_url=pos_url, display_number="1", items=(), note=""
    )
    return row_of(Call("shop:1/prepare", CallKind.PREPARE, asked), US, "bank")


@asynccontextmanager
async def calling(party: Party) -> AsyncIterator[HttpPerformer]:
    """Provide a performer whose calls reach this party."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await party(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, backlog=500)
    port = server.sockets[0].getsockname()[1]
    performer = HttpPerformer(f"http://127.0.0.1:{port}", "bank", lambda _: "c")
    try:
        yield performer
    finally:
        await performer.close()
        server.close()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def trickles_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def trickles_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def never_ends(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


async def announces_more(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 100\r\n\r\n{}")


async def garbles(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTP/7 what?\r\n\r\n")


async def hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection without an answer."""


async def answers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = b'{"reason": "caf\xc3\xa9 \xff"}'
    writer.write(b"HTTP/1.1 402 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the performer time out quickly."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.5)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the performer wait so long that no test passes because of a time-out."""
    monkeypatch.setattr(module, "TIMEOUT_S", 300.0)
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 300.0)


@pytest.mark.parametrize(
    ("wish", "after_s"), [(b"7", 7.0), (b"0", None), (b"86400", 600.0), (b"soon", None), (b"\xb2", None)]
)
async def test_retry_after_is_respected_within_limits(wish: bytes, after_s: float | None) -> None:
    async def busy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + wish + b"\r\n\r\n")

    async with calling(busy) as performer:
        answer = await performer.perform(KEY.encode(), CHARGE, 1)
    assert isinstance(answer, Retry)
    assert (answer.after_s, answer.last_error[-10:]) == (after_s, "status 503")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("party", [silent, trickles_headers, trickles_body])
async def test_a_slow_answer_times_out_even_while_bytes_arrive(party: Party) -> None:
    async with calling(party) as performer, asyncio.timeout(60):
        answer = await performer.perform(KEY.encode(), CHARGE, 1)
    assert isinstance(answer, Retry)
    assert answer.last_error.endswith("/v1/charges: no answer within 0.5 s")


@pytest.mark.usefixtures("patient")
async def test_an_endless_answer_is_read_up_to_the_limit() -> None:
    async with calling(never_ends) as performer, asyncio.timeout(60):
        answer = await performer.perform(KEY.encode(), CHARGE, QUICK_ATTEMPTS)
    assert isinstance(answer, Unsettled), "no body of that kind is a charge"
    assert ANSWERS.decode(answer.result).body == "x" * MAX_BODY_BYTES


@pytest.mark.parametrize("party", [announces_more, garbles, hangs_up])
async def test_an_incomplete_answer_is_retried(party: Party) -> None:
    async with calling(party) as performer:
        answer = await performer.perform(KEY.encode(), CHARGE, 1)
    assert isinstance(answer, Retry)
    assert "/v1/charges: " in answer.last_error


async def test_an_answer_of_any_bytes_becomes_text() -> None:
    async with calling(answers) as performer:
        answer = await performer.perform(KEY.encode(), CHARGE, 1)
    assert isinstance(answer, Completed)
    assert msgspec.json.decode(ANSWERS.decode(answer.result).body) == {"reason": "café \ufffd"}


@pytest.mark.usefixtures("patient")
async def test_hanging_connections_do_not_block_new_ones() -> None:
    calls = 0

    async def only_the_last_is_answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await (silent if calls <= 150 else answers)(reader, writer)

    async with calling(only_the_last_is_answered) as performer, asyncio.timeout(60):
        hung = [asyncio.create_task(performer.perform(b"%d" % n, CHARGE, 1)) for n in range(150)]
        while calls < 150:  # noqa: ASYNC110 - it is the other side that counts
            await asyncio.sleep(0.01)
        assert isinstance(await performer.perform(KEY.encode(), CHARGE, 1), Completed)
        for each in hung:
            each.cancel()
        await asyncio.gather(*hung, return_exceptions=True)


@pytest.mark.usefixtures("patient")
async def test_hanging_name_lookups_do_not_block_others(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, looked_up = threading.Event(), []
    getaddrinfo = socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        looked_up.append(host)
        if host.startswith("silent"):
            answered.wait()
            raise socket.gaierror("no such name")
        return getaddrinfo("127.0.0.1" if host == "well.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with calling(answers) as performer, asyncio.timeout(60):
        silent_ones = [prepare("x", f"http://silent-{number}.test") for number in range(50)]
        hung = [asyncio.create_task(performer.perform(b"shop:1/prepare", request, 1)) for request in silent_ones]
        try:
            while len(looked_up) < len(hung):  # noqa: ASYNC110 - a thread does it
                await asyncio.sleep(0.01)
            request = prepare("x", performer.url(CHARGE).replace("127.0.0.1", "well.test").removesuffix("/v1/charges"))
            answered_well = await performer.perform(b"shop:1/prepare", request, 1)
            assert isinstance(answered_well, Retry)
            assert answered_well.health is Health.ANSWERS
        finally:
            answered.set()
        for each in hung:
            assert isinstance(await each, Retry)


def test_restaurants_charges_and_refunds_have_own_destinations() -> None:
    performer = HttpPerformer("http://bank", "bank", lambda _: "c")
    asked = RefundRequest(order="shop:1", charge_id="c", amount=1, currency="INR")
    refund = row_of(Call("k", CallKind.REFUND, asked), US, "bank")
    whom = [
        performer.destination_of(request)
        for request in (
            CHARGE,
            refund,
            prepare("thali", "http://vendor/restaurants/thali"),
            prepare("pizza", "http://vendor/restaurants/pizza"),
            prepare("dosa", "http://vendor/all"),
            prepare("idli", "http://vendor/all"),
            prepare("dosa", "http://elsewhere/all"),
        )
    ]
    assert len({each.party for each in whom}) == len(whom)
    assert [each.host for each in whom] == ["bank", "bank", "vendor", "vendor", "vendor", "vendor", "elsewhere"]
    assert whom[0].party == "bank http://bank/v1/charges"
    assert whom[2].party == "thali http://vendor/restaurants/thali/prepare"


# -- one request, whichever worker makes it ----------------------------------------------------------------------------


@asynccontextmanager
async def recording(status: bytes, body: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """Provide the address of a party that keeps the requests it receives, and these."""
    received: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        received.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, backlog=500)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received
    finally:
        server.close()


async def test_two_workers_send_equal_bytes_for_one_row() -> None:
    """A provider compares the bodies under one key: a worker that moves must not change its own address in them."""
    async with recording(b"500 No") as (url, received):
        row = prepare("thali", f"{url}/thali")
        for _ in ("the worker that requested the call", "another worker with another address"):
            performer = HttpPerformer(url, "bank", lambda _: "c")
            for request, key in ((CHARGE, KEY), (row, "shop:1/prepare")):
                await performer.perform(key.encode(), request, 1)
            await performer.close()
    charge, ticket = msgspec.json.decode(received[0]), msgspec.json.decode(received[1])
    assert received[:2] == received[2:]
    assert charge["callback_url"] == f"{US}/v1/callbacks/c/payments/bank/shop:1"
    assert ticket["callback_url"] == f"{US}/v1/callbacks/c/pos/thali/shop:1"
    assert "pos_url" not in ticket
    assert b"/callbacks/c/" not in row + CHARGE, "no row has the proof itself"


# -- failures of this side ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "pos_url"),
    [
        ("shop:1\n/prepare", ""),
        ("shop:1\x00/prepare", ""),
        ("shop:\udcff/prepare", ""),
        ("shop:1/prepare", "ftp://127.0.0.1:1"),
        ("shop:1/prepare", "http://[::1"),
        ("shop:1/prepare", "http://127.0.0.1:99999999"),
        ("shop:1/prepare", "no url at all"),
        ("shop:1/prepare", "http://user:password@127.0.0.1:1\n"),
    ],
)
async def test_an_unwritable_request_is_no_failure_of_the_party(key: str, pos_url: str) -> None:
    performer = HttpPerformer("http://bank", "bank", lambda _: "c")
    async with recording(b"200 OK") as (url, received):
        answer = await performer.perform(key.encode(errors="surrogateescape"), prepare("thali", pos_url or url), 1)
    await performer.close()
    assert not received
    assert isinstance(answer, Unsettled)
    assert (answer.health, answer.after_s) == (Health.UNKNOWN, SLOW_RETRY_S)
    assert ANSWERS.decode(answer.result).status == NOT_SENT


async def test_a_bug_in_the_performer_is_no_failure_of_the_party(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(module, "attempt_span", broken)
    answer = await HttpPerformer("http://bank", "bank", lambda _: "c").perform(KEY.encode(), CHARGE, 1)
    assert isinstance(answer, Unsettled)
    assert answer.health is Health.UNKNOWN


# -- answers that end no call ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "attempt", "kind"),
    [
        (b"202 Later", 1, Retry),
        (b"202 Later", 50, Retry),
        (b"409 Outstanding", 50, Retry),
        (b"400 Odd", 1, Retry),
        (b"400 Odd", QUICK_ATTEMPTS, Unsettled),
        (b"422 Odd", 50, Unsettled),
        (b"402 No", 1, Completed),
    ],
)
async def test_an_answer_without_a_result_leaves_the_call_open(status: bytes, attempt: int, kind: type) -> None:
    async with recording(status) as (url, _):
        performer = HttpPerformer(url, "bank", lambda _: "c")
        answer = await performer.perform(KEY.encode(), CHARGE, attempt)
        await performer.close()
    assert type(answer) is kind
    if not isinstance(answer, Completed):
        assert answer.health is Health.ANSWERS, "the party works"
    if isinstance(answer, Unsettled):
        assert answer.after_s == SLOW_RETRY_S
