"""``kill -9`` at seeded moments while records come in; afterwards everything must be exact.

    python -m tests.integration.kills [KILLS] [SEED]

Uses the broker of ``KAFKA_BOOTSTRAP_SERVERS``, or an embedded one of its own.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path

from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB
from tests.integration.engine_kit.harness import Run

RECORDS_A_KILL = 300
EARLIEST_S, LATEST_S = 0.6, 3.0
"""After the start of the process: before it joins the group, while it restores, while it works."""


async def kill_loop(kafka: str, run: str, directory: Path, kills: int, seed: int) -> Run:
    """One worker, killed ``kills`` times; returns the run when it was found exact."""
    moments = random.Random(seed)
    async with Run(kafka, run, directory) as toy:
        for _ in range(kills):
            worker = toy.start()
            moment = worker.started_at + moments.uniform(EARLIEST_S, LATEST_S)
            load = asyncio.create_task(toy.send(RECORDS_A_KILL, ids=40, rate=RECORDS_A_KILL / EARLIEST_S / 2))
            while time.monotonic() < moment:
                await toy.judge.read()
            worker.kill()
            await load
        toy.start()
        await toy.done(within_s=60)
        return toy


def main(kills: int = 100, seed: int = 1) -> None:
    with tempfile.TemporaryDirectory() as directory:
        broker = EmbeddedKafka(Path(directory), lib=LIB, progress=print)
        toy_directory = Path(directory) / "toy"
        toy_directory.mkdir()
        try:
            kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or broker.start()
            toy = asyncio.run(kill_loop(kafka, f"kills-{uuid.uuid4().hex[:8]}", toy_directory, kills, seed))
            repeated = sum(times - 1 for times in toy.calls().values())
        finally:
            broker.kill()
    print(f"{kills} kills, seed {seed}: {toy.judge.sums()}: exact; {repeated} calls made again under the same key")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
