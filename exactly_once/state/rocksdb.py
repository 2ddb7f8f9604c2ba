"""Committed rows on disk: one RocksDB a partition, a column family a table. It never holds uncommitted rows.

Each family also holds a ``Checkpoint``, the changelog offset that its rows correspond to, written in one batch with the
rows: a restart restores only the records after it. The write-ahead log is on, because the families would diverge at a
kill without it. It is not fsynced: the changelog has the rows that the disk loses with the machine.

The disk is a copy, and it is not trusted. This module detects foreign writes, damage and missing files, and discards
the whole store then. ``restore`` checks whether the store matches its changelogs.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock

import msgspec
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from exactly_once.state.row_cache import TwoGenerationCache
from exactly_once.task.interfaces import StoreError
from exactly_once.task.transaction import UNSET

log = logging.getLogger(__name__)

CHECKPOINT_KEY = b"\xff\xffprogress"
"""Key of the checkpoint, and the last key of every family: no row's key sorts after it."""
SEQUENCE = b"sequence"
"""Key in RocksDB's default family: sequence number of this store's last write. RocksDB counts every writer's writes."""
DAMAGED = ("Corruption", "No such file or directory", "Invalid argument", "Not implemented")
"""Signs of damaged files in RocksDB's errors. A lock, a full disk or a missing permission is not damage."""
MEMTABLE_BYTES = 8 << 20
BLOCK_CACHE_BYTES = 64 << 20
CACHED_ROWS = 2_048
MAX_CACHED_ROW_BYTES = 2_048
"""The rows of each table that were used last stay in memory, up to twice ``CACHED_ROWS`` of them, unless larger than
this: related records read the same rows again and again, and RocksDB takes several times as long."""
MAX_AGE_S = 12 * 3600
"""Half of the changelogs' ``delete.retention.ms`` (a day). Older tombstones may be gone from the changelog, so an older
store might keep rows that were deleted."""

STALE = ".stale"
"""Ending of the name of a store that is to be deleted."""

_block_cache = Cache(BLOCK_CACHE_BYTES)
"""Shared by all partitions of the worker, so that memory does not grow with their number."""


def block_cache_bytes() -> int:
    """Return the bytes that the blocks of all stores take in memory."""
    return int(_block_cache.get_usage())


class Checkpoint(msgspec.Struct):
    """The changelog offset that a family's rows correspond to, the topic's id (a recreated topic has another one), and
    the time at which the changelog was last read to its end.

    ``last_offset`` and ``last_ms`` are the last record applied and the broker's time of it. A log that lost its end may
    have grown again, perhaps with equal records, but then with other times.
    """

    next_offset: int
    topic_id: str
    partition: int
    written_ms: int
    last_offset: int = -1
    """-1 before the first record."""
    last_ms: int = -1


_encode_checkpoint = msgspec.json.Encoder().encode
_decode_checkpoint = msgspec.json.Decoder(Checkpoint).decode


