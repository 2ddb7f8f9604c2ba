"""Effect and end of each kind of fault. `lift` ends all that remain."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random

import httpx
import psutil

from streams.demo.processes import Child
from tests.flow.reading import Following
from topics.drivers import Assign
from topics.families import DRIVERS
from verification.chaos.installation import Installation
from verification.chaos.plan import BROKER, Fault, number_of
from verification.chaos.proxy import Mode
from verification.chaos.strangers import Poisoner

DELAY_S = 0.08
"""Delay of each chunk on a slow line."""
MAX_FAILPOINT_WAIT_S = 40.0
"""Longest time for a worker to reach its failpoint; it commits every few milliseconds."""
ZOMBIE_S = 3.0
"""Time for a replaced worker that wakes up to attempt writes, before it is restarted."""
MAX_LEAVE_S = 20.0
"""Longest time for a worker to leave the group before it is killed."""
POLL_S = 0.02


class Chaos:
    """Injects the faults of a plan."""

    def __init__(self, world: Installation, poisoner: Poisoner) -> None:
        self._world = world
        self._poisoner = poisoner
        self._kinds: Mapping[str, Callable[[Fault], Awaitable[None]]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "freeze inside": self._freeze_inside,
            "kill inside": self._kill_inside,
            "kill between Assign and DriverAssigned": self._kill_between,
            "line": self._line,
            "cut some connections": self._cut,
            "wipe": self._wipe,
            "add": self._add,
            "remove": self._remove,
            "clock": self._clock,
            "start with a wrong clock": self._start_with_clock,
            "poison": self._poison,
        }

    async def strike(self, fault: Fault) -> None:
        """Inject a fault and wait until it is over."""
        async with self._world.exclusive(fault.targets):
            await self._kinds[fault.kind](fault)

    async def lift(self) -> None:
        """End all faults: every process runs, every line passes traffic, every party serves its requests."""
        world = self._world
        for each in world.lines.values():
            each.heal()
        if not world.broker.running():
            await asyncio.to_thread(world.broker.start)
        for number in sorted(world.present):
            world.set_clock(number, 0)
            world.stack.workers[number].send(signal.SIGCONT)
            if world.stack.workers[number].status is not None:
                world.start_worker(number)
        for name, start in world.parties.items():
            world.child(name).send(signal.SIGCONT)
            if world.child(name).status not in (None, 0):
                await asyncio.to_thread(start)
        async with httpx.AsyncClient() as http:
            for url in (world.stack.payment_url, world.stack.pos_url):
                (await http.delete(f"{url}/faults")).raise_for_status()

    # -- processes ---------------------------------------------------------------------------------------------------

    async def _kill(self, fault: Fault) -> None:
        if fault.targets == (BROKER,):
            await self._kill_broker(fault)
            return
        struck = [self._world.child(name) for name in fault.targets]
        for child in struck:
            child.send(signal.SIGKILL)
        self._log(fault, "kill -9")
        await asyncio.sleep(fault.lasts_s)
        for name, child in zip(fault.targets, struck, strict=True):
            child.kill()
            await self._start(name)
        self._log(fault, "started again")

    async def _kill_broker(self, fault: Fault) -> None:
        await asyncio.to_thread(self._world.broker.kill)
        self._log(fault, "kill -9")
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(self._world.broker.start)
        self._log(fault, "accepts records again")

    async def _start(self, name: str) -> None:
        if name in self._world.parties:
            await asyncio.to_thread(self._world.parties[name])
        else:
            self._world.start_worker(number_of(name))

    async def _freeze(self, fault: Fault) -> None:
        child = self._world.child(fault.targets[0])
        child.send(signal.SIGSTOP)
        self._log(fault, "SIGSTOP")
        await asyncio.sleep(fault.lasts_s)
        child.send(signal.SIGCONT)
        self._log(fault, "SIGCONT")

    async def _freeze_inside(self, fault: Fault) -> None:
        """Let a worker stop itself during a commit or a call, and wake it up when other workers have its tasks."""
        child = self._restart_with(fault)
        if await self._reaches_failpoint(fault, lambda: _is_stopped(child)):
            await asyncio.sleep(fault.lasts_s)
            child.send(signal.SIGCONT)
            self._log(fault, "SIGCONT")
            await asyncio.sleep(ZOMBIE_S)
        child.kill()
        await self._start(fault.targets[0])
        self._log(fault, "started again without a failpoint")

    async def _kill_inside(self, fault: Fault) -> None:
        child = self._restart_with(fault)
        await self._reaches_failpoint(fault, lambda: child.status is not None)
        child.kill()
        await self._start(fault.targets[0])
        self._log(fault, "started again without a failpoint")

    def _restart_with(self, fault: Fault) -> Child:
        number = number_of(fault.targets[0])
        self._world.child(fault.targets[0]).kill()
        self._log(fault, "started with a failpoint")
        return self._world.start_worker(number, failpoints=fault.detail)

    async def _reaches_failpoint(self, fault: Fault, condition: Callable[[], bool]) -> bool:
        reached = await _until(condition, MAX_FAILPOINT_WAIT_S)
        self._log(fault, "reached the failpoint" if reached else "did not reach the failpoint")
        return reached

    async def _kill_between(self, fault: Fault) -> None:
        """Freeze the worker that owns a driver until another worker has committed an Assign for it, then kill it.

        The Assign is then committed, but no decision on it is.
        """
        world, name = self._world, fault.targets[0]
        child = world.child(name)
        mine = await self._owned_partitions(name)
        async with Following(world.stack.kafka, world.stack.name, [DRIVERS], from_now=True) as seen:
            child.send(signal.SIGSTOP)
            deadline, assigned = time.monotonic() + fault.lasts_s, False
            while not assigned and time.monotonic() < deadline:
                await seen.read()
                assigned = any(_is_assign(record.value) and record.partition in mine for record in seen.records)
        child.kill()
        self._log(fault, f"kill -9 {'with an unread Assign' if assigned else 'although no Assign has arrived'}")
        await self._start(name)

    async def _owned_partitions(self, name: str) -> set[int]:
        shown = await self._world.ask("/v1/tasks")
        url = self._world.stack.url_of(number_of(name))
        tasks = shown["tasks"] if isinstance(shown, dict) else []
        return {task["partition"] for task in tasks if task.get("worker") == url}

    # -- lines -------------------------------------------------------------------------------------------------------

    async def _line(self, fault: Fault) -> None:
        mode = Mode[fault.detail]
        for name in fault.targets:
            self._world.lines[name].set_mode(mode, DELAY_S)
        self._log(fault, mode.value)
        await asyncio.sleep(fault.lasts_s)
        for name in fault.targets:
            self._world.lines[name].heal()
        self._log(fault, "healed")

    async def _cut(self, fault: Fault) -> None:
        each = self._world.lines[fault.targets[0]]
        count = each.cut(float(fault.detail), Random(fault.moment))
        self._log(fault, f"{count} connections cut")

    # -- workers and their machines ----------------------------------------------------------------------------------

    async def _wipe(self, fault: Fault) -> None:
        number = number_of(fault.targets[0])
        self._world.child(fault.targets[0]).kill()
        machine = self._world.machine(number)
        wiped = [machine] if fault.detail == "everything" else list(machine.glob("worker-1/**/tasks"))
        for directory in wiped:
            shutil.rmtree(directory)
        self._log(fault, f"kill -9, and {len(wiped)} directories removed")
        await asyncio.sleep(fault.lasts_s)
        await self._start(fault.targets[0])
        self._log(fault, "started again")

    async def _add(self, fault: Fault) -> None:
        await self._start(fault.targets[0])
        self._log(fault, "started")

    async def _remove(self, fault: Fault) -> None:
        child = self._world.child(fault.targets[0])
        self._world.present.discard(number_of(fault.targets[0]))
        child.send(signal.SIGQUIT)
        gone = await _until(lambda: child.status is not None, MAX_LEAVE_S)
        self._log(
            fault, f"left with status {child.status}" if gone else f"still running after {MAX_LEAVE_S:.0f} s: kill -9"
        )
        child.kill()

    async def _clock(self, fault: Fault) -> None:
        number = number_of(fault.targets[0])
        self._world.set_clock(number, float(fault.detail))
        self._log(fault, f"jumped by {fault.detail} s")
        await asyncio.sleep(fault.lasts_s)
        self._world.set_clock(number, 0)
        self._log(fault, "right again")

    async def _start_with_clock(self, fault: Fault) -> None:
        self._world.child(fault.targets[0]).kill()
        self._world.set_clock(number_of(fault.targets[0]), float(fault.detail))
        await self._start(fault.targets[0])
        self._log(fault, f"started again with its clock wrong by {fault.detail} s")
        await asyncio.sleep(fault.lasts_s)
        self._world.set_clock(number_of(fault.targets[0]), 0)
        self._log(fault, "right again")

    async def _poison(self, fault: Fault) -> None:
        count = await self._poisoner.write(int(fault.detail))
        self._log(fault, f"{count} unusable records")

    def _log(self, fault: Fault, what: str) -> None:
        self._world.log.fault(fault, what)


def _is_stopped(child: Child) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    return False


def _is_assign(value: bytes | None) -> bool:
    return f'"{Assign.__name__}"'.encode() in (value or b"")


async def _until(condition: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True
