"""Workers that join, leave, die and return: the owners of the partitions, and that nothing is lost or repeated."""

import asyncio
import signal
import time
from itertools import chain
from pathlib import Path

import pytest

from exactly_once import LEAVE_SIGNAL
from tests.integration.engine_kit.harness import PATIENT_S, Run, Worker
from tests.integration.engine_kit.names import PARTITIONS

SESSION_S = 6.0
"""Shortest session that brokers allow by default."""
OPENED = "newly opened: "


def shared(*workers: Worker) -> bool:
    """Return whether these workers have all partitions open, evenly spread."""
    shares = [worker.tasks for worker in workers]
    sizes = [len(share) for share in shares]
    return sorted(chain(*shares)) == list(range(PARTITIONS)) and max(sizes) - min(sizes) <= 1


async def test_few_partitions_move_when_workers_join_and_leave(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S=PATIENT_S, TOY_STOP_S=PATIENT_S) as toy:
        load = asyncio.create_task(toy.send(2000, rate=150))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two workers share")
        before = {worker: set(worker.tasks) for worker in (first, second)}
        third = toy.start(3)
        await toy.wait(lambda: shared(first, second, third), why="three workers share")
        moved = sum(len(before[worker] - set(worker.tasks)) for worker in before)
        assert moved == len(third.tasks) == 1
        kept = set(first.tasks)
        assert third.terminate(by=LEAVE_SIGNAL) == 0
        await toy.wait(lambda: shared(first, second), why="two workers share again, long before a session ends")
        assert kept <= set(first.tasks)
        await load
        await toy.done()
        assert max(toy.calls().values()) == 1, "a task that moves finishes its calls first"
        assert not any(worker.logged("broken") for worker in toy.workers)


async def test_a_killed_workers_tasks_move_when_its_session_ends(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S=str(SESSION_S)) as toy:
        load = asyncio.create_task(toy.send(2000, rate=150))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two workers share")
        second.kill()
        killed = time.monotonic()
        await toy.wait(lambda: shared(first), why="the other worker takes over")
        assert time.monotonic() - killed > SESSION_S / 2, "the tasks stay while the worker may return"
        await load
        await toy.done()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_restart_within_the_session_moves_no_task(
    kafka: str, unique: str, tmp_path: Path, end: signal.Signals
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S=PATIENT_S) as toy:
        load = asyncio.create_task(toy.send(2000, rate=150))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two workers share")
        for number, (ended, other) in enumerate([(second, first), (first, second)]):
            share, opened = ended.tasks, other.logged(OPENED)
            ended.terminate(by=end)
            again = toy.start(2 - number)
            await toy.wait(lambda again=again: again.logged(OPENED), why="the worker resumes")  # type: ignore[misc]
            assert again.tasks == share
            assert other.logged(OPENED) == opened, "no rebalance"
            first, second = (first, again) if number == 0 else (again, second)
        await load
        await toy.done()


async def test_a_leaving_workers_tasks_move_at_once_under_load(kafka: str, unique: str, tmp_path: Path) -> None:
    patient = {"TOY_SESSION_S": PATIENT_S, "TOY_STOP_S": PATIENT_S}
    async with Run(kafka, unique, tmp_path, TOY_CALL_S="0.1", **patient) as toy:
        load = asyncio.create_task(toy.send(1000, rate=100))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two workers share")
        assert first.terminate(by=LEAVE_SIGNAL) == 0, first.tail()
        await toy.wait(lambda: shared(second), why="the other worker takes over")
        await load
        await toy.done()
        assert max(toy.calls().values()) == 1


async def test_endless_calls_delay_neither_stop_nor_next_owner(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_STOP_S=PATIENT_S, TOY_CLOSE_CALLS_S="1") as toy:
        stuck = await toy.at_work(toy.start(TOY_CALL_S="600"))
        load = asyncio.create_task(toy.send(300, rate=150))
        await toy.wait(lambda: toy.judge.sums()["calls"] > 20, why="calls are pending")
        assert stuck.terminate() == 0, stuck.tail()
        toy.start()
        await load
        await toy.done()


async def test_impatient_signals_do_not_change_the_status(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_STOP_S=PATIENT_S) as toy:
        worker = await toy.at_work(toy.start(1))
        worker.process.send_signal(LEAVE_SIGNAL)
        await toy.wait(lambda: _signal_again(worker), why="the worker ends")
        assert worker.process.wait() == 0, worker.tail()


def _signal_again(worker: Worker) -> bool:
    """Send SIGTERM many times within one poll, so that some arrive while the process ends. True once it has."""
    for _ in range(200):
        if worker.dead:
            return True
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    return False


@pytest.mark.parametrize("line", ["TaskConsumer]: Starting", "TaskRecovery]: Starting", OPENED])
async def test_sigterm_ends_a_worker_that_opens_its_tasks(kafka: str, unique: str, tmp_path: Path, line: str) -> None:
    async with Run(kafka, unique, tmp_path, TOY_STOP_S=PATIENT_S) as toy:
        await toy.send(2000)
        for _ in range(2):
            worker = toy.start()
            await toy.wait(lambda worker=worker: worker.logged(line), why=line)  # type: ignore[misc]
            assert worker.terminate() == 0, worker.tail()
            assert not worker.logged("Traceback")
        toy.start()
        await toy.done()


async def test_sigterm_ends_a_worker_that_waits_to_join(kafka: str, unique: str, tmp_path: Path) -> None:
    """The dead member is expected in the group until its session ends, so the join takes ten minutes."""
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S=PATIENT_S, TOY_STOP_S=PATIENT_S) as toy:
        gone = await toy.at_work(toy.start(1))
        gone.kill()
        joins = toy.start(2)
        await toy.wait(lambda: joins.logged("TaskRecovery]: Starting"), why="the worker asks to join")
        assert joins.terminate() == 0, joins.tail()
