"""Kills of a worker under load, at seeded moments and at each failpoint."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.integration.engine_kit.harness import PATIENT_S, Run
from verification.kills.engine import kill_loop


@pytest.mark.parametrize("seed", [1, 2])
async def test_ten_kills_at_seeded_moments_leave_everything_exact(
    kafka: str, unique: str, tmp_path: Path, seed: int
) -> None:
    found = await kill_loop(kafka, unique, tmp_path, kills=10, seed=seed)
    assert found.at_work >= 5, "most kills strike a worker at work"


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
        doomed = toy.start(TOY_FAILPOINTS=failpoint)
        await toy.send_until(lambda: doomed.dead, rate=400, why=f"killed by {failpoint}")
        toy.start()
        await toy.send(200, rate=400)
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
async def test_a_fault_at_a_failpoint_leaves_everything_exact(
    kafka: str, unique: str, tmp_path: Path, failpoints: str
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_FAILPOINTS=failpoints) as toy:
        worker = await toy.at_work(toy.start())
        await toy.send_until(lambda: worker.logged("failpoint ") >= 2, rate=300, at_least=600, why="two faults")
        await toy.done()
        assert worker.terminate() == 0


async def test_a_full_backlog_survives_resets(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_FAILPOINTS="committed:raise:15") as toy:
        await toy.send(6000)
        worker = toy.start()
        await toy.done()
        assert worker.logged("broken, opened again") >= 3
        assert not worker.logged("LostRecords"), "a reset waits for the fetch under way"


async def test_sigterm_under_load_repeats_no_call(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_STOP_S=PATIENT_S) as toy:
        load = asyncio.create_task(toy.send(2000, rate=300))
        for _ in range(3):
            worker = await toy.at_work(toy.start())
            assert worker.terminate() == 0, worker.tail()
            assert not worker.logged("Traceback")
        toy.start()
        await load
        await toy.done()
        assert max(toy.calls().values()) == 1


async def test_sigterm_in_the_middle_of_a_commit_finishes_it(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        worker = await toy.at_work(toy.start(TOY_FAILPOINTS="produced:exit:30"))
        await toy.send_until(lambda: worker.dead, rate=400, why="the failpoint stops the worker")
        assert worker.process.returncode == 0, worker.tail()
        assert not worker.logged("broken")
        toy.start()
        await toy.send(200, rate=400)
        await toy.done()


async def test_a_frozen_owner_that_resumes_changes_nothing(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_SESSION_S="6") as toy:
        frozen = await toy.at_work(toy.start(1, TOY_FAILPOINTS="produced:stop:40"))
        await toy.send_until(lambda: frozen.stopped, rate=250, why="the worker freezes before it ends a transaction")
        successor = toy.start(2)
        await toy.send(500, rate=250)
        await toy.wait(lambda: successor.logged("tasks [0, 1, 2, 3] open"), why="the other worker takes over")
        await toy.wait(lambda: toy.judge.sums()["counts"] == toy.sent, why="the successor applies every record")
        frozen.process.send_signal(signal.SIGCONT)
        await toy.done()


async def test_a_second_worker_takes_a_share_then_all_after_a_kill(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        first = await toy.at_work(toy.start(1))
        load = asyncio.create_task(toy.send(1500, rate=250))
        second = toy.start(2)
        await toy.wait(lambda: second.logged("newly opened: ["), why="a share of the tasks")
        assert not second.logged("tasks [0, 1, 2, 3] open")
        first.kill()
        await toy.wait(lambda: second.logged("tasks [0, 1, 2, 3] open"), why="the other worker takes over")
        await load
        await toy.done()
        assert not second.logged("broken")
