"""Locks on files: one holder at a time, and none once the process has gone, however it went."""

import subprocess
import sys
import threading
from pathlib import Path

from streams.embedded.lock import FileLock, locked

HOLDER = """
import sys, time
from pathlib import Path
from streams.embedded.lock import FileLock
lock = FileLock.taken(Path(sys.argv[1]))
print("held" if lock else "not held", flush=True)
time.sleep(60)
"""


def test_a_lock_held_by_another_process_is_not_taken_until_that_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert FileLock.taken(path) is None
        holder.kill()
        holder.wait()
        assert FileLock.taken(path) is not None


def test_who_waits_for_a_lock_goes_on_when_it_is_released(tmp_path: Path) -> None:
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


def test_a_shared_lock_has_many_holders_and_keeps_out_who_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    users = [FileLock(path), FileLock(path)]
    for user in users:
        user.wait(shared=True)
    users[0].release()
    assert FileLock.taken(path) is None
    users[1].release()
    assert FileLock.taken(path) is not None
