"""Stand-in for a task: it keeps rows, timers and outputs in memory, and commits nothing."""

from collections.abc import Callable, Sequence
from typing import cast

from exactly_once import Task
from tests.processors.cases import NOW


class FakeTask:
    """A task of partition 0 whose rows are written at once."""

    def __init__(self) -> None:
        self.partition = 0
        self.now_ms = NOW
        self.rows: dict[tuple[str, bytes], bytes] = {}
        self.timers: dict[bytes, int] = {}
        """Name -> due time."""
        self.emitted: list[tuple[str, bytes]] = []
        """Topic and value of each record."""
        self.headers: list[dict[str, bytes]] = []
        """Headers of each record."""
        self.requested: dict[str, bytes] = {}
        """Key and row of each call."""

    def as_task(self) -> Task:
        """Return this object, typed as the task that handlers take."""
        return cast(Task, self)

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.rows.get((table, key))

    def put(self, table: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.rows.pop((table, key), None)
        else:
            self.rows[table, key] = value

    def set_timer(self, due_ms: int, timer: bytes, _payload: bytes) -> None:
        assert timer not in self.timers, f"{timer!r} runs twice"
        self.timers[timer] = due_ms

    def cancel_timer(self, due_ms: int, timer: bytes) -> None:
        assert self.timers.pop(timer) == due_ms

    def emit(self, topic: str, _key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        self.emitted.append((topic, value))
        self.headers.append(dict(headers))

    def after_commit(self, callback: Callable[[], None]) -> None:
        callback()

    def is_awaited(self, _request: str) -> bool:
        return True

    def has_call(self, _key: bytes) -> bool:
        return False

    def call(self, key: bytes, row: bytes) -> None:
        self.requested[key.decode()] = row

    def cancel_call(self, _key: bytes) -> None:
        pass
