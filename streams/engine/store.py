"""Committed rows on disk: one RocksDB a partition, a column family a table. Nothing uncommitted is ever in it.

Each family also knows up to where it has followed its changelog (``Progress``), written in the same batch as the rows,
so that a restart restores only what is missing. The write-ahead log is on, without it the families come apart at a
kill; it is not fsynced, for what the disk loses with the machine is in the changelog.
"""

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import faust.stores
import msgspec
from faust.stores.base import Store as FaustStore
from faust.types import TP
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from streams.engine.changes import MISSING
from streams.engine.recent import Recent
from streams.engine.task import StoreError

SCHEME = "tasks"
faust.stores.STORES.aliases[SCHEME] = "streams.engine.store:TaskStore"

PROGRESS = b"\xff\xffprogress"
MEMTABLE_BYTES = 8 << 20
BLOCK_CACHE_BYTES = 64 << 20
RECENT_ROWS = 2_048
RECENT_ROW_BYTES = 2_048
"""Of each table, so many rows or up to twice as many that were read last stay in memory, those that are no larger: the
rows of an order are read with each of its events, which takes RocksDB several times as long as a dict."""
OLDEST_S = 12 * 3600
"""Half of the changelogs' ``delete.retention.ms`` (a day): tombstones older than that may be gone from the changelog,
so a store that has not followed it for so long might keep rows that were deleted."""

_block_cache = Cache(BLOCK_CACHE_BYTES)
"""Shared by every partition of the worker: memory must not grow with the number of partitions."""


class Progress(msgspec.Struct):
    """Up to where a family has followed its changelog, of which topic (a recreated one has another id), seen when."""

    next_offset: int
    topic_id: str
    written_at: float


_encode_progress = msgspec.json.Encoder().encode
_decode_progress = msgspec.json.Decoder(Progress).decode


class PartitionStore:
    """``topic_ids``: table -> id of its changelog. ``progress_every_s``: how often idle families note that they are
    current."""

    def __init__(
        self, path: Path, tables: Iterable[str], topic_ids: Mapping[str, str], progress_every_s: float = 3600.0
    ) -> None:
        self.path, self.tables, self.topic_ids = path, list(tables), dict(topic_ids)
        self._progress_every_s = progress_every_s
        self._db: Rdict | None = None
        try:
            self._open()
        except Exception as exc:
            if "Corruption" not in str(exc):
                raise StoreError(f"cannot open {path}: {exc}") from exc
            self.wipe()  # everything in it is in the changelogs too

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = _options()
        # RocksDB wants to know every family that is there, also those of tables that are no more
        known = Rdict.list_cf(str(self.path), options) if (self.path / "CURRENT").exists() else []
        families = dict.fromkeys({*known, *self.tables} - {"default"}, options)
        self._db = Rdict(str(self.path), options=options, column_families=families)
        self._families = {table: self._db.get_column_family(table) for table in self.tables}
        self._handles = {table: self._db.get_column_family_handle(table) for table in self.tables}
        self._progress = {table: found for table in self.tables if (found := self.progress(table))}
        self._recent = {table: Recent[bytes, bytes | None](RECENT_ROWS, _is_small) for table in self.tables}

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found = self._recent[table].get(key)
            if found is not MISSING:
                return found
            value: bytes | None = self._families[table].get(key)
        except Exception as exc:
            raise StoreError(f"cannot read {table} in {self.path}: {exc}") from exc
        self._recent[table].put(key, value)
        return value

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In key order. An iterator that is kept holds the database open: use it up at once."""
        try:
            for key, value in self._families[table].items(from_key=from_key):
                if key != PROGRESS:
                    yield key, value  # type: ignore[misc]
        except Exception as exc:
            raise StoreError(f"cannot read {table} in {self.path}: {exc}") from exc

    def progress(self, table: str) -> Progress | None:
        found = self._families[table].get(PROGRESS)
        return _decode_progress(found) if found else None

    def write(self, rows: Mapping[str, Mapping[bytes, bytes | None]], next_offsets: Mapping[str, int]) -> None:
        """Rows (None deletes) and, of each table, the changelog offset after the last of them; all or nothing."""
        batch, now = WriteBatch(raw_mode=True), time.time()
        for table, changed in rows.items():
            family = self._handles[table]
            for key, value in changed.items():
                if value is None:
                    batch.delete(key, family)
                else:
                    batch.put(key, value, family)
        progress = {table: Progress(offset, self.topic_ids[table], now) for table, offset in next_offsets.items()}
        for table, noted in self._progress.items():
            if table not in progress and noted.written_at < now - self._progress_every_s:
                progress[table] = Progress(noted.next_offset, noted.topic_id, now)
        for table, noted in progress.items():
            batch.put(PROGRESS, _encode_progress(noted), self._handles[table])
        try:
            self._opened.write(batch)
        except Exception as exc:
            raise StoreError(f"cannot write to {self.path}: {exc}") from exc
        self._progress.update(progress)
        for table, changed in rows.items():
            self._recent[table].renew(changed)

    def close(self) -> None:
        """Release the lock; every handle holds it."""
        self._families, self._handles, self._recent = {}, {}, {}
        if self._db is not None:
            self._db.close()
            self._db = None

    def wipe(self) -> None:
        """Start over with nothing."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self._open()

    @property
    def _opened(self) -> Rdict:
        if self._db is None:
            raise StoreError(f"{self.path} is closed")
        return self._db


def _is_small(row: bytes | None) -> bool:
    return row is None or len(row) <= RECENT_ROW_BYTES


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_size(MEMTABLE_BYTES)
    table = BlockBasedOptions()
    table.set_block_cache(_block_cache)
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    options.set_keep_log_file_num(2)
    return options


class TaskStore(FaustStore[bytes, bytes]):
    """What Faust sees of a table: the committed rows of the tasks open in this worker. Only tasks write."""

    def __getitem__(self, key: bytes) -> bytes:
        value: bytes | None = self._engine.find(self.table_name, key)
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[bytes]:
        return (key for _, key, _ in self._engine.scan(self.table_name, limit=None))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        raise TypeError(f"the table {self.table_name} is written through a task: task.put(...)")

    def __delitem__(self, key: bytes) -> None:
        raise TypeError(f"the table {self.table_name} is written through a task: task.put(..., None)")

    @property
    def _engine(self) -> Any:
        return self.app.transport.engine  # type: ignore[attr-defined]

    def persisted_offset(self, tp: TP) -> int | None:
        """Faust restores nothing: the engine does."""
        return None

    def apply_changelog_batch(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("tables are restored by the engine")

    def reset_state(self) -> None:
        """Nothing is kept here."""

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a table's backup is its changelog topic")

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("a table's backup is its changelog topic")
