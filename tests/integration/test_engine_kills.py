"""The worker is killed while it works, at moments that a seed decides, and at each place where a kill is worst."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.integration.engine_kit.harness import Run
from tests.integration.kills import kill_loop

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("seed", [1, 2])
async def test_ten_kills_at_seeded_moments_leave_everything_exact(
    kafka: str, unique: str, tmp_path: Path, seed: int
) -> None:
    found = await kill_loop(kafka, unique, tmp_path, kills=10, seed=seed)
    assert found.at_work >= 5, "kills of workers that have not begun prove little"


@pytest.mark.parametrize(
    "failpoint",
    [
        "opening:kill:2",
        "before_call:kill:20",
        "after_call:kill:20",
        "produced:kill:12",
        "end_sent:kill:12",
        "committed:kill:12",
        "stored:kill:12",
    ],
)
async def test_a_kill_at_a_failpoint_leaves_everything_exact(
    kafka: str, unique: str, tmp_path: Path, failpoint: str
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        doomed = toy.start(DABBAWALA_FAILPOINTS=failpoint)
        load = asyncio.create_task(toy.send(400, rate=400))
        await toy.wait(lambda: doomed.dead, why=f"killed by {failpoint}")
        toy.start()
        await load
        await toy.done()


@pytest.mark.parametrize(
    "failpoints",
    [
        "end_sent:cut:25",
        "produced:cut:25",
        "produced:raise:25",
        "committed:raise:25",
        "stored:raise:25",
        "before_call:raise:150,after_call:raise:170",
        "committed:raise:20,opening:raise:5",
    ],
)
async def test_a_fault_at_a_failpoint_breaks_no_more_than_it_must_and_everything_is_exact(
    kafka: str, unique: str, tmp_path: Path, failpoints: str
) -> None:
    async with Run(kafka, unique, tmp_path, DABBAWALA_FAILPOINTS=failpoints) as toy:
        worker = await toy.at_work(toy.start())
        await toy.send(600, rate=300)
        await toy.done()
        assert worker.logged("failpoint ") >= 2
        assert worker.terminate()[0] == 0


async def test_a_full_backlog_survives_resets(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, DABBAWALA_FAILPOINTS="committed:raise:30") as toy:
        await toy.send(6000)
        worker = toy.start()
        await toy.done(within_s=60)
        assert worker.logged("broken, opened again") >= 3
        assert not worker.logged("LostRecords"), "a fetch under way at a reset is waited for"


async def test_sigterm_under_load_ends_with_status_0_within_5_s_and_repeats_no_call(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        load = asyncio.create_task(toy.send(2000, rate=300))
        for _ in range(3):
            worker = await toy.at_work(toy.start())
            status, took_s = worker.terminate()
            assert (status, took_s < 5) == (0, True), worker.tail()
            assert not worker.logged("Traceback")
        toy.start()
        await load
        await toy.done()
        assert max(toy.calls().values()) == 1


async def test_sigterm_in_the_middle_of_a_commit_finishes_it(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        worker = await toy.at_work(toy.start(DABBAWALA_FAILPOINTS="produced:exit:30"))
        load = asyncio.create_task(toy.send(400, rate=400))
        await toy.wait(lambda: worker.dead, why="ended by itself")
        assert worker.process.returncode == 0, worker.tail()
        assert not worker.logged("broken")
        toy.start()
        await load
        await toy.done()


async def test_a_frozen_owner_that_resumes_in_its_commit_changes_nothing(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S="6") as toy:
        frozen = await toy.at_work(toy.start(1, DABBAWALA_FAILPOINTS="produced:stop:40"))
        load = asyncio.create_task(toy.send(1000, rate=250))
        await toy.wait(lambda: frozen.stopped, why="frozen before the end of a transaction")
        successor = toy.start(2)
        await load
        await toy.wait(lambda: successor.logged("tasks [0, 1, 2, 3] open"), 40, why="taken over")
        await toy.wait(lambda: toy.judge.sums()["counts"] == toy.sent, why="done without the frozen one")
        frozen.process.send_signal(signal.SIGCONT)
        await toy.done()


async def test_a_second_worker_takes_its_share_and_when_the_first_is_killed_the_rest(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S="6") as toy:
        first = await toy.at_work(toy.start(1))
        load = asyncio.create_task(toy.send(1500, rate=250))
        second = toy.start(2)
        await toy.wait(lambda: second.logged("open, of them now"), why="a share of the tasks")
        assert not second.logged("tasks [0, 1, 2, 3] open")
        first.kill()
        await toy.wait(lambda: second.logged("tasks [0, 1, 2, 3] open"), why="taken over")
        await load
        await toy.done()
        assert not second.logged("broken")
