"""Opening and resetting tasks: in which order, and what happens when it is interrupted or fails half-way."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP

from streams.engine import Engine, exactly_once, openings, runtime
from streams.engine.task import Task
from tests.engine.fakes import Stage, until


class FakeConsumer:
    """Notes what it is asked to do. ``while_seeking`` is called in the middle of a seek."""

    def __init__(self, log: list[Any], partitions: int) -> None:
        self.log, self.member = log, True
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

    async def settle(self) -> None:
        self.log.append("settle")

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
    """A worker that owns two partitions, whose tasks open on ``Stage``'s fakes."""

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
        self.tables = runtime.TaskTables(app)
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
        """The group assigns anew; with more than one generation, others had the partitions in between."""
        app = self.recovery.app
        await self.tables.give_up()
        app.consumer_generation_id += generations
        self.consumer.assigned = {TP(topic, p) for topic in ("in", "also") for p in partitions}
        await self.tables.give_up()  # Faust says so again, after the assignment
        self.log.clear()
        await self.run()

    async def close(self) -> None:
        await self.engine.close_all(commit=False)


@pytest.fixture
async def opening(monkeypatch: pytest.MonkeyPatch) -> Any:
    opening = Opening(monkeypatch)
    yield opening
    await opening.close()


async def test_the_fetch_under_way_is_waited_for_before_anything_is_opened_or_sought(opening: Opening) -> None:
    await opening.run()
    assert opening.log == [
        "stop flow",
        "stop fetcher",
        "settle",
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


async def test_in_a_rebalance_what_stays_is_not_opened_again_and_what_goes_is_closed(opening: Opening) -> None:
    await opening.run()
    stays, goes = opening.engine.tasks[0], opening.engine.tasks[1]
    await opening.rebalance({0})
    assert not any(step.startswith("open") for step in opening.log)
    assert (opening.engine.tasks, opening.engine.suspended) == ({0: stays}, {})
    assert (stays.alive, stays.closing, goes.alive) == (True, False, False)
    assert [stage.store.closed for stage in opening.stages] == [False, True]
    await opening.rebalance({0, 1})
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]
    assert opening.engine.tasks[0] is stays


async def test_what_others_may_have_had_in_between_is_opened_anew(opening: Opening) -> None:
    await opening.run()
    await opening.rebalance({0, 1}, generations=2)
    assert [step for step in opening.log if step.startswith("open")] == ["open 0", "open 1"]
    assert [stage.store.closed for stage in opening.stages] == [True, True, False, False]


async def test_what_is_left_over_from_an_earlier_generation_is_opened_anew(opening: Opening) -> None:
    """Its closing was cancelled by the next rebalance, and meanwhile it was somebody else's."""
    await opening.run()
    left = opening.engine.tasks[1]
    await opening.rebalance({0})
    opening.engine.suspended[1] = left
    left.alive = True
    await opening.rebalance({0, 1})
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]


async def test_what_broke_while_it_stood_still_is_opened_anew(opening: Opening) -> None:
    await opening.run()
    broken = opening.engine.tasks[1]
    await opening.tables.give_up()
    opening.engine.break_task(broken, RuntimeError("fenced"))
    await opening.rebalance({0, 1})
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"]
    assert opening.engine.open_partitions() == [0, 1]


async def test_a_reset_opens_what_broke_and_seeks_the_healthy_to_where_they_stand(opening: Opening) -> None:
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
    assert (healthy.fetched_to["in"], healthy.backlog) == (77, {}), "what was fetched beyond is fetched again"
    assert opening.consumer.sought[TP("in", 0)] == 77
    assert opening.stages[1].store.closed, "the broken one's disk is free for its successor"
    assert opening.engine.open_partitions() == [0, 1]


async def test_who_waits_for_a_row_reads_it_again_when_its_task_was_opened_again(opening: Opening) -> None:
    """The task may have broken after the row was committed and before anybody was told."""
    await opening.run()
    waiting = asyncio.create_task(opening.engine.watch.changed("counts", b"k", 60))
    await asyncio.sleep(0)
    opening.engine.break_task(opening.engine.tasks[1], RuntimeError("broken"))
    await asyncio.sleep(0)
    assert not waiting.done(), "there is nothing to read yet"
    await opening.run()
    assert await asyncio.wait_for(waiting, 1)


async def test_a_worker_that_was_expelled_opens_nothing(opening: Opening) -> None:
    opening.consumer.member = False
    await opening.run()
    assert opening.log == []


async def test_a_partition_without_the_anchor_is_not_opened(opening: Opening) -> None:
    opening.consumer.assigned = {TP("in", 0), TP("also", 0), TP("also", 1)}
    await opening.run()
    assert opening.engine.open_partitions() == [0]
    assert set(opening.consumer.sought) == {TP("in", 0), TP("also", 0)}


