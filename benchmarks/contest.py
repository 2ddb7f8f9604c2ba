"""Contest in counting and forwarding: the engine, stock Faust and a bare loop, in turns on the same broker.

    python -m benchmarks.contest [ROUNDS]

Each contestant gets as many records as it can process in some seconds. Its committed results are read back and checked.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient

from benchmarks.contestants.work import PARTITIONS, Took
from benchmarks.lab import Lab, Sample
from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.topic_admin import TopicSpec, create_topics

ROOT = Path(__file__).parent.parent
KEYS = 20_000
PAD = "x" * 200
AT_ONCE = 20_000
WITHIN_S = 120.0


class Contestant(NamedTuple):
    """A program and its number of records."""

    name: str
    command: tuple[str, ...]
    records: int
    table: str
    """Suffix of the changelog of its counts, after the name of the run."""


WORKER = ("worker", "-l", "warn", "--without-web")
OURS = Contestant("engine", ("-m", "benchmarks.contestants.ours", *WORKER), 300_000, "-counts-changelog")
STOCK = Contestant("stock Faust", ("-m", "benchmarks.contestants.stock", *WORKER), 15_000, "-counts-changelog")
BARE = Contestant(
    "bare loop",
    (
        "-m",
        "benchmarks.contestants.bare",
    ),
    300_000,
    "-counts-changelog",
)


BENCH, RATE = "count and forward", "records/s"


def calibrate(lab: Lab) -> None:
    """Measure the rate of the engine once, for comparison with the other rates of the run."""
    lab.say(f"{BENCH}: {OURS.name}")
    took = compete(lab.kafka, OURS)
    lab.add(Sample(BENCH, OURS.name, RATE, took.records / took.wall_s))


def run(lab: Lab) -> None:
    """Measure each contestant once a round, in turns."""
    for turn in range(lab.rounds):
        for contestant in (OURS, STOCK, BARE)[turn % 3 :] + (OURS, STOCK, BARE)[: turn % 3]:
            lab.say(f"{BENCH}, round {turn + 1} of {lab.rounds}: {contestant.name}")
            took = compete(lab.kafka, contestant)
            lab.add(Sample(BENCH, contestant.name, RATE, took.records / took.wall_s))
            lab.add(Sample(BENCH, contestant.name, "CPU us a record", 1e6 * took.cpu_s / took.records))
    lab.ratio(BENCH, RATE, "engine", "stock Faust", ">= 25")
    lab.ratio(BENCH, RATE, "engine", "bare loop", ">= 0.7")


def compete(kafka: str, contestant: Contestant) -> Took:
    """Run a contestant once. ``SystemExit`` if it did not count and forward every record exactly once.

    Stock Faust is exempt.
    """
    name = f"contest-{uuid.uuid4().hex[:8]}"
    asyncio.run(_load(kafka, name, contestant.records))
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result"
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "BENCH_RUN": name,
            "BENCH_RECORDS": str(contestant.records),
            "BENCH_RESULT": str(result),
            "BENCH_DATA": directory,
            "PYTHONPATH": str(ROOT),
        }
        _run(contestant, directory, environment)
        took = msgspec.json.decode(result.read_bytes(), type=Took)
    counted, forwarded = asyncio.run(_count_committed(kafka, f"{name}{contestant.table}", f"{name}-out"))
    if contestant is not STOCK and (counted, forwarded) != (contestant.records, contestant.records):
        raise SystemExit(f"{contestant.name}: {counted} counted and {forwarded} forwarded of {contestant.records}")
    return took


def _run(contestant: Contestant, directory: str, environment: Mapping[str, str]) -> None:
    with (Path(directory) / "log").open("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, *contestant.command],
            cwd=directory,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        try:
            status = process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            process.kill()
            process.wait()
        if status != 0:
            log.seek(0)
            raise SystemExit(f"{contestant.name} exited with {status}:\n{log.read().decode(errors='replace')[-2000:]}")


async def _load(kafka: str, name: str, records: int) -> None:
    await create_topics(
        {"bootstrap_servers": kafka}, [TopicSpec(f"{name}-in", PARTITIONS), TopicSpec(f"{name}-out", PARTITIONS)], 1
    )
    client = TransactionalClient(AIOKafkaClient(bootstrap_servers=kafka), f"{name}-load")
    await client.start([f"{name}-in"])
    for start in range(0, records, AT_ONCE):
        batches: dict[tuple[str, int], list[tuple[bytes, bytes, tuple[()]]]] = {}
        for n in range(start, min(start + AT_ONCE, records)):
            key = b"key-%d" % (n % KEYS)
            value = b'{"n":%d,"pad":"%s"}' % (n, PAD.encode())
            batches.setdefault((f"{name}-in", java_partition(key, PARTITIONS)), []).append((key, value, ()))
        await client.produce(batches)
        await client.end()
    await client.close()


async def _count_committed(kafka: str, table: str, out: str) -> tuple[int, int]:
    """Return the sum of the committed counts and the number of committed outputs."""
    counts: dict[tuple[int, bytes], int] = {}
    found: Counter[str] = Counter()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for topic in (table, out) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                found[tp.topic] += len(records)
                if tp.topic == table:
                    counts.update({(tp.partition, record.key): int(record.value) for record in records})
    finally:
        await consumer.stop()
    return sum(counts.values()), found[out]
