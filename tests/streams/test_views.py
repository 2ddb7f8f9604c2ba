"""Views without a Kafka: what they ask of other workers, and what they say to requests that cannot be read."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import make_mocked_request

import streams.app
from streams.views import ask, operations


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
