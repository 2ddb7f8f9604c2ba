"""A hundred thousand timers: all are in the table, only the earliest are in memory."""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice

import pytest

from exactly_once.settings import EngineSettings
from exactly_once.task.task import TIMERS, Task
from exactly_once.task.timers import TimerHead, timer_key
from tests.exactly_once.fakes import MemoryStore, Stage, until

MANY = 100_000
HEAD = 256
SETTINGS = EngineSettings(timer_head=HEAD, reopen_backoff_s=(0.0,))


class ManyTimers(MemoryStore):
    """Timers that were set earlier, read lazily as from a disk. Counts the rows that are read."""

    def __init__(self, *due_ms: range) -> None:
        super().__init__([])
        self.tables[TIMERS] = {timer_key(due, b"t%d" % due): b"" for due in chain(*due_ms)}
        self.read = 0
        self._keys = sorted(self.tables[TIMERS])

    def rows(self, table: str, from_key: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self._timers(from_key) if table == TIMERS else super().rows(table, from_key)

    def _timers(self, from_key: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in islice(self._keys, bisect_left(self._keys, from_key), None):
            if key in self.tables[TIMERS]:
                self.read += 1
                yield key, self.tables[TIMERS][key]


def staged(store: ManyTimers) -> Stage:
    """Open a task with these timers without starting it; each timer that fires writes a record."""
    stage = Stage(SETTINGS)
    stage.store = store
    stage.manager.timer_handler = lambda task, timer_id, payload: task.emit("one", timer_id, timer_id)
    stage.opened()
    return stage


def in_memory(task: Task) -> int:
    """Return the number of timers in memory."""
    return len(list(task.timers))


def test_a_task_with_100000_timers_reads_only_the_earliest() -> None:
    store = ManyTimers(range(MANY))
    stage = staged(store)
    assert in_memory(stage.task) == HEAD
    assert store.read <= HEAD + 1


class CheckedRows(Mapping[bytes, bytes | None]):
    """Timer rows of one commit, the latest first. Records the size of the head while it applies them."""

    def __init__(self, head: TimerHead, keys: list[bytes]) -> None:
        self.most = 0
        self._head = head
        self._keys = keys

    def __iter__(self) -> Iterator[bytes]:
        for number, key in enumerate(reversed(self._keys)):
            yield key
            if number % 100 == 0:
                self.most = max(self.most, len(list(self._head)))

    def __getitem__(self, key: bytes) -> bytes:
        return b""

    def __len__(self) -> int:
        return len(self._keys)


def test_100000_timers_set_at_once_are_not_held_in_memory() -> None:
    keys = [timer_key(due, b"") for due in range(MANY)]
    head = TimerHead(lambda _: iter(()), HEAD)
    rows = CheckedRows(head, keys)
    head.committed(rows)
    kept = list(head)
    assert kept == keys[: len(kept)]
    assert HEAD <= len(kept) <= rows.most <= 2 * HEAD


@pytest.mark.parametrize("fault", ["produce", "end", "ended"])
async def test_a_burst_fires_each_timer_once_despite_a_fault(fault: str) -> None:
    """``fault``: the step at which the transaction fails; after ``end`` it was committed all the same."""
    due, later = 10_000, 10_000_000
    store = ManyTimers(range(due), range(later, later + MANY - due))
    stage, committed = staged(store), Counter[bytes | None]()
    began, most, turns = stage.transactions, 0, 0

    def break_once() -> None:
        if len(store.tables[TIMERS]) < MANY - due // 2:
            began.before.clear()
            raise ConnectionError(fault)

    began.before[fault] = break_once
    stage.task.start()
    while stage.task.alive:
        await asyncio.sleep(0)
        most, turns = max(most, in_memory(stage.task)), turns + 1
    await stage.task.close()
    committed.update(began.values("one"))
    assert due // 2 <= sum(committed.values()) < due
    if fault == "ended":  # rows missing on the disk are restored from the changelog
        for key, value, _ in began.committed[f"{TIMERS}-changelog", 0]:
            assert value is None
            store.tables[TIMERS].pop(key or b"", None)

    stage.opened().start()
    await until(lambda: len(store.tables[TIMERS]) == MANY - due)
    committed.update(stage.transactions.values("one"))
    assert committed == Counter({b"t%d" % n: 1 for n in range(due)})
    assert most <= 2 * HEAD
    assert turns > due // 2 // (2 * HEAD), "other callbacks ran all the time"
    assert store.read < due + 10 * HEAD, "fired timers are not read again, and later timers are not read"
    await stage.manager.close_all()


async def test_a_burst_is_fired_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice ends when its time is over, even if more timers are due."""
    stage = staged(ManyTimers(range(MANY)))
    seconds = iter(n / 1000 for n in range(10 * MANY))  # each reading advances the clock by a millisecond
    monkeypatch.setattr("exactly_once.task.task.time.perf_counter", lambda: next(seconds))
    stage.task._fire_timers()
    assert 0 < stage.task.pending.counts["timers_fired"] <= SETTINGS.slice_s * 1000
    await stage.manager.close_all(commit=False)
