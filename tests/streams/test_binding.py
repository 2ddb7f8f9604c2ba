"""Listening: a worker serves the loopback address unless a setting opens it; other variables change nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from faust.types.settings import Settings as FaustSettings
from faust.web.drivers.aiohttp import Web

from streams.build import Place, build
from streams.cli.worker import checked_bind
from streams.local.ports import LOOPBACK
from streams.local.worker_slots import acquire_slot
from streams.services import Services
from streams.settings import Settings, WrongSetting
from tests.support.stack import ports_of_its_own

VARIABLES = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DABBAWALA_CATALOGUE": ""}
STRAY = {
    parameter.env_name: value
    for parameter in FaustSettings.SETTINGS.values()
    if parameter.env_name
    for value in [{"WEB_BIND": "0.0.0.0", "BROKER_URL": "kafka://elsewhere:9"}.get(parameter.env_name, "1")]
}
"""Every variable that Faust would read, each with a value that changes something."""


def placed(tmp_path: Path, **more: Any) -> Services:
    """Build a worker that has a place and no Kafka."""
    [port] = ports_of_its_own(1)
    place = Place(tmp_path, port, f"http://{LOOPBACK}:{port}", "worker-1-abc", **more)
    return build(Settings.from_environment(VARIABLES), place)


@contextmanager
def only_new_listeners() -> Iterator[set[str]]:
    """Yield a set that has, after the block, the addresses on which this process has begun to listen."""
    before = listeners()
    found: set[str] = set()
    yield found
    found |= {address for address, _ in listeners() - before}


def listeners() -> set[tuple[str, int]]:
    """Return the addresses and ports on which this process listens."""
    connections = psutil.Process().net_connections("inet")
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize(("more", "addresses"), [({}, {LOOPBACK}), ({"bind": "0.0.0.0"}, {"0.0.0.0"})])
async def test_a_worker_listens_on_loopback_by_default(
    tmp_path: Path, more: dict[str, str], addresses: set[str]
) -> None:
    web = cast(Web, placed(tmp_path, **more).app.web)
    with only_new_listeners() as found:
        await web.start_server()
    try:
        assert found == addresses
    finally:
        await web.stop_server()


def test_variables_of_other_programs_do_not_change_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def configured() -> dict[str, str]:
        conf = placed(tmp_path).app.conf
        unstable = {"web_port", "canonical_url", "reply_to"}  # each worker has its own
        return {name: repr(getattr(conf, name)) for name in sorted(FaustSettings.setting_names() - unstable)}

    before = configured()
    assert len(STRAY) > 50
    for name in STRAY:
        monkeypatch.setenv(name, STRAY[name])
    assert os.environ["WEB_BIND"] == "0.0.0.0"
    assert configured() == before


def test_faust_serves_no_pages_of_its_own_but_its_index(tmp_path: Path) -> None:
    conf = placed(tmp_path).app.conf
    assert not conf.debug
    names = ("graph", "metrics", "stats", "router", "tables")
    assert {name: getattr(conf, f"web_{name}_enabled") for name in names} == dict.fromkeys(names, False)


@pytest.mark.parametrize(
    ("variable", "option", "bind"),
    [
        (None, None, LOOPBACK),
        ("", None, LOOPBACK),
        ("localhost", None, LOOPBACK),
        ("0.0.0.0", None, "0.0.0.0"),
        ("10.0.0.1", "127.0.0.2", "127.0.0.2"),
        ("[::1]", None, "::1"),
    ],
)
def test_option_overrides_the_setting(variable: str | None, option: str | None, bind: str) -> None:
    more = {"DABBAWALA_PLAIN_HTTP": "1"} | ({} if variable is None else {"DABBAWALA_BIND": variable})
    assert checked_bind(Settings.from_environment(VARIABLES | more), option) == bind


@pytest.mark.parametrize("bind", ["0.0.0.0", "10.0.0.1", "::"])
def test_network_needs_tls_in_front_or_a_word(bind: str) -> None:
    with pytest.raises(WrongSetting, match=r"without TLS: set DABBAWALA_PUBLIC_URL"):
        checked_bind(Settings.from_environment(VARIABLES | {"DABBAWALA_PUBLIC_URL": "http://shop.example"}), bind)
    behind = Settings.from_environment(VARIABLES | {"DABBAWALA_PUBLIC_URL": "https://shop.example"})
    assert checked_bind(behind, bind) == bind
    private = Settings.from_environment(VARIABLES | {"DABBAWALA_PLAIN_HTTP": "1"})
    assert checked_bind(private, bind) == bind


@pytest.mark.parametrize("value", ["everywhere", "10.0.0", "10.0.0.1:80", "\n", "127.0.0.1\n"])
def test_wrong_address_is_refused_by_its_name(value: str) -> None:
    with pytest.raises(WrongSetting, match=r"^DABBAWALA_BIND="):
        Settings.from_environment(VARIABLES | {"DABBAWALA_BIND": value})
    with pytest.raises(WrongSetting, match=r"^--web-bind="):
        checked_bind(Settings.from_environment(VARIABLES), value)


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::"])
def test_url_of_a_worker_names_the_address_that_it_listens_on(tmp_path: Path, bind: str) -> None:
    [port] = ports_of_its_own(1)
    slot = acquire_slot(tmp_path, port, bind=bind)
    host = LOOPBACK if ip_address(bind).is_unspecified else bind
    assert slot.url == f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    slot.release()
