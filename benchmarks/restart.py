"""Time to the first commit of a worker after `kill -9`, with its tables on disk and without.

Orders are placed before each start. The time ends when the first order update is committed.
"""

import asyncio
import shutil
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.lab import Lab, Sample
from benchmarks.topics_only import Outside, made
from tests.support.stack import Stack, installed
from topics.families import ORDER_UPDATES, topic_name

BENCH = "restart"
PARTITIONS = 4
DRIVERS = 300
ORDERS = 4000
"""Orders in the tables to be restored: about fourteen rows each."""
WITHIN_S = 120.0


def run(lab: Lab) -> None:
    """Kill the worker and time its next start; repeat with an empty disk."""
    directory = lab.subdirectory("restart")
    with installed(lab.kafka, directory.name, directory, 0.0) as stack:
        asyncio.run(_fill(lab, stack))
        for turn in range(lab.rounds):
            lab.say(f"{BENCH}, round {turn + 1} of {lab.rounds}")
            for subject, wiped in (("kill -9, tables warm", False), ("kill -9, disk lost", True)):
                stack.workers[1].kill()
                if wiped:
                    shutil.rmtree(next(stack.directory.glob("worker-1/**/tasks")))
                seconds = asyncio.run(_time_to_commit(lab, stack, f"{turn}{int(wiped)}"))
                lab.add(Sample(BENCH, subject, "s from start to the first commit", seconds))
        rows = sum(1 for _ in stack.get("/table/journal/", limit="10000")["rows"])
        lab.note(BENCH, f"The tables held {ORDERS:,} orders (at least {rows:,} journal lines, and all other rows).")
    lab.target(BENCH, "kill -9, tables warm", "s from start to the first commit", "<= 3")


async def _fill(lab: Lab, stack: Stack) -> None:
    stack.start_worker(app="benchmarks.answered")
    async with Outside(lab.kafka, stack.name, PARTITIONS, DRIVERS) as outside:
        await outside.bring_drivers()
        await outside.run(made("fill", ORDERS), ORDERS, 1000, WITHIN_S)


async def _time_to_commit(lab: Lab, stack: Stack, run: str) -> float:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=lab.kafka, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=50
    )
    async with consumer, Outside(lab.kafka, stack.name, PARTITIONS, DRIVERS) as outside:
        tps = [TopicPartition(topic_name(ORDER_UPDATES.name, stack.name), partition) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        await consumer.seek_to_end(*tps)
        await outside.place(made(f"again-{run}", 20))
        began = time.perf_counter()
        worker = stack.start_worker(app="benchmarks.answered", wait=False)
        async with asyncio.timeout(WITHIN_S):
            while not await consumer.getmany(timeout_ms=50):
                worker.check()
        seconds = time.perf_counter() - began
    worker.wait_until_ready()
    return seconds
