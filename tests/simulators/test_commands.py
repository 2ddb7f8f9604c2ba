"""The commands: help, wrong values, taken ports, and SIGTERM."""

import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from simulators.cli import Reporter
from tests.simulators.conftest import MakeSimulator
from tests.simulators.process import ROOT
from tests.simulators.waiting import until

COMMANDS = ["city", "payment", "pos", "drivers", "provider"]


def command(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"simulators.{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    asked = command(name, "--help")
    assert asked.returncode == 0
    assert f"python -m simulators.{name}" in asked.stdout


@pytest.mark.parametrize(
    ("name", "option", "value", "why"),
    [
        ("payment", "--speed", "-1", "a number from 0 up"),
        ("payment", "--decline", "sometimes", "not one of never, always, share:P, ending:DIGITS"),
        ("payment", "--port", "70000", "a whole number from 0 to 65535"),
        ("pos", "--reject", "share:2", "a number from 0 to 1"),
        ("drivers", "--worker", "localhost", "a URL that starts with http"),
        ("drivers", "--drivers", "0", "a whole number from 1"),
        ("provider", "--rate", "0", "a number above 0"),
        ("provider", "--run", "a b", "not a name"),
        ("city", "--pos-url", "nowhere", "a URL that starts with http"),
    ],
)
def test_wrong_value_is_named_with_the_valid_ones(
    name: str, option: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, option, value])
    with pytest.raises(SystemExit) as refused:
        import_module(f"simulators.{name}").main()
    assert refused.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert option in last
    assert why in last


@pytest.mark.parametrize("name", ["payment", "pos"])
def test_taken_port_is_explained_in_one_sentence(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = command(name, "--port", port, "--ledger", str(tmp_path / "ledger.jsonl"))
    assert refused.returncode == 1
    assert refused.stderr == f"port {port} is taken: end what listens there, or choose another with --port\n"


async def test_ledger_in_use_is_explained_in_one_sentence(simulator: MakeSimulator) -> None:
    payment = simulator("payment")
    await payment.serving()
    refused = command("payment", "--port", "0", "--ledger", str(payment.ledger))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{payment.ledger} is in use by another process")
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["payment", "pos"])
async def test_server_ends_with_0_on_sigterm(simulator: MakeSimulator, name: str) -> None:
    serving = simulator(name)
    await serving.serving()
    assert await serving.terminate() == 0
    assert serving.output.count("\n") == 1


async def test_waiting_simulator_ends_with_0_on_sigterm(simulator: MakeSimulator) -> None:
    waiting = simulator("provider", "--worker", "http://127.0.0.1:9")
    waiting.start()
    await until(lambda: "waiting for a worker" in waiting.output, "it waits")
    assert await waiting.terminate() == 0


def test_lines_of_events_are_harmless_for_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter("payment", False).event("my-shop:1 declined: \x1b[2J\n\u202e")
    assert capsys.readouterr().out == "payment: my-shop:1 declined: \\u001b[2J\\u000a\\u202e\n"
