"""States of a task: a method makes each legal transition and refuses every other."""

from collections.abc import AsyncIterator
from itertools import product

import pytest

from exactly_once.settings import EngineSettings
from exactly_once.task.state import ACCEPTS_WORK, ALIVE, TRANSITIONS, TaskState
from exactly_once.task.task import Task
from tests.exactly_once.fakes import Stage

PATHS = {
    TaskState.CREATED: (),
    TaskState.RUNNING: (TaskState.RUNNING,),
    TaskState.SUSPENDED: (TaskState.RUNNING, TaskState.SUSPENDED),
    TaskState.BROKEN: (TaskState.RUNNING, TaskState.BROKEN),
    TaskState.CLOSED: (TaskState.CLOSED,),
}
"""State -> the transitions that lead there from CREATED."""


async def move(task: Task, state: TaskState) -> None:
    """Call the method that leads to this state."""
    match state:
        case TaskState.RUNNING:
            task.start()
        case TaskState.SUSPENDED:
            await task.suspend()
        case TaskState.BROKEN:
            task.mark_broken()
        case TaskState.CLOSED:
            await task.close(commit=False)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage(EngineSettings(close_calls_s=0.05, close_commit_s=0.05))
    yield stage
    await stage.manager.close_all(commit=False)


@pytest.mark.parametrize(
    ("state", "following"),
    [(state, following) for state in TaskState for following in sorted(TRANSITIONS[state], key=str)],
)
async def test_each_legal_transition_is_made(stage: Stage, state: TaskState, following: TaskState) -> None:
    for step in (*PATHS[state], following):
        await move(stage.task, step)
    assert stage.task.state is following
    assert stage.task.alive is (following in ALIVE)
    assert stage.task.accepts_work is (following in ACCEPTS_WORK)
    assert stage.task.is_running is (following is TaskState.RUNNING)


@pytest.mark.parametrize(
    ("state", "following"), [pair for pair in product(TaskState, TaskState) if pair[1] not in TRANSITIONS[pair[0]]]
)
async def test_each_illegal_transition_is_refused(stage: Stage, state: TaskState, following: TaskState) -> None:
    for step in PATHS[state]:
        await move(stage.task, step)
    with pytest.raises(AssertionError, match=f"{state.name} -> {following.name} is illegal"):
        stage.task._move_to(following)
    assert stage.task.state is state


@pytest.mark.parametrize("state", [TaskState.BROKEN, TaskState.CLOSED])
async def test_a_task_that_ended_never_starts_again(stage: Stage, state: TaskState) -> None:
    for step in PATHS[state]:
        await move(stage.task, step)
    stage.task.start()
    await stage.task.suspend()
    assert stage.task.state is state


async def test_a_failure_breaks_a_suspended_task_without_a_reset(stage: Stage) -> None:
    stage.task.start()
    await stage.task.suspend()
    stage.manager.break_task(stage.task, RuntimeError("fenced"))
    assert (stage.task.state, stage.resets) == (TaskState.BROKEN, [])
