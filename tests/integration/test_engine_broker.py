"""The broker dies and comes back; the worker stays, and nothing is lost or doubled."""

import asyncio
from pathlib import Path

import pytest

from streams.embedded.kafka import EmbeddedKafka
from tests.integration.engine_kit.harness import Run
from tests.own_broker import own_broker

pytestmark = pytest.mark.timeout(180)


async def test_a_broker_killed_and_restarted_under_load_costs_nothing_but_time(unique: str, tmp_path: Path) -> None:
    directory = tmp_path / "toy"
    directory.mkdir()
    with own_broker(tmp_path / "kafka") as broker:
        await load_over_a_kill(broker, unique, directory)


async def load_over_a_kill(broker: EmbeddedKafka, run: str, directory: Path) -> None:
    """The toy at work while its broker dies."""
    async with Run(await asyncio.to_thread(broker.start), run, directory) as toy:
        worker = await toy.at_work(toy.start())
        load = asyncio.create_task(toy.send(1500, rate=250))
        await toy.wait(lambda: toy.judge.sums()["counts"] > 300, why="under load")
        await asyncio.to_thread(broker.kill)
        await toy.wait(lambda: worker.logged("broken") or worker.logged("failed"), 15, why="noticed")
        await asyncio.to_thread(broker.start)
        await load
        await toy.done(within_s=90)
        assert worker.logged("ERROR") < 200, "an outage is said once in a while, not a hundred times a second"
        assert worker.terminate()[0] == 0
