"""Runs the toy's workers, sends them records, and judges by what is committed in Kafka and noted in the ledger."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.engine.changes import Position
from streams.engine.provision import CHANGELOG_CONFIG, TopicSpec, create_topics
from streams.engine.store import PartitionStore
from tests.integration.engine_kit import names

ROOT = Path(__file__).parents[3]
POLL_S = 0.05


class Worker:
    """One process of the toy. Its log is kept beside its data."""

    def __init__(self, directory: Path, environment: Mapping[str, str], number: int) -> None:
        self.log = directory / f"log-{number}-{len(list(directory.glob('log-*')))}"
        self.started_at = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.engine_kit.toy", "worker", "-l", "info", "--without-web"],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TOY_WORKER": str(number), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.first_record = directory / f"first-{self.process.pid}"

    @property
    def dead(self) -> bool:
        return self.process.poll() is not None

    @property
    def stopped(self) -> bool:
        """Frozen by SIGSTOP."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] == "T"

    def kill(self) -> None:
        if not self.dead:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self, within_s: float = 15.0, by: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Have it end; returns the exit status and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(by)
        try:
            return self.process.wait(within_s), time.monotonic() - began
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not end within {within_s} s of {by.name}:\n{self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def tasks(self) -> list[int]:
        """The partitions that are open, as it has said last."""
        said = re.findall(r"tasks \[([\d, ]*)\] open", self.log.read_text(errors="replace"))
        return [int(number) for number in said[-1].split(",") if number.strip()] if said else []

    def logged(self, text: str) -> int:
        """How often the log says so."""
        return self.log.read_text(errors="replace").count(text)


class Judge:
    """Follows every topic of a run as a read_committed consumer, and knows the rows and records that are committed."""

    def __init__(self, kafka: str, run: str) -> None:
        tables = (*names.TABLES, *names.OWN_TABLES)
        self.rows: dict[str, dict[tuple[int, bytes], bytes]] = {table: {} for table in tables}
        """Table -> (partition, key) -> value."""
        self.letters: list[dict[str, str]] = []
        self.told = 0
        self._tables = {names.changelog(run, table): table for table in tables}
        self._run = run
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    async def start(self) -> None:
        await self._consumer.start()
        topics = (*self._tables, names.pos(self._run), names.dead_letters(self._run))
        tps = [TopicPartition(topic, partition) for topic in topics for partition in range(names.PARTITIONS)]
        self._consumer.assign(tps)
        await self._consumer.seek_to_beginning(*tps)

    async def stop(self) -> None:
        await self._consumer.stop()

    async def read(self) -> None:
        """Read on, as far as there is something within a poll."""
        for tp, records in (await self._consumer.getmany(timeout_ms=int(POLL_S * 1000))).items():
            if tp.topic == names.pos(self._run):
                self.told += len(records)
            elif tp.topic == names.dead_letters(self._run):
                self.letters += [{name: note.decode() for name, note in record.headers} for record in records]
            else:
                self._apply(self.rows[self._tables[tp.topic]], records)

    @staticmethod
    def _apply(rows: dict[tuple[int, bytes], bytes], records: list) -> None:  # type: ignore[type-arg]
        for record in records:
            if record.value is None:
                rows.pop((record.partition, record.key), None)
            else:
                rows[record.partition, record.key] = record.value

    def sums(self) -> dict[str, int]:
        counted = {table: sum(map(int, self.rows[table].values())) for table in ("counts", "seen", "fired", "called")}
        left = {table: len(self.rows[table]) for table in ("journal", "timers", "calls")}
        return {**counted, **left, "told": self.told}


class Run:
    """One run of the toy: its topics, its workers, its judge. Everything is stopped at its end."""

    def __init__(self, kafka: str, run: str, directory: Path, **environment: str) -> None:
        self.kafka, self.run, self.directory = kafka, run, directory
        self.environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "TOY_RUN": run, **environment}
        self.workers: list[Worker] = []
        self.judge = Judge(kafka, run)
        self.sent = 0
        self._producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)

    async def __aenter__(self) -> Self:
        await create_topics({"bootstrap_servers": self.kafka}, self.topics(), 1)
        await self._producer.start()
        await self.judge.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.kill()
        await self._producer.stop()
        await self.judge.stop()

    def topics(self) -> list[TopicSpec]:
        plain = (names.orders(self.run), names.pos(self.run), names.dead_letters(self.run))
        tables = (*names.TABLES, *names.OWN_TABLES)
        return [TopicSpec(name, names.PARTITIONS) for name in plain] + [
            TopicSpec(names.changelog(self.run, table), names.PARTITIONS, CHANGELOG_CONFIG) for table in tables
        ]

    def start(self, number: int = 1, **environment: str) -> Worker:
        worker = Worker(self.directory, {**self.environment, **environment}, number)
        self.workers.append(worker)
        return worker

    async def at_work(self, worker: Worker) -> Worker:
        """Once this worker applies records; sends it one."""
        await self.send(1)
        await self.wait(worker.first_record.exists, why="its first record")
        return worker

    async def send(self, count: int, *, ids: int = 0, rate: float = 0.0) -> None:
        """Good records, of ``ids`` different keys (default: half as many), at ``rate`` a second (default: at once)."""
        began, futures = time.monotonic(), []
        for n in range(count):
            key = b"order-%d" % ((self.sent + n) % (ids or max(1, count // 2)))
            futures.append(await self._producer.send(names.orders(self.run), b"n%d" % (self.sent + n), key=key))
            if rate and (early := began + n / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)  # the load's pace, nothing is waited for
        await asyncio.gather(*futures)
        self.sent += count

    async def send_one(self, key: bytes, value: bytes | None, partition: int | None = None) -> None:
        await self._producer.send_and_wait(names.orders(self.run), value, key=key, partition=partition)

    async def wait(self, what: Callable[[], object], within_s: float = 30.0, why: str = "") -> None:
        """Read on until ``what`` holds; fail with what there is."""
        until = time.monotonic() + within_s
        while not what():
            if time.monotonic() > until:
                logs = "\n".join(worker.tail(25) for worker in self.workers[-2:])
                raise AssertionError(f"not within {within_s} s: {why or what}\n{self.judge.sums()}\n{logs}")
            await self.judge.read()

    async def done(self, within_s: float = 30.0, *, alive: bool = True) -> None:
        """Until every good record has had all its effects, then: exactly that, and nothing in memory differed."""
        counted = ("counts", "seen", "fired", "called", "told", "journal")

        def complete() -> bool:
            if alive and all(worker.dead for worker in self.workers):
                raise AssertionError(f"no worker lives:\n{self.workers[-1].tail()}")
            sums = self.judge.sums()
            return all(sums[what] >= self.sent for what in counted) and not sums["timers"] and not sums["calls"]

        await self.wait(complete, within_s, f"{self.sent} records done")
        self.exact()

    def exact(self) -> None:
        expected = {**dict.fromkeys(("counts", "seen", "fired", "called", "journal", "told"), self.sent)}
        assert self.judge.sums() == {**expected, "timers": 0, "calls": 0}
        assert len(self.calls()) == self.sent
        differences = self.directory / "differences"
        assert not differences.exists(), differences.read_text()

    def positions(self) -> dict[str, int]:
        """Source topic -> how far it is applied, of all partitions together."""
        found: Counter[str] = Counter()
        for (_, topic), position in self.judge.rows["positions"].items():
            found[topic.decode()] += Position.of(position).offset
        return dict(found)

    def calls(self) -> Counter[str]:
        """Idempotency key -> how often it was called."""
        return Counter(line.split()[0] for line in (self.directory / "ledger").read_text().splitlines())

    def stored(self, number: int = 1) -> dict[tuple[str, int, bytes], bytes]:
        """Everything in a stopped worker's stores."""
        found = {}
        for partition in range(names.PARTITIONS):
            store = self.open_store(partition, number)
            for table in store.tables:
                found.update({(table, partition, key): value for key, value in store.rows(table)})
            store.close()
        return found

    def open_store(self, partition: int, number: int = 1) -> PartitionStore:
        tables = (*names.OWN_TABLES, *names.TABLES)
        return PartitionStore(
            self.store_path(partition, number), partition, tables, dict.fromkeys(tables, ""), lambda: 0
        )

    def store_path(self, partition: int, number: int = 1) -> Path:
        return next((self.directory / f"worker-{number}").glob("**/tasks")) / str(partition)


@contextlib.asynccontextmanager
async def running(kafka: str, run: str, directory: Path, **environment: str) -> AsyncIterator[Run]:
    async with Run(kafka, run, directory, **environment) as made:
        yield made
