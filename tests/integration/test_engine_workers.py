"""Workers that join, leave, die and come back: who owns what, how soon, and that nothing is lost or done twice."""

import asyncio
import signal
import time
from itertools import chain
from pathlib import Path

import pytest

from streams.engine.runtime import LEAVE_SIGNAL
from tests.integration.engine_kit.harness import Run, Worker
from tests.integration.engine_kit.names import PARTITIONS

pytestmark = pytest.mark.timeout(150)

SESSION_S = 6.0
"""The shortest that brokers allow by default."""
SLACK_S = 2.0
"""A second for what has to be done, and one for a busy machine."""
OPENED = "open, of them now"


def shared(*workers: Worker) -> bool:
    """Whether the partitions are spread over these, evenly."""
    shares = [worker.tasks for worker in workers]
    sizes = [len(share) for share in shares]
    return sorted(chain(*shares)) == list(range(PARTITIONS)) and max(sizes) - min(sizes) <= 1


async def test_partitions_spread_evenly_and_only_what_must_moves_when_workers_join_and_leave(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        load = asyncio.create_task(toy.send(2000, rate=150))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two share")
        before = {worker: set(worker.tasks) for worker in (first, second)}
        third = toy.start(3)
        await toy.wait(lambda: shared(first, second, third), why="three share")
        moved = sum(len(before[worker] - set(worker.tasks)) for worker in before)
        assert moved == len(third.tasks) == 1
        kept = set(first.tasks)
        assert third.terminate(by=LEAVE_SIGNAL)[0] == 0
        await toy.wait(lambda: shared(first, second), within_s=3, why="two share again, long before a session ends")
        assert kept <= set(first.tasks)
        await load
        await toy.done()
        assert max(toy.calls().values()) == 1, "what moves is closed in an orderly way"
        assert not any(worker.logged("broken") for worker in toy.workers)


async def test_what_a_killed_worker_had_is_taken_over_when_its_session_ends(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S=str(SESSION_S)) as toy:
        load = asyncio.create_task(toy.send(2000, rate=150))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two share")
        second.kill()
        killed = time.monotonic()
        await toy.wait(lambda: shared(first), within_s=SESSION_S + SLACK_S, why="taken over")
        assert time.monotonic() - killed > SESSION_S - 1, "until then it might have come back"
        await load
        await toy.done()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_restarted_within_its_session_resumes_with_what_it_had_and_the_other_notices_nothing(
    kafka: str, unique: str, tmp_path: Path, end: signal.Signals
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        load = asyncio.create_task(toy.send(2000, rate=150))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two share")
        for number, (ended, other) in enumerate([(second, first), (first, second)]):
            share, opened = ended.tasks, other.logged(OPENED)
            ended.terminate(by=end)
            again = toy.start(2 - number)
            await toy.wait(lambda again=again: again.logged(OPENED), within_s=8, why="it resumes")  # type: ignore[misc]
            assert again.tasks == share
            assert other.logged(OPENED) == opened, "no rebalance"
            first, second = (first, again) if number == 0 else (again, second)
        await load
        await toy.done()


async def test_a_worker_that_leaves_under_load_with_calls_running_is_followed_at_once(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_CALL_S="0.1") as toy:
        load = asyncio.create_task(toy.send(1000, rate=100))
        first = await toy.at_work(toy.start(1))
        second = toy.start(2)
        await toy.wait(lambda: shared(first, second), why="two share")
        status, took_s = first.terminate(by=LEAVE_SIGNAL)
        assert (status, took_s < 5) == (0, True), first.tail()
        await toy.wait(lambda: shared(second), within_s=3, why="taken over")
        await load
        await toy.done()
        assert max(toy.calls().values()) == 1


async def test_calls_that_do_not_end_hold_up_neither_sigterm_nor_the_next_owner(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        stuck = await toy.at_work(toy.start(TOY_CALL_S="60"))
        load = asyncio.create_task(toy.send(300, rate=150))
        await toy.wait(lambda: toy.judge.sums()["calls"] > 20, why="calls are under way")
        status, took_s = stuck.terminate()
        assert (status, took_s < 5) == (0, True), stuck.tail()
        assert not stuck.logged("cut off")
        toy.start()
        await load
        await toy.done()


@pytest.mark.parametrize("said", ["TaskConsumer]: Starting", "TaskRecovery]: Starting", OPENED])
async def test_sigterm_ends_a_worker_that_is_still_opening_and_what_it_opened_is_whole(
    kafka: str, unique: str, tmp_path: Path, said: str
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await toy.send(2000)
        for _ in range(2):
            worker = toy.start()
            await toy.wait(lambda worker=worker: worker.logged(said), why=said)  # type: ignore[misc]
            status, took_s = worker.terminate()
            assert (status, took_s < 5) == (0, True), worker.tail()
            assert not worker.logged("Traceback")
            assert not worker.logged("cut off")
        toy.start()
        await toy.done(within_s=60)


async def test_sigterm_ends_a_worker_that_waits_for_the_others_to_join(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        gone = await toy.at_work(toy.start(1))
        gone.kill()
        joins = toy.start(2)
        await toy.wait(lambda: joins.logged("TaskRecovery]: Starting"), why="it asks to join")
        status, took_s = joins.terminate()
        assert (status, took_s < 5) == (0, True), joins.tail()
        assert not joins.logged("cut off")
