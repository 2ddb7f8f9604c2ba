"""Rows on disk, and the checkpoint of each table."""

import asyncio
import itertools
import logging
import os
import random
import shutil
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from rocksdict import Options, Rdict

from exactly_once.state import restore, rocksdb
from exactly_once.state.rocksdb import CHECKPOINT_KEY, Checkpoint, PartitionStore
from exactly_once.task.digest import PAGE, digest_of
from exactly_once.task.interfaces import StoreError

IDS = {"a": "id-a", "b": "id-b"}
HOUR_MS = 3600 * 1000
NOW_MS = 1_800_000_000_000
SEED = 5


def opened(path: Path, tables: tuple[str, ...] = ("a", "b"), checkpoint_every_s: float = 3600) -> PartitionStore:
    ticks = itertools.count(NOW_MS, 10)
    return PartitionStore(path / "0", 0, tables, {**IDS, "c": "id-c"}, lambda: next(ticks), checkpoint_every_s)


def filled(path: Path, rows: int = 3000) -> None:
    """Create a store whose first table has rows in files of RocksDB and more rows in its log."""
    found, chance = opened(path), random.Random(SEED)
    found.write(
        {"a": {b"%05d" % n: chance.randbytes(200) for n in range(rows)}, "b": {b"k": b"1"}}, {"a": rows, "b": 1}, {}
    )
    for family in found._families.values():
        family.flush()
    found.write({"a": {b"last": b"1"}}, {"a": rows + 1}, {})
    found.close()


def raw(path: Path) -> Rdict:
    """Open the same files as a tool of RocksDB does."""
    options = Options(raw_mode=True)
    return Rdict(str(path / "0"), options=options, column_families={"a": options, "b": options})


