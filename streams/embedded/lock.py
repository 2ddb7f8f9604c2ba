"""Locks on files, held by a process: the kernel lets go of them however the process ends, `kill -9` included."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self


class FileLock:
    """An advisory lock (flock) on `path`.

    The file is created where missing and never deleted: two that hold the lock of a deleted file hold two locks.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")

    @classmethod
    def taken(cls, path: Path) -> Self | None:
        """The lock on `path`, held, or None where another process has it."""
        lock = cls(path)
        try:
            fcntl.flock(lock._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        return lock

    def wait(self, *, shared: bool = False) -> None:
        """Take the lock, waiting for whoever has it; a shared one is held by any number at once."""
        fcntl.flock(self._file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def release(self) -> None:
        self._file.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on `path` for the length of a `with` block."""
    lock = FileLock(path)
    try:
        lock.wait()
        yield
    finally:
        lock.release()
