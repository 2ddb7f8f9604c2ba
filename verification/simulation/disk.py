"""Disks of the workers. They hold rows that are written atomically, and they outlive the worker's process."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from exactly_once.state.rocksdb import Checkpoint, PartitionStore
from exactly_once.task.interfaces import StoreError
from verification.simulation.clients import site
from verification.simulation.loop import Actor, current_actor

MAX_LOST_WRITES = 8
"""Largest number of writes that are lost if a machine fails before it has written its memory to disk."""
Undo = tuple[dict[str, dict[bytes, bytes | None]], dict[str, Checkpoint | None]]
"""Rows and checkpoints by table, as they were before a write; None if absent."""


class Directory:
    """Store of one partition on a disk."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.locked_by: Actor | None = None
        self.undo: list[Undo] = []

    def lose(self, writes: int) -> None:
        """Undo the last writes."""
        for _ in range(min(writes, len(self.undo))):
            rows, checkpoints = self.undo.pop()
            for table, changed in rows.items():
                _put(self.rows[table], changed)
            for table, checkpoint in checkpoints.items():
                if checkpoint is None:
                    self.checkpoints.pop(table, None)
                else:
                    self.checkpoints[table] = checkpoint


class Disk:
    """Disk of one worker: directories by path."""

    def __init__(self) -> None:
        self.directories: dict[str, Directory] = {}

    def lose(self, writes: int) -> None:
        """Undo the last writes of each directory."""
        for directory in self.directories.values():
            directory.lose(writes)


class SimulatedStore(PartitionStore):
    """``PartitionStore`` on a simulated disk."""

    def __init__(
        self,
        path: Path,
        partition: int,
        tables: Iterable[str],
        topic_ids: Mapping[str, str],
        now_ms: Callable[[], int],
        checkpoint_every_s: float = 3600.0,
    ) -> None:
        self.path, self.partition, self.tables, self.topic_ids = path, partition, list(tables), dict(topic_ids)
        self._now_ms = now_ms
        here = site.get()
        self._directory: Directory = here.disk.directories.setdefault(str(path), Directory())
        if (holder := self._directory.locked_by) is not None and not holder.dead:
            raise StoreError(f"cannot open {path}: it is locked")
        self._directory.locked_by = current_actor()
        self._is_open = True
        self._checkpoints = self._directory.checkpoints
        for table in self.tables:
            self._directory.rows.setdefault(table, {})

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._open_directory.rows[table].get(key)

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows = self._open_directory.rows[table]
        return iter([(key, rows[key]) for key in sorted(rows) if key >= from_key])

    def checkpoint(self, table: str) -> Checkpoint | None:
        return self._open_directory.checkpoints.get(table)

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
        *,
        to_the_end: bool = True,
    ) -> None:
        directory, now_ms = self._open_directory, self._now_ms()
        before = {table: {key: directory.rows[table].get(key) for key in changed} for table, changed in rows.items()}
        directory.undo.append((before, {table: directory.checkpoints.get(table) for table in next_offsets}))
        del directory.undo[:-MAX_LOST_WRITES]
        for table, changed in rows.items():
            _put(directory.rows[table], changed)
        directory.checkpoints.update(self._followed(next_offsets, appended_ms, now_ms, to_the_end=to_the_end))

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._directory.locked_by = None

    def reset_table(self, table: str, why: str) -> None:
        directory = self._open_directory
        directory.rows[table] = {}
        directory.checkpoints.pop(table, None)
        directory.undo.clear()

    @property
    def _open_directory(self) -> Directory:
        if not self._is_open:
            raise StoreError(f"{self.path} is closed")
        return self._directory


def _put(rows: dict[bytes, bytes], changed: Mapping[bytes, bytes | None]) -> None:
    for key, value in changed.items():
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value
