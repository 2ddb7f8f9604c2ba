"""The example, run as its docstring shows, and killed."""

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from exactly_once.kafka.topic_admin import TopicSpec, check_topics, create_topics

ROOT = Path(__file__).parents[2]
ROUNDS, WORDS_A_ROUND = 3, 200


@contextmanager
def counting(kafka: str, directory: Path) -> Iterator[None]:
    """Run the example's worker within the block, and kill it at the end."""
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "count.py"), "worker", "-l", "info", "--without-web"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": kafka},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


async def test_the_example_emits_each_total_once_across_kills(kafka: str, unique: str, tmp_path: Path) -> None:
    specs = [TopicSpec(name, 4) for name in ("words", "totals")]
    await create_topics({"bootstrap_servers": kafka}, specs, 1)
    await check_topics({"bootstrap_servers": kafka}, specs, wait_s=120)
    words = [f"{unique}-{n}".encode() for n in range(4)]
    sent, found = 0, defaultdict[bytes, list[int]](list)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
    totals = AIOKafkaConsumer("totals", bootstrap_servers=kafka, isolation_level="read_committed")
    async with producer, totals:

        async def read_totals(wanted: int) -> None:
            async with asyncio.timeout(120):
                while sum(map(len, found.values())) < wanted:
                    for records in (await totals.getmany(timeout_ms=100)).values():
                        for record in records:
                            if record.key in words:
                                found[record.key].append(int(record.value))

        await totals.seek_to_end()
        for _ in range(ROUNDS):
            with counting(kafka, tmp_path):
                sent += WORDS_A_ROUND
                await asyncio.gather(
                    *[await producer.send("words", b"", key=words[n % 4]) for n in range(WORDS_A_ROUND)]
                )
                await read_totals(sent - WORDS_A_ROUND + 1)
        with counting(kafka, tmp_path):
            await read_totals(sent)
    assert dict(found) == {word: list(range(1, sent // 4 + 1)) for word in words}
