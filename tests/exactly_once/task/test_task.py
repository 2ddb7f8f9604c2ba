"""One task on a scripted Kafka and disk."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace

import pytest

from exactly_once.calls.interfaces import Completed, Retry
from exactly_once.calls.rows import CALLS, Call, encode_call
from exactly_once.settings import EngineSettings
from exactly_once.task.interfaces import RejectRecord, StoreError, TaskBroken
from exactly_once.task.task import MAX_RECORD_BYTES, TIMERS, Task, WallClock
from exactly_once.task.timers import timer_key
from exactly_once.task.transaction import ProducerRecord
from tests.exactly_once.fakes import FakeRecord, Stage, until


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    stage.task.start()
    yield stage
    await stage.manager.close_all(commit=False)


def count(task: Task, record: FakeRecord) -> None:
    """Count the key and emit the count."""
    total = int(task.get("counts", record.key or b"") or b"0") + 1
    task.put("counts", record.key or b"", b"%d" % total)
    task.emit("out", record.key, b"%d" % total)


async def test_a_commit_is_produce_then_end_then_disk_then_publish(stage: Stage) -> None:
    with stage.manager.watch.answer("event") as answer:

        def handler(task: Task, record: FakeRecord) -> None:
            count(task, record)
            task.answer("event", "done")

        answer.future.add_done_callback(lambda _: stage.log.append("answer"))
        await stage.apply(FakeRecord(0), FakeRecord(1), handler=handler)
        assert await answer.get(1) == "done"
    assert stage.log == ["produce", "end", "write", "answer"]
    assert stage.transactions.values("out") == [b"1", b"2"]
    assert stage.transactions.values("counts-changelog") == [b"2"], "one changelog record per changed row"
    assert stage.transactions.positions == {"in": 2}
    assert stage.store.tables["counts"] == {b"k": b"2"}
    assert stage.store.next_offsets == {"counts": 1, "positions": 1}


async def test_rows_are_read_from_pending_then_committing_then_disk(stage: Stage) -> None:
    task = stage.task
    stage.store.tables["counts"] |= {b"a": b"disk", b"b": b"disk", b"c": b"disk", b"x": b"disk"}
    stage.transactions.hold.clear()
    for key in (b"b", b"c"):
        task.put("counts", key, b"flight")
    task.put("counts", b"x", None)
    task.request_commit()
    await until(lambda: task.committing)
    task.put("counts", b"c", b"buffer")
    task.put("counts", b"d", b"buffer")
    assert [task.get("counts", key) for key in (b"a", b"b", b"c", b"d", b"x")] == [
        b"disk",
        b"flight",
        b"buffer",
        b"buffer",
        None,
    ]
    assert dict(task.scan("counts"))[b"x"] == b"disk", "views see committed rows"
    assert list(task.scan("counts", after=b"b")) == [(b"c", b"disk"), (b"x", b"disk")]


async def test_records_during_a_commit_form_one_next_commit(stage: Stage) -> None:
    stage.transactions.hold.clear()
    await stage.apply(FakeRecord(0), handler=count)
    await until(lambda: stage.task.committing)
    for offset in range(1, 6):
        await stage.apply(FakeRecord(offset), handler=count)
    stage.transactions.hold.set()
    await stage.task.committed()
    assert stage.task.commits == 2
    assert stage.transactions.positions == {"in": 6}


async def test_functions_are_called_after_the_commit_alone(stage: Stage) -> None:
    called: list[int] = []

    def handler(task: Task, record: FakeRecord) -> None:
        count(task, record)
        task.after_commit(lambda: called.append(record.offset))
        if record.offset == 1:
            raise RuntimeError("poison")

    stage.transactions.hold.clear()
    await stage.apply(*(FakeRecord(offset) for offset in range(3)), handler=handler)
    await until(lambda: stage.task.committing)
    assert not called
    stage.transactions.hold.set()
    await stage.task.committed()
    assert called == [0, 2], "that of the record that was rolled back is not called"


async def test_an_attempt_brings_a_function_for_its_commit(stage: Stage) -> None:
    called: list[str] = []
    stage.task.put(CALLS, b"c", encode_call(Call(b"{}")))
    row = stage.task.get(CALLS, b"c")
    assert row is not None
    stage.task.finish_call(b"c", row, Retry("no answer", after_commit=lambda: called.append("again")))
    assert not called
    await stage.task.committed()
    assert called == ["again"]
    stage.task.put("counts", b"k", b"1")
    stage.task.finish_call(b"c", row, Completed(b"", after_commit=lambda: called.append("late")))
    await stage.task.committed()
    assert called == ["again", "late"], "also of a row that has changed: the attempt was made"


async def test_a_record_whose_handler_raises_becomes_a_dead_letter(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        count(task, record)
        task.set_timer(2_000_000, b"t", b"")
        task.answer("event", record.offset)
        if record.offset == 1:
            raise RuntimeError("poison")

    with stage.manager.watch.answer("event") as answer:
        records = [FakeRecord(offset, headers=[("trace", b"1")], value=b"%d" % offset) for offset in range(3)]
        await stage.apply(*records, handler=handler)
        assert await answer.get(1) == 0
    await stage.task.committed()
    assert stage.store.tables["counts"] == {b"k": b"2"}
    assert stage.transactions.values("out") == [b"1", b"2"]
    assert stage.transactions.positions == {"in": 3}
    ((key, value, headers),) = letters(stage)
    notes = dict(headers)
    assert (key, value, notes["trace"]) == (b"k", b"1", b"1")
    assert (notes["origin.topic"], notes["origin.partition"], notes["origin.offset"]) == (b"in", b"0", b"1")
    assert notes["dead-letter.reason"] == b"RuntimeError: poison"
    assert notes["exception.class"] == b"builtins.RuntimeError"
    assert notes["exception.message"] == b"poison"
    assert b"in handler" in notes["exception.stack"]
    assert stage.manager.counters["dead_letters"] == 1
    assert stage.task.alive


def letters(stage: Stage) -> list[ProducerRecord]:
    return [letter for partition in (0, 1) for letter in stage.transactions.committed.get(("dead", partition), [])]


async def test_a_dead_letter_stays_in_the_partition_of_its_task(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        raise RejectRecord("no")

    for offset, key in enumerate((b"k", b"l", None)):
        await stage.apply(FakeRecord(offset, key=key), handler=handler)
    await stage.task.committed()
    assert len({stage.manager.partitioner(key, 2) for key in (b"k", b"l")}) == 2
    assert len(stage.transactions.committed["dead", 0]) == 3


async def test_a_rejection_has_a_reason_and_no_stack(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        count(task, record)
        raise RejectRecord("no such restaurant")

    await stage.apply(FakeRecord(0), handler=handler)
    await stage.task.committed()
    ((_, _, headers),) = letters(stage)
    assert dict(headers)["dead-letter.reason"] == b"no such restaurant"
    assert not any(name.startswith("exception") for name, _ in headers)
    assert stage.store.tables["counts"] == {}


async def test_a_sender_cannot_forge_the_origin_of_a_dead_letter(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        raise RejectRecord("no")

    forged = [("origin.topic", b"payments"), ("dead-letter.reason", b"fine"), ("exception.class", b"x"), ("own", b"1")]
    await stage.apply(FakeRecord(0, headers=forged), handler=handler)
    await stage.task.committed()
    ((_, _, headers),) = letters(stage)
    assert sorted(headers) == [
        ("dead-letter.reason", b"no"),
        ("origin.offset", b"0"),
        ("origin.partition", b"0"),
        ("origin.topic", b"in"),
        ("own", b"1"),
    ]


async def test_waiters_of_a_failed_handler_get_the_reason(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        event_id = str(record.offset)
        task.answer_on_failure(event_id, lambda reason: ("undone", reason))
        task.answer(event_id, "done")
        if record.offset:
            raise RejectRecord("no such restaurant") if record.offset == 1 else RuntimeError("poison")

    watch = stage.manager.watch
    with watch.answer("0") as fine, watch.answer("1") as refused, watch.answer("2") as poisoned:
        stage.transactions.hold.clear()
        await stage.apply(*map(FakeRecord, range(3)), handler=handler)
        await stage.settle()
        assert not refused.future.done(), "not before the dead letter is committed"
        stage.transactions.hold.set()
        assert await fine.get(1) == "done"
        assert await refused.get(1) == ("undone", "no such restaurant")
        assert await poisoned.get(1) == ("undone", "RuntimeError: poison")
    assert [dict(headers)["dead-letter.reason"] for _, _, headers in letters(stage)] == [
        b"no such restaurant",
        b"RuntimeError: poison",
    ]


async def test_a_timer_whose_handler_raises_answers_only_its_events(stage: Stage) -> None:
    def fire(task: Task, timer_id: bytes, payload: bytes) -> None:
        task.answer_on_failure("timer", lambda reason: reason)
        raise RejectRecord("too late")

    stage.manager.timer_handler = fire
    with stage.manager.watch.answer("record") as record, stage.manager.watch.answer("timer") as timer:
        stage.transactions.hold.clear()
        await stage.apply(
            FakeRecord(0), handler=lambda task, _: task.answer_on_failure("record", lambda reason: reason)
        )
        stage.task.set_timer(stage.clock.ms, b"t", b"")
        stage.transactions.hold.set()
        assert await timer.get(1) == "too late"
        assert not record.future.done()


async def test_a_reason_that_is_no_valid_utf8_is_reported(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        raise ValueError("unknown name \ud800")

    await stage.apply(FakeRecord(0), handler=handler)
    await stage.task.committed()
    ((_, _, headers),) = letters(stage)
    assert dict(headers)["dead-letter.reason"] == b"ValueError: unknown name ?"


async def test_a_dead_letter_whose_handler_raises_is_skipped(
    stage: Stage,
) -> None:
    def poison(task: Task, _: FakeRecord) -> None:
        task.emit("out", b"k", b"v")
        raise RuntimeError("poison")

    stage.manager.sources.append("dead")
    stage.opened(dead=0).start()
    await stage.apply(FakeRecord(0, topic="dead"), handler=poison)
    await stage.task.committed()
    assert letters(stage) == []
    assert stage.manager.counters["dead_letters_passed_over"] == 1
    assert stage.transactions.positions == {"dead": 1}
    assert ("out", 0) not in stage.transactions.committed


async def test_a_dead_letter_of_any_size_fits(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        raise RuntimeError("x" * 2_000_000)

    records = [
        FakeRecord(0, value=bytes(MAX_RECORD_BYTES)),
        FakeRecord(1, key=bytes(MAX_RECORD_BYTES)),
        FakeRecord(2, headers=[("h", bytes(MAX_RECORD_BYTES))]),
        FakeRecord(3, key=None, value=None),
    ]
    await stage.apply(*records, handler=handler)
    await stage.task.committed()
    found = letters(stage)
    assert len(found) == 4
    for key, value, headers in found:
        size = sum(len(name) + len(note) for name, note in headers) + len(key or b"") + len(value or b"")
        assert size <= MAX_RECORD_BYTES
    cut = [dict(headers)["dead-letter.cut"] for _, _, headers in found if "dead-letter.cut" in dict(headers)]
    assert cut == [str(MAX_RECORD_BYTES).encode()]


@pytest.mark.parametrize("step", ["produce", "end", "ended"])
async def test_a_fault_at_any_step_breaks_the_task_and_spares_the_disk(stage: Stage, step: str) -> None:
    def fault() -> None:
        raise ConnectionError(step)

    stage.transactions.before[step] = fault
    with stage.manager.watch.answer("event") as answer:

        def handler(task: Task, record: FakeRecord) -> None:
            count(task, record)
            task.call(b"id", b"host/x")
            task.answer("event", 1)

        await stage.apply(FakeRecord(0), handler=handler)
        await until(lambda: not stage.task.alive)
        await stage.settle()
        assert not answer.future.done()
    assert stage.resets == [0.0]
    assert stage.store.tables["counts"] == {}
    assert not stage.performer.calls
    assert (stage.transactions.positions == {"in": 1}) == (step == "ended"), "it may have been committed"
    with pytest.raises(TaskBroken):
        await stage.task.committed()


async def test_a_disk_error_breaks_the_task_without_a_dead_letter(stage: Stage) -> None:
    stage.store.fails = StoreError("no space left on device")
    await stage.apply(FakeRecord(0), handler=count)
    assert not stage.task.alive
    await stage.settle()
    assert stage.log == []


async def test_a_broken_task_applies_no_records(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        count(task, record)
        stage.manager.break_task(task, RuntimeError("broken meanwhile"))

    await stage.apply(FakeRecord(0), FakeRecord(1), handler=handler)
    await stage.settle()
    assert stage.task.next_offsets["in"] == 1
    assert stage.log == []


async def test_the_size_of_a_transaction_is_counted_in_bytes(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        task.put("counts", b"k", b"12")
        task.put("counts", b"k", None)
        task.emit("out", b"key", None, [("trace", b"1234"), ("mark", b"")])

    stage.task.apply(FakeRecord(0), handler)  # type: ignore[arg-type]
    assert stage.task.pending.bytes == 3 + 1 + 3 + 9 + 4


async def test_a_task_that_breaks_during_a_commit_sends_no_end(stage: Stage) -> None:
    stage.transactions.hold.clear()
    await stage.apply(FakeRecord(0), handler=count)
    await until(lambda: stage.log == ["produce"])
    stage.manager.break_task(stage.task, RuntimeError("elsewhere"))
    stage.transactions.hold.set()
    await stage.settle()
    assert stage.log == ["produce"]
    assert stage.store.tables["counts"] == {}


async def test_a_view_that_finds_a_damaged_disk_breaks_the_task(stage: Stage) -> None:
    stage.store.fails = StoreError("Corruption")
    with pytest.raises(TaskBroken):
        stage.task.read("counts", b"k")
    assert (stage.task.alive, stage.resets) == (False, [0.0])


async def test_the_digest_of_a_task_has_committed_rows_only(stage: Stage) -> None:
    nothing = await stage.task.digest()
    stage.transactions.hold.clear()
    stage.task.put("counts", b"k", b"1")
    stage.task.request_commit()
    await stage.settle()
    assert await stage.task.digest() == nothing
    stage.transactions.hold.set()
    await stage.task.committed()
    assert await stage.task.digest() != nothing


async def test_a_commit_past_its_deadline_breaks_the_task() -> None:
    stage = Stage(EngineSettings(commit_deadline_s=0.01))
    stage.task.start()
    stage.transactions.hold.clear()
    await stage.apply(FakeRecord(0), handler=count)
    await until(lambda: not stage.task.alive)
    await stage.task.close()


async def test_records_applied_before_a_seek_are_skipped(stage: Stage) -> None:
    await stage.apply(FakeRecord(0), FakeRecord(1), handler=count)
    await stage.apply(FakeRecord(0), FakeRecord(1), FakeRecord(2), handler=count)
    await stage.task.committed()
    assert stage.store.tables["counts"] == {b"k": b"3"}


async def test_a_batch_with_a_gap_breaks_the_task(stage: Stage) -> None:
    await stage.apply(FakeRecord(0), handler=count)
    await stage.apply(FakeRecord(9), handler=count, follows=5)
    assert not stage.task.alive
    assert stage.task.next_offsets["in"] == 1


async def test_offsets_may_have_gaps_where_markers_are(stage: Stage) -> None:
    await stage.apply(FakeRecord(0), handler=count, follows=0)
    await stage.apply(FakeRecord(7), handler=count, follows=1)
    await stage.task.committed()
    assert stage.transactions.positions == {"in": 8}


async def test_a_full_transaction_makes_records_wait_for_the_next() -> None:
    stage = Stage(EngineSettings(buffer_bytes=1000))
    stage.task.start()
    stage.transactions.hold.clear()

    def handler(task: Task, record: FakeRecord) -> None:
        task.put("counts", b"%d" % record.offset, bytes(300))

    applying = asyncio.create_task(stage.apply(*map(FakeRecord, range(40)), handler=handler))
    await stage.settle()
    assert stage.task.pending.bytes < 2000
    assert stage.task.next_offsets["in"] < 40
    stage.transactions.hold.set()
    await applying
    await stage.task.committed()
    assert len(stage.store.tables["counts"]) == 40
    await stage.manager.close_all()


async def test_a_full_task_that_breaks_drops_its_records() -> None:
    stage = Stage(EngineSettings(buffer_bytes=10))
    stage.task.start()
    stage.transactions.hold.clear()
    applying = asyncio.create_task(stage.apply(*map(FakeRecord, range(9)), handler=count))
    await stage.settle()
    assert not applying.done()
    stage.manager.break_task(stage.task, RuntimeError("broken"))
    await applying
    await stage.task.close()


async def test_a_record_or_row_too_large_becomes_a_dead_letter(stage: Stage) -> None:
    attempts = [
        lambda task: task.emit("out", b"k", bytes(MAX_RECORD_BYTES)),
        lambda task: task.emit("out", b"k", b"", [("h", bytes(MAX_RECORD_BYTES))]),
        lambda task: task.put("counts", b"k", bytes(MAX_RECORD_BYTES)),
        lambda task: task.put("counts", b"\xff\xffprogress", b""),
        lambda task: task.emit("unheard", b"k", b"v"),
        lambda task: task.set_timer(-1, b"t", b""),
        lambda task: task.forward(FakeRecord(0), b"\x00"),
    ]
    await stage.apply(*map(FakeRecord, range(len(attempts))), handler=lambda task, r: attempts[r.offset](task))
    await stage.task.committed()
    reasons = [dict(headers)["dead-letter.reason"].decode() for _, _, headers in letters(stage)]
    assert len(reasons) == len(attempts)
    assert any("declare it with engine.sink('unheard')" in reason for reason in reasons)
    assert stage.task.alive


async def test_a_misplaced_record_is_sent_to_its_partition(stage: Stage) -> None:
    def handler(task: Task, record: FakeRecord) -> None:
        if task.owns_key(record.key or b""):
            count(task, record)
        else:
            task.forward(record, record.key or b"")

    headers = [("trace", b"1")]
    await stage.apply(FakeRecord(0, key=b"\x01", value=b"v", headers=headers), FakeRecord(1, b"\x02"), handler=handler)
    await stage.task.committed()
    assert stage.transactions.committed["in", 1] == [(b"\x01", b"v", headers)]
    assert stage.store.tables["counts"] == {b"\x02": b"1"}
    assert stage.manager.counters["forwarded"] == 1


async def test_a_sink_is_partitioned_by_its_own_partition_count(stage: Stage) -> None:
    stage.task.emit("one", b"\x01", b"v")
    await stage.task.committed()
    assert list(stage.transactions.committed) == [("one", 0)]


class Copy:
    def __init__(self) -> None:
        self.found: dict[bytes, bytes | None] = {}

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self.found = dict(rows)

    def apply(self, key: bytes, value: bytes | None) -> None:
        self.found[key] = value


async def test_an_index_is_built_from_disk_and_has_committed_rows(stage: Stage) -> None:
    stage.store.tables["counts"][b"a"] = b"1"
    stage.manager.index_factories["counts"] = Copy
    await stage.task.close()
    task = stage.opened()
    task.start()
    index = task.index("counts")
    assert isinstance(index, Copy)
    stage.transactions.hold.clear()
    task.put("counts", b"b", b"2")
    task.put("counts", b"a", None)
    task.request_commit()
    await until(lambda: task.committing)
    task.put("counts", b"c", b"3")
    assert index.found == {b"a": b"1"}
    stage.transactions.hold.set()
    await task.committed()
    assert index.found == {b"a": None, b"b": b"2", b"c": b"3"}


async def test_a_view_is_notified_when_a_row_is_on_disk(stage: Stage) -> None:
    waiting = asyncio.create_task(stage.manager.watch.changed("counts", b"k", 5))
    other = asyncio.create_task(stage.manager.watch.changed("counts", b"other", 0.05))
    await stage.settle()
    await stage.apply(FakeRecord(0), handler=count)
    assert not waiting.done()
    assert await waiting is True
    assert stage.store.tables["counts"] == {b"k": b"1"}
    assert await other is False


async def test_closing_commits_applied_records_and_releases_all(stage: Stage) -> None:
    task = stage.task
    await stage.apply(FakeRecord(0), handler=count)
    await task.close()
    assert stage.transactions.positions == {"in": 1}
    assert stage.store.closed
    assert stage.transactions.closed
    assert stage.resets == []


async def test_a_task_that_breaks_while_closing_is_not_reopened(stage: Stage) -> None:
    def fault() -> None:
        raise ConnectionError

    stage.transactions.before["end"] = fault
    await stage.apply(FakeRecord(0), handler=count)
    await stage.task.close()
    assert not stage.task.alive
    assert stage.store.closed
    assert stage.resets == []
    assert not stage.manager.counters["resets"]


async def test_a_suspended_task_has_committed_and_resumes_there(stage: Stage) -> None:
    task = stage.task
    await stage.apply(FakeRecord(0), handler=count)
    await stage.manager.suspend_all()
    assert stage.transactions.positions == {"in": 1}
    assert (stage.manager.tasks, stage.manager.suspended) == ({}, {0: task})
    assert not stage.store.closed
    await stage.apply(FakeRecord(1), handler=count)
    assert task.next_offsets["in"] == 1, "nothing is applied"
    stage.manager.tasks, stage.manager.suspended = stage.manager.suspended, {}
    task.start()
    await stage.apply(FakeRecord(1), handler=count)
    await task.committed()
    assert stage.transactions.positions == {"in": 2}


async def test_a_task_that_breaks_while_suspended_stays_broken(stage: Stage) -> None:
    await stage.manager.suspend_all()
    stage.manager.break_task(stage.task, ConnectionError())
    stage.task.start()
    assert not stage.task.alive
    assert stage.resets == []


async def test_timers_wait_while_the_task_is_suspended(stage: Stage) -> None:
    fired: list[bytes] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append(timer_id)
    stage.task.set_timer(stage.task.now_ms + 10, b"t", b"")
    stage.task.request_commit()
    await stage.task.committed()
    await stage.manager.suspend_all()
    stage.clock.ms += 1000
    stage.task._fire_timers()
    assert not fired
    stage.task.start()
    await until(lambda: fired)


async def test_closing_gives_up_after_its_deadline() -> None:
    stage = Stage(EngineSettings(close_commit_s=0.01))
    stage.task.start()
    stage.transactions.hold.clear()
    await stage.apply(FakeRecord(0), handler=count)
    await stage.task.close()
    assert stage.store.closed
    assert stage.transactions.positions == {}


async def test_an_idle_task_verifies_its_last_commit_only_if_in_doubt(stage: Stage) -> None:
    """Only a next transaction would find out, and an idle task makes none."""
    stage.task.verify_last_commit()
    await stage.settle()
    assert "produce" not in stage.log
    stage.transactions.in_doubt = True
    stage.task.verify_last_commit()
    await stage.settle()
    assert stage.log[:2] == ["produce", "end"]
    assert stage.transactions.positions == {"in": 0, "also": 0}


async def test_an_idle_task_commits_its_positions_periodically() -> None:
    stage = Stage(EngineSettings(checkpoint_every_s=0.01))
    stage.opened(**{"in": 5}).start()
    await until(lambda: stage.task.commits >= 2)
    assert stage.transactions.positions == {"in": 5, "also": 0}
    await stage.manager.close_all()


async def test_back_off_grows_with_failures_and_resets_after_commits() -> None:
    stage = Stage(EngineSettings(reopen_backoff_s=(0, 1, 2), steady_commits=3))
    for _ in range(4):
        stage.manager.break_task(stage.task, RuntimeError("broken"))
        stage.opened()
    assert stage.resets == [0, 1, 2, 2]
    stage.task.start()
    for offset in range(3):
        await stage.apply(FakeRecord(offset), handler=count)
        await stage.task.committed()
    stage.manager.break_task(stage.task, RuntimeError("broken"))
    assert stage.resets[-1] == 0
    await stage.task.close()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system cannot tell")
def test_suspended_time_of_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = WallClock()
    began_ms, began = clock.now_ms(), clock.monotonic()
    read = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: read(which) + 60)
    assert 60_000 <= clock.now_ms() - began_ms < 70_000
    assert 60 <= clock.monotonic() - began < 70


# -- timers -----------------------------------------------------------------------------------------------------------


async def test_a_due_timer_fires_once_in_the_transaction_deleting_it(stage: Stage) -> None:
    fired: list[tuple[bytes, bytes]] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append((timer_id, payload))
    due_ms = stage.clock.ms + 20
    stage.task.set_timer(due_ms, b"t", b"p")
    await stage.task.committed()
    assert stage.store.tables[TIMERS] == {timer_key(due_ms, b"t"): b"p"}
    assert fired == []
    stage.clock.ms = due_ms
    await until(lambda: not stage.store.tables[TIMERS])
    await stage.settle()
    assert fired == [(b"t", b"p")]
    assert stage.manager.counters["timers_fired"] == 1


async def test_timers_fire_in_order_of_time_and_never_early(stage: Stage) -> None:
    fired: list[bytes] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append(timer_id)
    now = stage.clock.ms
    for due_ms, timer_id in ((now - 1, b"b"), (now - 5, b"a"), (now, b"c"), (now + 10_000, b"later")):
        stage.task.set_timer(due_ms, timer_id, b"")
    await stage.task.committed()
    await until(lambda: len(stage.store.tables[TIMERS]) == 1)
    assert fired == [b"a", b"b", b"c"]


async def test_a_cancelled_timer_never_fires_even_before_the_commit(stage: Stage) -> None:
    fired: list[bytes] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append(timer_id)
    due_ms = stage.clock.ms + 10
    stage.task.set_timer(due_ms, b"t", b"")
    stage.task.set_timer(due_ms, b"u", b"")
    await stage.task.committed()
    stage.transactions.hold.clear()
    stage.task.cancel_timer(due_ms, b"t")
    stage.clock.ms = due_ms
    await until(lambda: fired)
    stage.transactions.hold.set()
    await stage.task.committed()
    assert fired == [b"u"]
    assert not stage.store.tables[TIMERS]


async def test_a_timer_whose_handler_raises_becomes_a_dead_letter(stage: Stage) -> None:
    def handler(task: Task, timer_id: bytes, payload: bytes) -> None:
        task.put("counts", b"k", b"1")
        raise RuntimeError("poison")

    stage.manager.timer_handler = handler
    stage.task.set_timer(stage.clock.ms, b"t", b"p")
    await stage.task.committed()
    await until(lambda: letters(stage))
    ((key, value, headers),) = letters(stage)
    assert (key, value, dict(headers)["origin.timer"]) == (b"t", b"p", b"t")
    assert stage.store.tables == {"counts": {}, "positions": {}, TIMERS: {}, "calls": {}}


async def test_a_timer_of_a_failed_transaction_fires_after_reopening(stage: Stage) -> None:
    fired: list[bytes] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append(timer_id)
    stage.task.set_timer(stage.clock.ms + 10, b"t", b"")
    await stage.task.committed()

    def fault() -> None:
        raise ConnectionError

    stage.transactions.before["end"] = fault
    stage.clock.ms += 10
    await until(lambda: not stage.task.alive)
    await stage.task.close()
    stage.opened().start()
    await until(lambda: not stage.store.tables[TIMERS])
    assert fired == [b"t", b"t"]


async def test_a_timer_due_during_a_stall_fires_at_the_next_check() -> None:
    stage = Stage(EngineSettings(look_again_s=0.01))
    fired: list[bytes] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append(timer_id)
    stage.task.start()
    stage.task.set_timer(stage.clock.ms + 3_600_000, b"t", b"")
    await stage.task.committed()
    stage.clock.ms += 3_600_000
    await until(lambda: fired)
    await stage.manager.close_all()


async def test_a_burst_of_timers_is_fired_in_slices() -> None:
    stage = Stage(EngineSettings(timer_head=8))
    fired: list[bytes] = []
    stage.manager.timer_handler = lambda task, timer_id, payload: fired.append(timer_id)
    stage.store.tables[TIMERS] = {timer_key(n, b"%d" % n): b"" for n in range(500)}
    stage.opened().start()
    await until(lambda: not stage.store.tables[TIMERS])
    assert fired == [b"%d" % n for n in range(500)]
    await stage.manager.close_all()


async def test_a_burst_of_timers_waits_while_the_transaction_is_full() -> None:
    stage = Stage(EngineSettings(buffer_bytes=100))
    stage.manager.timer_handler = lambda task, timer_id, payload: task.put("counts", timer_id, bytes(40))
    stage.store.tables[TIMERS] = {timer_key(n, b"%d" % n): b"" for n in range(50)}
    stage.opened()
    stage.transactions.hold.clear()
    stage.task.start()
    await until(lambda: stage.task.committing)
    await stage.settle()
    assert stage.task.committing is not None
    assert max(stage.task.committing.bytes, stage.task.pending.bytes) < 300
    stage.transactions.hold.set()
    await until(lambda: len(stage.store.tables["counts"]) == 50)
    await stage.manager.close_all()


async def test_a_timer_without_a_handler_becomes_a_dead_letter(stage: Stage) -> None:
    stage.task.set_timer(stage.clock.ms, b"t", b"p")
    await stage.task.committed()
    await until(lambda: letters(stage))
    assert b"engine.on_timer" in dict(letters(stage)[0][2])["dead-letter.reason"]


async def test_an_agent_stopped_within_a_batch_breaks_the_task(stage: Stage) -> None:
    stage.transactions.hold.clear()
    stage.manager.settings = EngineSettings(buffer_bytes=1)
    applying = asyncio.create_task(stage.apply(*map(FakeRecord, range(9)), handler=count))
    await stage.settle()
    applying.cancel()
    await asyncio.gather(applying, return_exceptions=True)
    assert applying.cancelled()
    assert not stage.task.alive
    assert stage.resets == [0.0]


async def test_an_externally_cancelled_commit_loop_breaks_the_task(stage: Stage) -> None:
    def cancelled() -> None:
        raise asyncio.CancelledError

    stage.transactions.before["end"] = cancelled
    await stage.apply(FakeRecord(0), handler=count)
    await until(lambda: not stage.task.alive)
    assert stage.resets == [0.0]


async def test_a_cancelled_close_still_releases_the_disk(stage: Stage) -> None:
    stage.transactions.hold.clear()
    await stage.apply(FakeRecord(0), handler=count)
    closing = asyncio.create_task(stage.task.close())
    await stage.settle()
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert stage.store.closed
    assert stage.transactions.closed


async def test_the_pause_between_commits_follows_their_duration(stage: Stage) -> None:
    await stage.apply(FakeRecord(0), handler=count)
    await until(lambda: stage.task.commits == 1)
    assert len(stage.manager.pace._took) == 1
    stage.manager.pace = SimpleNamespace(pause_s=60.0, committed=lambda *_: None)  # type: ignore[assignment]
    await stage.apply(FakeRecord(1), handler=count)
    await until(lambda: stage.task.commits == 2)
    await stage.apply(FakeRecord(2), handler=count)
    await stage.settle()
    assert (stage.task.commits, bool(stage.task.pending)) == (2, True), "it pauses"


async def test_a_call_running_at_suspension_is_cut_off_and_repeated() -> None:
    stage = Stage(EngineSettings(close_calls_s=0.0))
    stage.task.start()
    stage.performer.gate.clear()
    await stage.apply(FakeRecord(0), handler=lambda task, _: task.call(b"call", b"host/x"))
    await until(lambda: stage.performer.running)
    await stage.task.suspend()
    stage.performer.gate.set()
    await stage.settle()
    assert stage.performer.running == 0
    assert stage.task.get(CALLS, b"call") is not None
    stage.task.start()
    await until(lambda: stage.task.get(CALLS, b"call") is None)
    assert len(stage.performer.calls) == 2
    await stage.task.close()


async def test_a_worker_that_may_have_frozen_commits_before_a_read(stage: Stage) -> None:
    await stage.task.verify_ownership()
    assert stage.log == [], "ownership was verified within half a session"
    stage.clock.ms += 6_000  # more than half of the session of 10 s
    await stage.task.verify_ownership()
    assert stage.log == ["produce", "end", "write"]
    await stage.task.verify_ownership()
    assert stage.log == ["produce", "end", "write"]


async def test_a_replaced_worker_cannot_prove_ownership(stage: Stage) -> None:
    def fenced() -> None:
        raise ConnectionError("fenced")

    stage.clock.ms += 6_000
    stage.transactions.before["produce"] = fenced
    with pytest.raises(TaskBroken):
        await stage.task.verify_ownership()
    with pytest.raises(TaskBroken):
        await stage.task.verify_ownership()
