"""Child processes: they are awaited, their death is reported, and they end with their supervisor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from streams.demo.processes import ChildDied, Supervisor

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]
SUPERVISOR = """
import signal, sys, time
from pathlib import Path
from streams.demo.processes import Supervisor
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without this handler
with Supervisor(Path(sys.argv[1])) as supervisor:
    child = supervisor.start("child", [sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def is_up(tmp_path: Path, name: str = "child") -> Callable[[], bool]:
    return lambda: "up" in (tmp_path / f"{name}.log").read_text()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.01)


def test_child_is_ready_within_the_block_and_ends_with_it(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        child = supervisor.start("child", SLEEPER, ready=is_up(tmp_path))
        assert child.status is None
        assert (tmp_path / "child.log").read_text() == "up\n"
    assert is_gone(child.pid)
    assert child.status == -signal.SIGTERM


def test_child_that_dies_early_is_reported_with_its_log(tmp_path: Path) -> None:
    dying = [sys.executable, "-c", "print('the disk is full'); raise SystemExit(3)"]
    with Supervisor(tmp_path) as supervisor, pytest.raises(ChildDied, match=r"(?s)status 3.*the disk is full"):
        supervisor.start("child", dying, ready=lambda: False)


def test_child_that_is_not_ready_in_time_is_reported_and_ended(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ChildDied, match="child was not ready within 0 s"):
            supervisor.start("child", SLEEPER, ready=lambda: False, ready_s=0.2)
        pid = supervisor.children[0].pid
    assert is_gone(pid)


def test_check_reports_a_dead_child(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        child = supervisor.start("child", SLEEPER, ready=is_up(tmp_path))
        supervisor.check()
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: child.status is not None)
        with pytest.raises(ChildDied, match="status -9"):
            supervisor.check()


def test_restarted_child_has_the_same_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        child = supervisor.start("child", SLEEPER, ready=is_up(tmp_path))
        before = child.pid
        child.restart()
        assert child.pid != before
        assert is_gone(before)
        wait_for(lambda: (tmp_path / "child.log").read_text() == "up\nup\n")


def test_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        child = supervisor.start("child", STUBBORN, ready=is_up(tmp_path))
        child.stop(grace_s=0.2)
        assert child.status == -signal.SIGKILL


def test_stopped_child_continues_on_sigcont(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        child = supervisor.start("child", SLEEPER, ready=is_up(tmp_path))
        child.send(signal.SIGSTOP)
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
        child.send(signal.SIGCONT)
        wait_for(lambda: psutil.Process(child.pid).status() != psutil.STATUS_STOPPED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_children_end_with_their_supervisor(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as supervisor:
        assert supervisor.stdout
        child = int(supervisor.stdout.readline())
        assert not is_gone(child)
        supervisor.send_signal(number)
        supervisor.wait(60)
        wait_for(lambda: is_gone(child))


def test_adopted_process_outlives_a_regular_end(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEPER, stdout=subprocess.DEVNULL, start_new_session=True) as adopted:
        with Supervisor(tmp_path) as supervisor:
            supervisor.adopt(adopted.pid)
        assert adopted.poll() is None
        adopted.kill()
