"""Opening and resetting tasks: the order of steps, interruptions and failures."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP

from exactly_once import Engine, exactly_once
from exactly_once.faust import openings, recovery
from exactly_once.faust.consumer import TaskConsumer
from exactly_once.faust.tables import TaskTables
from exactly_once.faust.transport import TaskTransactions
from exactly_once.task.state import TaskState
from exactly_once.task.task import Task
from tests.exactly_once.fakes import Stage, until


class FakeConsumer:
    """Consumer that logs its calls. ``while_seeking`` is called in the middle of a seek."""

    def __init__(self, log: list[Any], partitions: int) -> None:
        self.log = log
        self.member = True
        self.assigned = {TP(topic, p) for topic in ("in", "also") for p in range(partitions)}
        self.while_seeking: Callable[[], None] = lambda: None

    def is_member(self) -> bool:
        return self.member

    def assignment(self) -> set[TP]:
        return self.assigned

    def stop_flow(self) -> None:
        self.log.append("stop flow")

    def resume_flow(self) -> None:
        self.log.append("resume flow")

    def resume_partitions(self, tps: set[TP]) -> None: ...

    async def wait_for_fetch(self) -> None:
        self.log.append("wait for fetch")

    async def seek_wait(self, offsets: dict[TP, int]) -> None:
        self.log.append("seek")
        self.sought = offsets
        self.while_seeking()


class FakeFetcher:
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def stop(self) -> None:
        self.log.append("stop fetcher")

    def service_reset(self) -> None: ...

    async def maybe_start(self) -> None:
        self.log.append("start fetcher")


class Opening:
    """Worker that owns two partitions, whose tasks open on ``Stage``'s fakes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[Any] = []
        self.stages: list[Stage] = []
        self.faults: dict[int, Exception] = {}
        self.gates: dict[int, asyncio.Event] = {}
        app = faust.App("app", broker="kafka://broker:1", **exactly_once(partitions=2, instance_id="worker-1"))
        self.engine = Engine(app, partitions=2, anchor="in", dead_letters="dead")
        self.engine.sources = ["in", "also"]
        self.consumer = FakeConsumer(self.log, 2)
        app.consumer = self.consumer  # type: ignore[assignment]
        app.__dict__["_fetcher"] = FakeFetcher(self.log)
        monkeypatch.setattr(self.engine, "open", self.open)
        self.tables = TaskTables(app)
        self.recovery = self.tables.recovery

    async def open(self, partition: int) -> Task:
        self.log.append(f"open {partition}")
        if partition in self.gates:
            await self.gates[partition].wait()
        await asyncio.sleep(0)
        if fault := self.faults.pop(partition, None):
            raise fault
        stage = Stage()
        self.stages.append(stage)
        stage.task.partition = partition
        stage.task.next_offsets = {"in": 10 + partition, "also": 20 + partition}
        return stage.task

    async def run(self) -> None:
        await self.recovery._open_tasks(self.recovery.app.consumer_generation_id)

    async def rebalance(self, partitions: set[int], generations: int = 1) -> None:
        """Rebalance the group; with more than one generation, others may have owned the partitions in between."""
        app = self.recovery.app
        await self.tables.suspend()
        app.consumer_generation_id += generations
        self.consumer.assigned = {TP(topic, p) for topic in ("in", "also") for p in partitions}
        await self.tables.suspend()  # Faust revokes them again after the assignment
        self.log.clear()
        await self.run()

    async def close(self) -> None:
        await self.engine.close_all(commit=False)


@pytest.fixture
async def opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    opening = Opening(monkeypatch)
    yield opening
    await opening.close()


async def test_a_running_fetch_ends_before_tasks_open_or_seek(opening: Opening) -> None:
    await opening.run()
    assert opening.log == [
        "stop flow",
        "stop fetcher",
        "wait for fetch",
        "open 0",
        "open 1",
        "seek",
        "resume flow",
        "start fetcher",
    ]
    assert opening.consumer.sought == {
        TP("in", 0): 10,
        TP("in", 1): 11,
        TP("also", 0): 20,
        TP("also", 1): 21,
    }
    assert opening.engine.open_partitions() == [0, 1]


async def test_a_rebalance_keeps_retained_tasks_and_closes_lost_ones(opening: Opening) -> None:
    await opening.run()
    stays, goes = opening.engine.tasks[0], opening.engine.tasks[1]
    await opening.rebalance({0})
    assert not any(step.startswith("open") for step in opening.log)
    assert (opening.engine.tasks, opening.engine.suspended) == ({0: stays}, {})
    assert (stays.alive, not stays.is_running, goes.alive) == (True, False, False)
    assert [stage.store.closed for stage in opening.stages] == [False, True]
    await opening.rebalance({0, 1})
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]
    assert opening.engine.tasks[0] is stays