def store_logs(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the store's log records; `caplog` may also have records of a task of another test."""
    return [record for record in caplog.records if record.name == rocksdb.__name__]


def warning_of(caplog: pytest.LogCaptureFixture) -> str:
    """Return the only warning."""
    (warning,) = [record.getMessage() for record in store_logs(caplog) if record.levelno == logging.WARNING]
    caplog.clear()
    return warning


def test_rows_and_checkpoints_survive_reopening(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write({"a": {b"k": b"1", b"l": b"2"}, "b": {b"k": b"3"}}, {"a": 7, "b": 9}, {})
    first.write({"a": {b"l": None}}, {"a": 8}, {})
    first.close()
    second = opened(tmp_path)
    assert list(second.rows("a")) == [(b"k", b"1")]
    assert second.get("b", b"k") == b"3"
    assert second.get("a", b"l") is None
    checkpoint = second.checkpoint("a")
    assert checkpoint is not None
    assert (checkpoint.next_offset, checkpoint.topic_id) == (8, "id-a")
    second.close()


def test_rows_are_in_key_order_and_hide_checkpoints(tmp_path: Path) -> None:
    opened_store = opened(tmp_path)
    opened_store.write({"a": {b"%03d" % n: b"" for n in range(300)}}, {"a": 300}, {})
    assert [key for key, _ in opened_store.rows("a", b"290")] == [b"%03d" % n for n in range(290, 300)]
    assert opened_store.checkpoint("a") is not None
    opened_store.close()


def test_a_cached_row_is_read_with_its_current_value(tmp_path: Path) -> None:
    found = opened(tmp_path)
    assert found.get("a", b"k") is None
    for value in (b"1", b"2" * 5000, b"3", None):
        found.write({"a": {b"k": value}}, {"a": 1}, {})
        assert found.get("a", b"k") == value
    found.write({"a": {b"k": b"4"}}, {"a": 2}, {})
    found.reset_table("a", "for no reason")
    assert found.get("a", b"k") is None
    found.close()
    with pytest.raises(StoreError):
        found.get("a", b"k")


def test_a_write_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os; from pathlib import Path; from exactly_once.state.rocksdb import PartitionStore;"
        f"s = PartitionStore(Path({str(tmp_path)!r}) / '0', 0, ['a', 'b'], {IDS!r}, lambda: 1);"
        "[s.write({'a': {b'%d' % n: b'x'}, 'b': {b'%d' % n: b'y'}}, {'a': n, 'b': n}, {}) for n in range(200)];"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False)
    found = opened(tmp_path)
    assert len(list(found.rows("a"))) == len(list(found.rows("b"))) == 200
    assert (checkpoint := found.checkpoint("b")) is not None
    assert checkpoint.next_offset == 199
    found.close()


def test_resetting_a_table_empties_it_and_keeps_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1"}, "b": {b"k": b"2"}}, {"a": 1, "b": 1}, {})
    found.reset_table("a", "because")
    assert (
        warning_of(caplog)
        == "task 0: its local state does not match its changelogs and is restored from them (a: because)"
    )
    assert (list(found.rows("a")), found.checkpoint("a")) == ([], None)
    found.write({"a": {b"l": b"3"}}, {"a": 1}, {})
    found.close()
    again = opened(tmp_path)
    assert (list(again.rows("a")), list(again.rows("b"))) == ([(b"l", b"3")], [(b"k", b"2")])
    again.close()


def test_offset_and_time_of_the_last_record_are_stored(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1", b"l": None}}, {"a": 7}, {"a": 1234})
    found.write({}, {"a": 9}, {})
    checkpoint = found.checkpoint("a")
    assert checkpoint is not None
    assert (checkpoint.next_offset, checkpoint.last_offset, checkpoint.last_ms) == (9, 6, 1234)
    found.close()


def test_a_partial_restore_keeps_the_last_complete_time(tmp_path: Path) -> None:
    """Otherwise interrupted restores would postpone the check for missing deletions forever."""
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1"}}, {"a": 1}, {"a": 5})
    noted = found.checkpoint("a")
    for offset in (2, 3):
        found.write({"a": {b"k": b"2"}, "b": {b"k": b"1"}}, {"a": offset, "b": offset}, {"a": 6}, to_the_end=False)
    begun = found.checkpoint("a")
    assert noted is not None
    assert begun is not None
    assert (begun.written_ms, begun.next_offset) == (noted.written_ms, 3)
    found.write({}, {"a": 9, "b": 9}, {})
    ended = found.checkpoint("a")
    assert ended is not None
    assert ended.written_ms > noted.written_ms
    found.close()


@pytest.mark.parametrize("change", [lambda db: db.put(b"k", b"2"), lambda db: db.delete(b"k")], ids=["put", "deleted"])
def test_foreign_writes_are_detected(tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Any) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1"}}, {"a": 1}, {})
    found.close()
    again = opened(tmp_path)
    assert again.get("a", b"k") == b"1"
    again.close()
    assert not store_logs(caplog)
    db = raw(tmp_path)
    change(db.get_column_family("a"))
    db.close()
    third = opened(tmp_path)
    assert "another process has written to it" in warning_of(caplog)
    assert (list(third.rows("a")), third.checkpoint("a")) == ([], None)
    third.close()


def test_a_foreign_store_is_detected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    db = Rdict(str(tmp_path / "0"), options=options, column_families={"a": options})
    db.get_column_family("a").put(b"k", b"1")
    db.close()
    found = opened(tmp_path)
    assert "another process has written to it" in warning_of(caplog)
    assert list(found.rows("a")) == []
    found.close()


def test_tables_may_be_added_and_removed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write({"a": {b"k": b"1"}, "b": {b"k": b"2"}}, {"a": 1, "b": 1}, {})
    first.close()
    second = opened(tmp_path, ("a", "c"))
    assert second.checkpoint("c") is None
    second.write({"c": {b"k": b"3"}}, {"c": 1}, {})
    second.close()
    third = opened(tmp_path, ("a", "b", "c"))
    assert [third.get(table, b"k") for table in ("a", "b", "c")] == [b"1", b"2", b"3"]
    third.close()


def test_two_workers_cannot_open_one_store(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(StoreError, match="cannot open"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("files", ["CURRENT", "MANIFEST-*", "*.sst"])
@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "gone"])
def test_a_store_that_cannot_be_opened_is_recreated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: str, damage: Any
) -> None:
    filled(tmp_path)
    for file in (tmp_path / "0").glob(files):
        damage(file)
    found = opened(tmp_path)
    assert "is restored from them" in warning_of(caplog)
    assert (list(found.rows("a")), found.checkpoint("a")) == ([], None)
    found.close()


def damage_rows(path: Path) -> None:
    """Corrupt one byte of the largest file of rows."""
    file = max((path / "0").glob("*.sst"), key=lambda each: each.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def read_all(found: PartitionStore) -> None:
    list(found.rows("a"))


def get_all(found: PartitionStore) -> None:
    for n in range(3000):
        found.get("a", b"%05d" % n)


def read_snapshot(found: PartitionStore) -> None:
    list(found.snapshot().rows("a"))


@pytest.mark.parametrize("read", [read_all, get_all, read_snapshot])
def test_damage_found_by_a_read_recreates_the_store_when_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, read: Any
) -> None:
    """RocksDB's iterators end at the damage without an error, so timers and calls would be lost."""
    filled(tmp_path)
    damage_rows(tmp_path)
    found = opened(tmp_path)
    with pytest.raises(StoreError, match="Corruption"):
        read(found)
    found.close()
    assert "damaged: Corruption" in warning_of(caplog)
    again = opened(tmp_path)
    assert (list(again.rows("a")), again.checkpoint("a")) == ([], None)
    again.close()


def test_a_damaged_store_that_cannot_be_closed_is_recreated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    found = opened(tmp_path)
    db = found._opened

    class Damaged:
        def close(self) -> None:
            db.close()
            raise RuntimeError("Corruption: block checksum mismatch")

    monkeypatch.setattr(found, "_db", Damaged())
    found.close()
    assert [record.levelname for record in store_logs(caplog)] == ["WARNING", "WARNING"]
    again = opened(tmp_path)
    assert list(again.rows("a")) == []
    again.close()


def test_a_locked_store_is_not_recreated(tmp_path: Path) -> None:
    filled(tmp_path)
    found = opened(tmp_path)
    with pytest.raises(StoreError, match="lock"):
        opened(tmp_path)
    assert len(list(found.rows("a"))) == 3001
    found.close()


def test_a_store_that_lost_its_last_writes_is_only_behind(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1"}, "b": {b"k": b"1"}}, {"a": 1, "b": 1}, {})
    found.write({"a": {b"k": b"2"}, "b": {b"k": b"2"}}, {"a": 2, "b": 2}, {})
    shutil.copytree(tmp_path / "0", tmp_path / "lost" / "0")  # state after a crash of the machine
    found.close()
    (log,) = (tmp_path / "lost" / "0").glob("*.log")
    log.write_bytes(log.read_bytes()[:-5])
    again = opened(tmp_path / "lost")
    assert [again.get(table, b"k") for table in IDS] == [b"1", b"1"]
    assert [checkpoint.next_offset for table in IDS if (checkpoint := again.checkpoint(table))] == [1, 1]
    again.close()


def test_a_snapshot_is_constant_and_lets_the_store_close(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1"}}, {"a": 1}, {})
    taken = found.snapshot()
    found.write({"a": {b"k": b"2", b"l": b"3"}}, {"a": 3}, {})
    assert list(taken.rows("a")) == [(b"k", b"1")]
    found.close()
    with pytest.raises(StoreError):
        taken.rows("a")
    opened(tmp_path).close()


async def test_the_digest_depends_on_the_rows_only(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"l": b"2"}, "b": {}}, {"a": 1, "b": 0}, {})
    found.write({"a": {b"k": b"1"}}, {"a": 9}, {})
    digest = await digest_of(found.snapshot(), ("b", "a"))
    found.write({}, {"a": 77}, {})
    assert await digest_of(found.snapshot(), ("a", "b")) == digest, "the checkpoint is no row"
    for change in ({b"k": b"2"}, {b"k": None}, {b"kl": b"2"}, {b"k": b"1", b"": b""}):
        found.write({"a": {b"k": b"1", b"l": b"2", b"kl": None, b"": None}}, {"a": 99}, {})
        assert await digest_of(found.snapshot(), ("a", "b")) == digest
        found.write({"a": change}, {"a": 100}, {})
        assert await digest_of(found.snapshot(), ("a", "b")) != digest, change
    found.close()


async def test_the_digest_of_many_pages_has_every_row_once(tmp_path: Path) -> None:
    found = opened(tmp_path)
    rows = {b"%05d" % n: b"%d" % n for n in range(2 * PAGE + 3)}
    found.write({"a": rows}, {"a": len(rows)}, {})
    digest = await digest_of(found.snapshot(), ("a",))
    parts = (part for row in rows.items() for part in (b"a", *row))
    assert digest == blake2b(b"".join(pack(">I", len(part)) + part for part in parts), digest_size=16).hexdigest()
    found.close()


async def test_a_digest_ignores_concurrent_writes(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"%05d" % n: b"1" for n in range(3 * PAGE)}, "b": {b"k": b"1"}}, {"a": 3 * PAGE, "b": 1}, {})
    before = await digest_of(found.snapshot(), IDS)
    digesting = asyncio.create_task(digest_of(found.snapshot(), IDS))
    await asyncio.sleep(0)
    found.write({"a": {b"%05d" % n: b"2" for n in range(3 * PAGE)}, "b": {b"k": b"2"}}, {"a": 3 * PAGE, "b": 1}, {})
    assert not digesting.done()
    assert await digesting == before
    found.close()


