"""The observer of the tasks: it sees what is committed, and nothing that was rolled back."""

from collections.abc import AsyncIterator

import pytest

from exactly_once.calls.interfaces import CallOutcome, Completed, Retry
from exactly_once.task import observer
from exactly_once.task.interfaces import RejectRecord
from exactly_once.task.observer import Commit, NoObserver
from exactly_once.task.task import Task
from tests.exactly_once.fakes import FakeRecord, Stage, until


class Seen(NoObserver):
    """Observer that remembers."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.late_ms: list[int] = []
        self.calls: list[tuple[bytes, float, CallOutcome]] = []

    def committed(self, commit: Commit) -> None:
        self.commits.append(commit)

    def timer_fired(self, late_ms: int) -> None:
        self.late_ms.append(late_ms)

    def call_ended(self, request: bytes, took_s: float, outcome: CallOutcome) -> None:
        self.calls.append((request, took_s, outcome))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    stage.task.start()
    yield stage
    await stage.manager.close_all(commit=False)


@pytest.fixture
def seen(stage: Stage) -> Seen:
    stage.manager.observer = seen = Seen()
    return seen


async def test_a_commit_is_reported_after_it_is_on_disk(stage: Stage, seen: Seen) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        task.put("counts", b"k", b"1")
        task.emit("out", b"k", b"v")

    stage.transactions.hold.clear()
    await stage.apply(FakeRecord(0, timestamp=700_000), FakeRecord(1, timestamp=800_000), handler=handler)
    await until(lambda: stage.task.committing)
    stage.clock.ms += 250
    assert not seen.commits
    stage.transactions.hold.set()
    await until(lambda: seen.commits)
    [commit] = seen.commits
    assert stage.store.tables["counts"] == {b"k": b"1"}
    assert (commit.partition, commit.took_s, commit.now_ms) == (0, 0.25, 1_000_250)
    assert commit.changes.first_ms == {"in": 700_000}, "of the oldest record"
    assert commit.clock_ahead_ms == 1_000_250, "the fake broker's time is 0"
    assert len(commit.changes.outputs["out", 0]) + len(commit.changes.outputs["out", 1]) == 2


async def test_a_failed_commit_is_not_reported(stage: Stage, seen: Seen) -> None:
    def fail() -> None:
        raise ConnectionError

    stage.transactions.before["end"] = fail
    await stage.apply(FakeRecord(0), handler=lambda task, _: task.put("counts", b"k", b"1"))
    await until(lambda: not stage.task.alive)
    assert not seen.commits


async def test_what_is_rolled_back_is_not_reported(stage: Stage, seen: Seen) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        task.put("counts", b"k", b"1")
        raise RejectRecord("no")

    await stage.apply(FakeRecord(0), handler=handler)
    await until(lambda: seen.commits)
    assert not seen.commits[0].changes.rows["counts"]
    assert seen.commits[0].changes.counts == {"dead_letters": 1}


async def test_the_lateness_of_a_timer_is_reported(stage: Stage, seen: Seen) -> None:
    stage.manager.timer_handler = lambda task, timer, payload: None
    stage.task.set_timer(stage.clock.ms - 1_500, b"t", b"")
    stage.task.request_commit()
    await until(lambda: seen.late_ms)
    assert seen.late_ms == [1_500]


async def test_each_attempt_of_a_call_is_reported(stage: Stage, seen: Seen) -> None:
    stage.manager.result_handler = lambda task, call, request, result: None
    stage.performer.answers[b"c"] = [Retry("busy", 0.0), Completed(b"ok")]
    stage.task.call(b"c", b"{}")
    stage.task.request_commit()
    await until(lambda: seen.calls)
    stage.clock.ms += 10
    stage.manager.calls.add(stage.task, stage.task.calls)
    await until(lambda: len(seen.calls) == 2)
    assert [type(outcome) for _, _, outcome in seen.calls] == [Retry, Completed]
    assert seen.calls[0][0] == b"{}"


class Broken(NoObserver):
    """Observer that fails."""

    def committed(self, commit: Commit) -> None:
        raise ValueError("a row of another release")

    def timer_fired(self, late_ms: int) -> None:
        raise ValueError("a timer of another release")


async def test_errors_of_listeners_break_no_task(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.manager.observer = Broken()
    called: list[int] = []

    def handler(task: Task, record: FakeRecord) -> None:
        task.put("counts", b"k", b"%d" % record.offset)
        task.after_commit(lambda: called.append(1 // record.offset))
        task.after_commit(lambda: called.append(7))

    for offset in range(2):
        await stage.apply(FakeRecord(offset), handler=handler)
        await stage.task.committed()
    assert stage.task.alive
    assert called == [7, 1, 7]
    assert stage.manager.counters["observer_failures"] == 3
    logged = [record for record in caplog.records if record.name == observer.__name__]
    assert len(logged) == 1, "further ones are only counted"
