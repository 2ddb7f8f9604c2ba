"""`dabbawala check-party` finds what does not fit the contract, and nothing in parties that keep it."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from simulators.http_server import served
from streams.cli.__main__ import program
from tests.simulators.conftest import MakeSimulator, simulator
from tests.support.keys import SIGNING_SECRET, write_party_secrets

__all__ = ["simulator"]  # a fixture of these tests too
POS_PATH = "/restaurants/hindmata-chaat"

Handler = Callable[[web.Request], Any]


async def check(kind: str, url: str, *options: str) -> tuple[int, dict[str, bool], str]:
    """Run the command; return its exit code, check -> whether it fits, and its output."""
    result = await asyncio.to_thread(CliRunner().invoke, program, ["check-party", kind, url, "--json", *options])
    lines = json.loads(result.stdout) if result.stdout.startswith("[") else []
    return result.exit_code, {line["name"]: line["fits"] for line in lines}, result.output


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--callback",),
        ("--strict", "ietf"),
        ("--strict", "stripe"),
        ("--strict", "ietf", "--callback"),
        ("--strict", "ietf", "--faults", "slow:0.2"),
    ],
)
async def test_payment_simulator_fits_in_each_mode(simulator: MakeSimulator, options: tuple[str, ...]) -> None:
    url = await simulator("payment", "--speed", "0", *options).serving()
    status, fits, output = await check("payment", url, "--amount", "50")
    assert (status, set(fits.values())) == (0, {True}), output
    assert len(fits) == 9


@pytest.mark.parametrize(
    "options", [(), ("--receive",), ("--reject", "always"), ("--strict", "ietf"), ("--strict", "stripe")]
)
async def test_pos_simulator_fits_in_each_mode(simulator: MakeSimulator, options: tuple[str, ...]) -> None:
    url = await simulator("pos", "--speed", "0", *options).serving()
    status, fits, output = await check("pos", url + POS_PATH)
    assert (status, set(fits.values())) == (0, {True}), output
    assert len(fits) == 6


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a file of secrets, which the command uses."""
    file = str(write_party_secrets(tmp_path / "secrets", **{"hindmata-chaat": SIGNING_SECRET}))
    monkeypatch.setenv("DABBAWALA_PARTY_SECRETS", file)
    return file


async def test_simulators_that_verify_proofs_fit(simulator: MakeSimulator, secrets: str) -> None:
    for kind, path, checks in (("payment", "", 10), ("pos", POS_PATH, 8)):
        url = await simulator(kind, "--speed", "0", "--secrets", secrets).serving()
        status, fits, output = await check(kind, url + path)
        assert (status, set(fits.values()), len(fits)) == (0, {True}, checks), output


@pytest.mark.usefixtures("secrets")
async def test_parties_that_take_any_request_are_found(simulator: MakeSimulator) -> None:
    unproven, outdated = "a request without its proof is refused", "a ticket with an old signature is refused"
    for kind, path, misfits in (("payment", "", {unproven}), ("pos", POS_PATH, {unproven, outdated})):
        url = await simulator(kind, "--speed", "0").serving()
        status, fits, output = await check(kind, url + path)
        assert (status, {name for name, fit in fits.items() if not fit}) == (1, misfits), output


async def test_a_file_of_secrets_that_others_read_is_refused(secrets: str) -> None:
    os.chmod(secrets, 0o644)
    status, _, output = await check("pos", "http://127.0.0.1:9")
    assert status == 2
    assert output.count("\n") == 1
    assert f"chmod 600 {secrets}" in output


async def test_amount_that_the_provider_refuses_does_not_fit(simulator: MakeSimulator) -> None:
    url = await simulator("payment", "--speed", "0", "--strict", "stripe").serving()
    status, fits, _ = await check("payment", url, "--amount", "1")
    assert (status, fits["a charge is made"]) == (1, False)


def charging(charge_id: Callable[[web.Request, int], str]) -> Handler:
    """Return a provider that charges on every request, under these ids."""
    count = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        asked = await request.json()
        if request.path.endswith("refunds"):
            return web.json_response({}, status=200 if count % 2 else 422)
        body = {"charge_id": charge_id(request, count), "amount": asked["amount"], "currency": asked["currency"]}
        return web.json_response(body)

    return handle


async def rejects(_: web.Request) -> web.Response:
    """Reject without a status in the body."""
    return web.json_response({"reason": "closed"}, status=422)


def changes_its_mind() -> Handler:
    answers = [(200, {"status": "accepted"}), (409, {"status": "rejected", "reason": "known already"})]

    async def handle(_: web.Request) -> web.Response:
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        return web.json_response(body, status=status)

    return handle


@pytest.mark.parametrize(
    ("kind", "handler", "misfits"),
    [
        (
            "payment",
            charging(lambda _, count: f"ch-{count}"),
            {
                "the same request again has the same result",
                "another amount under the key charges nothing",
                "the key keeps its result after that",
                "5 equal requests at once have one result",
                "the same refund again has the same result",
            },
        ),
        (
            "payment",
            charging(lambda request, _: request.headers["Idempotency-Key"][12:20]),
            {"another amount under the key charges nothing", "the same refund again has the same result"},
        ),
        ("pos", rejects, {"a ticket is accepted, rejected or received"}),
        (
            "pos",
            changes_its_mind(),
            {
                "the same ticket again has the same result",
                "another ticket under the key decides nothing",
                "the key keeps its result after that",
            },
        ),
    ],
    ids=["no idempotency", "ignores the amount", "bare rejection", "rejects a repeat"],
)
async def test_parties_that_break_the_contract_are_found(kind: str, handler: Handler, misfits: set[str]) -> None:
    async with served([web.post("/{path:.*}", handler)], "127.0.0.1", 0, ()) as (url, _):
        status, fits, output = await check(kind, url)
    assert status == 1
    assert {name for name, fit in fits.items() if not fit} >= misfits, output


async def test_party_that_does_not_answer_is_one_sentence() -> None:
    status, fits, output = await check("pos", "http://127.0.0.1:9")
    assert (status, fits) == (2, {})
    assert output.count("\n") == 1
    assert "does not answer" in output


def test_table_is_printed_for_people() -> None:
    result = CliRunner().invoke(program, ["check-party", "payment", "http://127.0.0.1:9", "--header", "nonsense"])
    assert (result.exit_code, "NAME:VALUE" in result.output) == (2, True)
