"""Kills a worker with `kill -9` in the middle of a run of orders and restarts it; then all books must agree.

    python -m verification.kills.flow [MOMENTS] [ORDERS] [SEED] [WORKERS]

Each of MOMENTS kills belongs to a separate run of ORDERS orders, and the seed decides its moment. With two workers the
seed also decides which one is killed, and whether the second worker restarts at once or after the run. Uses the broker
of `KAFKA_BOOTSTRAP_SERVERS`, or else starts an embedded one. Exit status 0 if nothing was lost or repeated.
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
from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB
from tests.flow.reading import Following
from tests.support.stack import Stack, installed
from topics.families import ORDER_UPDATES
from topics.order_updates import OrderStatus

SPEED = 600.0
"""Speed-up at which a preparation takes one second and a ride two."""
DRIVERS = 20
RATE = 40.0
"""Orders per second."""
UPDATES = 7
"""Smallest number of updates of an order without its ETAs.

The moment of a kill is counted in updates: on a busy machine, a kill at a fixed time would hit a worker that has not
begun."""
MAX_RUN_S = 300.0
"""Time after the kill in which every order must end. It takes seconds."""
FIRST_S = 120.0
"""Time for the first updates of a run."""


class Found(NamedTuple):
    """Outcome of one kill."""

    moment: int
    """Number of updates before the kill."""
    killed: int
    """Number of the killed worker."""
    back: bool
    """True if the worker restarted at once."""
    back_s: float
    """Time from the kill to the next delivered order."""
    ends: dict[str, int]
    """Status -> number of orders that ended with it."""
    violations: list[str]

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {status}" for status, count in self.ends.items())
        how = f"worker {self.killed} killed{'' if self.back else ' for good'}"
        first = f"{how} after {self.moment} updates, delivering again {self.back_s:.1f} s later; {ends}"
        return "\n  ".join([f"{first}; {len(self.violations)} violations", *self.violations])


async def kill_once(stack: Stack, orders: int, seed: int, killed: int = 1, back: bool = True) -> Found:
    """Run orders on a running stack, with one kill.

    ``back``: restart the worker at once. Otherwise it restarts after all orders have ended without it.
    """
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
            lambda: ends_in(feed, run)["DELIVERED"] > delivered or not left, "an order is delivered again", MAX_RUN_S
        )
        back_s = time.monotonic() - killed_at
        await ended(stack, feed, run, orders)
        await feed.until(lambda: provider.status is not None, "the provider has all its answers")
        violations = await violations_of(stack, run)
        if provider.status != 0:
            violations.append(f"the provider ended with status {provider.status}: an order was refused")
        if not back:
            stack.workers[killed].restart()
        return Found(moment, killed, back, back_s, dict(ends_in(feed, run)), violations)


async def ended(stack: Stack, feed: Following, run: str, orders: int) -> None:
    """Wait until ``orders`` orders of a run have ended and the ledgers of the parties outside are complete."""

    def all_ended() -> bool:
        return sum(ends_in(feed, run).values()) >= orders

    def all_written_down() -> bool:
        finished = {entry.order for entry in stack.tickets() if entry.told == "finished" and run in entry.order}
        trips = {entry.delivery for entry in stack.trips() if entry.event in ("delivered", "dropped")}
        delivered = {order for order, status in feed.statuses(run).items() if status == "DELIVERED"}
        return delivered <= finished and delivered <= trips

    await feed.until(all_ended, f"{orders} orders of {run} have ended", MAX_RUN_S)
    await feed.until(all_written_down, "the ledgers are complete")


def ends_in(feed: Following, run: str) -> Counter[str]:
    """Count the ended orders of a run by status."""
    return Counter(status for status in feed.statuses(run).values() if OrderStatus(status).ended)


async def violations_of(stack: Stack, run: str) -> list[str]:
    """Return the oracle's violations of a run, and those of all drivers, whose trips belong to no run."""
    report = await judge(stack.kafka, stack.name, ledgers=stack.ledgers, final=True, only=run, speed_up=stack.speed)
    return report.violations


@contextmanager
def at_work(kafka: str, directory: Path, workers: int = 1) -> Iterator[Stack]:
    """Run a stack within the block. The parties outside use the first worker."""
    with installed(kafka, f"kills-{uuid.uuid4().hex[:8]}", directory, SPEED) as stack:
        stack.start_payment()
        stack.start_pos()
        stack.start_worker()
        stack.environment["DABBAWALA_PUBLIC_URL"] = stack.url
        for number in range(2, workers + 1):
            stack.start_worker(number)
        stack.start_drivers(DRIVERS)
        yield stack


def choose_worker(seed: int, workers: int) -> tuple[int, bool]:
    """Choose the worker to kill and whether it restarts at once; the first worker always does."""
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
                    found = asyncio.run(kill_once(stack, orders, each, *choose_worker(each, workers)))
                    wrong += len(found.violations)
                    print(f"seed {each}: {found}", flush=True)
        finally:
            broker.kill()
    print(f"{moments} kills in runs of {orders} orders, seeds {seed} to {seed + moments - 1}: {wrong} violations")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
