"""Kills an engine worker with ``kill -9`` at seeded moments under load; afterwards every count must be exact.

    python -m verification.kills.engine [KILLS] [SEED]

Uses the broker of ``KAFKA_BOOTSTRAP_SERVERS``, or else starts an embedded one.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB
from tests.integration.engine_kit.harness import Run

RECORDS_PER_KILL = 300
STARTING_SHARE = 0.25
"""Share of the kills that hit a starting worker: before it joins the group, or while it restores."""
STARTING_S = (0.2, 1.5)
"""Bounds of a kill's moment, in seconds after the start of the process."""
AT_WORK_S = (0.0, 1.0)
"""Bounds of a kill's moment, in seconds after the first record that the worker applied.

Most moments count from that record: on a busy machine, kills that count from the start would all hit a worker that has
not begun, and prove nothing."""


class Kills(NamedTuple):
    """Result of a loop of kills. ``at_work`` counts the kills of workers that had applied records."""

    sums: dict[str, int]
    at_work: int
    repeated_calls: int


async def kill_loop(kafka: str, run: str, directory: Path, kills: int, seed: int) -> Kills:
    """Kill a worker ``kills`` times, then let it finish. Raise ``AssertionError`` unless every count is exact."""
    moments = random.Random(seed)
    at_work = 0
    async with Run(kafka, run, directory) as toy:
        for _ in range(kills):
            worker = toy.start()
            load = asyncio.create_task(toy.send(RECORDS_PER_KILL, ids=40, rate=RECORDS_PER_KILL))
            if moments.random() < STARTING_SHARE:
                moment = worker.started_at + moments.uniform(*STARTING_S)
            else:
                await toy.wait(worker.first_record.exists, why="its first record")
                moment = time.monotonic() + moments.uniform(*AT_WORK_S)
            while time.monotonic() < moment:
                await toy.judge.read()
            at_work += worker.first_record.exists()
            worker.kill()
            await load
        toy.start()
        await toy.done(within_s=60)
        return Kills(toy.judge.sums(), at_work, sum(times - 1 for times in toy.calls().values()))


def main(kills: int = 100, seed: int = 1) -> None:
    with tempfile.TemporaryDirectory() as directory:
        broker = EmbeddedKafka(Path(directory), lib=LIB, progress=print)
        toy_directory = Path(directory) / "toy"
        toy_directory.mkdir()
        try:
            kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or broker.start()
            found = asyncio.run(kill_loop(kafka, f"kills-{uuid.uuid4().hex[:8]}", toy_directory, kills, seed))
        finally:
            broker.kill()
    print(
        f"{kills} kills, seed {seed}, {found.at_work} of them of a worker at work: exact, {found.sums}; "
        f"{found.repeated_calls} calls repeated under the same key"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
