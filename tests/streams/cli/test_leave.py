"""`leave`: its messages if a worker cannot be stopped, or if the group cannot be reached."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.cli import leave
from streams.local.errors import SetUpError
from streams.local.file_lock import FileLock
from streams.local.kafka import broker as kafka
from tests.streams.cli.conftest import Run


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the directory of a worker that has run."""
    monkeypatch.setenv("DABBAWALA_DIR", str(tmp_path))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    home = tmp_path / "worker-1"
    home.mkdir()
    (home / "instance-id").write_text("worker-1-abc\n")
    return home


@pytest.fixture
def no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the group: the worker is not a member."""
    monkeypatch.setattr(leave, "_leave_group", lambda _: False)


def ended_pid() -> str:
    """Return the pid of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return f"{ended.pid}\n"


@pytest.mark.parametrize("recorded", ["nothing", "half", "another"])
def test_worker_without_a_recorded_pid_is_not_confused(run: Run, home: Path, recorded: str) -> None:
    if recorded != "nothing":
        (home / "pid").write_text("" if recorded == "half" else ended_pid())
    lock = FileLock.try_acquire(home / "lock")
    assert lock is not None
    done = run("leave", "1")
    assert done == (2, "", "worker-1 has not written its process id yet: try again in a moment.\n")
    lock.release()


@pytest.mark.usefixtures("no_group")
def test_worker_that_ends_meanwhile_does_not_run(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "pid").write_text(ended_pid())
    held = iter([True, False])
    monkeypatch.setattr(leave, "is_locked", lambda _: next(held))
    assert run("leave", "1") == (0, "worker-1 does not run, and is not in the group.\n", "")


def test_worker_of_another_user_is_named(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_pid: int, _signal: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    (home / "pid").write_text(ended_pid())
    monkeypatch.setattr(leave, "is_locked", lambda _: True)
    monkeypatch.setattr(os, "kill", deny)
    assert run("leave", "1") == (2, "", "worker-1 belongs to another user: that user or root can stop it.\n")


def test_kafka_that_cannot_start_is_explained(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_directory: Path, _progress: object) -> str:
        raise SetUpError("There is no Java here.")

    monkeypatch.setattr(kafka, "ensure", fail)
    assert run("leave", "1") == (2, "", "There is no Java here.\n")
