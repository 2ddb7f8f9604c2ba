"""What an index in memory has to do to be kept up to date by a task."""

from collections.abc import Callable, Iterable
from typing import Protocol


class Index(Protocol):
    """Derived from the committed rows of one table of one task, built anew whenever the task opens.

    The engine brings it committed rows alone. An index may also hold rows that are not committed yet, over the
    committed ones: a handler then tells it of the rows it has put, as its very last step, for the engine cannot undo
    that when the handler raises. Such a row is committed when it is brought with the value that it was given last.
    Nothing else has to be undone: a task that breaks is opened with a new index.
    """

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Called once, with every row of the table."""
        ...

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Called after each RocksDB write for each row written; ``value`` None is a deletion."""
        ...


IndexFactory = Callable[[], Index]
