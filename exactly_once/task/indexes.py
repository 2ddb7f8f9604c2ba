"""Protocol of an index in memory that a task keeps up to date."""

from collections.abc import Callable, Iterable
from typing import Protocol


class Index(Protocol):
    """An index over the committed rows of one table of one task, built each time the task opens.

    The engine passes committed rows alone. An index may also hold uncommitted rows on top of the committed ones: the
    handler passes each row that it has put, as its very last step, because the engine cannot roll that back when the
    handler raises. The row is committed when the engine passes it with the value that the handler passed last.
    Nothing else needs a rollback: a task that breaks is opened with a new index.
    """

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Build the index from every row of the table. Called once."""
        ...

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Apply one committed row; ``value`` None deletes it. Called after each RocksDB write, for each row written."""
        ...


IndexFactory = Callable[[], Index]
