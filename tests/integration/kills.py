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
from typing import NamedTuple

from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB
from tests.integration.engine_kit.harness import Run

RECORDS_A_KILL = 300
STARTING = 0.25
"""The share of kills that hit a worker while it starts: before it joins the group, or while it restores."""
STARTING_S, AT_WORK_S = (0.2, 1.5), (0.0, 1.0)
"""Within this time of the start of the process, or of the first record that the worker applied. Counted from there and
not from the start alone: on a busy machine every kill would hit a worker that has not begun, and prove nothing."""


class Kills(NamedTuple):
    """What a loop of kills came to. ``at_work`` of them hit a worker that had applied records."""

    sums: dict[str, int]
    at_work: int
    calls_made_again: int


async def kill_loop(kafka: str, run: str, directory: Path, kills: int, seed: int) -> Kills:
    """One worker, killed ``kills`` times, then let finish; ``AssertionError`` unless everything is exact."""
    moments = random.Random(seed)
    at_work = 0
    async with Run(kafka, run, directory) as toy:
        for _ in range(kills):
            worker = toy.start()
            load = asyncio.create_task(toy.send(RECORDS_A_KILL, ids=40, rate=RECORDS_A_KILL))
            if moments.random() < STARTING:
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
        f"{found.calls_made_again} calls made again under the same key"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
