"""The slots of workers: directories `.dabbawala/worker-N` with a port and a URL, each held while its process runs.

The directory keeps what must survive a restart of its worker: RocksDB, and the static member id in the consumer group.
The lock prevents two workers with one id, which would remove each other from the group every second.
"""

import itertools
import os
import uuid
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from streams.local.errors import SetUpError
from streams.local.file_lock import FileLock, locked
from streams.local.ports import LOOPBACK, is_free

FIRST_PORT = 6066
"""Faust's default."""


@dataclass(frozen=True)
class Slot:
    """The place of one worker on this machine. Keep the object, because its lock ends with it."""

    number: int
    datadir: Path
    port: int
    url: str
    """Address of its HTTP server, for the other workers and the commands."""
    instance_id: str
    """Its static member id in the consumer group: created once for each data directory, globally unique."""
    lock: FileLock

    def release(self) -> None:
        """Release the slot before the process ends."""
        self.lock.release()


def acquire_slot(directory: Path, port: int | None = None, host: str | None = None, bind: str = LOOPBACK) -> Slot:
    """Acquire the first `worker-N` under `directory` that no worker holds, and a port for it.

    `port`: the port to use; by default the slot's last port, or the first free one from 6066 on if that is taken.
    `host`: the host name of the slot's URL; by default `bind`, or the loopback address if `bind` means all addresses.
    Raises `SetUpError` if `port` is taken.
    """
    with locked(directory / "workers.lock"):  # two workers that start together could choose one port
        if port and not is_free(port):
            raise SetUpError(
                f"Port {port} is taken by another program: stop that one, or give this worker another port."
            )
        number, lock = _first_free(directory)
        home = directory / f"worker-{number}"
        chosen = port or _any_port(directory, home)
        slot = Slot(number, home, chosen, f"http://{host or _host_of(bind)}:{chosen}", _instance_id(home, number), lock)
        (home / "url").write_text(f"{slot.url}\n")
        (home / "pid").write_text(f"{os.getpid()}\n")
        return slot


def _host_of(bind: str) -> str:
    """Return the host of a URL at which a server that listens on this IP address is reached from this machine."""
    if (address := ip_address(bind)).is_unspecified:
        return LOOPBACK
    return f"[{address}]" if address.version == 6 else bind


def worker_urls(directory: Path) -> list[str]:
    """Return the URLs of the workers that run under `directory`, by number."""
    return [(home / "url").read_text().strip() for home in running_workers(directory)]


def running_workers(directory: Path) -> list[Path]:
    """Return the slots' directories under `directory` that a worker holds, by number."""
    homes = sorted(directory.glob("worker-*"), key=lambda home: (len(home.name), home.name))
    return [home for home in homes if (home / "url").exists() and is_locked(home)]


def _first_free(directory: Path) -> tuple[int, FileLock]:
    for number in itertools.count(1):
        lock = FileLock.try_acquire(directory / f"worker-{number}" / "lock")
        if lock:
            return number, lock
    raise AssertionError("there is always a next number")


def is_locked(home: Path) -> bool:
    """Return whether a worker holds this directory."""
    lock = FileLock.try_acquire(home / "lock")
    if lock:
        lock.release()
    return lock is None


def _instance_id(home: Path, number: int) -> str:
    known = home / "instance-id"
    if not known.exists():
        known.write_text(f"worker-{number}-{uuid.uuid4().hex[:8]}\n")
    return known.read_text().strip()


def _any_port(directory: Path, home: Path) -> int:
    """Return a free port. Another worker may have chosen its port and not bound it yet, so skip those as well."""
    chosen = {_port_of(other) for other in running_workers(directory) if other != home}
    before = [_port_of(home)] if (home / "url").exists() else []
    candidates = itertools.chain(before, itertools.count(FIRST_PORT))
    return next(port for port in candidates if port not in chosen and is_free(port))


def _port_of(home: Path) -> int:
    return urlsplit((home / "url").read_text().strip()).port or FIRST_PORT
