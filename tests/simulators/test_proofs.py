"""Simulated parties with secrets take only requests that prove to be the worker's."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from standardwebhooks import Webhook

from tests.simulators.conftest import MakeSimulator
from tests.support.keys import BANK, NEW_SIGNING_SECRET, SIGNING_SECRET, write_party_secrets
from tests.support.plain_http import JSON, NO_CERTIFICATES

SIGNED, UNSIGNED, KEY = "hindmata-chaat", "ballard-slice", "shop:1/prepare"


def ticket(restaurant: str) -> bytes:
    """Return the body of a ticket."""
    item = {"id": "1", "name": "Pav bhaji", "quantity": 1}
    asked = {"order": "shop:1", "restaurant": restaurant, "items": [item], "callback_url": "http://127.0.0.1:9/"}
    return msgspec.json.encode(asked)


def signature(body: bytes, secret: str = SIGNING_SECRET, late_s: float = 0.0, key: str = KEY) -> dict[str, str]:
    """Return the headers of a signature that was made `late_s` seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=late_s)
    return {
        "webhook-id": key,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(key, at, body.decode()),
    }


def post(url: str, body: bytes, key: str, headers: Mapping[str, str]) -> httpx.Response:
    own = {**JSON, "Idempotency-Key": key, **headers}
    return httpx.post(url, content=body, headers=own, verify=NO_CERTIFICATES, trust_env=False)


async def test_a_ticket_needs_a_signature_of_its_restaurant(simulator: MakeSimulator, tmp_path: Path) -> None:
    file = write_party_secrets(tmp_path / "secrets", BANK, **{SIGNED: f"{NEW_SIGNING_SECRET} {SIGNING_SECRET}"})
    pos = simulator("pos", "--speed", "0", "--secrets", str(file))
    url, body = await pos.serving(), ticket(SIGNED)
    right = signature(body)
    wrong: list[dict[str, str]] = [
        {},
        {"webhook-signature": right["webhook-signature"]},
        {**right, "webhook-signature": "nonsense"},
        {**right, "webhook-signature": "v1,!"},
        {**right, "webhook-timestamp": "soon"},
        {**right, "webhook-id": "shop:2/prepare"},
        signature(body, key="shop:2/prepare"),
        signature(body + b" "),
        signature(body, "whsec_" + "c2Vj" * 8),
        signature(body, late_s=301),
        signature(body, late_s=-400),
    ]
    for headers in wrong:
        answer = post(f"{url}/restaurants/{SIGNED}/prepare", body, KEY, headers)
        assert (answer.status_code, "sign" in answer.json()["detail"]) == (401, True), headers
    assert pos.entries() == []
    for secret in (SIGNING_SECRET, NEW_SIGNING_SECRET):
        headers = signature(body, secret, late_s=200)
        assert post(f"{url}/restaurants/{SIGNED}/prepare", body, KEY, headers).json() == {"status": "accepted"}
    open_to_all = post(f"{url}/restaurants/{UNSIGNED}/prepare", ticket(UNSIGNED), "shop:9/prepare", {})
    assert open_to_all.json() == {"status": "accepted"}


@pytest.mark.parametrize("path", ["/v1/charges", "/v1/refunds"])
async def test_payments_need_the_credentials(simulator: MakeSimulator, tmp_path: Path, path: str) -> None:
    provider = simulator("payment", "--speed", "0", "--secrets", str(write_party_secrets(tmp_path / "secrets")))
    url = await provider.serving()
    asked: dict[str, Any] = {"order": "shop:1", "amount": 1, "currency": "INR", "callback_url": "http://127.0.0.1:9/"}
    body = msgspec.json.encode(asked | ({"charge_id": "ch-1"} if path.endswith("refunds") else {}))
    for headers in ({}, {"Authorization": BANK + "x"}, {"Authorization": BANK.lower()}):
        assert post(url + path, body, "k", headers).status_code == 401
    assert provider.entries() == []
    expected = 422 if path.endswith("refunds") else 200
    assert post(url + path, body, "k", {"Authorization": BANK}).status_code == expected


async def test_a_wrong_file_of_secrets_is_named(simulator: MakeSimulator, tmp_path: Path) -> None:
    wrong = tmp_path / "secrets"
    wrong.write_text('{"restaurants": {"ballard-slice": "secret"}}')
    for file, reason in ((wrong, "/restaurants/ballard-slice: it must be"), (tmp_path / "none", "cannot be read")):
        pos = simulator("pos", "--secrets", str(file))
        pos.start()
        assert await pos.ended() == 2
        assert reason in pos.output
