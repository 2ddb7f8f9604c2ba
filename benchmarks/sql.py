"""`dabbawala sql` over many orders: a group-by over all of them, one order by its key, and what orders notice of it.

`SQL_ORDERS` orders are placed for a later day: the engine charges each and lets it wait. The statements run as in the
command, over HTTP; the start of the process does not count.
"""

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from tempfile import TemporaryDirectory

import psutil

from benchmarks.lab import Lab, Sample, quantile
from benchmarks.topics_only import Outside, made
from simulators.city import order
from streams.cli.sql_rows import HttpRows
from streams.sql.engine import DuckSession, open_session
from streams.sql.interfaces import Row
from tests.support.stack import Stack, installed
from topics.orders import Placed
from topics.records import instant

BENCH = "SQL over live rows, 1 worker"
APP = "benchmarks.answered"
PARTITIONS = 4
DRIVERS = 3000
ORDERS = int(os.environ.get("SQL_ORDERS", "50000"))
BATCH = 1000
AHEAD = timedelta(days=3)
WITHIN_S = 7200.0
WARM_UP, MEASURED, MOST_UNDER_WAY = 2000, 4000, 2000
BASE = 0.5
"""Share of the worker's rate at which the time of an order is measured."""
LOOK_UPS = 50
GROUP_BY = "select status, count(*), avg(age_s) from orders group by 1"
QUIET, BUSY = "orders at half load", "the same, during group-bys"


def run(lab: Lab) -> None:
    """Measure one round."""
    lab.say(f"{BENCH}, {ORDERS:,} orders")
    asyncio.run(_measure(lab))
    lab.target(BENCH, GROUP_BY, "s for 1,000,000 orders", "<= 10")
    lab.target(BENCH, "one order by its id", "ms, p50", "<= 50")
    lab.target(BENCH, BUSY, "p99 / that without", "<= 1.2")


async def _measure(lab: Lab) -> None:
    directory = lab.subdirectory("sql")
    with installed(lab.kafka, directory.name, directory, 0.0) as stack:
        worker = psutil.Process(stack.start_worker(app=APP).pid)
        os.environ |= {"DABBAWALA_URL": stack.url, "DABBAWALA_KEY": stack.environment["DABBAWALA_KEY"]}
        with TemporaryDirectory() as scratch, closing(open_session(HttpRows(), directory=scratch)) as session:
            async with Paced(lab.kafka, stack.name, PARTITIONS, DRIVERS) as outside:
                await outside.bring_drivers()
                rate = WARM_UP / await outside.run(made("warm", WARM_UP), WARM_UP, MOST_UNDER_WAY, WITHIN_S)
                lab.add(Sample(BENCH, "orders placed for later", "orders/s", await _fill(stack, session, outside)))
                for turn in range(lab.rounds):
                    lab.say(f"{BENCH}, round {turn + 1} of {lab.rounds}")
                    await asyncio.to_thread(_statements, lab, session, worker)
                    await _orders_meanwhile(lab, outside, rate * BASE, str(turn))


async def _fill(stack: Stack, session: DuckSession, outside: "Paced") -> float:
    """Place the orders, and wait until all are charged; return the rate."""
    began = time.perf_counter()
    for first in range(1, ORDERS + 1, BATCH):
        at = instant(time.time_ns() // 1_000_000)
        numbers = range(first, min(first + BATCH, ORDERS + 1))
        await outside.place(order("1", "later", number, at, at + AHEAD) for number in numbers)
    statement = "select count(*) from orders where status = 'SCHEDULED' and id like '%:later-%'"
    while (count := (await asyncio.to_thread(_rows, session, statement))[0][0]) != ORDERS:
        if time.perf_counter() - began > WITHIN_S:
            raise SystemExit(f"Only {count} of {ORDERS} orders wait within {WITHIN_S:.0f} s.")
        await asyncio.sleep(1.0)
    return ORDERS / (time.perf_counter() - began)


def _statements(lab: Lab, session: DuckSession, worker: psutil.Process) -> None:
    """Time the statements."""
    began = time.perf_counter()
    found = _rows(session, GROUP_BY)
    seconds = time.perf_counter() - began
    count = sum(int(str(row[1])) for row in found)
    lab.add(Sample(BENCH, GROUP_BY, "s", seconds))
    lab.add(Sample(BENCH, GROUP_BY, "s for 1,000,000 orders", seconds * 1e6 / count))
    took = []
    for number in range(1, LOOK_UPS + 1):
        began = time.perf_counter()
        [_] = _rows(session, f"select * from orders where id = '{order('1', 'later', number, instant(0)).key}'")
        took.append(1000 * (time.perf_counter() - began))
    lab.add(Sample(BENCH, "one order by its id", "ms, p50", quantile(took, 0.5)))
    lab.add(Sample(BENCH, "one order by its id", "ms, p99", quantile(took, 0.99)))
    for reader in [child for child in worker.children() if "streams.sql.reader" in child.cmdline()]:
        lab.add(Sample(BENCH, "reader process", "MiB", reader.memory_info().rss / 2**20))


async def _orders_meanwhile(lab: Lab, outside: "Paced", rate: float, turn: str) -> None:
    """Measure the time of orders at a steady rate, first without and then with statements meanwhile."""
    p99 = []
    for subject, name in ((QUIET, "quiet"), (BUSY, "busy")):
        async with _repeated(GROUP_BY) if subject is BUSY else _nothing():
            outside.took.clear()
            await outside.run_at(made(f"{name}-{turn}", MEASURED), rate)
        p99.append(quantile(outside.took, 0.99))
        lab.add(Sample(BENCH, subject, "ms an order, p50", 1000 * quantile(outside.took, 0.5)))
        lab.add(Sample(BENCH, subject, "ms an order, p99", 1000 * p99[-1]))
    lab.add(Sample(BENCH, BUSY, "p99 / that without", p99[1] / p99[0]))


@asynccontextmanager
async def _repeated(statement: str) -> AsyncIterator[None]:
    """Have a command run a statement again and again within the block."""
    command = [sys.executable, "-m", "streams.cli", "sql", "--jsonl", "--watch", "0.5", statement]
    running = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=DEVNULL)
    assert running.stdout is not None
    await running.stdout.readline()
    reading = asyncio.create_task(running.stdout.read())
    try:
        yield
        if running.returncode is not None:
            raise SystemExit(f"The command has ended with {running.returncode}.")
    finally:
        running.kill()
        await asyncio.gather(reading, running.wait())


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def _rows(session: DuckSession, statement: str) -> list[Row]:
    result = session.run(session.prepare(statement))
    try:
        return [row for batch in result.batches(1000) for row in batch]
    finally:
        result.close()


class Paced(Outside):
    """All parties outside the worker, with orders at a steady rate."""

    async def run_at(self, orders: list[Placed], rate: float) -> None:
        """Place orders at this rate a second, and wait until all have ended."""
        began, before, placed = time.perf_counter(), len(self.took) + self.rejected, 0
        while (ended := len(self.took) + self.rejected - before) < len(orders):
            now_s = time.perf_counter() - began
            if now_s > WITHIN_S:
                raise SystemExit(f"Only {ended} of {len(orders)} orders ended within {WITHIN_S:.0f} s.")
            due = min(len(orders), int(now_s * rate))
            for each in orders[placed:due]:
                self._place(each)
            placed = due
            await self.answer(10)
