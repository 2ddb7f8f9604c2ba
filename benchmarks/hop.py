"""One hop at light load: from producing a record until a read_committed consumer sees the output of the task."""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.contest import ROOT, WORKER
from benchmarks.contestants.work import PARTITIONS
from benchmarks.lab import Lab, Sample, quantile
from exactly_once.kafka.topic_admin import TopicSpec, create_topics
from streams.demo.processes import Supervisor

BENCH = "one hop"
HOPS, WARM_UP = 400, 100
GAP_S = 0.02
WITHIN_S = 20.0


def run(lab: Lab) -> None:
    """Measure `HOPS` hops a round, one after the other."""
    for turn in range(lab.rounds):
        lab.say(f"{BENCH}, round {turn + 1} of {lab.rounds}")
        took = asyncio.run(_measure(lab))
        for share, of in ((0.5, "ms, p50"), (0.9, "ms, p90"), (0.99, "ms, p99")):
            lab.add(Sample(BENCH, "engine", of, quantile(took, share)))
    lab.target(BENCH, "engine", "ms, p50", "<= 6 (wish: 4)")
    lab.target(BENCH, "engine", "ms, p99", "<= 20")


async def _measure(lab: Lab) -> list[float]:
    directory = lab.subdirectory("hop")
    name = directory.name
    await create_topics(
        {"bootstrap_servers": lab.kafka}, [TopicSpec(f"{name}-in", PARTITIONS), TopicSpec(f"{name}-out", PARTITIONS)], 1
    )
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": lab.kafka,
        "BENCH_RUN": name,
        "BENCH_RECORDS": str(10**9),
        "PYTHONPATH": str(ROOT),
        "BENCH_DATA": str(directory),
    }
    with Supervisor(directory / "logs") as supervisor:
        supervisor.start(
            "engine", [sys.executable, "-m", "benchmarks.contestants.ours", *WORKER], environment=environment
        )
        producer = AIOKafkaProducer(bootstrap_servers=lab.kafka, acks="all", linger_ms=0)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=lab.kafka, isolation_level="read_committed", enable_auto_commit=False
        )
        async with producer, consumer:
            tps = [TopicPartition(f"{name}-out", partition) for partition in range(PARTITIONS)]
            consumer.assign(tps)
            await consumer.seek_to_end(*tps)
            return [await _hop(producer, consumer, f"{name}-in", n) for n in range(WARM_UP + HOPS)][WARM_UP:]


async def _hop(producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, topic: str, number: int) -> float:
    """Return the milliseconds of one hop."""
    await asyncio.sleep(GAP_S)
    value = b'{"n":%d,"pad":"hop"}' % number
    began = time.perf_counter()
    await producer.send(topic, value, key=b"key-%d" % number)
    async with asyncio.timeout(WITHIN_S):
        while True:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                if any(record.value == value for record in records):
                    return 1000 * (time.perf_counter() - began)
