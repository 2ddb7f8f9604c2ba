"""Views without a Kafka: what they ask of other workers, and what they say to requests that cannot be read."""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import TestServer, make_mocked_request

import streams.app
from streams.problems import Problem, problem_middleware
from streams.views import ask, operations
from topics.payments import READER


async def test_a_body_that_is_not_what_its_headers_say_is_a_fault_of_the_request() -> None:
    async def place(request: web.Request) -> web.Response:
        return ask.respond(200, msgspec.to_builtins(await ask.read_body(request, READER)))

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_post("/", place)
    async with TestServer(app) as server, httpx.AsyncClient() as client:
        answer = await client.post(str(server.make_url("/")), content=b"{}", headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json()["detail"] == "the body is not what its headers say: Can not decode content-encoding: gzip"


@pytest.mark.parametrize(("query", "within_s"), [("", ask.PROXY_S), ("?hash=true", operations.HASHED_S)])
async def test_the_tasks_of_others_are_hashed_meanwhile_and_for_as_long_as_that_takes(
    monkeypatch: pytest.MonkeyPatch, query: str, within_s: float
) -> None:
    asked = asyncio.Event()
    allowed_s: list[float] = []

    async def other(request: httpx.Request) -> httpx.Response:
        allowed_s.append(request.extensions["timeout"]["read"])
        asked.set()
        return httpx.Response(200, json={"workers": [], "tasks": [{"partition": 1, "state": "open"}]})

    async def own(_hashed: bool) -> dict[str, list[dict[str, Any]]]:
        await asked.wait()
        return {"workers": [], "tasks": [{"partition": 0, "state": "open"}]}

    monkeypatch.setattr(ask, "_client", lambda: httpx.AsyncClient(transport=httpx.MockTransport(other)))
    monkeypatch.setattr(operations, "_own", own)
    monkeypatch.setattr(operations, "other_workers", lambda: ["http://other"])
    view = operations.AllTasks(streams.app.app, streams.app.app.web)
    async with asyncio.timeout(5):
        answer = await view.get(make_mocked_request("GET", f"/v1/tasks{query}", payload=EMPTY_PAYLOAD))
    assert isinstance(answer.body, bytes)
    states = [task["state"] for task in msgspec.json.decode(answer.body)["tasks"]]
    assert states == ["open", "open", "nobody's", "nobody's"]
    assert allowed_s == [within_s]


@pytest.mark.parametrize(("region", "waiting", "found"), [("fort", 0, True), ("nowhere", 0, False), ("left", 1, True)])
async def test_a_region_is_there_if_a_restaurant_is_in_it_or_somebody_waits(
    monkeypatch: pytest.MonkeyPatch, region: str, waiting: int, found: bool
) -> None:
    async def here(_request: web.Request, _region: str) -> None:
        return None

    async def counted(_region: str, *_rest: object) -> tuple[int, list[object]]:
        return waiting, []

    monkeypatch.setattr(operations, "elsewhere", here)
    monkeypatch.setattr(operations, "_counted", counted)
    monkeypatch.setattr(streams.app.catalogue, "all", lambda: [SimpleNamespace(region="fort")])
    asked = operations.Region(streams.app.app, streams.app.app.web).get(
        make_mocked_request("GET", f"/v1/regions/{region}", payload=EMPTY_PAYLOAD), region
    )
    if found:
        assert (await asked).status == 200
        return
    with pytest.raises(Problem, match="the catalogue has no restaurant in nowhere") as problem:
        await asked
    assert problem.value.status == 404
