"""Views without a Kafka: their requests to other workers, and their answers to unreadable requests."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import TestServer, make_mocked_request
from multidict import CIMultiDict

from processors.order import Order, Stage
from streams.access.keys import Identity, Role
from streams.views import dead_letters, feed, operations, orders
from streams.views.health import Ready
from streams.views.orders import _refuse_unknown_fields
from streams.web import requests
from streams.web.doorkeeper import SENDER
from streams.web.forwarding import FORWARD_TIMEOUT_S, Forwarding
from streams.web.problems import Problem, problem_middleware
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.services import unconnected_services, view_of
from topics.order_updates import OrderUpdated
from topics.payments import READER
from topics.places import Position


def admitted(method: str, path: str) -> web.Request:
    """Return a request of an operator whom the doorkeeper has admitted."""
    request = make_mocked_request(method, path, payload=EMPTY_PAYLOAD)
    request[SENDER] = Identity("ana", Role.OPERATOR)
    return request


async def test_a_body_that_contradicts_its_headers_is_a_bad_request() -> None:
    async def place(request: web.Request) -> web.Response:
        return requests.respond(200, msgspec.to_builtins(await requests.read_body(request, READER)))

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_post("/", place)
    async with TestServer(app) as server, httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        answer = await client.post(str(server.make_url("/")), content=b"{}", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["detail"] == "the body is not what its headers say: Can not decode content-encoding: gzip"


@pytest.mark.parametrize(("query", "within_s"), [("", FORWARD_TIMEOUT_S), ("?hash=true", operations.HASH_TIMEOUT_S)])
async def test_digests_run_concurrently_and_may_take_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, query: str, within_s: float
) -> None:
    asked = asyncio.Event()
    allowed_s: list[float] = []

    async def other(request: httpx.Request) -> httpx.Response:
        allowed_s.append(request.extensions["timeout"]["read"])
        asked.set()
        return httpx.Response(200, json={"workers": [], "tasks": [{"partition": 1, "state": "open"}]})

    async def own(_services: object, _hashed: bool) -> dict[str, list[dict[str, Any]]]:
        await asked.wait()
        return {"workers": [], "tasks": [{"partition": 0, "state": "open"}]}

    (tmp_path / "secret").write_text("s" * 32)
    services = unconnected_services(DABBAWALA_DIR=str(tmp_path))
    client = httpx.AsyncClient(transport=httpx.MockTransport(other))
    forwarding = Forwarding(services.engine, services.doorkeeper, lambda: "http://here", lambda: client)
    services = replace(services, forwarding=forwarding)
    monkeypatch.setattr(operations, "_own", own)
    monkeypatch.setattr(Forwarding, "other_workers", lambda _: ["http://other"])
    view = view_of(services, operations.AllTasks)
    async with asyncio.timeout(60):
        answer = await view.get(admitted("GET", f"/v1/tasks{query}"))
    assert isinstance(answer.body, bytes)
    states = [task["state"] for task in msgspec.json.decode(answer.body)["tasks"]]
    assert states == ["open", "open", "unassigned", "unassigned"]
    assert allowed_s == [within_s]


@pytest.mark.parametrize(("region", "waiting", "found"), [("fort", 0, True), ("nowhere", 0, False), ("left", 1, True)])
async def test_a_region_exists_with_a_restaurant_or_a_waiting_party(
    monkeypatch: pytest.MonkeyPatch, region: str, waiting: int, found: bool
) -> None:
    async def here(_: Forwarding, _request: web.Request, _region: str) -> None:
        return None

    async def counted(_services: object, _region: str, *_rest: object) -> tuple[int, list[object]]:
        return waiting, []

    services = unconnected_services()
    monkeypatch.setattr(Forwarding, "forward_to_owner", here)
    monkeypatch.setattr(operations, "_counted", counted)
    monkeypatch.setattr(services.catalogue, "all", lambda: [SimpleNamespace(region="fort")])
    asked = view_of(services, operations.Region).get(admitted("GET", f"/v1/regions/{region}"), region)
    if found:
        assert (await asked).status == 200
        return
    with pytest.raises(Problem, match="the catalogue has no restaurant in nowhere") as problem:
        await asked
    assert problem.value.status == 404


def with_key(*keys: str) -> Any:
    """Return a request with these `Idempotency-Key` headers."""
    return make_mocked_request("POST", "/", headers=CIMultiDict([("Idempotency-Key", key) for key in keys]))


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"8e03978e-40d5"', "8e03978e-40d5"),
        ("8e03978e-40d5", "8e03978e-40d5"),
        ("my-shop:1001/place", "my-shop:1001/place"),
        ('"a b, c=d;e"', "a b, c=d;e"),
        (r'"say \"hi\" \\ "', r'say "hi" \ '),
        ('"' + "k" * 255 + '"', "k" * 255),
        ('"' + r"\\" * 255 + '"', "\\" * 255),
    ],
)
def test_a_key_is_a_string_or_a_token(header: str, key: str) -> None:
    assert requests.idempotency_key(with_key(header)) == key


@pytest.mark.parametrize(
    "headers",
    [
        ("",),
        ('""',),
        ('"',),
        ('"a',),
        ('a"',),
        ('""a""',),
        ('"a";x=1',),
        ("a;x=1",),
        ("a b",),
        ("a, b",),
        ("(a)",),
        (r'"\a"',),
        ('"a\\"',),
        ('"a\tb"',),
        ('"caf\u00e9"',),
        ("caf\u00e9",),
        ("k" * 256,),
        ('"' + "k" * 256 + '"',),
        ("a", "b"),
        ("a", "a"),
    ],
)
def test_any_other_key_is_refused_with_advice(headers: tuple[str, ...]) -> None:
    with pytest.raises(Problem, match="Idempotency-Key: it must be 1 to 255 printable ASCII characters") as problem:
        requests.idempotency_key(with_key(*headers))
    assert problem.value.status == 400


async def test_requests_with_one_key_are_decided_one_at_a_time() -> None:
    decisions = unconnected_services().decisions
    with decisions.one_at_a_time("my-shop:1"):
        with decisions.one_at_a_time("my-shop:2"):
            pass
        with pytest.raises(Problem, match="is under way") as problem, decisions.one_at_a_time("my-shop:1"):
            pass
    assert (problem.value.status, problem.value.headers) == (409, {"Retry-After": "1"})
    with pytest.raises(KeyError), decisions.one_at_a_time("my-shop:1"):
        raise KeyError
    with decisions.one_at_a_time("my-shop:1"):
        pass


def test_long_idempotency_keys_with_one_prefix_differ() -> None:
    def part(*keys: str) -> str:
        return requests.key_part(with_key(*keys), lambda: "new")

    assert part() == "new"
    assert part('"k"') == "k"
    assert part("k" * 100 + "1") != part("k" * 100 + "2")
    assert part("k" * 100) == part("k" * 100)
    assert len(part("k" * 255)) == 64


@pytest.mark.parametrize(("partition", "offset"), [("9", "9"), ("x", "1"), ("0", "-1"), ("0", "9" * 30)])
def test_id_that_is_no_dead_letter_comes_with_the_form_of_ids(partition: str, offset: str) -> None:
    with pytest.raises(Problem) as raised:
        dead_letters._place(unconnected_services(), partition, offset)
    assert raised.value.status == 404
    assert raised.value.detail == (
        f"there is no dead letter {partition}/{offset}: an id is PARTITION/OFFSET, with a partition from 0 to 3"
    )


def an_order(stage: Stage, eta_ms: int | None, driver: str | None = None) -> Order:
    place = Position(lat=18.9, lon=72.8)
    return Order(
        id="my-shop:1",
        stage=stage,
        body_hash="",
        placed_ms=0,
        updated_ms=0,
        restaurant="r",
        region="fort",
        pos_url="http://pos",
        pickup=place,
        dropoff=place,
        preparation_ms=0,
        travel_ms=0,
        start_ms=0,
        eta_ms=eta_ms,
        driver=driver,
    )


@pytest.mark.parametrize(
    ("eta_ms", "stage", "expected"),
    [
        (12_000, Stage.IN_DELIVERY, (datetime.fromtimestamp(12, UTC), 2, False)),
        (10_000, Stage.IN_DELIVERY, (datetime.fromtimestamp(10, UTC), 0, False)),
        (7_000, Stage.IN_DELIVERY, (datetime.fromtimestamp(7, UTC), None, True)),
        (7_000, Stage.DELIVERED, (None, None, False)),
        (None, Stage.IN_DELIVERY, (None, None, False)),
    ],
)
def test_order_past_its_eta_is_late(eta_ms: int | None, stage: Stage, expected: tuple[object, ...]) -> None:
    assert orders._eta(an_order(stage, eta_ms), 10_000) == expected


def test_unknown_fields_of_an_order_are_refused_by_name() -> None:
    with pytest.raises(Problem) as refused:
        _refuse_unknown_fields({"deliverAt": 1, "customer": {"x\x1b": 1}, "fulfilment": "pickup"})
    assert refused.value.status == 422
    assert [error.pointer for error in refused.value.errors] == ["/deliverAt", "/customer/x\\u001b", "/fulfilment"]
    assert "is `deliver_at` meant?" in refused.value.errors[0].detail


def test_older_clients_may_say_that_an_order_is_a_delivery() -> None:
    _refuse_unknown_fields({"type": "Placed", "id": "x", "fulfilment": "delivery", "deliver_at": None})


def test_refusal_of_very_many_unknown_fields_is_short() -> None:
    with pytest.raises(Problem) as refused:
        _refuse_unknown_fields({"x" * 1000 + str(number): 1 for number in range(500)})
    assert len(refused.value.detail) < 10_000


async def test_readiness_shows_failpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    services = unconnected_services()
    monkeypatch.setattr(type(services.engine), "ready", lambda _: True)
    faulty = replace(services, settings=msgspec.structs.replace(services.settings, failpoints="committed:kill:3"))
    for each, shown in ((services, {}), (faulty, {"failpoints": "committed:kill:3"})):
        answer = await view_of(each, Ready).get(make_mocked_request("GET", "/readyz"))
        assert isinstance(answer.body, bytes)
        assert msgspec.json.decode(answer.body) == {"status": "ready", "partitions": [], **shown}


@pytest.mark.parametrize(("role", "knows"), [(Role.OPERATOR, True), (Role.PROVIDER, False)])
def test_only_operators_see_the_id_of_an_order_s_driver(tmp_path: Path, role: Role, knows: bool) -> None:
    (tmp_path / "secret").write_text("s" * 32)
    services = unconnected_services(DABBAWALA_DIR=str(tmp_path))
    row = an_order(Stage.IN_DELIVERY, None, "asha")
    shown = orders._driver(services, row, Identity("ana", role, "my-shop"))
    assert shown == ("asha" if knows else services.tokens.pseudonym(row.id, "asha"))


async def test_feed_of_an_order_starts_without_the_driver_s_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Opened(Exception):
        """The feed was opened."""

    async def row(*_: object) -> Order:
        return an_order(Stage.IN_DELIVERY, None, "asha")

    def of_order(*_: object, snapshot: OrderUpdated, **__: object) -> None:
        raise Opened(snapshot.driver)

    (tmp_path / "secret").write_text("s" * 32)
    services = unconnected_services(DABBAWALA_DIR=str(tmp_path))
    monkeypatch.setattr(feed, "_row", row)
    monkeypatch.setattr(services.feed, "of_order", of_order)
    with pytest.raises(Opened, match=services.tokens.pseudonym("my-shop:1", "asha")):
        await view_of(services, feed.OrderEvents).get(admitted("GET", "/v1/orders/my-shop:1/events"), "my-shop:1")
