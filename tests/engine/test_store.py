"""Rows on disk, and how far each table has followed its changelog."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.engine import restore, store
from streams.engine.store import PROGRESS, PartitionStore, Progress
from streams.engine.task import StoreError

IDS = {"a": "id-a", "b": "id-b"}


def opened(path: Path, tables: tuple[str, ...] = ("a", "b"), progress_every_s: float = 3600) -> PartitionStore:
    return PartitionStore(path / "0", tables, {**IDS, "c": "id-c"}, progress_every_s)


def test_rows_and_progress_are_there_after_reopening(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write({"a": {b"k": b"1", b"l": b"2"}, "b": {b"k": b"3"}}, {"a": 7, "b": 9})
    first.write({"a": {b"l": None}}, {"a": 8})
    first.close()
    second = opened(tmp_path)
    assert list(second.rows("a")) == [(b"k", b"1")]
    assert second.get("b", b"k") == b"3"
    assert second.get("a", b"l") is None
    progress = second.progress("a")
    assert progress is not None
    assert (progress.next_offset, progress.topic_id) == (8, "id-a")
    second.close()


def test_rows_are_in_key_order_from_a_key_on_and_show_no_progress(tmp_path: Path) -> None:
    opened_store = opened(tmp_path)
    opened_store.write({"a": {b"%03d" % n: b"" for n in range(300)}}, {"a": 300})
    assert [key for key, _ in opened_store.rows("a", b"290")] == [b"%03d" % n for n in range(290, 300)]
    assert opened_store.progress("a") is not None
    opened_store.close()


def test_a_row_that_was_read_before_is_read_as_it_is_now(tmp_path: Path) -> None:
    found = opened(tmp_path)
    assert found.get("a", b"k") is None
    for value in (b"1", b"2" * 5000, b"3", None):
        found.write({"a": {b"k": value}}, {"a": 1})
        assert found.get("a", b"k") == value
    found.write({"a": {b"k": b"4"}}, {"a": 2})
    found.wipe()
    assert found.get("a", b"k") is None
    found.close()
    with pytest.raises(StoreError):
        found.get("a", b"k")


def test_a_write_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os; from pathlib import Path; from streams.engine.store import PartitionStore;"
        f"s = PartitionStore(Path({str(tmp_path)!r}) / '0', ['a', 'b'], {IDS!r});"
        "[s.write({'a': {b'%d' % n: b'x'}, 'b': {b'%d' % n: b'y'}}, {'a': n, 'b': n}) for n in range(200)];"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False)
    found = opened(tmp_path)
    assert len(list(found.rows("a"))) == len(list(found.rows("b"))) == 200
    assert (progress := found.progress("b")) is not None
    assert progress.next_offset == 199
    found.close()


def test_wiping_leaves_nothing(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"a": {b"k": b"1"}}, {"a": 1})
    found.wipe()
    assert list(found.rows("a")) == []
    assert found.progress("a") is None
    found.close()


def test_tables_may_come_and_go(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write({"a": {b"k": b"1"}, "b": {b"k": b"2"}}, {"a": 1, "b": 1})
    first.close()
    second = opened(tmp_path, ("a", "c"))
    assert second.progress("c") is None
    second.write({"c": {b"k": b"3"}}, {"c": 1})
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


def test_a_corrupt_store_is_started_over(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write({"a": {b"k": b"1"}}, {"a": 1})
    first.close()
    (tmp_path / "0" / "CURRENT").write_bytes(b"MANIFEST-nonsense\n")
    second = opened(tmp_path)
    assert second.progress("a") is None
    second.close()


def test_a_closed_store_raises_a_store_error(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.close()
    found.close()
    with pytest.raises(StoreError):
        found.get("a", b"k")
    with pytest.raises(StoreError):
        found.write({}, {})
    with pytest.raises(StoreError):
        list(found.rows("a"))


def test_idle_tables_note_with_anothers_write_that_they_are_current(tmp_path: Path) -> None:
    found = opened(tmp_path, progress_every_s=0)
    found.write({"a": {b"k": b"1"}, "b": {b"k": b"1"}}, {"a": 1, "b": 5})
    before = found.progress("b")
    found.write({"a": {b"k": b"2"}}, {"a": 2})
    after = found.progress("b")
    assert before is not None
    assert after is not None
    assert after.next_offset == before.next_offset == 5
    assert after.written_at > before.written_at
    found.close()


def test_busy_writes_do_not_rewrite_the_progress_of_idle_tables(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.write({"b": {b"k": b"1"}}, {"b": 5})
    before = found.progress("b")
    found.write({"a": {b"k": b"2"}}, {"a": 2})
    assert found.progress("b") == before
    found.close()


NOW = time.time()


@pytest.mark.parametrize(
    ("noted", "doubt"),
    [
        (Progress(50, "id", NOW), ""),
        (Progress(10, "id", NOW), ""),
        (Progress(100, "id", NOW), ""),
        (Progress(101, "id", NOW), "followed to 101, but the topic ends at 100"),
        (Progress(9, "id", NOW), "followed to 9, but the topic begins at 10"),
        (Progress(50, "other", NOW), "the topic has been created anew"),
        (Progress(50, "id", NOW - store.OLDEST_S - 60), "not followed for 12 h, deletions may be missing"),
    ],
)
def test_what_cannot_be_brought_up_to_date_is_doubted(noted: Progress, doubt: str) -> None:
    assert restore._doubt(noted, 10, 100, "id") == doubt


def test_no_row_can_be_taken_for_progress() -> None:
    assert PROGRESS.startswith(b"\xff\xff")
