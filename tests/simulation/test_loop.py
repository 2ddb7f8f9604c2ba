"""The loop of a world: whose callbacks run, in which order, and how time passes."""

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from tests.simulation.loop import Actor, Endless, Stuck, VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop(Random(1), most_steps=10_000)
    yield loop
    loop.dismantle()


def test_a_day_passes_at_once_and_what_is_due_comes_in_order(loop: VirtualLoop) -> None:
    said: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        said.append((name, loop.time()))

    async def live() -> None:
        await asyncio.gather(wait("late", 86_400), wait("early", 1))

    loop.run_until_complete(live())
    assert said == [("early", 1), ("late", 86_400)]


def test_what_an_actor_starts_is_its_own_and_ends_with_it_without_a_word(loop: VirtualLoop) -> None:
    actor, said = Actor("worker"), list[str]()

    async def work() -> None:
        try:
            await asyncio.gather(*(asyncio.sleep(5) for _ in range(2)))
            said.append("worked")
        finally:
            said.append("cleaned up")

    async def live() -> None:
        loop.spawn(actor, work())
        await asyncio.sleep(1)
        loop.kill(actor)
        await asyncio.sleep(10)

    loop.run_until_complete(live())
    assert said == []


def test_a_frozen_actor_goes_on_with_what_it_missed(loop: VirtualLoop) -> None:
    actor, said = Actor("worker"), list[float]()

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            said.append(loop.time())

    async def live() -> None:
        loop.spawn(actor, work())
        await asyncio.sleep(1.5)
        loop.freeze(actor)
        await asyncio.sleep(100)
        assert said == [1]
        loop.thaw(actor)
        await asyncio.sleep(10)

    loop.run_until_complete(live())
    assert said == [1, 101.5, 102.5]


def test_a_fault_strikes_between_two_steps(loop: VirtualLoop) -> None:
    actor, said = Actor("worker"), list[int]()

    def before_step(step: int) -> None:
        if step == 3:
            loop.kill(actor)

    async def work() -> None:
        for number in range(5):
            said.append(number)
            await asyncio.sleep(0)

    async def live() -> None:
        actor.before_step = before_step
        loop.spawn(actor, work())
        await asyncio.sleep(1)

    loop.run_until_complete(live())
    assert said == [0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_which_of_several_actors_is_next_is_drawn_and_each_keeps_its_order(seed: int) -> None:
    def order(seed: int) -> list[str]:
        loop, said = VirtualLoop(Random(seed), most_steps=10_000), list[str]()

        async def work(name: str) -> None:
            for number in range(5):
                said.append(f"{name}{number}")
                await asyncio.sleep(0)

        async def live() -> None:
            for name in "abc":
                loop.spawn(Actor(name), work(name))
            await asyncio.sleep(1)

        loop.run_until_complete(live())
        loop.dismantle()
        return said

    assert order(seed) == order(seed)
    assert order(seed) != order(seed + 100)
    for name in "abc":
        assert [each for each in order(seed) if each[0] == name] == [f"{name}{number}" for number in range(5)]


def test_a_world_in_which_nothing_can_happen_any_more_is_told(loop: VirtualLoop) -> None:
    with pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())


def test_a_world_that_goes_round_in_circles_is_told(loop: VirtualLoop) -> None:
    async def live() -> None:
        while True:  # noqa: ASYNC110 - that is what is tested
            await asyncio.sleep(0)

    with pytest.raises(Endless):
        loop.run_until_complete(live())


def test_what_is_raised_where_nobody_waits_for_it_is_noted(loop: VirtualLoop) -> None:
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
