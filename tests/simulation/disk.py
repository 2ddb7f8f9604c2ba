"""The disks of the workers: committed rows, written all or nothing, that outlive the process."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from streams.engine.store import PartitionStore, Progress
from streams.engine.task import StoreError
from tests.simulation.clients import site
from tests.simulation.loop import Actor, current_actor

KEPT_WRITES = 8
"""So many can a machine lose that goes down with its last writes in memory."""
Undo = tuple[dict[str, dict[bytes, bytes | None]], dict[str, Progress | None]]


class Directory:
    """What lies on the disk for one partition."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = {}
        self.progress: dict[str, Progress] = {}
        self.locked_by: Actor | None = None
        self.undo: list[Undo] = []

    def lose(self, writes: int) -> None:
        """The last writes are not there."""
        for _ in range(min(writes, len(self.undo))):
            rows, progress = self.undo.pop()
            for table, changed in rows.items():
                _put(self.rows[table], changed)
            for table, noted in progress.items():
                if noted is None:
                    self.progress.pop(table, None)
                else:
                    self.progress[table] = noted


class Disk:
    """Of one worker; its directories by their paths."""

    def __init__(self) -> None:
        self.directories: dict[str, Directory] = {}

    def lose(self, writes: int) -> None:
        """The last writes of each directory are not there."""
        for directory in self.directories.values():
            directory.lose(writes)


class SimulatedStore(PartitionStore):
    """``PartitionStore`` on such a disk."""

    def __init__(
        self,
        path: Path,
        partition: int,
        tables: Iterable[str],
        topic_ids: Mapping[str, str],
        now_ms: Callable[[], int],
        progress_every_s: float = 3600.0,
    ) -> None:
        self.path, self.partition, self.tables, self.topic_ids = path, partition, list(tables), dict(topic_ids)
        self._now_ms = now_ms
        here = site.get()
        self._directory: Directory = here.disk.directories.setdefault(str(path), Directory())
        if (holder := self._directory.locked_by) is not None and not holder.dead:
            raise StoreError(f"cannot open {path}: it is locked")
        self._directory.locked_by = current_actor()
        self._is_open = True
        self._progress = self._directory.progress
        for table in self.tables:
            self._directory.rows.setdefault(table, {})

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._there.rows[table].get(key)

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows = self._there.rows[table]
        return iter([(key, rows[key]) for key in sorted(rows) if key >= from_key])

    def progress(self, table: str) -> Progress | None:
        return self._there.progress.get(table)

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
        *,
        to_the_end: bool = True,
    ) -> None:
        directory, now_ms = self._there, self._now_ms()
        before = {table: {key: directory.rows[table].get(key) for key in changed} for table, changed in rows.items()}
        directory.undo.append((before, {table: directory.progress.get(table) for table in next_offsets}))
        del directory.undo[:-KEPT_WRITES]
        for table, changed in rows.items():
            _put(directory.rows[table], changed)
        directory.progress.update(self._followed(next_offsets, appended_ms, now_ms, to_the_end=to_the_end))

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._directory.locked_by = None

    def start_over(self, table: str, why: str) -> None:
        directory = self._there
        directory.rows[table] = {}
        directory.progress.pop(table, None)
        directory.undo.clear()

    @property
    def _there(self) -> Directory:
        if not self._is_open:
            raise StoreError(f"{self.path} is closed")
        return self._directory


def _put(rows: dict[bytes, bytes], changed: Mapping[bytes, bytes | None]) -> None:
    for key, value in changed.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