async def test_tasks_that_others_may_have_owned_are_reopened(opening: Opening) -> None:
    await opening.run()
    await opening.rebalance({0, 1}, generations=2)
    assert [step for step in opening.log if step.startswith("open")] == ["open 0", "open 1"]
    assert [stage.store.closed for stage in opening.stages] == [True, True, False, False]


async def test_tasks_of_an_earlier_generation_are_reopened(opening: Opening) -> None:
    """The next rebalance cancelled its closing, and another worker owned it meanwhile."""
    await opening.run()
    left = opening.engine.tasks[1]
    await opening.rebalance({0})
    opening.engine.suspended[1] = left
    left.state = TaskState.SUSPENDED
    await opening.rebalance({0, 1})
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]


async def test_tasks_that_broke_while_suspended_are_reopened(opening: Opening) -> None:
    await opening.run()
    broken = opening.engine.tasks[1]
    await opening.tables.suspend()
    opening.engine.break_task(broken, RuntimeError("fenced"))
    await opening.rebalance({0, 1})
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]
    assert opening.engine.open_partitions() == [0, 1]


async def test_a_reset_reopens_broken_tasks_and_seeks_healthy_ones(opening: Opening) -> None:
    await opening.run()
    healthy, broken = opening.engine.tasks[0], opening.engine.tasks[1]
    healthy.next_offsets["in"] = 77
    healthy.fetched_to["in"] = 99
    healthy.backlog[1] = 500
    opening.engine.break_task(broken, RuntimeError("broken"))
    opening.log.clear()
    await opening.run()
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]
    assert opening.engine.tasks[0] is healthy
    assert (healthy.fetched_to["in"], healthy.backlog) == (77, {}), "later records are fetched again"
    assert opening.consumer.sought[TP("in", 0)] == 77
    assert opening.stages[1].store.closed, "the disk of the broken task is free for its successor"
    assert opening.engine.open_partitions() == [0, 1]


async def test_waiters_read_their_row_again_after_a_reopening(opening: Opening) -> None:
    """The task may have broken after the row was committed and before its waiters were notified."""
    await opening.run()
    waiting = asyncio.create_task(opening.engine.watch.changed("counts", b"k", 60))
    await asyncio.sleep(0)
    opening.engine.break_task(opening.engine.tasks[1], RuntimeError("broken"))
    await asyncio.sleep(0)
    assert not waiting.done(), "there is nothing to read yet"
    await opening.run()
    assert await asyncio.wait_for(waiting, 60)


async def test_an_expelled_worker_opens_no_task(opening: Opening) -> None:
    opening.consumer.member = False
    await opening.run()
    assert opening.log == []


async def test_a_partition_without_the_anchor_is_not_opened(opening: Opening) -> None:
    opening.consumer.assigned = {TP("in", 0), TP("also", 0), TP("also", 1)}
    await opening.run()
    assert opening.engine.open_partitions() == [0]
    assert set(opening.consumer.sought) == {TP("in", 0), TP("also", 0)}


async def test_tasks_of_revoked_partitions_are_closed(opening: Opening) -> None:
    await opening.run()
    opening.consumer.assigned = {TP("in", 0), TP("also", 0)}
    await opening.run()
    assert opening.engine.open_partitions() == [0]
    assert opening.stages[1].store.closed


async def test_a_task_that_fails_to_open_is_retried_without_the_others(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "REOPEN_DELAY_S", 0.0)
    opening.faults[1] = ConnectionError("no broker")
    await opening.run()
    assert opening.engine.open_partitions() == [0]
    assert "resume flow" in opening.log
    await until(opening.recovery.signal_recovery_start.is_set)
    await opening.run()
    assert opening.engine.open_partitions() == [0, 1]
    assert [stage.store.closed for stage in opening.stages] == [False, False]


async def test_a_long_restore_delays_no_other_task(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "TOGETHER_S", 0.01)
    await opening.run()
    stays = opening.engine.tasks[0]
    await opening.rebalance({0})
    opening.gates[1] = asyncio.Event()
    await opening.rebalance({0, 1})
    assert (opening.engine.tasks, stays.is_running) == ({0: stays}, True)
    assert "resume flow" in opening.log
    assert not opening.recovery.signal_recovery_start.is_set()
    opening.gates[1].set()
    await until(opening.recovery.signal_recovery_start.is_set)
    await opening.run()
    assert opening.engine.open_partitions() == [0, 1]
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"], "it was opened once"


