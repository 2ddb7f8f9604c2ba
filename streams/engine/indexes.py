"""What an index in memory has to do to be kept up to date by a task."""

from collections.abc import Callable, Iterable
from typing import Protocol


class Index(Protocol):
    """Derived from the committed rows of one table of one task, built anew whenever the task opens.

    It never sees rows that are not committed; who reads it overlays ``Task.uncommitted(table)`` where that matters.
    """

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Called once, with every row of the table."""
        ...

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Called after each RocksDB write for each row written; ``value`` None is a deletion."""
        ...


IndexFactory = Callable[[], Index]
