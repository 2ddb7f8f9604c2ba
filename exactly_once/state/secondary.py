"""A partition's store, read by another process while the worker goes on writing: a RocksDB secondary instance.

It sees what the worker has committed, also rows that are only in the write-ahead log. It writes nothing to the store's
directory: rocksdict rewrites its configuration file whenever it opens a database, so it is given a directory of links
to the files that name the others. RocksDB finds the rest by their absolute paths.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from rocksdict import AccessType, DBPath, Options, Rdict, ReadOptions

from exactly_once.state.rocksdb import CHECKPOINT_KEY, store_options
from exactly_once.task.interfaces import StoreError

LINKED = ("CURRENT", "IDENTITY", "MANIFEST-")
"""Beginnings of the names of the files that RocksDB looks for in the database's directory alone."""
ATTEMPTS = 5
"""The worker may replace a file between two steps of the reader, which then begins again."""
UNLIMITED = 1 << 60


class SecondaryStore:
    """The committed rows of a store, as of the last `catch_up`.

    ``path`` is the store's directory, ``scratch`` an empty directory of the reader. Raises ``StoreError`` if the store
    cannot be opened.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path = path.resolve()
        self._links = scratch / "store"
        self._log = scratch / "log"
        self._links.mkdir(parents=True, exist_ok=True)
        self._db: Rdict | None = None
        self._families: dict[str, Rdict] = {}
        self.catch_up()

    def catch_up(self) -> None:
        """Read on in the worker's log. Raises ``StoreError``."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._link()
                if self._db is None:
                    self._open()
                else:
                    self._db.try_catch_up_with_primary()
                return
            except Exception as error:  # rocksdict raises no other type
                if attempt == ATTEMPTS:
                    raise StoreError(f"cannot read {self._path}: {error}") from error
                if attempt > 1:
                    self._forget()

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) in key order, as of the first one; a later `catch_up` changes nothing.

        Raises ``StoreError`` unless the iteration comes to its true end: RocksDB's iterators end silently at damage.
        """
        if table not in self._families:
            raise StoreError(f"there is no table {table} in {self._path}")
        key: object = None
        try:
            for key, value in self._families[table].items(read_opt=_read_options()):
                assert isinstance(key, bytes)  # rocksdict has other types of keys, outside raw mode
                if key != CHECKPOINT_KEY:
                    yield key, value
        except Exception as error:
            raise StoreError(f"cannot read {table} in {self._path}: {error}") from error
        if key != CHECKPOINT_KEY:
            raise StoreError(f"cannot read {table} in {self._path}: its rows end after {key!r}")

    def _forget(self) -> None:
        """Let go of the database. It is closed with the last iterator over it."""
        self._families, self._db = {}, None

    def _link(self) -> None:
        """Link the files that RocksDB looks for by name. `CURRENT` names a new manifest after each opening."""
        for file in self._path.iterdir():
            link = self._links / file.name
            if file.name.startswith(LINKED) and not link.is_symlink():
                link.symlink_to(file)

    def _open(self) -> None:
        shutil.rmtree(self._log, ignore_errors=True)
        options = self._options()
        families = {name: options for name in Rdict.list_cf(str(self._links), options) if name != "default"}
        self._db = Rdict(
            str(self._links),
            options=options,
            column_families=families,
            access_type=AccessType.secondary(str(self._log)),
        )
        self._db.try_catch_up_with_primary()
        self._families = {name: self._db.get_column_family(name) for name in families}

    def _options(self) -> Options:
        options = store_options()
        options.create_if_missing(False)
        options.create_missing_column_families(False)
        options.set_max_open_files(-1)  # the worker may delete a file that is still needed: keep all of them open
        options.set_wal_dir(str(self._path))
        options.set_db_paths([DBPath(str(self._path), UNLIMITED)])
        return options


def _read_options() -> ReadOptions:
    options = ReadOptions()
    options.fill_cache(False)  # type: ignore[call-arg]  # the stub lacks the argument
    return options
