"""Turns: holders get them in rotation, and none is lost."""

import asyncio
import random

import pytest

from streams.access.turns import Turns


async def test_a_holder_with_many_requests_does_not_starve_another() -> None:
    turns, done = Turns(1), list[str]()

    async def use(holder: str) -> None:
        async with turns.take(holder):
            done.append(holder)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for holder in ["greedy"] * 6 + ["modest"] * 2:
            group.create_task(use(holder))
    assert done == ["greedy", "greedy", "modest", "greedy", "modest", "greedy", "greedy", "greedy"]


@pytest.mark.parametrize("seed", range(50))
async def test_no_turn_is_lost_or_given_twice(seed: int) -> None:
    chance, turns, running = random.Random(seed), Turns(3), list[int]()

    async def use(number: int) -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        async with turns.take(f"holder-{number % 4}"):
            running.append(number)
            try:
                assert len(running) <= 3
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                running.remove(number)

    tasks = [asyncio.create_task(use(number)) for number in range(40)]
    for _ in range(20):
        await asyncio.sleep(0)
        chance.choice(tasks).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [error for error in ended if isinstance(error, AssertionError)]
    async with asyncio.timeout(10):
        async with turns.take("a"), turns.take("a"), turns.take("a"):
            pass
