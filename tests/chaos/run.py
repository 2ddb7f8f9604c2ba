"""A run of orders in which everything goes wrong that can; then all must have ended, and all books agree.

    python -m tests.chaos [SEED] [ORDERS] [KIND,KIND...]

The seed decides what goes wrong, with whom and when (`plan.py`): the same seed strikes at the same moments again. What
happens is told on the screen and in `faults.jsonl`. Beside the faults of the plan, every input record comes twice,
every party is as unreliable as its `--faults` make it, and the orders come over HTTP and Kafka, for now and for later.

Exit status 0 if nothing was lost or done twice; else 1, and the directory with ledgers, faults and logs is kept.
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
from streams.embedded.errors import SetUpError
from tests.chaos.faults import Chaos
from tests.chaos.installation import SPEED, Installation, installation
from tests.chaos.observers import Observers
from tests.chaos.plan import DRIVERS, KINDS, PAYMENT, POS, PROVIDER, Fault, plan
from tests.chaos.progress import Progress
from tests.chaos.strangers import Copier, poisoning
from tests.chaos.stuck import Stuck, Watch

WORKERS = 3
RATE = 12.0
"""Orders a second, as long as somebody takes them."""
HOW_MANY_DRIVERS = 60
PATIENCE_S = 300.0
"""How long a party outside asks again before it gives up. Everything is away for a minute at most, if for that."""
CALLED = "500:0.04,500-after:0.04,cut:0.03,cut-after:0.03,slow:0.01,silent:0.01,doubled:0.3,late:0.05,lost:0.01"
"""The faults of those whom workers call, and who call back."""
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
LOOK_S = 0.1
TELL_S = 10.0
AFTERWARDS_S = 30.0
"""So long after a fault a worker may still fail to start because of it: on a busy machine it takes that long."""
SETTLED_S = 15.0
"""When nothing has moved for so long and nothing is placed any more, what is left waits for the faults to end."""
HEARD_S = 120.0
JUDGED = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 10})
"""The promises that every run is judged by."""


class Shape(NamedTuple):
    """What a run is like."""

    seed: int
    orders: int
    kinds: Sequence[str] = tuple(KINDS)
    seconds: float = 1.0
    """By which the times of faults are multiplied where nothing prescribes them."""


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
        """`meanwhile`: what goes on beside it and must not end."""
        self._shape, self._world, self._progress, self._chaos = shape, world, progress, chaos
        self._meanwhile = meanwhile
        self._watch = Watch(world.ask)
        self._striking: set[asyncio.Task[None]] = set()
        self._told_at = self._struck_at = time.monotonic()

    async def go(self, written: Path) -> None:
        """All orders are placed and all faults happen; then all is well again, and all orders end. The plan is
        `written` down."""
        faults = self._planned(written)
        try:
            await self._until(lambda: self._is_over(faults), faults)
        finally:
            for task in self._striking:
                task.cancel()
            await asyncio.gather(*self._striking, return_exceptions=True)
        self._world.log.say(f"all faults are over; {self._progress}")
        await self._chaos.lift()
        await self._until(self._all_ended, [])
        self._world.log.say(f"all orders have ended; {self._progress}")
        await self._until(self._all_written_down, [])

    def _planned(self, written: Path) -> list[Fault]:
        faults = plan(self._shape.seed, self._shape.orders, WORKERS, self._shape.kinds, self._shape.seconds)
        written.write_text("".join(f"{fault.moment:6d}  {fault}\n" for fault in faults))
        return faults

    async def _until(self, condition: Callable[[], bool], faults: list[Fault]) -> None:
        """Have faults happen at their moments, and see that something moves, until the condition holds."""
        while not condition():
            while faults and (faults[0].moment <= self._progress.updates or self._is_quiet()):
                self._strike(faults.pop(0))
            self._look_after()
            await self._watch.check()
            await asyncio.sleep(LOOK_S)

    def _strike(self, fault: Fault) -> None:
        task = asyncio.create_task(self._chaos.strike(fault))
        self._striking.add(task)

    def _look_after(self) -> None:
        for task in [task for task in self._striking if task.done()]:
            self._striking.discard(task)
            task.result()
        for task in self._meanwhile:
            if task.done():
                task.result()
        if self._striking:
            self._struck_at = time.monotonic()
        self._world.look_after(excused=time.monotonic() - self._struck_at < AFTERWARDS_S)
        self._watch.moves(self._progress.updates, excused=bool(self._striking))
        if time.monotonic() - self._told_at > TELL_S:
            self._told_at = time.monotonic()
            self._world.log.say(str(self._progress))

    def _is_over(self, faults: list[Fault]) -> bool:
        return not faults and not self._striking and self._placed() and (self._all_ended() or self._is_quiet())

    def _is_quiet(self) -> bool:
        """Nothing more comes by itself: the moments that are left would never come."""
        return self._placed() and not self._striking and self._watch.quiet_s > SETTLED_S

    def _placed(self) -> bool:
        return self._world.child(PROVIDER).status == 0

    def _all_ended(self) -> bool:
        return len(self._progress.newest) >= self._shape.orders and not self._progress.open()

    def _all_written_down(self) -> bool:
        """The parties outside have heard the last of it, and noted it."""
        told = {entry.order for entry in self._world.stack.tickets() if entry.told == "finished"}
        trips = {entry.delivery for entry in self._world.stack.trips() if entry.event in ("delivered", "dropped")}
        delivered = self._progress.with_status("DELIVERED")
        return delivered <= told and delivered <= trips

    async def verdict(self) -> Report:
        """What the oracle finds in the books and on the topics."""
        stack = self._world.stack
        return await judge(stack.kafka, stack.name, ledgers=stack.ledgers, final=True, speed_up=SPEED)


async def run(shape: Shape, directory: Path, show: Callable[[str], None] = print) -> Report:
    """One run, in this directory. Raises `Stuck`, and `ChildDied` where somebody ends whom nothing strikes."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says a hundred times a second that a broker is away
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
        )
        one = Run(shape, world, progress, Chaos(world, poisoner), await held.enter_async_context(others))
        world.parties[PROVIDER] = lambda: world.stack.place(
            name, shape.orders, RATE, *OPTIONS[PROVIDER], *_seeded(shape.seed)
        )
        await asyncio.to_thread(world.parties[PROVIDER])
        await one.go(directory / "plan.txt")
        return await one.verdict()


def wrong_with(report: Report) -> list[str]:
    """What violates a promise, and what was not looked at: where a ledger is missing, all seems well."""
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
    """What is left to chance outside follows from the seed of the run, too."""
    return "--seed", str(seed)


@asynccontextmanager
async def _meanwhile(*work: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """What goes on beside the block; who has it looks whether one of them has failed."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    seed, orders = int(arguments[0]) if arguments else 1, int(arguments[1]) if len(arguments) > 1 else 2000
    kinds = arguments[2].split(",") if len(arguments) > 2 else tuple(KINDS)
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-", dir=os.environ.get("TMPDIR")))
    print(f"seed {seed}, {orders} orders, in {directory}", flush=True)
    try:
        report = asyncio.run(run(Shape(seed, orders, kinds), directory, lambda line: print(line, flush=True)))
    except Stuck as stuck:
        (directory / "stuck.txt").write_text(f"{stuck}\n")
        print(f"seed {seed}: stuck; {directory}/stuck.txt says what everything was at", flush=True)
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