class Snapshot:
    """All rows as they were at one moment, to be read once, bit by bit, while commits go on.

    It consists of RocksDB's iterators, which see no later write. (rocksdict's snapshots do, when iterated over.)
    """

    def __init__(self, rows: Mapping[str, Iterator[tuple[bytes, bytes]]]) -> None:
        self._rows = dict(rows)

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows not read yet, in key order. ``StoreError`` after the release, or once the store is closed."""
        if table not in self._rows:
            raise StoreError(f"{table} is closed")
        return self._rows[table]

    def release(self) -> None:
        """Stop holding the database open."""
        self._rows = {}

    @property
    def released(self) -> bool:
        return not self._rows


class PartitionStore:
    """The rows of one partition.

    ``topic_ids`` maps table to the id of its changelog. ``checkpoint_every_s`` is the time in seconds after which an
    idle family's checkpoint is renewed. ``now_ms`` is a synchronised clock, in milliseconds since the epoch.

    Raises ``StoreError`` if the directory cannot be opened. A damaged or foreign store is discarded and logged.
    """

    def __init__(
        self,
        path: Path,
        partition: int,
        tables: Iterable[str],
        topic_ids: Mapping[str, str],
        now_ms: Callable[[], int],
        checkpoint_every_s: float = 3600.0,
    ) -> None:
        self.path = path
        self.partition = partition
        self.tables = list(tables)
        self.topic_ids = dict(topic_ids)
        self._now_ms = now_ms
        self._checkpoint_every_ms = 1000 * checkpoint_every_s
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self._cached: dict[str, TwoGenerationCache[bytes, bytes | None]] = {}
        self._snapshots: list[Snapshot] = []
        self._damage = ""
        self._purging = Lock()
        """Held while another thread purges rows: a store is not closed under it."""
        self._closing = False
        """True from the wish to close on: a purge then ends after the present table."""
        try:
            self._open()
            reason = self._foreign_write()
        except Exception as exc:
            self.close()
            if not self._is_damage(exc):
                raise StoreError(f"cannot open {path}: {exc}") from exc
            reason = f"damaged: {exc}"
        if reason:
            self._warn(reason)
            self._wipe()

    def _open(self) -> None:
        self._closing = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = store_options()
        # RocksDB has to be given every family on disk, also those of former tables
        known = Rdict.list_cf(str(self.path), options) if (self.path / "CURRENT").exists() else []
        families = dict.fromkeys({*known, *self.tables} - {"default"}, options)
        self._db = Rdict(str(self.path), options=options, column_families=families)
        self._families = {table: self._db.get_column_family(table) for table in self.tables}
        self._handles = {table: self._db.get_column_family_handle(table) for table in self.tables}
        self._cached = {table: TwoGenerationCache(CACHED_ROWS) for table in self.tables}
        self._checkpoints = {table: found for table in self.tables if (found := self._read_checkpoint(table))}

    def _foreign_write(self) -> str:
        """Return a description of a foreign write; empty without one."""
        written, noted = self._opened.latest_sequence_number(), self._opened.get(SEQUENCE)
        if written == (int(noted) if noted else 0):
            return ""
        return f"another process has written to it (sequence number {written} instead of {int(noted or 0)})"

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found = self._cached[table].get(key)
            if found is not UNSET:
                return found
            value: bytes | None = self._families[table].get(key)
        except Exception as exc:
            raise self._failed(f"cannot read {table}", exc) from exc
        if value is None or len(value) <= MAX_CACHED_ROW_BYTES:
            self._cached[table].put(key, value)
        return value

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order. Exhaust the iterator at once: it holds the database open."""
        if table not in self._families:
            raise StoreError(f"cannot read {table} in {self.path}: it is closed")
        return self._read(self._families[table].items(from_key=from_key), table)

    def _read(self, items: Iterator[tuple[object, bytes]], table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows. RocksDB's iterators end silently at damage; at the true end the last key is the checkpoint's."""
        key = None
        try:
            for key, value in items:
                assert isinstance(key, bytes)  # rocksdict has other types of keys, outside raw mode
                if key != CHECKPOINT_KEY:
                    yield key, value
        except Exception as exc:
            raise self._failed(f"cannot read {table}", exc) from exc
        if key != CHECKPOINT_KEY and table in self._checkpoints:
            raise self._failed(f"cannot read {table}", RuntimeError(f"Corruption: its rows end after {key!r}"))

    def snapshot(self) -> Snapshot:
        """Return all rows as they are now. The snapshot is valid until its release or until the store is closed."""
        taken = Snapshot({table: self._read(family.items(), table) for table, family in self._families.items()})
        self._snapshots = [*(each for each in self._snapshots if not each.released), taken]
        return taken

    def checkpoint(self, table: str) -> Checkpoint | None:
        return self._checkpoints.get(table)

    def _read_checkpoint(self, table: str) -> Checkpoint | None:
        found = self._families[table].get(CHECKPOINT_KEY)
        try:
            return _decode_checkpoint(found) if found else None
        except msgspec.MsgspecError as exc:
            raise RuntimeError(f"Corruption: the checkpoint of {table} cannot be read: {exc}") from exc

    def write(
        self,
        rows: Mapping[str, Mapping[bytes, bytes | None]],
        next_offsets: Mapping[str, int],
        appended_ms: Mapping[str, int],
        *,
        to_the_end: bool = True,
    ) -> None:
        """Write all or nothing. ``StoreError`` if the disk fails.

        ``rows`` maps table to key to value (None deletes). ``next_offsets`` maps table to the changelog offset to
        resume from. ``appended_ms`` maps each table with rows to the broker's time of its last record, in milliseconds.
        ``to_the_end`` False means that the changelog has more records: the checkpoint's time then stays.
        """
        batch, now_ms = WriteBatch(raw_mode=True), self._now_ms()
        large: list[tuple[str, bytes]] = []
        for table, changed in rows.items():
            family = self._handles[table]
            for key, value in changed.items():
                if value is None:
                    batch.delete(key, family)
                else:
                    batch.put(key, value, family)
                    if len(value) > MAX_CACHED_ROW_BYTES:
                        large.append((table, key))
        checkpoints = self._followed(next_offsets, appended_ms, now_ms, to_the_end=to_the_end)
        for table, noted in self._checkpoints.items():
            if table not in checkpoints and noted.written_ms < now_ms - self._checkpoint_every_ms:
                checkpoints[table] = msgspec.structs.replace(noted, written_ms=now_ms)
        for table, noted in checkpoints.items():
            batch.put(CHECKPOINT_KEY, _encode_checkpoint(noted), self._handles[table])
        try:
            db = self._opened
            batch.put(SEQUENCE, b"%d" % (db.latest_sequence_number() + batch.len() + 1))
            db.write(batch)
        except Exception as exc:
            raise self._failed("cannot write", exc) from exc
        self._checkpoints.update(checkpoints)
        for table, changed in rows.items():
            self._cached[table].update_if_warm(changed)
        for table, key in large:
            self._cached[table].forget(key)

    def _followed(
        self, next_offsets: Mapping[str, int], appended_ms: Mapping[str, int], now_ms: int, *, to_the_end: bool
    ) -> dict[str, Checkpoint]:
        """Return the new checkpoints of these tables, see ``write``."""
        checkpoints: dict[str, Checkpoint] = {}
        for table, next_offset in next_offsets.items():
            noted = self._checkpoints.get(table)
            last = (noted.last_offset, noted.last_ms) if noted else (-1, -1)
            if table in appended_ms:
                last = next_offset - 1, appended_ms[table]
            # a changelog that was never read to its end counts as current from now on
            written_ms = noted.written_ms if noted and not to_the_end else now_ms
            checkpoints[table] = Checkpoint(next_offset, self.topic_ids[table], self.partition, written_ms, *last)
        return checkpoints

    def reset_table(self, table: str, why: str) -> None:
        """Discard a table's rows, which are not those of its changelog, and log the reason."""
        self._warn(f"{table}: {why}")
        self._families, self._handles, self._cached = {}, {}, {}
        self._opened.drop_column_family(table)
        # RocksDB crashes if it opens a secondary whose manifest has a dropped family: a new opening writes a new one
        self._close()
        self._reopen()

    def purge(self, prefix: bytes) -> None:
        """Rewrite the files that may still have deleted rows with this prefix. Any thread may call it.

        A deleted row stays in RocksDB's files until they are compacted, which may take months. ``StoreError`` if the
        disk fails.
        """
        with self._purging:
            try:
                for table in list(self._families):
                    if self._closing:
                        return
                    self._families[table].flush()
                    self._families[table].compact_range(prefix, prefix + b"\xff")
                if self._db is not None:
                    self._db.flush()  # a log file stays until every family has been flushed
            except Exception as exc:
                raise self._failed("cannot compact", exc) from exc

    def close(self) -> None:
        """Release the lock, which every handle holds. A damaged store is deleted; the next opening restores it."""
        self._closing = True
        with self._purging:
            self._release()

    def _release(self) -> None:
        self._families, self._handles, self._cached = {}, {}, {}
        for snapshot in self._snapshots:
            snapshot.release()
        self._snapshots = []
        self._close()
        if self._damage:
            self._warn(f"damaged: {self._damage}")
            shutil.rmtree(self.path, ignore_errors=True)
            self._damage = ""

    def _close(self) -> None:
        """Close RocksDB, which flushes its memory and may report damage. Its log has the rows in any case."""
        db, self._db = self._db, None
        try:
            if db is not None:
                db.close()
        except Exception as exc:
            log.warning("%s", self._failed("cannot close", exc))

    def _wipe(self) -> None:
        """Delete the store and open an empty one: the changelogs have every row."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self._reopen()

    def _reopen(self) -> None:
        try:
            self._open()
        except Exception as exc:
            raise StoreError(f"cannot open {self.path}: {exc}") from exc

    def _warn(self, why: str) -> None:
        log.warning(
            "task %d: its local state does not match its changelogs and is restored from them (%s)",
            self.partition,
            why,
            extra={"partition": self.partition},
        )

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


def set_stale_aside(directory: Path, in_use: Collection[int], now_s: float) -> list[Path]:
    """Rename the stores in ``directory`` that no opening could use, and return them; the caller deletes them.

    A store has the number of its partition as name. Those ``in_use`` stay. Of the others, the partition has moved to
    another worker: its rows are deleted here too once the store is older than `MAX_AGE_S`. ``now_s`` is the time.
    """
    stores = [path for path in directory.glob("*") if path.name.isdecimal() and int(path.name) not in in_use]
    for store in stores:
        if now_s - max(file.stat().st_mtime for file in (store, *store.iterdir())) > MAX_AGE_S:
            store.rename(store.with_suffix(STALE))
    return sorted(directory.glob(f"*{STALE}"))


def store_options() -> Options:
    """Return the options of every store; a reader in another process needs the same."""
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
