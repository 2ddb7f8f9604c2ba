"""Committed rows on disk: one RocksDB a partition, a column family a table. Nothing uncommitted is ever in it.

Each family also knows up to where it has followed its changelog (``Progress``), written in the same batch as the rows,
so that a restart restores only what is missing. The write-ahead log is on, without it the families come apart at a
kill; it is not fsynced, for what the disk loses with the machine is in the changelog.

The disk is a copy, and one that is not trusted. What somebody else has written to it, what is damaged and what is not
there is noticed here, and all of it thrown away; whether it goes with its changelogs is seen by ``restore``.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
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

log = logging.getLogger(__name__)

PROGRESS = b"\xff\xffprogress"
"""The last key of every family: no row's key can come after it."""
SEQUENCE = b"sequence"
"""In RocksDB's default family: the number of the last write of ours. RocksDB counts what anybody writes."""
DAMAGED = ("Corruption", "No such file or directory", "Invalid argument", "Not implemented")
"""What RocksDB says of files that are not as it left them. A lock, a full disk or a permission is nothing of that."""
MEMTABLE_BYTES = 8 << 20
BLOCK_CACHE_BYTES = 64 << 20
RECENT_ROWS = 2_048
RECENT_ROW_BYTES = 2_048
"""Of each table that is read, so many rows or up to twice as many that were used last stay in memory, those that are no
larger: the rows of an order are read with each of its events, and RocksDB takes several times as long."""
OLDEST_S = 12 * 3600
"""Half of the changelogs' ``delete.retention.ms`` (a day): tombstones older than that may be gone from the changelog,
so a store that has not followed it for so long might keep rows that were deleted."""

_block_cache = Cache(BLOCK_CACHE_BYTES)
"""Shared by every partition of the worker: memory must not grow with the number of partitions."""


class Progress(msgspec.Struct):
    """Up to where a family has followed its changelog, of which topic (a recreated one has another id), seen when.

    The last record followed is remembered, and when a broker appended it, by that one's clock: a log may have lost its
    end and have grown again since, maybe with the same records, but then at another time.
    """

    next_offset: int
    topic_id: str
    partition: int
    written_ms: int
    last_offset: int = -1
    """-1: it has followed no record yet."""
    last_ms: int = -1


_encode_progress = msgspec.json.Encoder().encode
_decode_progress = msgspec.json.Decoder(Progress).decode


