"""A run of orders with every kind of fault; afterwards all orders must have ended and all books agree.

    python -m verification.chaos [SEED] [ORDERS] [KIND,KIND...]

The seed decides the kind, target and moment of each fault (`plan.py`); a seed repeats its plan. The run is logged on
the screen and in `faults.jsonl`. Besides the faults of the plan, every input record arrives twice, and every party is
as unreliable as its `--faults` make it. Orders arrive over HTTP and Kafka; some are scheduled for later.

Exit status 0 if nothing was lost or repeated; otherwise 1, and the directory with ledgers, faults and logs is kept.
"""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from oracle import Report, judge
from streams.local.errors import SetUpError
from verification.chaos.faults import Chaos
from verification.chaos.installation import SPEED, Installation, installation
from verification.chaos.observers import Observers
from verification.chaos.plan import DRIVERS, KINDS, PAYMENT, POS, PROVIDER, Fault, plan
from verification.chaos.progress import Progress
from verification.chaos.strangers import Copier, poisoning
from verification.chaos.stuck import Stuck, Watch
from verification.intruder import Intruder

WORKERS = 3
RATE = 12.0
"""Orders per second while a worker accepts them."""
HOW_MANY_DRIVERS = 60
PATIENCE_S = 300.0
"""Time for which a party outside retries before it gives up. An outage lasts a minute at most."""
CALLED = "500:0.04,500-after:0.04,cut:0.03,cut-after:0.03,slow:0.01,silent:0.01,doubled:0.3,late:0.05,lost:0.01"
"""Faults of the parties that workers call and that call back."""
OPTIONS = {
    PAYMENT: ("--decline", "share:0.05", "--faults", CALLED),
    POS: ("--receive", "--faults", f"{CALLED},refuse:0.05"),
    DRIVERS: ("--faults", "silent:0.02,doubled:0.3", "--patience", str(PATIENCE_S)),
    PROVIDER: (
        "--kafka",
        "0.4",
        "--later",
        "0.1",
        "--faults",
        "doubled:0.3,malformed:0.05",
        "--patience",
        str(PATIENCE_S),
    ),
}
POLL_S = 0.1
LOG_INTERVAL_S = 10.0
AFTERWARDS_S = 30.0
"""Time after a fault in which a worker may still fail to start because of it, on a busy machine."""
SETTLED_S = 15.0
"""Time without progress, after the last order is placed, before the remaining faults strike without their moment."""
JUDGED = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10, 11})
"""Promises that every run is judged by."""


class Shape(NamedTuple):
    """Parameters of a run."""

    seed: int
    orders: int
    kinds: Sequence[str] = tuple(KINDS)
    seconds: float = 1.0
    """Factor of the durations of faults that no protocol prescribes."""


class Run:
    """One run of orders."""

    def __init__(
        self,
        shape: Shape,
        world: Installation,
        progress: Progress,
        chaos: Chaos,
        meanwhile: Sequence[asyncio.Task[None]],
    ) -> None:
        """`meanwhile`: background tasks that must not end during the run."""
        self._shape = shape
        self._world = world
        self._progress = progress
        self._chaos = chaos
        self._meanwhile = meanwhile
        self._watch = Watch(world.ask)
        self._active: set[asyncio.Task[None]] = set()
        """Tasks of the faults that are not over."""
        self._logged_at = time.monotonic()
        self._last_active_at = time.monotonic()

    async def go(self, plan_file: Path) -> None:
        """Place all orders and inject all faults, then lift the faults and wait until all orders have ended.

        The plan is written to `plan_file`.
        """
        faults = self._plan_faults(plan_file)
        try:
            await self._until(lambda: self._is_over(faults), faults)
        finally:
            for task in self._active:
                task.cancel()
            await asyncio.gather(*self._active, return_exceptions=True)
        self._world.log.show(f"all faults are over; {self._progress}")
        await self._chaos.lift()
        await self._until(self._all_ended, [])
        self._world.log.show(f"all orders have ended; {self._progress}")
        await self._until(self._all_written_down, [])

    def _plan_faults(self, plan_file: Path) -> list[Fault]:
        faults = plan(self._shape.seed, self._shape.orders, WORKERS, self._shape.kinds, self._shape.seconds)
        plan_file.write_text("".join(f"{fault.moment:6d}  {fault}\n" for fault in faults))
        return faults

    async def _until(self, condition: Callable[[], bool], faults: list[Fault]) -> None:
        """Inject the faults at their moments, and check processes and progress, until the condition holds."""
        while not condition():
            while faults and (faults[0].moment <= self._progress.updates or self._is_quiet()):
                self._strike(faults.pop(0))
            self._supervise()
            await self._watch.check()
            await asyncio.sleep(POLL_S)

    def _strike(self, fault: Fault) -> None:
        task = asyncio.create_task(self._chaos.strike(fault))
        self._active.add(task)

    def _supervise(self) -> None:
        for task in [task for task in self._active if task.done()]:
            self._active.discard(task)
            task.result()
        for task in self._meanwhile:
            if task.done():
                task.result()
        if self._active:
            self._last_active_at = time.monotonic()
        self._world.supervise(excused=time.monotonic() - self._last_active_at < AFTERWARDS_S)
        self._watch.moves(self._progress.updates, excused=bool(self._active))
        if time.monotonic() - self._logged_at > LOG_INTERVAL_S:
            self._logged_at = time.monotonic()
            self._world.log.show(str(self._progress))

    def _is_over(self, faults: list[Fault]) -> bool:
        return not faults and not self._active and self._placed() and (self._all_ended() or self._is_quiet())

    def _is_quiet(self) -> bool:
        """Return whether progress has stopped, so that the moments of the remaining faults would never come."""
        return self._placed() and not self._active and self._watch.quiet_s > SETTLED_S

    def _placed(self) -> bool:
        return self._world.child(PROVIDER).status == 0

    def _all_ended(self) -> bool:
        return len(self._progress.newest) >= self._shape.orders and not self._progress.open()

    def _all_written_down(self) -> bool:
        """Return whether the ledgers of the points of sale and of the drivers have every delivered order."""
        finished = {entry.order for entry in self._world.stack.tickets() if entry.told == "finished"}
        trips = {entry.delivery for entry in self._world.stack.trips() if entry.event in ("delivered", "dropped")}
        delivered = self._progress.with_status("DELIVERED")
        return delivered <= finished and delivered <= trips

    async def verdict(self) -> Report:
        """Return the oracle's report on the ledgers and topics."""
        stack = self._world.stack
        return await judge(stack.kafka, stack.name, ledgers=stack.ledgers, final=True, speed_up=SPEED)