def test_a_closed_store_raises_a_store_error(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.close()
    found.close()
    with pytest.raises(StoreError):
        found.get("a", b"k")
    with pytest.raises(StoreError):
        found.write({}, {}, {})
    with pytest.raises(StoreError):
        list(found.rows("a"))


def test_a_write_updates_the_checkpoints_of_idle_tables(tmp_path: Path) -> None:
    found = opened(tmp_path, checkpoint_every_s=0)
    found.write({"a": {b"k": b"1"}, "b": {b"k": b"1"}}, {"a": 1, "b": 5}, {})
    before = found.checkpoint("b")
    found.write({"a": {b"k": b"2"}}, {"a": 2}, {})
    after = found.checkpoint("b")
    assert before is not None
    assert after is not None
    assert after.next_offset == before.next_offset == 5
    assert after.written_ms > before.written_ms
    found.close()


def test_frequent_writes_skip_the_checkpoints_of_idle_tables(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"b": {b"k": b"1"}}, {"b": 5}, {})
    before = found.checkpoint("b")
    found.write({"a": {b"k": b"2"}}, {"a": 2}, {})
    assert found.checkpoint("b") == before
    found.close()


def followed(
    next_offset: int, *, ago_ms: int = 0, last: int = -1, topic: str = "id-a", partition: int = 0
) -> Checkpoint:
    return Checkpoint(next_offset, topic, partition, NOW_MS - ago_ms, last)