class Snapshot:
    """All rows as they were at one moment, to be read once, bit by bit, while others write.

    These are RocksDB's iterators, which see nothing that is written later. (rocksdict's snapshots do, when they are
    iterated over.)
    """

    def __init__(self, rows: Mapping[str, Iterator[tuple[bytes, bytes]]]) -> None:
        self._rows = dict(rows)

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Those not read yet, in key order. ``StoreError`` once it is released, or the store closed."""
        if table not in self._rows:
            raise StoreError(f"{table} is closed")
        return self._rows[table]

    def release(self) -> None:
        """It holds the database open no more."""
        self._rows = {}

    @property
    def released(self) -> bool:
        return not self._rows


class PartitionStore:
    """``topic_ids``: table -> id of its changelog. ``progress_every_s``: how often idle families note that they are
    current, by ``now_ms``, a clock that can be trusted."""

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
        self._now_ms, self._progress_every_ms = now_ms, 1000 * progress_every_s
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._recent: dict[str, Recent[bytes, bytes | None]] = {}
        self._snapshots: list[Snapshot] = []
        self._damage = ""
        try:
            self._open()
            doubt = self._doubt()
        except Exception as exc:
            self.close()
            if not self._is_damage(exc):
                raise StoreError(f"cannot open {path}: {exc}") from exc
            doubt = f"damaged: {exc}"
        if doubt:
            self._warn(doubt)
            self._wipe()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = _options()
        # RocksDB wants to know every family that is there, also those of tables that are no more
        known = Rdict.list_cf(str(self.path), options) if (self.path / "CURRENT").exists() else []
        families = dict.fromkeys({*known, *self.tables} - {"default"}, options)
        self._db = Rdict(str(self.path), options=options, column_families=families)
        self._families = {table: self._db.get_column_family(table) for table in self.tables}
        self._handles = {table: self._db.get_column_family_handle(table) for table in self.tables}
        self._recent = {table: Recent(RECENT_ROWS) for table in self.tables}
        self._progress = {table: found for table in self.tables if (found := self._read_progress(table))}

    def _doubt(self) -> str:
        """Why what is on disk cannot be what we have written; empty where it can."""
        written, noted = self._opened.latest_sequence_number(), self._opened.get(SEQUENCE)
        if written == (int(noted) if noted else 0):
            return ""
        return f"somebody else has written to it (write {written} where ours was {int(noted or 0)})"

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found = self._recent[table].get(key)
            if found is not MISSING:
                return found
            value: bytes | None = self._families[table].get(key)
        except Exception as exc:
            raise self._failed(f"cannot read {table}", exc) from exc
        if value is None or len(value) <= RECENT_ROW_BYTES:
            self._recent[table].put(key, value)
        return value

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In key order. An iterator that is kept holds the database open: use it up at once."""
        if table not in self._families:
            raise StoreError(f"cannot read {table} in {self.path}: it is closed")
        return self._read(self._families[table].items(from_key=from_key), table)

    def _read(self, items: Iterator[Any], table: str) -> Iterator[tuple[bytes, bytes]]:
        """RocksDB's iterators end at damage as they do at the end, but there the progress is last."""
        key = None
        try:
            for key, value in items:
                if key != PROGRESS:
                    yield key, value
        except Exception as exc:
            raise self._failed(f"cannot read {table}", exc) from exc
        if key != PROGRESS and table in self._progress:
            raise self._failed(f"cannot read {table}", RuntimeError(f"Corruption: its rows end after {key!r}"))

    def snapshot(self) -> Snapshot:
        """All rows as they are now. It lasts until it is released, and no longer than the store is open."""
        taken = Snapshot({table: self._read(family.items(), table) for table, family in self._families.items()})
        self._snapshots = [*(each for each in self._snapshots if not each.released), taken]
        return taken

    def progress(self, table: str) -> Progress | None:
        return self._progress.get(table)

    def _read_progress(self, table: str) -> Progress | None:
        found = self._families[table].get(PROGRESS)
        try:
            return _decode_progress(found) if found else None
        except msgspec.MsgspecError as exc:
            raise RuntimeError(f"Corruption: the progress of {table} cannot be read: {exc}") from exc

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
        *,
        to_the_end: bool = True,
    ) -> None:
        """All or nothing: rows (None deletes); of each table the changelog offset to follow it from; and of those with
        rows when a broker appended the last record of them. Not ``to_the_end``: there is more to follow, so when it was
        all followed last stays as it was."""
        batch, now_ms = WriteBatch(raw_mode=True), self._now_ms()
        large: list[tuple[str, bytes]] = []
        for table, changed in rows.items():
            family = self._handles[table]
            for key, value in changed.items():
                if value is None:
                    batch.delete(key, family)
                else:
                    batch.put(key, value, family)
                    if len(value) > RECENT_ROW_BYTES:
                        large.append((table, key))
        progress = self._followed(next_offsets, appended_ms, now_ms, to_the_end=to_the_end)
        for table, noted in self._progress.items():
            if table not in progress and noted.written_ms < now_ms - self._progress_every_ms:
                progress[table] = msgspec.structs.replace(noted, written_ms=now_ms)
        for table, noted in progress.items():
            batch.put(PROGRESS, _encode_progress(noted), self._handles[table])
        try:
            db = self._opened
            batch.put(SEQUENCE, b"%d" % (db.latest_sequence_number() + batch.len() + 1))
            db.write(batch)
        except Exception as exc:
            raise self._failed("cannot write", exc) from exc
        self._progress.update(progress)
        for table, changed in rows.items():
            self._recent[table].renew(changed)
        for table, key in large:
            self._recent[table].forget(key)

    def _followed(
        self, next_offsets: Mapping[str, int], appended_ms: Mapping[str, int], now_ms: int, *, to_the_end: bool
    ) -> dict[str, Progress]:
        """What to note of these tables, see ``write``."""
        progress: dict[str, Progress] = {}
        for table, next_offset in next_offsets.items():
            noted = self._progress.get(table)
            last = (noted.last_offset, noted.last_ms) if noted else (-1, -1)
            if table in appended_ms:
                last = next_offset - 1, appended_ms[table]
            # what has never been followed to its end is followed from its start, from now on
            written_ms = noted.written_ms if noted and not to_the_end else now_ms
            progress[table] = Progress(next_offset, self.topic_ids[table], self.partition, written_ms, *last)
        return progress

    def start_over(self, table: str, why: str) -> None:
        """Throw a table's rows away, for they are not those of its changelog."""
        self._warn(f"{table}: {why}")
        self._families.pop(table, None)
        self._handles.pop(table, None)
        self._progress.pop(table, None)
        self._recent[table] = Recent(RECENT_ROWS)
        self._opened.drop_column_family(table)
        self._families[table] = self._opened.create_column_family(table, _options())
        self._handles[table] = self._opened.get_column_family_handle(table)

    def close(self) -> None:
        """Release the lock; every handle holds it. What is damaged is thrown away: the next opening makes it anew."""
        self._families, self._handles, self._recent = {}, {}, {}
        for snapshot in self._snapshots:
            snapshot.release()
        self._snapshots = []
        self._close()
        if self._damage:
            self._warn(f"damaged: {self._damage}")
            shutil.rmtree(self.path, ignore_errors=True)
            self._damage = ""

    def _close(self) -> None:
        """RocksDB writes what it has in memory, and says then, too, what is damaged. It is in its log all the same."""
        db, self._db = self._db, None
        try:
            if db is not None:
                db.close()
        except Exception as exc:
            log.warning("%s", self._failed("cannot close", exc))

    def _wipe(self) -> None:
        """Start over with nothing: everything is in the changelogs too."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        try:
            self._open()
        except Exception as exc:
            raise StoreError(f"cannot open {self.path}: {exc}") from exc

    def _warn(self, why: str) -> None:
        log.warning("task %d: its local state is not its changelogs', restored anew (%s)", self.partition, why)

    def _failed(self, what: str, exc: Exception) -> StoreError:
        if self._is_damage(exc):
            self._damage = str(exc)
        return StoreError(f"{what} in {self.path}: {exc}")

    @staticmethod
    def _is_damage(exc: Exception) -> bool:
        return any(sign in str(exc) for sign in DAMAGED)

    @property
    def _opened(self) -> Rdict:
        if self._db is None:
            raise StoreError(f"{self.path} is closed")
        return self._db


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
