"""`leave`: what it says where a worker cannot be stopped, or nobody can tell the group."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import streams.app
from streams.cli import leave
from streams.embedded import kafka
from streams.embedded.errors import SetUpError
from streams.embedded.lock import FileLock
from tests.cli.conftest import Run


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of a worker that has run here."""
    settings = msgspec.structs.replace(streams.app.settings, directory=tmp_path, bootstrap_servers=None)
    monkeypatch.setattr(streams.app, "settings", settings)
    home = tmp_path / "worker-1"
    home.mkdir()
    (home / "instance-id").write_text("worker-1-abc\n")
    return home


@pytest.fixture
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to be told."""
    monkeypatch.setattr(leave, "_tell_group", lambda _: False)


def of_nobody() -> str:
    """The pid of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return f"{ended.pid}\n"


@pytest.mark.parametrize("noted", ["nothing", "half", "another"])
def test_one_that_has_not_noted_its_pid_yet_is_not_mistaken_for_another(run: Run, home: Path, noted: str) -> None:
    if noted != "nothing":
        (home / "pid").write_text("" if noted == "half" else of_nobody())
    lock = FileLock.taken(home / "lock")
    assert lock is not None
    done = run("leave", "1")
    assert done == (2, "", "worker-1 does not say yet which process it is: try again in a moment.\n")
    lock.release()


@pytest.mark.usefixtures("no_group")
def test_one_that_ends_just_then_does_not_run(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "pid").write_text(of_nobody())
    held = iter([True, False])
    monkeypatch.setattr(leave, "is_held", lambda _: next(held))
    assert run("leave", "1") == (0, "worker-1 does not run, and is not in the group.\n", "")


def test_one_of_another_user_is_left_to_that_user(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_pid: int, _signal: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    (home / "pid").write_text(of_nobody())
    monkeypatch.setattr(leave, "is_held", lambda _: True)
    monkeypatch.setattr(os, "kill", refuses)
    assert run("leave", "1") == (2, "", "worker-1 is another user's: let that one, or root, stop it.\n")


def test_where_kafka_cannot_start_that_is_said(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_directory: Path, _progress: object) -> str:
        raise SetUpError("There is no Java here.")

    monkeypatch.setattr(kafka, "ensure", fails)
    assert run("leave", "1") == (2, "", "There is no Java here.\n")