async def test_what_is_not_ours_any_more_is_closed(opening: Opening) -> None:
    await opening.run()
    opening.consumer.assigned = {TP("in", 0), TP("also", 0)}
    await opening.run()
    assert opening.engine.open_partitions() == [0]
    assert opening.stages[1].store.closed


async def test_when_one_of_several_fails_to_open_the_others_go_on_and_it_is_tried_again(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "AGAIN_S", 0.0)
    opening.faults[1] = ConnectionError("no broker")
    await opening.run()
    assert opening.engine.open_partitions() == [0]
    assert "resume flow" in opening.log
    await until(opening.recovery.signal_recovery_start.is_set)
    await opening.run()
    assert opening.engine.open_partitions() == [0, 1]
    assert [stage.store.closed for stage in opening.stages] == [False, False]


async def test_a_long_restore_holds_up_no_other_task(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "TOGETHER_S", 0.01)
    await opening.run()
    stays = opening.engine.tasks[0]
    await opening.rebalance({0})
    opening.gates[1] = asyncio.Event()
    await opening.rebalance({0, 1})
    assert (opening.engine.tasks, stays.goes) == ({0: stays}, True)
    assert "resume flow" in opening.log
    assert not opening.recovery.signal_recovery_start.is_set()
    opening.gates[1].set()
    await until(opening.recovery.signal_recovery_start.is_set)
    await opening.run()
    assert opening.engine.open_partitions() == [0, 1]
    assert [step for step in opening.log if step.startswith("open")] == ["open 1"], "it was opened once"


async def test_an_opening_that_is_given_up_closes_what_it_had_opened(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening.gates[1] = asyncio.Event()
    running = asyncio.create_task(opening.run())
    await until(lambda: opening.stages)
    opening.recovery.interrupt()
    await asyncio.gather(running, return_exceptions=True)
    await opening.recovery._openings.settle()
    assert opening.engine.tasks == {}
    assert [stage.store.closed for stage in opening.stages] == [True]
    assert "resume flow" not in opening.log


async def test_between_revocation_and_assignment_nothing_is_opened(opening: Opening) -> None:
    """What broke just before asks to be opened, but whose it will be is not known yet."""
    await opening.run()
    transactions: Any = SimpleNamespace(tables=opening.tables)
    await runtime.TaskTransactions.on_partitions_revoked(transactions, set())
    opening.log.clear()
    await opening.run()
    assert opening.log == []
    await runtime.TaskTransactions.on_rebalance(transactions, set(), set(), set())
    opening.recovery.app.consumer_generation_id += 1
    await opening.run()
    assert opening.engine.open_partitions() == [0, 1]
    assert not any(step.startswith("open") for step in opening.log), "nobody else had them"


async def test_a_rebalance_during_the_seek_starts_nothing_and_the_next_opening_starts_all(opening: Opening) -> None:
    opening.consumer.while_seeking = opening.recovery.interrupt
    await opening.run()
    assert "resume flow" not in opening.log
    assert not any(task.goes for task in opening.engine.tasks.values()), "nothing commits"
    opening.consumer.while_seeking = lambda: None
    await opening.run()
    assert [task.goes for task in opening.engine.tasks.values()] == [True, True]


async def test_a_fetch_left_behind_by_a_cancelled_fetcher_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records would be those that follow the next seek."""
    opening, arrived = Opening(monkeypatch), asyncio.Event()
    consumer = runtime.TaskConsumer.__new__(runtime.TaskConsumer)
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
    settling = asyncio.create_task(consumer.settle())
    for _ in range(10):
        await asyncio.sleep(0)
    assert fetching.cancelled()
    assert not settling.done()
    arrived.set()
    await asyncio.wait_for(settling, 1)


async def test_what_faust_calls_now_and_then_has_the_tasks_look_back(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, looked = Opening(monkeypatch), list[int]()
    consumer = runtime.TaskConsumer.__new__(runtime.TaskConsumer)
    consumer.transport = opening.engine.transport
    opening.engine.tasks = {0: Stage().task, 1: Stage().task}
    opening.engine.tasks[1].partition = 1
    monkeypatch.setattr(Task, "look_back", lambda task: looked.append(task.partition))
    assert await consumer.commit()
    assert looked == [0, 1]


async def test_between_fetches_is_a_pause_only_where_it_brings_more_into_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, pauses, fetched = Opening(monkeypatch), list[float](), list[int]()
    consumer = runtime.TaskConsumer.__new__(runtime.TaskConsumer)
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


async def test_a_full_task_is_not_fetched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opening = Opening(monkeypatch)
    consumer = runtime.TaskConsumer.__new__(runtime.TaskConsumer)
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
    hungry.alive = False
    assert await consumer._getmany(everything, 1.0) == {}
    assert len(asked) == 1
