"""Overload: five times as many orders a second as one worker can do, for two minutes, over HTTP.

It measures what the worker can do, then the time of an accepted order's answer at `BASE` of that rate, then the same at
`OVERLOAD` times the rate, with the answers that refuse, the worker's memory, and the accepted orders that are lost.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress

import aiohttp
import psutil

from benchmarks.lab import Lab, Sample, quantile
from benchmarks.orders_http import DRIVERS, Following, all_wait
from benchmarks.topics_only import made
from tests.support.keys import HEADERS
from tests.support.plain_http import JSON
from tests.support.stack import installed
from topics.orders import Placed
from topics.records import write

BENCH = "overload over HTTP, 1 worker"
WARM_UP, ORDERS, UNDER_WAY = 600, 1500, 150
BASE, BASE_S = 0.8, 30.0
OVERLOAD, OVERLOAD_S = 5.0, 120.0
CALM, FLOOD = "0.8 of the rate", "5 times the rate"
MEMORY_S = 0.5
"""Pause between two looks at the worker's memory."""
DRAINED_WITHIN_S = 600.0


class Answers:
    """The answers of one phase."""

    def __init__(self) -> None:
        self.statuses = Counter[int]()
        self.took: dict[bool, list[float]] = defaultdict(list)
        """True: seconds of the answers that accept; False: of those that refuse."""
        self.accepted: list[str] = []

    def add(self, order: str, status: int, took: float) -> None:
        """Count an answer. Status 0 stands for a connection that failed."""
        is_accepted = status in (200, 201, 202)
        self.statuses[status] += 1
        self.took[is_accepted].append(took)
        if is_accepted:
            self.accepted.append(order)


def run(lab: Lab) -> None:
    """Measure one round."""
    lab.say(BENCH)
    asyncio.run(_measure(lab))
    lab.target(BENCH, FLOOD, "p99 of accepted / that at 0.8", "<= 3")
    lab.target(BENCH, FLOOD, "accepted orders lost", "0")


async def _measure(lab: Lab) -> None:
    directory = lab.subdirectory("overload")
    with installed(lab.kafka, directory.name, directory, 0.0) as stack:
        stack.start_payment()
        stack.start_pos()
        worker = psutil.Process(stack.start_worker(1, DABBAWALA_DECISION_S="5").pid)
        stack.start_drivers(DRIVERS)
        async with Following(stack) as following:
            await all_wait(stack, DRIVERS)
            await following.run(made("warm", WARM_UP), UNDER_WAY)
            rate = ORDERS / await following.run(made("rate", ORDERS), UNDER_WAY)
        lab.add(Sample(BENCH, "what it can do", "orders/s", rate))
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(stack.url_of(1), headers={**HEADERS, **JSON}, connector=connector) as session:
            before = await _place(session, "base", rate * BASE, BASE_S)
            _report(lab, CALM, before)
            memory = Memory(worker)
            during = await _place(session, "over", rate * OVERLOAD, OVERLOAD_S)
            _report(lab, FLOOD, during)
            for share in (0.5, 0.99):
                ratio = quantile(during.took[True], share) / quantile(before.took[True], share)
                lab.add(Sample(BENCH, FLOOD, f"p{100 * share:.0f} of accepted / that at 0.8", ratio))
            lab.add(Sample(BENCH, FLOOD, "MiB before", memory.before / 2**20))
            lab.add(Sample(BENCH, FLOOD, "MiB at most", await memory.most() / 2**20))
            lab.add(Sample(BENCH, FLOOD, "accepted orders lost", float(await _lost(session, during.accepted))))
    lab.note(BENCH, f"Answers at 5 times the rate, by status: {dict(sorted(during.statuses.items()))}.")


async def _place(session: aiohttp.ClientSession, run: str, rate: float, seconds: float) -> Answers:
    """Place orders at a rate, whether or not those before are answered; return the answers."""
    answers, orders = Answers(), made(run, round(rate * seconds))
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, order in enumerate(orders):
            if (early_s := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            group.create_task(_one(session, order, answers))
    return answers


async def _one(session: aiohttp.ClientSession, order: Placed, answers: Answers) -> None:
    began, status = time.perf_counter(), 0
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.post("/v1/orders", data=write(order)) as answer:
            await answer.read()
            status = answer.status
    answers.add(order.key, status, time.perf_counter() - began)


def _report(lab: Lab, subject: str, answers: Answers) -> None:
    lab.add(Sample(BENCH, subject, "accepted", float(len(answers.accepted))))
    lab.add(Sample(BENCH, subject, "refused", float(answers.statuses.total() - len(answers.accepted))))
    for is_accepted, what in ((True, "accepted"), (False, "refused")):
        if took := answers.took[is_accepted]:
            lab.add(Sample(BENCH, subject, f"ms until {what}, p50", 1000 * quantile(took, 0.5)))
            lab.add(Sample(BENCH, subject, f"ms until {what}, p99", 1000 * quantile(took, 0.99)))


async def _lost(session: aiohttp.ClientSession, orders: Iterable[str]) -> int:
    """Wait until the orders have ended; return the number of those that the worker does not know."""
    lost = 0
    async with asyncio.timeout(DRAINED_WITHIN_S):
        for order in orders:
            while True:
                async with session.get(f"/v1/orders/{order}") as answer:
                    if answer.status == 404:
                        lost += 1
                        break
                    if answer.status == 200 and (await answer.json())["status"] in ("DELIVERED", "REJECTED"):
                        break
                await asyncio.sleep(0.2)
    return lost


class Memory:
    """The memory of a process from the construction of this object on."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.before = self._most = process.memory_info().rss
        self._watching = asyncio.create_task(self._watch())

    async def most(self) -> int:
        """Return the most bytes that it had, and end the watch."""
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        return self._most

    async def _watch(self) -> None:
        while True:
            self._most = max(self._most, self._process.memory_info().rss)
            await asyncio.sleep(MEMORY_S)
