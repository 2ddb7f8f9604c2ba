"""Simulators serve no web pages, read only JSON, and call back only hosts that they may call."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from simulators.cli import Failure, options, serve_options
from simulators.http_server import respond, served
from simulators.ledger import Ledger, PaymentEntry
from tests.simulators.conftest import MakeSimulator
from tests.support.modes import readable_by_others
from tests.support.plain_http import JSON, NO_CERTIFICATES


async def status_of(body: bytes, headers: dict[str, str], *hosts: str) -> int:
    """Return the status of a POST to a simulator that may call back these hosts."""

    async def accept(_: web.Request) -> web.Response:
        return respond(200, {})

    async with (
        served([web.post("/", accept)], "127.0.0.1", 0, hosts) as (address, _),
        httpx.AsyncClient(verify=NO_CERTIFICATES, trust_env=False) as client,
    ):
        return (await client.post(address, content=body, headers=headers)).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JSON, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
        (JSON | {"Origin": "https://evil.example"}, 403),
        (JSON | {"Origin": "null"}, 403),
        (JSON | {"Sec-Fetch-Site": "same-origin"}, 403),
        (JSON | {"Sec-Fetch-Site": "none"}, 200),
    ],
)
async def test_pages_and_other_types_are_refused(headers: dict[str, str], status: int) -> None:
    assert await status_of(b"{}", headers) == status


@pytest.mark.parametrize(
    ("url", "hosts", "status"),
    [
        ("http://127.0.0.1:6066/v1", (), 200),
        ("http://localhost:6066/v1", (), 200),
        ("http://[::1]:6066/v1", (), 200),
        ("http://worker:6066/v1", ("worker",), 200),
        ("http://worker:6066/v1", (), 422),
        ("http://169.254.169.254/latest", ("worker",), 422),
        ("http://worker@evil.example/", ("worker",), 422),
        ("http://[::", (), 200),  # the handler refuses it
    ],
)
async def test_callbacks_go_to_allowed_hosts_alone(url: str, hosts: tuple[str, ...], status: int) -> None:
    assert await status_of(b'{"callback_url":"%s"}' % url.encode(), JSON, *hosts) == status


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"callback_url": 7}'])
async def test_other_bodies_are_left_to_the_handler(body: bytes) -> None:
    assert await status_of(body, JSON) == 200


def test_hosts_come_from_the_worker_and_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def hosts(*arguments: str) -> Any:
        parser = options("pos", "", "pos.jsonl")
        serve_options(parser, 5050)
        parsed = parser.parse_args(arguments)
        assert parsed.host == "127.0.0.1"
        return parsed.callback_host

    assert hosts() == []
    monkeypatch.setenv("DABBAWALA_URL", "http://worker:6066")
    assert hosts() == ["worker"]
    assert hosts("--callback-host", "other") == ["worker", "other"]


async def test_files_of_a_simulator_are_private(simulator: MakeSimulator, tmp_path: Path) -> None:
    party = simulator("payment")
    party.ledger = tmp_path / "ledgers" / "payment.jsonl"
    before = os.umask(0o022)
    try:
        await party.serving()
    finally:
        os.umask(before)
    assert sorted(file.name for file in (tmp_path / "ledgers").iterdir()) == ["payment.jsonl", "runs.jsonl"]
    assert readable_by_others(tmp_path / "ledgers") == []


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Failure, match="belongs to another user"):
        Ledger(tmp_path / "payment.jsonl", PaymentEntry)
