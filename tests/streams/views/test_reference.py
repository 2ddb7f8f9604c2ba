"""The documents as a worker serves them."""

import json
from pathlib import Path

import pytest

from streams.access.keys import Role
from streams.reference.schemas import record_types
from tests.support.documented import check_answer
from tests.support.keys import KEYS
from tests.support.served import served
from tests.support.stack import ROOT

ROUTES = ("/docs/", "/docs/events", "/openapi.json", "/asyncapi.json", "/schemas/orders.Placed.json")


@pytest.mark.parametrize("path", ROUTES)
async def test_a_document_needs_a_key_of_any_role(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as client:
        for role in Role:
            answer = await client.get(path, headers={"Authorization": f"Bearer {KEYS[role]}"})
            assert answer.status_code == 200
            await check_answer(answer)
        refused = await client.get(path, headers={"Authorization": "", "Accept": "text/html"})
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Basic"), "a browser asks for the key"


async def test_the_document_is_that_of_the_repository(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        answer = await client.get("/openapi.json")
    assert answer.json() == json.loads((ROOT / "docs" / "openapi.json").read_text())


async def test_topics_are_those_of_the_installation(tmp_path: Path) -> None:
    async with served(tmp_path, {"DABBAWALA_TOPIC_PREFIX": "mine", "DABBAWALA_PARTITIONS": "7"}) as client:
        channel = (await client.get("/asyncapi.json")).json()["channels"]["orders"]
    assert (channel["address"], channel["bindings"]["kafka"]["partitions"]) == ("mine.orders", 7)


async def test_a_page_has_a_policy_of_its_style_and_script(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        answer = await client.get("/docs/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")


async def test_an_unknown_record_type_comes_with_the_known_ones(tmp_path: Path) -> None:
    async with served(tmp_path) as client:
        answer = await client.get("/schemas/orders.Nothing.json")
    await check_answer(answer)
    assert answer.status_code == 404
    assert all(name in answer.json()["detail"] for name in record_types())
