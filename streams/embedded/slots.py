"""Where a worker lives: the next free `.dabbawala/worker-N`, its port and its URL, held while its process lives.

A slot's directory carries what must stay the same when its worker comes back: RocksDB, and the id under which the
consumer group knows it (two workers under one id would steal the group from each other every second: hence the lock).
"""

import itertools
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from streams.embedded.errors import SetUpError
from streams.embedded.lock import FileLock, locked
from streams.embedded.ports import LOOPBACK, is_free

FIRST_PORT = 6066
"""Faust's own."""


@dataclass(frozen=True)
class Slot:
    """One worker's place on this machine. Keep it: the lock goes with it."""

    number: int
    datadir: Path
    port: int
    url: str
    """Where the other workers, and the commands, reach its web views."""
    instance_id: str
    """Its static member id in the consumer group: made once for each data directory, unlike any other machine's."""
    lock: FileLock

    def release(self) -> None:
        """Give the place back before the process ends."""
        self.lock.release()


def take_worker_slot(directory: Path, port: int | None = None, host: str | None = None) -> Slot:
    """Take the first `worker-N` under `directory` that no living worker has, and a port for it.

    `port`: this one or none; by default the one that the slot had the last time, else the first free one from 6066 on.
    `host`: the name under which others reach this machine; by default only this machine does. Raises `SetUpError` if
    `port` is taken.
    """
    with locked(directory / "workers.lock"):  # else two that start at once may choose the same port
        if port and not is_free(port):
            raise SetUpError(
                f"Port {port} is taken by another program: stop that one, or give this worker another port."
            )
        number, lock = _first_free(directory)
        home = directory / f"worker-{number}"
        chosen = port or _any_port(directory, home)
        slot = Slot(number, home, chosen, f"http://{host or LOOPBACK}:{chosen}", _instance_id(home, number), lock)
        (home / "url").write_text(f"{slot.url}\n")
        (home / "pid").write_text(f"{os.getpid()}\n")
        return slot


def worker_urls(directory: Path) -> list[str]:
    """The URLs of the workers that live under `directory`, by number."""
    return [(home / "url").read_text().strip() for home in living_workers(directory)]


def living_workers(directory: Path) -> list[Path]:
    """The directories under `directory` that a living worker holds, by number."""
    homes = sorted(directory.glob("worker-*"), key=lambda home: (len(home.name), home.name))
    return [home for home in homes if (home / "url").exists() and is_held(home)]


def _first_free(directory: Path) -> tuple[int, FileLock]:
    for number in itertools.count(1):
        lock = FileLock.taken(directory / f"worker-{number}" / "lock")
        if lock:
            return number, lock
    raise AssertionError("the numbers are without end")


def is_held(home: Path) -> bool:
    """Whether a living worker has this directory."""
    lock = FileLock.taken(home / "lock")
    if lock:
        lock.release()
    return lock is None


def _instance_id(home: Path, number: int) -> str:
    known = home / "instance-id"
    if not known.exists():
        known.write_text(f"worker-{number}-{uuid.uuid4().hex[:8]}\n")
    return known.read_text().strip()


def _any_port(directory: Path, home: Path) -> int:
    """Not that of another living worker either, which may have chosen and not yet bound it."""
    chosen = {_port_of(other) for other in living_workers(directory) if other != home}
    before = [_port_of(home)] if (home / "url").exists() else []
    candidates = itertools.chain(before, itertools.count(FIRST_PORT))
    return next(port for port in candidates if port not in chosen and is_free(port))


def _port_of(home: Path) -> int:
    return urlsplit((home / "url").read_text().strip()).port or FIRST_PORT
