"""Pauses of the tasks under load while a worker joins, leaves or crashes.

Two workers of the engine's toy (`tests/integration/engine_kit`) have 4 partitions and a steady load. In a round the
second worker joins, leaves, joins again and is killed. The pause of a partition is the longest time between two commits
of its task around such an event. Each commit writes a row of `positions`, with the time stamp of the commit. If a
partition moves, the pause lasts from the last commit of the old owner to the first of the new one. The other partitions
pause too, during the rebalance. Every record must be applied once.
"""

import asyncio
import statistics
import time
import uuid
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.lab import Lab, Sample, quantile
from exactly_once import LEAVE_SIGNAL
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import Run, Worker

BENCH = "pause of a partition"
SESSION_S = 6
RATE = 200.0
"""Records a second. A partition then commits every 10 to 20 ms."""
AROUND_S = 0.5
"""Margin before and after an event in which commits count."""
ALL = list(range(names.PARTITIONS))

Pauses = dict[str, list[float]]


def run(lab: Lab) -> None:
    """Measure all rounds with one pair of workers."""
    lab.say(f"{BENCH}, {lab.rounds} rounds")
    pauses = asyncio.run(_measure(lab.kafka, lab.subdirectory("rebalance"), lab.rounds))
    for event, found in sorted(pauses.items()):
        for of, figure in (("p50", statistics.median(found)), ("p90", quantile(found, 0.9)), ("longest", max(found))):
            lab.add(Sample(BENCH, event, f"ms, {of}", 1000 * figure))
    for event in ("join, moves", "leave, moves"):
        lab.target(BENCH, event, "ms, p50", "<= 1,000")
    lab.target(BENCH, "crash, moves", "ms, p50", f"<= {1000 * (SESSION_S + 1):,}: session time-out and one second")


async def _measure(kafka: str, home: Path, rounds: int) -> Pauses:
    pauses: defaultdict[str, list[float]] = defaultdict(list)
    async with Run(kafka, f"rebalance-{uuid.uuid4().hex[:6]}", home, TOY_SESSION_S=str(SESSION_S)) as toy:
        first = await toy.at_work(toy.start(1))
        enough = asyncio.Event()
        load = asyncio.create_task(_load(toy, enough))
        commits = Commits(kafka, toy.run)
        following = asyncio.create_task(commits.follow())
        for _ in range(rounds):
            for event, end in (("leave", LEAVE_SIGNAL), ("crash", None)):
                second = await _join(toy, commits, first, pauses)
                moving = set(second.tasks)
                began = time.time()
                second.process.send_signal(end) if end else second.process.kill()
                await toy.wait(lambda: first.tasks == ALL)
                await commits.past(time.time() + AROUND_S)
                _note(pauses, event, commits, began, moving)
                second.process.wait()
        enough.set()
        await load
        following.cancel()
        await toy.done()
    return pauses


async def _join(toy: Run, commits: "Commits", first: Worker, pauses: Pauses) -> Worker:
    began = time.time()
    second = toy.start(2)
    await toy.wait(lambda: sorted(first.tasks + second.tasks) == ALL and second.tasks)
    await commits.past(time.time() + AROUND_S)
    _note(pauses, "join", commits, began, set(second.tasks))
    return second


def _note(pauses: Pauses, event: str, commits: "Commits", began: float, moving: set[int]) -> None:
    for partition in ALL:
        where = "moves" if partition in moving else "stays"
        pauses.setdefault(f"{event}, {where}", []).append(commits.longest_pause(partition, began - AROUND_S))


async def _load(toy: Run, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await toy.send(int(RATE), ids=1000, rate=RATE)


class Commits:
    """Times of the commits of each task, in seconds since the epoch."""

    def __init__(self, kafka: str, run: str) -> None:
        self._kafka, self._topic = kafka, names.changelog(run, "positions")
        self._more = asyncio.Event()
        self._at: dict[int, list[float]] = {partition: [] for partition in ALL}

    async def follow(self) -> None:
        """Consume the rows of `positions` until cancelled."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, isolation_level="read_committed")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(self._topic, partition) for partition in ALL])
            async for record in consumer:
                self._at[record.partition].append(record.timestamp / 1000)
                self._more.set()
        finally:
            await consumer.stop()

    async def past(self, moment: float) -> None:
        """Wait until every task has committed after this moment."""
        while not all(times and times[-1] > moment for times in self._at.values()):
            self._more.clear()
            await self._more.wait()

    def longest_pause(self, partition: int, since: float) -> float:
        """Return the longest time between two commits of a partition, in seconds."""
        times = [at for at in self._at[partition] if at > since]
        return max(later - earlier for earlier, later in pairwise(times))
