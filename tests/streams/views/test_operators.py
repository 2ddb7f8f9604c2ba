"""Readings of personal data: they need a reason, and their record before there is an answer."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.test_utils import make_mocked_request

from streams.access.keys import Identity, Role
from streams.access.rules import EVERYBODY
from streams.views.api_view import ApiView
from streams.web.doorkeeper import SENDER
from streams.web.operators import action_of, sees_personal_data
from streams.web.problems import Problem
from streams.web.requests import respond
from tests.support.services import unconnected_services, view_of
from topics.audit import OperatorActed

REVEALED = "?reveal=true&reason=a%20complaint"


class Shown(ApiView):
    """A view of personal data."""

    is_personal = True

    async def get(self, request: web.Request, order: str) -> web.Response:
        return respond(200, {"order": order, "seen": sees_personal_data(request)})


def a_request(query: str, method: str = "GET", **headers: str) -> web.Request:
    return make_mocked_request(
        method, f"/v1/x/my-shop:1{query}", headers, match_info={"order": "my-shop:1"}, payload=EMPTY_PAYLOAD
    )


class Desk:
    """A view of personal data, its sender, and what it writes to the audit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sender: Identity) -> None:
        self.written: list[OperatorActed] = []
        self.problem: Problem | None = None
        services = unconnected_services()
        self.view = view_of(services, Shown, rules={"GET": EVERYBODY})

        async def admit(_: object, request: web.Request, *__: Any) -> None:
            request[SENDER] = sender

        async def write_audit(_: object, acted: OperatorActed) -> None:
            if self.problem is not None:
                raise self.problem
            self.written.append(acted)

        monkeypatch.setattr(type(services.doorkeeper), "admit", admit)
        monkeypatch.setattr(type(services.decisions), "write_audit", write_audit)

    async def ask(self, query: str, **headers: str) -> bytes:
        answer = await self.view.dispatch(a_request(query, **headers))
        assert isinstance(answer.body, bytes)
        return answer.body


ANA = Identity("ana", Role.OPERATOR, address="10.1.2.3")


async def test_a_reveal_is_recorded_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, ANA)
    assert b'"seen":true' in await desk.ask(REVEALED)
    [acted] = desk.written
    assert (acted.by, acted.address, acted.action) == ("ana", "10.1.2.3", "GET /v1/x/my-shop:1")
    assert (acted.thing, acted.reason, acted.outcome) == ("my-shop:1", "a complaint", "READ")
    assert acted.at is not None


async def test_without_its_record_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, ANA)
    desk.problem = Problem(503, "broker-silent", "Kafka is silent")
    with pytest.raises(Problem, match="Kafka is silent"):
        await desk.ask(REVEALED)
    assert b'"seen":false' in await desk.ask(""), "a masked answer needs no record"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("?reveal=true", "reason: "),
        ("?reveal=true&reason=%20", "reason: "),
        ("?reveal=true&reason=%1b[2J", "reason: remove control characters"),
        (f"?reveal=true&reason={'x' * 1001}", "reason: it must have at most 1000 characters"),
        ("?reveal=1&reason=x", "reveal=1: it must be true or false"),
    ],
)
async def test_a_reveal_needs_a_usable_reason(monkeypatch: pytest.MonkeyPatch, query: str, named: str) -> None:
    desk = Desk(monkeypatch, ANA)
    with pytest.raises(Problem) as refused:
        await desk.ask(query)
    assert (refused.value.status, refused.value.detail.startswith(named)) == (422, True), refused.value.detail
    assert not desk.written


async def test_the_worker_that_forwards_records_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch, ANA)
    assert b'"seen":true' in await desk.ask(REVEALED, **{"Dabbawala-Forwarded": "a token"})
    assert not desk.written


@pytest.mark.parametrize(("role", "seen"), [(Role.DRIVER, True), (Role.PROVIDER, False), (Role.MONITOR, False)])
async def test_others_reveal_nothing(monkeypatch: pytest.MonkeyPatch, role: Role, seen: bool) -> None:
    desk = Desk(monkeypatch, Identity("x", role))
    for query in ("", REVEALED):
        assert f'"seen":{str(seen).lower()}'.encode() in await desk.ask(query)
    assert not desk.written


def test_only_an_operator_acts() -> None:
    for role in Role:
        request = a_request("", "POST")
        request[SENDER] = Identity("x", role)
        assert (action_of(request, lambda: "1", "my-shop:1") is None) is (role is not Role.OPERATOR)
