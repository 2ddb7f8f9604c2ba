"""A harness that runs the toy's workers, sends them records, and judges them by committed records and the ledger."""

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

from exactly_once.kafka.topic_admin import CHANGELOG_CONFIG, TopicSpec, create_topics
from exactly_once.state.rocksdb import PartitionStore
from exactly_once.task.transaction import Position
from tests.integration.engine_kit import names

ROOT = Path(__file__).parents[3]
POLL_S = 0.05
WITHIN_S = 480.0
"""Deadline of every wait. It is far above what a busy machine needs: a wait fails only when something is broken."""
ENDS_WITHIN_S = 60.0
"""Deadline of a stop. A worker exits unfinished after ``EngineSettings.stop_s``, 4.5 s by default."""
PATIENT_S = "600"
"""Value of ``TOY_SESSION_S`` or ``TOY_STOP_S`` that no test waits for.

A partition that moves within ``WITHIN_S`` has then not waited for a session to end. A worker that ends within
``ENDS_WITHIN_S`` has stopped in an orderly way, and has not waited for the limit of any step.
"""
LOAD_STEP = 20


class Worker:
    """One process of the toy. Its log is beside its data."""

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
        """True once the process has ended."""
        return self.process.poll() is not None

    @property
    def stopped(self) -> bool:
        """True while SIGSTOP freezes the process."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] == "T"

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        if not self.dead:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and return the exit status; ``AssertionError`` unless the worker ends within 60 s."""
        self.process.send_signal(by)
        try:
            return self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker ignores {by.name} for {ENDS_WITHIN_S:g} s:\n{self.tail()}") from None

    def tail(self, lines: int = 40) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @property
    def tasks(self) -> list[int]:
        """Open partitions, by the last line of the log that lists them."""
        listed = re.findall(r"tasks \[([\d, ]*)\] open", self.log.read_text(errors="replace"))
        return [int(number) for number in listed[-1].split(",") if number.strip()] if listed else []

    def logged(self, text: str) -> int:
        """Count a text in the log."""
        return self.log.read_text(errors="replace").count(text)


class Judge:
    """A read_committed consumer of every topic of a run, with the rows and records that are committed."""

    def __init__(self, kafka: str, run: str) -> None:
        tables = (*names.TABLES, *names.OWN_TABLES)
        self.rows: dict[str, dict[tuple[int, bytes], bytes]] = {table: {} for table in tables}
        """Table -> (partition, key) -> value."""
        self.letters: list[dict[str, str]] = []
        self.emitted = 0
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
        """Read the records that arrive within one poll."""
        for tp, records in (await self._consumer.getmany(timeout_ms=int(POLL_S * 1000))).items():
            if tp.topic == names.pos(self._run):
                self.emitted += len(records)
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
        """Return the sum of each counting table, the number of rows of the others, and the emitted records."""
        counted = {table: sum(map(int, self.rows[table].values())) for table in ("counts", "seen", "fired", "called")}
        left = {table: len(self.rows[table]) for table in ("journal", "timers", "calls")}
        return {**counted, **left, "emitted": self.emitted}


