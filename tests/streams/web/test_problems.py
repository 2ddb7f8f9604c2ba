"""Errors over HTTP: the cause of a 500 is in the log alone, and no text of a request becomes a log line or a format."""

import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from processors.decision import Outcome
from streams.logs import about_order
from streams.views.api_view import ApiView
from streams.web.deciding import to_problem
from streams.web.problems import problem_middleware
from streams.worker.order_workflow import DecisionReply
from tests.support.served import served

SECRET = "secret of the database\n2026-01-01 00:00:00 forged line"


async def test_a_failure_has_an_incident_in_answer_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dispatch(_view: ApiView, _request: Any) -> web.Response:
        raise ValueError(SECRET)

    monkeypatch.setattr(ApiView, "dispatch", dispatch)
    async with served(tmp_path) as client:
        answer = await client.get("/v1/orders/x%0Aforged%1b[2J")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "ValueError" not in answer.text
    [logged] = [record for record in caplog.records if record.name == problem_middleware.__module__]
    lines = logged.getMessage().splitlines()
    assert (
        lines[0] == f"incident {answer.json()['detail'].rpartition(' ')[2]}: GET '/v1/orders/x\\nforged\\x1b[2J' failed"
    )
    assert "ValueError: secret of the database" in logged.getMessage()
    assert all(line.startswith("  | ") for line in lines[1:])


async def test_the_log_of_a_failed_callback_has_no_capability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dispatch(_view: ApiView, _request: Any) -> web.Response:
        raise ValueError

    monkeypatch.setattr(ApiView, "dispatch", dispatch)
    async with served(tmp_path) as client:
        await client.post("/v1/callbacks/s3cr3t/payments/bank/a:1", json={})
    [logged] = [record for record in caplog.records if record.name == problem_middleware.__module__]
    assert "'/v1/callbacks/.../payments/bank/a:1'" in logged.getMessage()
    assert "s3cr3t" not in caplog.text
    assert about_order("a:1").items() <= vars(logged).items()


def test_a_failed_event_has_an_incident(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = DecisionReply(Outcome.REFUSED, f"ValueError\nforged: {SECRET}", failed=True)
        problem = to_problem(reply, "order a:1")
    assert problem.status == 500
    assert "secret" not in problem.detail
    assert problem.detail.rpartition(" ")[2] in caplog.text
    assert r"'ValueError\nforged'" in caplog.text, "in one line"
    assert "secret" not in caplog.text, "an exception may quote the record, and the dead letter has it"


@pytest.mark.parametrize("reason", ["{", "{0}", "{request.app}", "{path!r}", "{}"])
async def test_the_reason_of_an_error_is_no_format(reason: str) -> None:
    async def fail(_: web.Request) -> web.Response:
        raise web.HTTPConflict(reason=reason)

    answer: Any = await problem_middleware(web_request(), fail)
    assert reason in answer.text


def web_request() -> Any:
    """Return a request without a server."""
    return make_mocked_request("GET", "/{path}/{request.app}")


@pytest.mark.parametrize(("error", "status"), [(web.HTTPNotFound(), 404), (web.HTTPMethodNotAllowed("GET", []), 405)])
async def test_braces_in_a_path_are_shown_as_they_are(error: web.HTTPException, status: int) -> None:
    async def fail(_: web.Request) -> web.Response:
        raise error

    answer: Any = await problem_middleware(web_request(), fail)
    assert answer.status == status
    assert "/{path}/{request.app}" in answer.text
