"""A wrong secret delays an order and loses nothing, and no secret reaches a table, a topic, a log or a ledger."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.access.keys import write_private
from streams.access.local_keys import make_party_secrets
from tests.flow.client import Client, an_order, order_id
from tests.flow.reading import Following
from tests.support.stack import Stack
from topics.families import FAMILIES
from topics.restaurants import Restaurant


@pytest.fixture
def right_secrets(stack: Stack) -> Iterator[bytes]:
    """Give the workers other secrets than the parties have; yield the right ones."""
    right = stack.party_secrets.read_bytes()
    make_party_secrets(stack.party_secrets, msgspec.json.decode(right)["restaurants"])
    yield right
    write_private(stack.party_secrets, right)


async def refused_order(client: Client, tiffin: Restaurant, unique: str) -> str:
    """Return an order that needs attention. Those before the workers reread the secrets are delivered."""
    for number in count():
        order = order_id(f"{unique}-{number}")
        assert (await client.place(an_order(tiffin, f"{unique}-{number}"))).status_code == 201

        async def decided(order: str = order) -> str:
            shown = await client.order(order) or {}
            return "delivered" if shown.get("status") == "DELIVERED" else await waits_for(client, order)

        if await client.until(decided, f"{order} is delivered or needs attention") != "delivered":
            return order
    raise AssertionError("unreachable")


async def waits_for(client: Client, order: str) -> str:
    """Return what the order's attention waits for; empty without one."""
    shown: dict[str, Any] = (await client.order(order) or {}).get("attention") or {}
    return str(shown.get("waits_for", ""))


async def test_a_wrong_secret_delays_an_order_and_loses_nothing(
    client: Client, stack: Stack, tiffin: Restaurant, unique: str, right_secrets: bytes
) -> None:
    used = [*secrets_in(right_secrets), *secrets_in(stack.party_secrets.read_bytes())]
    order = await refused_order(client, tiffin, unique)
    assert "answered 401" in await waits_for(client, order)
    assert not client.payments(order), "the provider did nothing"
    write_private(stack.party_secrets, right_secrets)

    async def is_charged() -> bool:
        await client.post(f"/v1/calls/{order}/charge/retry")
        return bool(client.payments(order))

    await client.until(is_charged, "the provider takes the same call")
    await client.reaches(order, "DELIVERED")
    assert [entry.outcome for entry in client.payments(order)] == ["charged"]
    async with Following(stack.kafka, stack.name, FAMILIES) as topics:
        await topics.catch_up()
    records = [repr((record.key, record.value, record.headers)) for record in topics.records]
    rows = [str(await client.get(f"/table/{name}/", limit=1000)) for name in ("calls", "orders", "dead_letters")]
    shown = [str(await client.journal(order)), str(await client.order(order)), *rows]
    assert [text for text in records if order in text]
    assert not leaks(used, [*records, *shown]), "in records, rows or answers"
    files = [file for file in stack.directory.rglob("*") if file.is_file() and file != stack.party_secrets]
    assert any(file.suffix == ".log" for file in files)
    assert not leaks(used, [read(file) for file in files]), "in files"


def secrets_in(content: bytes) -> list[str]:
    """Return the secret part of each secret in a file."""
    file = msgspec.json.decode(content)
    return [
        file["payment_authorization"].split()[1],
        *(secret.removeprefix("whsec_") for secret in file["restaurants"].values()),
    ]


def leaks(secrets: list[str], texts: list[str]) -> list[str]:
    """Return the texts that have a secret."""
    return [text for text in texts if any(secret in text for secret in secrets)]


def read(file: Path) -> str:
    """Return a file as text; empty if it has gone meanwhile."""
    try:
        return file.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return ""