class Run:
    """One run of the toy: its topics, its workers and its judge. All end with the ``async with`` block."""

    def __init__(self, kafka: str, run: str, directory: Path, **environment: str) -> None:
        self.kafka = kafka
        self.run = run
        self.directory = directory
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
        """Return the topics of the run."""
        plain = (names.orders(self.run), names.pos(self.run), names.dead_letters(self.run))
        tables = (*names.TABLES, *names.OWN_TABLES)
        return [TopicSpec(name, names.PARTITIONS) for name in plain] + [
            TopicSpec(names.changelog(self.run, table), names.PARTITIONS, CHANGELOG_CONFIG) for table in tables
        ]

    def start(self, number: int = 1, **environment: str) -> Worker:
        """Start a worker without waiting for it; ``environment`` adds to the run's."""
        worker = Worker(self.directory, {**self.environment, **environment}, number)
        self.workers.append(worker)
        return worker

    async def at_work(self, worker: Worker) -> Worker:
        """Send a record, wait until this worker has applied one, and return the worker."""
        await self.send(1)
        await self.wait(worker.first_record.exists, why="the worker's first record")
        return worker

    async def send(self, count: int, *, ids: int = 0, rate: float = 0.0) -> None:
        """Send valid records of ``ids`` different keys (default: half as many), ``rate`` a second (0: at once)."""
        began, futures = time.monotonic(), []
        for n in range(count):
            key = b"order-%d" % ((self.sent + n) % (ids or max(1, count // 2)))
            futures.append(await self._producer.send(names.orders(self.run), b"n%d" % (self.sent + n), key=key))
            if rate and (early := began + n / rate - time.monotonic()) > 0:
                await asyncio.sleep(early)  # the rate of the load, not a wait
        await asyncio.gather(*futures)
        self.sent += count

    async def send_until(self, what: Callable[[], object], *, rate: float, at_least: int = 0, why: str = "") -> None:
        """Send valid records at ``rate`` a second until ``what`` holds, and at least ``at_least``.

        A fault at the n-th commit needs more records on a busy machine, because more of them share a commit.
        """
        began, until = self.sent, time.monotonic() + WITHIN_S
        while self.sent - began < at_least or not what():
            if time.monotonic() > until:
                raise AssertionError(f"not within {WITHIN_S:g} s of load: {why or what}\n{self.workers[-1].tail()}")
            await self.send(LOAD_STEP, ids=100, rate=rate)

    async def send_one(self, key: bytes, value: bytes | None, partition: int | None = None) -> None:
        await self._producer.send_and_wait(names.orders(self.run), value, key=key, partition=partition)

    async def wait(self, what: Callable[[], object], within_s: float = WITHIN_S, why: str = "") -> None:
        """Read on until ``what`` holds; ``AssertionError`` with sums and logs after ``within_s``."""
        until = time.monotonic() + within_s
        while not what():
            if time.monotonic() > until:
                logs = "\n".join(worker.tail(25) for worker in self.workers[-2:])
                raise AssertionError(f"not within {within_s} s: {why or what}\n{self.judge.sums()}\n{logs}")
            await self.judge.read()

    async def done(self, within_s: float = WITHIN_S, *, alive: bool = True) -> None:
        """Wait until every valid record has all its effects, then check that none happened twice."""
        counted = ("counts", "seen", "fired", "called", "emitted", "journal")

        def complete() -> bool:
            if alive and all(worker.dead for worker in self.workers):
                raise AssertionError(f"no worker lives:\n{self.workers[-1].tail()}")
            sums = self.judge.sums()
            return all(sums[what] >= self.sent for what in counted) and not sums["timers"] and not sums["calls"]

        await self.wait(complete, within_s, f"{self.sent} records done")
        self.exact()

    def exact(self) -> None:
        """Check that each record has each effect once, and that memory and disk never differed."""
        expected = {**dict.fromkeys(("counts", "seen", "fired", "called", "journal", "emitted"), self.sent)}
        assert self.judge.sums() == {**expected, "timers": 0, "calls": 0}
        assert len(self.calls()) == self.sent
        differences = self.directory / "differences"
        assert not differences.exists(), differences.read_text()

    def positions(self) -> dict[str, int]:
        """Return source topic -> sum of the applied offsets of all partitions."""
        found: Counter[str] = Counter()
        for (_, topic), position in self.judge.rows["positions"].items():
            found[topic.decode()] += Position.of(position).offset
        return dict(found)

    def calls(self) -> Counter[str]:
        """Return idempotency key -> number of calls."""
        return Counter(line.split()[0] for line in (self.directory / "ledger").read_text().splitlines())

    def stored(self, number: int = 1) -> dict[tuple[str, int, bytes], bytes]:
        """Return every row in the stores of a stopped worker, by (table, partition, key)."""
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
    """Run the toy within the block."""
    async with Run(kafka, run, directory, **environment) as made:
        yield made
