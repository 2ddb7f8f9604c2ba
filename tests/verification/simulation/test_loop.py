"""The virtual event loop: the order of callbacks, the actors, and the passage of time."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from verification.simulation.loop import Actor, Endless, Stuck, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop(Random(1), most_steps=10_000)
    yield loop
    loop.dismantle()


def test_a_day_passes_at_once_with_its_timers_in_order(loop: VirtualLoop) -> None:
    log: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        log.append((name, loop.time()))

    async def live() -> None:
        await asyncio.gather(wait("late", 86_400), wait("early", 1))

    loop.run_until_complete(live())
    assert log == [("early", 1), ("late", 86_400)]


def test_tasks_of_a_killed_actor_end_without_cleanup(loop: VirtualLoop) -> None:
    actor, log = Actor("worker"), list[str]()

    async def work() -> None:
        try:
            await asyncio.gather(*(asyncio.sleep(5) for _ in range(2)))
            log.append("worked")
        finally:
            log.append("cleaned up")

    async def live() -> None:
        loop.spawn(actor, work())
        await asyncio.sleep(1)
        loop.kill(actor)
        await asyncio.sleep(10)

    loop.run_until_complete(live())
    assert log == []


def test_a_frozen_actor_resumes_with_its_due_timers(loop: VirtualLoop) -> None:
    actor, log = Actor("worker"), list[float]()

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            log.append(loop.time())

    async def live() -> None:
        loop.spawn(actor, work())
        await asyncio.sleep(1.5)
        loop.freeze(actor)
        await asyncio.sleep(100)
        assert log == [1]
        loop.thaw(actor)
        await asyncio.sleep(10)

    loop.run_until_complete(live())
    assert log == [1, 101.5, 102.5]


def test_a_fault_strikes_between_two_steps(loop: VirtualLoop) -> None:
    actor, log = Actor("worker"), list[int]()

    def before_step(step: int) -> None:
        if step == 3:
            loop.kill(actor)

    async def work() -> None:
        for number in range(5):
            log.append(number)
            await asyncio.sleep(0)

    async def live() -> None:
        actor.before_step = before_step
        loop.spawn(actor, work())
        await asyncio.sleep(1)

    loop.run_until_complete(live())
    assert log == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_seed_interleaves_actors_and_keeps_their_order(seed: int) -> None:
    def order(seed: int) -> list[str]:
        loop, log = VirtualLoop(Random(seed), most_steps=10_000), list[str]()

        async def work(name: str) -> None:
            for number in range(5):
                log.append(f"{name}{number}")
                await asyncio.sleep(0)

        async def live() -> None:
            for name in "abc":
                loop.spawn(Actor(name), work(name))
            await asyncio.sleep(1)

        loop.run_until_complete(live())
        loop.dismantle()
        return log

    assert order(seed) == order(seed)
    assert order(seed) != order(seed + 100)
    for name in "abc":
        assert [each for each in order(seed) if each[0] == name] == [f"{name}{number}" for number in range(5)]


def test_a_world_without_pending_events_is_stuck(loop: VirtualLoop) -> None:
    with pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())


def test_a_world_without_an_end_is_detected(loop: VirtualLoop) -> None:
    async def live() -> None:
        while True:  # noqa: ASYNC110 - the test needs a busy loop
            await asyncio.sleep(0)

    with pytest.raises(Endless):
        loop.run_until_complete(live())


def test_errors_that_nobody_awaits_are_recorded(loop: VirtualLoop) -> None:
    async def fail() -> None:
        raise ValueError("in a task")

    def raise_later() -> None:
        raise ValueError("in a callback")

    async def live() -> None:
        loop.spawn(Actor("worker"), fail())
        loop.call_later(1, raise_later)
        await asyncio.sleep(2)

    loop.run_until_complete(live())
    assert len(loop.crashes) == 2
    assert "in a task" in loop.crashes[0]
    assert "in a callback" in loop.crashes[1]
