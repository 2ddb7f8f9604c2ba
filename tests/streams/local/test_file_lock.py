"""Locks on files: one holder at a time, and none once the process has ended."""

import subprocess
import sys
import threading
from pathlib import Path

from streams.local.file_lock import FileLock, locked

HOLDER = """
import sys, time
from pathlib import Path
from streams.local.file_lock import FileLock
lock = FileLock.try_acquire(Path(sys.argv[1]))
print("held" if lock else "not held", flush=True)
time.sleep(60)
"""


def test_lock_is_free_once_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert FileLock.try_acquire(path) is None
        holder.kill()
        holder.wait()
        assert FileLock.try_acquire(path) is not None


def test_waiter_continues_when_the_lock_is_released(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def second() -> None:
        with locked(path):
            order.append("second")

    with locked(path):
        waiting = threading.Thread(target=second)
        waiting.start()
        order.append("first")
    waiting.join(timeout=60)
    assert order == ["first", "second"]


def test_shared_lock_excludes_an_exclusive_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    users = [FileLock(path), FileLock(path)]
    for user in users:
        user.wait(shared=True)
    users[0].release()
    assert FileLock.try_acquire(path) is None
    users[1].release()
    assert FileLock.try_acquire(path) is not None
