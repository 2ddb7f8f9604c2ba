"""A broker that is killed and restarted while the worker runs: nothing is lost or repeated."""

import asyncio
from pathlib import Path

from streams.local.kafka.broker import EmbeddedKafka
from tests.integration.engine_kit.harness import Run
from tests.support.own_broker import own_broker


async def test_a_broker_kill_under_load_loses_and_repeats_nothing(unique: str, tmp_path: Path) -> None:
    directory = tmp_path / "toy"
    directory.mkdir()
    with own_broker(tmp_path / "kafka") as broker:
        await load_over_a_kill(broker, unique, directory)


async def load_over_a_kill(broker: EmbeddedKafka, run: str, directory: Path) -> None:
    """Kill and restart the broker while the toy is under load."""
    async with Run(await asyncio.to_thread(broker.start), run, directory) as toy:
        worker = await toy.at_work(toy.start())
        load = asyncio.create_task(toy.send(1500, rate=250))
        await toy.wait(lambda: toy.judge.sums()["counts"] > 300, why="under load")
        await asyncio.to_thread(broker.kill)
        await toy.wait(lambda: worker.logged("broken") or worker.logged("failed"), why="the worker logs the outage")
        await asyncio.to_thread(broker.start)
        await load
        await toy.done()
        assert worker.logged("ERROR") < 200, "the log of an outage is throttled"
        assert worker.terminate() == 0
