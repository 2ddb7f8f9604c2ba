"""A store read by another process: it sees what is committed, and never touches the store's directory."""

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from exactly_once.state.rocksdb import PartitionStore
from exactly_once.state.secondary import SecondaryStore
from exactly_once.task.interfaces import StoreError

TABLES = {"orders": "id-of-orders", "journal": "id-of-journal"}


def opened(path: Path) -> PartitionStore:
    return PartitionStore(path, 0, TABLES, TABLES, lambda: 1_000)


_offsets = count(1)


def write(store: PartitionStore, **rows: bytes | None) -> None:
    changed = {key.encode(): value for key, value in rows.items()}
    offset = next(_offsets)
    store.write({"orders": changed}, {"orders": offset, "journal": offset}, {"orders": 1_000})


def read(secondary: SecondaryStore) -> dict[bytes, bytes]:
    return dict(secondary.rows("orders"))


def files(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return the files of a directory, with the time of the last change, size and inode of each."""
    found = {file.name: file.stat() for file in directory.iterdir()}
    return {name: (stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in found.items()}


def test_rows_are_seen_once_they_are_committed(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    write(store, a=b"1", b=b"2")
    secondary = SecondaryStore(tmp_path / "0", tmp_path / "scratch")
    assert read(secondary) == {b"a": b"1", b"b": b"2"}
    assert dict(secondary.rows("journal")) == {}
    write(store, a=None, c=b"3")
    assert read(secondary) == {b"a": b"1", b"b": b"2"}
    secondary.catch_up()
    assert read(secondary) == {b"b": b"2", b"c": b"3"}
    store.close()


def test_reading_changes_nothing_in_the_directory(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    write(store, a=b"1")
    before = files(tmp_path / "0")
    secondary = SecondaryStore(tmp_path / "0", tmp_path / "scratch")
    secondary.catch_up()
    assert read(secondary) == {b"a": b"1"}
    assert files(tmp_path / "0") == before
    store.close()
    again = opened(tmp_path / "0")
    assert again.get("orders", b"a") == b"1", "the store finds no foreign write"
    again.close()


def test_an_iteration_is_of_one_moment(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    write(store, a=b"1", c=b"3")
    secondary = SecondaryStore(tmp_path / "0", tmp_path / "scratch")
    rows = secondary.rows("orders")
    assert next(rows) == (b"a", b"1")
    write(store, b=b"2", c=None)
    secondary.catch_up()
    assert list(rows) == [(b"c", b"3")]
    store.close()


def test_a_store_is_read_across_its_reopening_and_compaction(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    write(store, a=b"1")
    secondary = SecondaryStore(tmp_path / "0", tmp_path / "scratch")
    store.close()
    store = opened(tmp_path / "0")
    write(store, a=None, b=b"2")
    store.purge(b"")
    write(store, c=b"3")
    secondary.catch_up()
    assert read(secondary) == {b"b": b"2", b"c": b"3"}
    store.close()


def test_a_table_that_was_reset_is_read(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    write(store, a=b"1")
    store.reset_table("orders", "a test resets it")
    write(store, b=b"2")
    assert read(SecondaryStore(tmp_path / "0", tmp_path / "scratch")) == {b"b": b"2"}
    store.close()


def test_rows_that_end_before_the_checkpoint_are_an_error(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    store.write({"orders": {b"a": b"1"}}, {}, {})  # as if a damaged file ended the iteration
    secondary = SecondaryStore(tmp_path / "0", tmp_path / "scratch")
    with pytest.raises(StoreError, match="its rows end after b'a'"):
        read(secondary)
    store.close()


def test_a_missing_store_or_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        SecondaryStore(tmp_path / "nowhere", tmp_path / "scratch")
    store = opened(tmp_path / "0")
    with pytest.raises(StoreError, match="no table drivers"):
        list(SecondaryStore(tmp_path / "0", tmp_path / "other").rows("drivers"))
    store.close()


def test_another_process_reads_while_the_store_is_open(tmp_path: Path) -> None:
    store = opened(tmp_path / "0")
    write(store, a=b"1")
    program = (
        "import sys; from pathlib import Path; from exactly_once.state.secondary import SecondaryStore; "
        "print(dict(SecondaryStore(Path(sys.argv[1]), Path(sys.argv[2])).rows('orders')))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "0"), str(tmp_path / "scratch")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "{b'a': b'1'}"
    store.close()