@pytest.mark.parametrize(
    ("noted", "doubt"),
    [
        (followed(50), ""),
        (followed(10), ""),
        (followed(100, last=99), ""),
        (followed(101), "applied to offset 101, but the topic ends at 100"),
        (followed(9), ""),  # the restore discards it all the same
        (followed(12, last=9), "applied to offset 12, but the topic begins at 10"),
        (followed(50, topic="other"), "the topic was recreated"),
        (followed(50, partition=3), "the store is of partition 3"),
        (followed(50, ago_ms=11 * HOUR_MS), ""),
        (followed(50, ago_ms=13 * HOUR_MS), "last applied 13 h ago, deletions may be missing"),
        (followed(50, ago_ms=-2 * HOUR_MS), "last applied 2.0 h in the future, by a clock that was ahead"),
    ],
)
def test_a_table_that_cannot_catch_up_is_invalid(tmp_path: Path, noted: Checkpoint, doubt: str) -> None:
    found = opened(tmp_path)
    assert restore._validation_error(noted, 10, 100, found, "a", NOW_MS) == doubt
    found.close()


def test_no_row_is_mistaken_for_a_checkpoint() -> None:
    assert CHECKPOINT_KEY.startswith(b"\xff\xff")


def test_old_stores_of_moved_partitions_are_set_aside(tmp_path: Path) -> None:
    for partition in range(4):
        PartitionStore(tmp_path / str(partition), partition, ("a",), {"a": "id-a"}, lambda: NOW_MS).close()
    (tmp_path / "3").rename(tmp_path / "3.stale")  # left by a worker that was killed meanwhile
    (tmp_path / "other").mkdir()
    now_s = (tmp_path / "0").stat().st_mtime
    assert rocksdb.set_stale_aside(tmp_path, {0}, now_s + rocksdb.MAX_AGE_S - 60) == [tmp_path / "3.stale"]
    young = max((tmp_path / "2").iterdir())
    os.utime(young, (now_s + 3600, now_s + 3600))
    aside = rocksdb.set_stale_aside(tmp_path, {0}, now_s + rocksdb.MAX_AGE_S + 60)
    assert aside == [tmp_path / "1.stale", tmp_path / "3.stale"]
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1.stale", "2", "3.stale", "other"}


def test_a_worker_without_stores_has_none_to_set_aside(tmp_path: Path) -> None:
    assert rocksdb.set_stale_aside(tmp_path / "tasks", (), 0.0) == []


def test_purged_rows_leave_the_files(tmp_path: Path) -> None:
    found, secret = opened(tmp_path), b"a secret of somebody"
    found.write({"a": {b"x/1": secret, b"y": b"1"}}, {"a": 1}, {})
    found._families["a"].flush()
    found.write({"a": {b"x/1": secret + b" again"}}, {"a": 2}, {})
    found.write({"a": {b"x/1": None}}, {"a": 3}, {})

    def is_on_disk() -> bool:
        return any(secret in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())

    assert is_on_disk(), "this test would find it"
    found.purge(b"x")
    assert not is_on_disk()
    assert dict(found.rows("a")) == {b"y": b"1"}
    found.close()
    found.purge(b"x")  # a store that is closed has nothing to purge
    again = opened(tmp_path)
    assert dict(again.rows("a")) == {b"y": b"1"}
    again.close()
