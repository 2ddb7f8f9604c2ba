"""Locks on files. The kernel releases them when the process ends, also after `kill -9`."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self


class FileLock:
    """An advisory lock (flock) on `path`.

    The file is created if it is missing and never deleted. If it were, two processes could each lock a file of the
    same name, one of them deleted.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, without the lock."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """Return the lock on `path`, held; None if another process holds it."""
        lock = cls(path)
        try:
            fcntl.flock(lock._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        return lock

    def wait(self, *, shared: bool = False) -> None:
        """Wait for the lock and take it. Any number of processes may share a shared lock."""
        fcntl.flock(self._file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def release(self) -> None:
        """Release the lock."""
        self._file.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` within a `with` block."""
    lock = FileLock(path)
    try:
        lock.wait()
        yield
    finally:
        lock.release()
