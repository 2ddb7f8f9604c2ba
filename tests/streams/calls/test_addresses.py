"""Addresses that calls may reach: public ones, and private ones that are allowed; never a cloud's metadata."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from exactly_once import Health, Retry
from streams.calls.addresses import AllowedAddresses
from streams.calls.http_performer import HttpPerformer
from streams.settings import Settings, WrongSetting
from tests.streams.calls.test_http_performer import answers, calling, prepare

EVERYTHING = ("0.0.0.0/0", "::/0")
NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "fd00:ec2::254",
    "169.254.1.1",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "::",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::a9fe:a9fe",
]
PRIVATE = [
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "fd12::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
]
LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def allowed(variable: str | None = None) -> AllowedAddresses:
    """Return the addresses of a value of the setting."""
    more = {} if variable is None else {"DABBAWALA_ALLOWED_NETWORKS": variable}
    return AllowedAddresses(Settings.from_environment(more).allowed_networks)


@pytest.mark.parametrize("address", NEVER)
def test_no_setting_allows_link_local_or_metadata(address: str) -> None:
    assert address not in AllowedAddresses(EVERYTHING)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_a_setting(address: str) -> None:
    assert address not in allowed()
    assert address in AllowedAddresses(EVERYTHING)


@pytest.mark.parametrize("address", LOOPBACK)
def test_loopback_is_allowed_unless_the_setting_leaves_it_out(address: str) -> None:
    assert address in allowed()
    assert address not in allowed("")
    assert address not in allowed("10.0.0.0/8")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert address in allowed("")


@pytest.mark.parametrize("value", ["10.0.0.1/8", "all", "10.0.0.0/8;::1/128", "10.0.0.0/33"])
def test_wrong_network_is_refused_by_its_setting(value: str) -> None:
    with pytest.raises(WrongSetting, match=r"^DABBAWALA_ALLOWED_NETWORKS="):
        allowed(value)


@pytest.fixture
async def inside() -> AsyncIterator[str]:
    """Yield the port of a party on this machine."""
    async with calling(answers) as performer:
        yield performer._payment_url.rpartition(":")[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "inside.test", "0x7f000001", "0x7f.1"])
@pytest.mark.parametrize(("networks", "is_reached"), [(("127.0.0.0/8", "::1/128"), True), ((), False)])
async def test_an_address_is_checked_however_the_url_writes_it(
    inside: str, monkeypatch: pytest.MonkeyPatch, host: str, networks: tuple[str, ...], is_reached: bool
) -> None:
    getaddrinfo = socket.getaddrinfo

    def look_up(name: str, *rest: Any, **more: Any) -> Any:
        return getaddrinfo("127.0.0.1" if name == "inside.test" else name, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    performer = HttpPerformer("http://127.0.0.1:1", "bank", lambda _: "c", AllowedAddresses(networks))
    try:
        async with asyncio.timeout(60):
            answer = await performer.perform(b"shop:1/prepare", prepare("x", f"http://{host}:{inside}"), 1)
    finally:
        await performer.close()
    assert isinstance(answer, Retry)
    assert (answer.health is Health.ANSWERS) is is_reached
    assert ("DABBAWALA_ALLOWED_NETWORKS" in answer.last_error) is not is_reached
