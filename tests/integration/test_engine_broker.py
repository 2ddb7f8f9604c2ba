"""The broker dies and comes back; the worker stays, and nothing is lost or doubled."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB
from tests.integration.engine_kit.harness import Run

pytestmark = pytest.mark.timeout(180)


class OwnPort(EmbeddedKafka):
    """While it is down no other broker of the tests may take its port."""

    def _ports(self) -> "itertools.chain[int]":
        return itertools.chain(itertools.count(20_000 + os.getpid() % 5_000 * 2, 2))


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """One that nobody else uses, so that it may be killed."""
    broker = OwnPort(tmp_path / "kafka", lib=LIB)
    yield broker
    broker.kill()


async def test_a_broker_killed_and_restarted_under_load_costs_nothing_but_time(
    own_broker: EmbeddedKafka, unique: str, tmp_path: Path
) -> None:
    directory = tmp_path / "toy"
    directory.mkdir()
    async with Run(await asyncio.to_thread(own_broker.start), unique, directory) as toy:
        worker = await toy.at_work(toy.start())
        load = asyncio.create_task(toy.send(1500, rate=250))
        await toy.wait(lambda: toy.judge.sums()["counts"] > 300, why="under load")
        await asyncio.to_thread(own_broker.kill)
        await toy.wait(lambda: worker.logged("broken") or worker.logged("failed"), 15, why="noticed")
        await asyncio.to_thread(own_broker.start)
        await load
        await toy.done(within_s=90)
        assert worker.logged("ERROR") < 200, "an outage is said once in a while, not a hundred times a second"
        assert worker.terminate()[0] == 0