async def test_a_cancelled_opening_closes_its_tasks(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    opening.gates[1] = asyncio.Event()
    running = asyncio.create_task(opening.run())
    await until(lambda: opening.stages)
    opening.recovery.cancel_opening()
    await asyncio.gather(running, return_exceptions=True)
    await opening.recovery._openings.wait_cancelled()
    assert opening.engine.tasks == {}
    assert [stage.store.closed for stage in opening.stages] == [True]
    assert "resume flow" not in opening.log


async def test_no_task_opens_between_revocation_and_assignment(opening: Opening) -> None:
    """A task that just broke requests its reopening, but its next owner is not known yet."""
    await opening.run()
    transactions: Any = SimpleNamespace(tables=opening.tables)
    await TaskTransactions.on_partitions_revoked(transactions, set())
    opening.log.clear()
    await opening.run()
    assert opening.log == []
    await TaskTransactions.on_rebalance(transactions, set(), set(), set())
    opening.recovery.app.consumer_generation_id += 1
    await opening.run()
    assert opening.engine.open_partitions() == [0, 1]
    assert not any(step.startswith("open") for step in opening.log), "no other worker had owned them"


async def test_a_rebalance_during_the_seek_starts_tasks_afterwards(opening: Opening) -> None:
    opening.consumer.while_seeking = opening.recovery.cancel_opening
    await opening.run()
    assert "resume flow" not in opening.log
    assert not any(task.is_running for task in opening.engine.tasks.values()), "nothing commits"
    opening.consumer.while_seeking = lambda: None
    await opening.run()
    assert [task.is_running for task in opening.engine.tasks.values()] == [True, True]


async def test_a_fetch_of_a_cancelled_fetcher_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its records would be taken for those after the next seek."""
    opening, arrived = Opening(monkeypatch), asyncio.Event()
    consumer = TaskConsumer.__new__(TaskConsumer)
    consumer.transport = opening.engine.transport
    stage = Stage()
    opening.engine.tasks[0] = stage.task

    async def fetch(*_: Any) -> dict[Any, Any]:
        await arrived.wait()
        return {}

    monkeypatch.setattr(Consumer, "_getmany", fetch)
    fetching = asyncio.create_task(consumer._getmany({TP("in", 0)}, 1.0))
    await asyncio.sleep(0)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    settling = asyncio.create_task(consumer.wait_for_fetch())
    for _ in range(10):
        await asyncio.sleep(0)
    assert fetching.cancelled()
    assert not settling.done()
    arrived.set()
    await asyncio.wait_for(settling, 60)


async def test_fausts_periodic_commit_verifies_the_tasks_last_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, looked = Opening(monkeypatch), list[int]()
    consumer = TaskConsumer.__new__(TaskConsumer)
    consumer.transport = opening.engine.transport
    opening.engine.tasks = {0: Stage().task, 1: Stage().task}
    opening.engine.tasks[1].partition = 1
    monkeypatch.setattr(Task, "verify_last_commit", lambda task: looked.append(task.partition))
    assert await consumer.commit()
    assert looked == [0, 1]


async def test_fetches_pause_only_if_that_makes_them_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, pauses, fetched = Opening(monkeypatch), list[float](), list[int]()
    consumer = TaskConsumer.__new__(TaskConsumer)
    consumer.transport = opening.engine.transport
    opening.engine.tasks[0] = Stage().task
    opening.engine.pace.pause_s = 0.02
    most = opening.engine.app.conf.broker_max_poll_records
    assert most is not None

    async def fetch(*_: Any) -> dict[TP, range]:
        return {TP("in", 0): range(fetched.pop() - 1), TP("also", 0): range(1)}

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(Consumer, "_getmany", fetch)
    monkeypatch.setattr(asyncio, "sleep", pause)
    for found, paused in ((most - 1, 1), (most, 2), (most, 2), (most - 1, 2), (most, 3)):
        fetched.append(found)
        await consumer._getmany({TP("in", 0), TP("also", 0)}, 1.0)
        assert len(pauses) == paused


async def test_no_records_are_fetched_for_a_full_task(monkeypatch: pytest.MonkeyPatch) -> None:
    opening = Opening(monkeypatch)
    consumer = TaskConsumer.__new__(TaskConsumer)
    consumer.transport = opening.engine.transport
    full, hungry = Stage().task, Stage().task
    opening.engine.tasks = {0: full, 1: hungry}
    full.backlog[1] = opening.engine.settings.backlog_records
    asked: list[set[TP]] = []

    async def fetch(self: Any, active: set[TP], timeout_s: float) -> dict[Any, Any]:
        asked.append(active)
        return {}

    monkeypatch.setattr(Consumer, "_getmany", fetch)
    everything = {TP("in", 0), TP("in", 1), TP("also", 1), TP("in", 2)}
    assert await consumer._getmany(everything, 1.0) == {}
    assert asked == [{TP("in", 1), TP("also", 1)}]
    opening.engine.break_task = lambda *_: None  # type: ignore[method-assign]
    hungry.state = TaskState.BROKEN
    assert await consumer._getmany(everything, 1.0) == {}
    assert len(asked) == 1
