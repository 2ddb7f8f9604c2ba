"""Views without a Kafka: their requests to other workers, and their answers to unreadable requests."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import TestServer, make_mocked_request

from streams.views import operations
from streams.views.health import Ready
from streams.web import requests
from streams.web.forwarding import FORWARD_TIMEOUT_S, Forwarding
from streams.web.problems import Problem, problem_middleware
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.services import unconnected_services, view_of
from topics.payments import READER


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
async def test_other_workers_digests_run_concurrently_and_may_take_long(
    monkeypatch: pytest.MonkeyPatch, query: str, within_s: float
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

    services = unconnected_services()
    client = httpx.AsyncClient(transport=httpx.MockTransport(other))
    services = replace(services, forwarding=Forwarding(services.engine, lambda: "http://here", lambda: client))
    monkeypatch.setattr(operations, "_own", own)
    monkeypatch.setattr(Forwarding, "other_workers", lambda _: ["http://other"])
    view = view_of(services, operations.AllTasks)
    async with asyncio.timeout(60):
        answer = await view.get(make_mocked_request("GET", f"/v1/tasks{query}", payload=EMPTY_PAYLOAD))
    assert isinstance(answer.body, bytes)
    states = [task["state"] for task in msgspec.json.decode(answer.body)["tasks"]]
    assert states == ["open", "open", "nobody's", "nobody's"]
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
    asked = view_of(services, operations.Region).get(
        make_mocked_request("GET", f"/v1/regions/{region}", payload=EMPTY_PAYLOAD), region
    )
    if found:
        assert (await asked).status == 200
        return
    with pytest.raises(Problem, match="the catalogue has no restaurant in nowhere") as problem:
        await asked
    assert problem.value.status == 404


def test_long_idempotency_keys_with_one_prefix_differ() -> None:
    def part(key: str) -> str:
        request = make_mocked_request("POST", "/", headers={"Idempotency-Key": key})
        return requests.key_part(request, lambda: "new")

    assert part("") == "new"
    assert part('"k"') == "k"
    assert part("k" * 100 + "1") != part("k" * 100 + "2")
    assert part("k" * 100) == part("k" * 100)
    assert len(part("k" * 1000)) == 64


async def test_readiness_shows_failpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    services = unconnected_services()
    monkeypatch.setattr(type(services.engine), "ready", lambda _: True)
    faulty = replace(services, settings=msgspec.structs.replace(services.settings, failpoints="committed:kill:3"))
    for each, shown in ((services, {}), (faulty, {"failpoints": "committed:kill:3"})):
        answer = await view_of(each, Ready).get(make_mocked_request("GET", "/readyz"))
        assert isinstance(answer.body, bytes)
        assert msgspec.json.decode(answer.body) == {"status": "ready", "partitions": [], **shown}
