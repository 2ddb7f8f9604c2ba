"""Proxies in the environment: a worker on this machine is asked directly, and no value causes a traceback."""

from itertools import product
from pathlib import Path

import pytest

from streams.cli import follow as following
from streams.local.errors import SetUpError
from streams.local.kafka.download import Jar, fetch
from tests.streams.cli.conftest import Answer, FakeWorker, Run

PROXIES = [
    "http://127.0.0.1:1",
    "https://127.0.0.1:1",
    "socks5://127.0.0.1:1",
    "socks5h://127.0.0.1:1",
    "ftp://127.0.0.1:1",
    "127.0.0.1:1",
    "127.0.0.1",
    "http://[::1",
    "http://127.0.0.1:x",
    "http://127.0.0.1:99999",
    "http://user:p@ss@127.0.0.1:1",
    "http://\u00fc\u00fc.invalid:1",
    "http://" + "a" * 300,
    "://",
    "direct",
    " ",
    "",
]
EXCEPTIONS = ["*", "fd00::/8", "10.0.0.0/8,192.168.0.0/16", "[::1]", ".example", "http://", "a b", ",,", "::1", ""]
NAMES = [name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (upper, upper.lower())]
CASES = [*product(NAMES, PROXIES), *product(["NO_PROXY", "no_proxy"], EXCEPTIONS)]
TASKS: dict[str, list[object]] = {"workers": [], "tasks": []}
UPDATE = (
    'event: order-updated\ndata: {"type":"OrderUpdated","id":"u","at":"2026-01-02T03:04:05Z","order":"my-shop:1",'
    '"version":1,"status":"DELIVERED","restaurant":"r"}\n\n'
)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_worker_here_is_asked_directly(worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.says("/v1/tasks", TASKS)
    for name, value in CASES:
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            assert run("tasks", "--json").status == 0, (name, value)


def test_an_order_here_is_followed_directly(worker: FakeWorker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.says("/v1/orders/my-shop:1/events", Answer(200, UPDATE, "text/event-stream"))
    for value in PROXIES:
        with monkeypatch.context() as environment:
            environment.setenv("ALL_PROXY", value)
            assert run("orders", "watch", "my-shop:1").status == 0, value


@pytest.mark.parametrize("command", [("tasks",), ("orders", "watch", "my-shop:1")])
@pytest.mark.parametrize(
    "variables",
    [
        *({"ALL_PROXY": value} for value in PROXIES if value.strip()),
        *({"ALL_PROXY": PROXIES[0], "NO_PROXY": value} for value in EXCEPTIONS if value != "*"),
    ],
)
def test_a_worker_elsewhere_gets_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], variables: dict[str, str]
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 0.0)
    monkeypatch.setenv("DABBAWALA_URL", "http://192.0.2.1:6066")  # no host has this address
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run(*command)
    assert done.status == 2
    assert len(done.error.strip().splitlines()) == 1, done.error


def test_a_name_that_cannot_be_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DABBAWALA_URL", f"http://{'a' * 64}.example:6066")
    done = run("tasks")
    assert (done.status, len(done.error.splitlines())) == (2, 1)


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://[::1", "http://127.0.0.1:1"])
def test_jars_that_cannot_be_fetched_by_a_proxy_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DABBAWALA_MAVEN_URL", "http://192.0.2.1")
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(SetUpError, match="cannot be downloaded from"):
        fetch([Jar("g", "a", "1", "0" * 64)], tmp_path, print)