async def run(shape: Shape, directory: Path, show: Callable[[str], None] = print) -> Report:
    """Run the orders and faults in this directory; return the oracle's report.

    Raises `Stuck` if progress stops, and `ChildDied` if a process ends without a fault.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it logs a missing broker a hundred times per second
    progress, name = Progress(), f"chaos-{shape.seed}"
    async with AsyncExitStack() as held:
        world = await held.enter_async_context(installation(directory, name, show, lambda: progress.updates))
        kafka, ledgers = world.stack.kafka, world.stack.ledgers
        await _start(world, shape.seed)
        poisoner = await held.enter_async_context(poisoning(kafka, name, ledgers / "poison.jsonl"))
        observers = Observers(ledgers / "observers.jsonl", shape.seed, world.urls, world.stack.url)
        others = _meanwhile(
            progress.follow(kafka, name),
            Copier(kafka, name, shape.seed).run(),
            observers.run(lambda: list(progress.newest)),
            Intruder(ledgers / "intrusions.jsonl").run(world.urls, lambda: list(progress.newest), shape.seed),
        )
        one = Run(shape, world, progress, Chaos(world, poisoner), await held.enter_async_context(others))
        world.parties[PROVIDER] = lambda: world.stack.place(
            name, shape.orders, RATE, *OPTIONS[PROVIDER], *_seeded(shape.seed)
        )
        await asyncio.to_thread(world.parties[PROVIDER])
        await one.go(directory / "plan.txt")
        return await one.verdict()


def wrong_with(report: Report) -> list[str]:
    """Return the violations and the promises that were not judged; without a ledger a promise seems kept."""
    judged = {promise.number for promise in report.promises if promise.checked}
    return [*report.violations, *(f"promise {number} was not judged" for number in sorted(JUDGED - judged))]


async def _start(world: Installation, seed: int) -> None:
    stack = world.stack
    world.parties |= {
        PAYMENT: lambda: stack.start_payment(*OPTIONS[PAYMENT], *_seeded(seed)),
        POS: lambda: stack.start_pos(*OPTIONS[POS], *_seeded(seed)),
        DRIVERS: lambda: stack.start_drivers(HOW_MANY_DRIVERS, *OPTIONS[DRIVERS], *_seeded(seed)),
    }
    for start in (world.parties[PAYMENT], world.parties[POS]):
        await asyncio.to_thread(start)
    children = [world.start_worker(number) for number in range(1, WORKERS + 1)]
    for child in children:
        await asyncio.to_thread(child.wait_until_ready)
    world.parties[DRIVERS]()


def _seeded(seed: int) -> tuple[str, str]:
    """Return the options that seed a simulator by the seed of the run."""
    return "--seed", str(seed)


@asynccontextmanager
async def _meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run coroutines in the background of the block; the block checks the tasks for failures."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    seed, orders = int(arguments[0]) if arguments else 1, int(arguments[1]) if len(arguments) > 1 else 2000
    kinds = arguments[2].split(",") if len(arguments) > 2 else tuple(KINDS)
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=os.environ.get("TMPDIR")))
    print(f"seed {seed}, {orders} orders, in {directory}", flush=True)
    try:
        report = asyncio.run(run(Shape(seed, orders, kinds), directory, lambda line: print(line, flush=True)))
    except Stuck as stuck:
        (directory / "stuck.txt").write_text(f"{stuck}\n")
        print(f"seed {seed}: stuck; {directory}/stuck.txt has the state of every task, timer and call", flush=True)
        return 1
    except SetUpError as wrong:
        print(f"seed {seed}: {wrong}", flush=True)
        return 1
    books = ", ".join(f"{number} {what}" for what, number in report.books.items())
    found = wrong_with(report)
    print(f"seed {seed}: {books}; {len(report.violations)} violations")
    if found:
        print("\n".join(f"  {each}" for each in found))
        print(f"{directory} has ledgers, faults and logs")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0
