"""The worker is killed with `kill -9` in the middle of a run of orders, and started again; then all books must agree.

    python -m tests.flow.kills [MOMENTS] [ORDERS] [SEED] [WORKERS]

So many moments, which the seed decides, each in a run of so many orders. Of two workers it decides which is killed
too, and whether the second one is started again at once or when all is over. Uses the broker of
`KAFKA_BOOTSTRAP_SERVERS`, or an embedded one of its own. Exit status 0 if nothing was lost or done twice.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from oracle import judge
from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB
from tests.flow.reading import Following
from tests.stack import Stack, installed
from topics.families import ORDER_UPDATES
from topics.order_updates import OrderStatus

SPEED = 600.0
"""A preparation takes a second, a ride two."""
DRIVERS = 20
RATE = 40.0
"""Orders a second."""
UPDATES = 7
"""An order makes at least as many, ETAs besides. The moment of a kill is counted in them: on a busy machine every kill
at a time of the clock would hit a worker that has not begun."""
ENDED_S = 120.0
"""Within this time of the kill, every order has ended. It takes seconds."""
FIRST_S = 30.0


class Found(NamedTuple):
    """What came of one kill."""

    moment: int
    """After so many updates."""
    killed: int
    """The number of the worker."""
    back: bool
    """Whether it was started again at once."""
    back_s: float
    """From the kill to the next order that is delivered."""
    ends: dict[str, int]
    violations: list[str]

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {status}" for status, count in self.ends.items())
        how = f"worker {self.killed} killed{'' if self.back else ' for good'}"
        first = f"{how} after {self.moment} updates, delivering again {self.back_s:.1f} s later; {ends}"
        return "\n  ".join([f"{first}; {len(self.violations)} violations", *self.violations])


async def kill_once(stack: Stack, orders: int, seed: int, killed: int = 1, back: bool = True) -> Found:
    """One run of orders on a stack that works, with one kill. ``back``: the worker is started again at once; else when
    all orders have ended without it, for the next run."""
    run = f"kill-{seed}-{uuid.uuid4().hex[:6]}"
    moment = random.Random(seed).randrange(UPDATES * orders)
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES], from_now=True) as feed:
        provider = stack.place(run, orders, RATE)
        await feed.until(lambda: len(feed.updates(run)) >= moment, f"{moment} updates", FIRST_S + orders)
        stack.workers[killed].kill()
        killed_at = time.monotonic()
        if back:
            stack.workers[killed].start()
        await feed.catch_up()
        delivered = ends_in(feed, run)["DELIVERED"]
        left = orders - delivered
        await feed.until(
            lambda: ends_in(feed, run)["DELIVERED"] > delivered or not left, "an order is delivered again", ENDED_S
        )
        back_s = time.monotonic() - killed_at
        await ended(stack, feed, run, orders)
        await feed.until(lambda: provider.status is not None, "the provider has heard all its answers")
        violations = await violations_of(stack, run)
        if provider.status != 0:
            violations.append(f"the provider ended with status {provider.status}: an order was refused")
        if not back:
            stack.workers[killed].restart()
        return Found(moment, killed, back, back_s, dict(ends_in(feed, run)), violations)


async def ended(stack: Stack, feed: Following, run: str, orders: int) -> None:
    """Wait until so many orders of a run have ended, and the parties outside have written down what they heard."""

    def all_ended() -> bool:
        return sum(ends_in(feed, run).values()) >= orders

    def all_written_down() -> bool:
        told = {entry.order for entry in stack.tickets() if entry.told == "finished" and run in entry.order}
        trips = {entry.delivery for entry in stack.trips() if entry.event in ("delivered", "dropped")}
        delivered = {order for order, status in feed.statuses(run).items() if status == "DELIVERED"}
        return delivered <= told and delivered <= trips

    await feed.until(all_ended, f"{orders} orders of {run} have ended", ENDED_S)
    await feed.until(all_written_down, "everybody has heard")


def ends_in(feed: Following, run: str) -> Counter[str]:
    """How the orders of a run that have ended did."""
    return Counter(status for status in feed.statuses(run).values() if OrderStatus(status).ended)


async def violations_of(stack: Stack, run: str) -> list[str]:
    """What the oracle has against us; of the drivers, whose trips know no runs, everything."""
    report = await judge(stack.kafka, stack.name, ledgers=stack.ledgers, final=True, only=run, speed_up=stack.speed)
    return report.violations


@contextmanager
def at_work(kafka: str, directory: Path, workers: int = 1) -> Iterator[Stack]:
    """A stack of its own, working. The first worker is the one that everybody outside speaks to."""
    with installed(kafka, f"kills-{uuid.uuid4().hex[:8]}", directory, SPEED) as stack:
        stack.start_payment()
        stack.start_pos()
        stack.start_worker()
        stack.environment["DABBAWALA_PUBLIC_URL"] = stack.url
        for number in range(2, workers + 1):
            stack.start_worker(number)
        stack.start_drivers(DRIVERS)
        yield stack


def whom(seed: int, workers: int) -> tuple[int, bool]:
    """Which worker is killed, and whether it is started again at once: the first one always is."""
    chance = random.Random(f"whom-{seed}")
    killed = chance.randint(1, workers)
    return killed, killed == 1 or chance.random() < 0.5


def main(moments: int = 30, orders: int = 100, seed: int = 1, workers: int = 1) -> None:
    wrong = 0
    with tempfile.TemporaryDirectory() as directory:
        broker = EmbeddedKafka(Path(directory), lib=LIB, progress=print)
        try:
            kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or broker.start()
            with at_work(kafka, Path(directory) / "stack", workers) as stack:
                for each in range(seed, seed + moments):
                    found = asyncio.run(kill_once(stack, orders, each, *whom(each, workers)))
                    wrong += len(found.violations)
                    print(f"seed {each}: {found}", flush=True)
        finally:
            broker.kill()
    print(f"{moments} kills in runs of {orders} orders, seeds {seed} to {seed + moments - 1}: {wrong} violations")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
