"""What each kind of fault does, and how it ends. `lift` ends whatever is left of all of them."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random

import httpx
import psutil

from streams.embedded.processes import Child
from tests.chaos.installation import Installation
from tests.chaos.plan import BROKER, Fault, number_of
from tests.chaos.proxy import Mode
from tests.chaos.strangers import Poisoner
from tests.flow.reading import Following
from topics.drivers import Assign
from topics.families import DRIVERS

DELAY_S = 0.08
"""Of each piece, on a slow line."""
COMES_TO_IT_S = 40.0
"""How long a worker with a failpoint may take to come to it; a commit every few milliseconds is usual."""
ZOMBIE_S = 3.0
"""What a worker that wakes up and has been replaced may try to do, before it is started again."""
LEAVES_S = 20.0
POLL_S = 0.02


class Chaos:
    """Has the faults of a plan happen."""

    def __init__(self, world: Installation, poisoner: Poisoner) -> None:
        self._world, self._poisoner = world, poisoner
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
        """Have one happen, and wait until it is over."""
        async with self._world.only_one(fault.whom):
            await self._kinds[fault.kind](fault)

    async def lift(self) -> None:
        """All is well again: everybody runs, every line passes, every party does what it is asked."""
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
        if fault.whom == (BROKER,):
            await self._kill_broker(fault)
            return
        struck = [self._world.child(name) for name in fault.whom]
        for child in struck:
            child.send(signal.SIGKILL)
        self._say(fault, "kill -9")
        await asyncio.sleep(fault.lasts_s)
        for name, child in zip(fault.whom, struck, strict=True):
            child.kill()
            await self._start(name)
        self._say(fault, "started again")

    async def _kill_broker(self, fault: Fault) -> None:
        await asyncio.to_thread(self._world.broker.kill)
        self._say(fault, "kill -9")
        await asyncio.sleep(fault.lasts_s)
        await asyncio.to_thread(self._world.broker.start)
        self._say(fault, "takes records again")

    async def _start(self, name: str) -> None:
        if name in self._world.parties:
            await asyncio.to_thread(self._world.parties[name])
        else:
            self._world.start_worker(number_of(name))

    async def _freeze(self, fault: Fault) -> None:
        child = self._world.child(fault.whom[0])
        child.send(signal.SIGSTOP)
        self._say(fault, "SIGSTOP")
        await asyncio.sleep(fault.lasts_s)
        child.send(signal.SIGCONT)
        self._say(fault, "SIGCONT")

    async def _freeze_inside(self, fault: Fault) -> None:
        """The worker stops itself in the middle of a commit or a call, and wakes up when others have its tasks."""
        child = self._restart_with(fault)
        if await self._comes_to_it(fault, lambda: _is_stopped(child)):
            await asyncio.sleep(fault.lasts_s)
            child.send(signal.SIGCONT)
            self._say(fault, "SIGCONT")
            await asyncio.sleep(ZOMBIE_S)
        child.kill()
        await self._start(fault.whom[0])
        self._say(fault, "started again without it")

    async def _kill_inside(self, fault: Fault) -> None:
        child = self._restart_with(fault)
        await self._comes_to_it(fault, lambda: child.status is not None)
        child.kill()
        await self._start(fault.whom[0])
        self._say(fault, "started again without it")

    def _restart_with(self, fault: Fault) -> Child:
        number = number_of(fault.whom[0])
        self._world.child(fault.whom[0]).kill()
        self._say(fault, "started with a failpoint")
        return self._world.start_worker(number, failpoints=fault.detail)

    async def _comes_to_it(self, fault: Fault, condition: Callable[[], bool]) -> bool:
        found = await _until(condition, COMES_TO_IT_S)
        self._say(fault, "there it is" if found else "it did not come to it")
        return found

    async def _kill_between(self, fault: Fault) -> None:
        """The worker of a driver is frozen until another one has told that driver of a delivery, and then killed: the
        Assign is committed, and nobody has decided on it."""
        world, name = self._world, fault.whom[0]
        child = world.child(name)
        mine = await self._partitions_of(name)
        async with Following(world.stack.kafka, world.stack.name, [DRIVERS], from_now=True) as seen:
            child.send(signal.SIGSTOP)
            deadline, told = time.monotonic() + fault.lasts_s, False
            while not told and time.monotonic() < deadline:
                await seen.read()
                told = any(_is_assign(record.value) and record.partition in mine for record in seen.records)
        child.kill()
        self._say(fault, f"kill -9 {'with an Assign that nobody has read' if told else 'though nobody was assigned'}")
        await self._start(name)

    async def _partitions_of(self, name: str) -> set[int]:
        shown = await self._world.ask("/v1/tasks")
        url = self._world.stack.url_of(number_of(name))
        tasks = shown["tasks"] if isinstance(shown, dict) else []
        return {task["partition"] for task in tasks if task.get("worker") == url}

    # -- lines -------------------------------------------------------------------------------------------------------

    async def _line(self, fault: Fault) -> None:
        mode = Mode[fault.detail]
        for name in fault.whom:
            self._world.lines[name].become(mode, DELAY_S)
        self._say(fault, mode.value)
        await asyncio.sleep(fault.lasts_s)
        for name in fault.whom:
            self._world.lines[name].heal()
        self._say(fault, "healed")

    async def _cut(self, fault: Fault) -> None:
        each = self._world.lines[fault.whom[0]]
        count = each.cut(float(fault.detail), Random(fault.moment))
        self._say(fault, f"{count} connections cut")

    # -- workers and their machines ----------------------------------------------------------------------------------

    async def _wipe(self, fault: Fault) -> None:
        number = number_of(fault.whom[0])
        self._world.child(fault.whom[0]).kill()
        machine = self._world.machine(number)
        wiped = [machine] if fault.detail == "everything" else list(machine.glob("worker-1/**/tasks"))
        for directory in wiped:
            shutil.rmtree(directory)
        self._say(fault, f"kill -9, and {len(wiped)} directories removed")
        await asyncio.sleep(fault.lasts_s)
        await self._start(fault.whom[0])
        self._say(fault, "started again")

    async def _add(self, fault: Fault) -> None:
        await self._start(fault.whom[0])
        self._say(fault, "started")

    async def _remove(self, fault: Fault) -> None:
        child = self._world.child(fault.whom[0])
        self._world.present.discard(number_of(fault.whom[0]))
        child.send(signal.SIGQUIT)
        gone = await _until(lambda: child.status is not None, LEAVES_S)
        self._say(fault, f"left with status {child.status}" if gone else f"not gone in {LEAVES_S:.0f} s: kill -9")
        child.kill()

    async def _clock(self, fault: Fault) -> None:
        number = number_of(fault.whom[0])
        self._world.set_clock(number, float(fault.detail))
        self._say(fault, f"jumped by {fault.detail} s")
        await asyncio.sleep(fault.lasts_s)
        self._world.set_clock(number, 0)
        self._say(fault, "right again")

    async def _start_with_clock(self, fault: Fault) -> None:
        self._world.child(fault.whom[0]).kill()
        self._world.set_clock(number_of(fault.whom[0]), float(fault.detail))
        await self._start(fault.whom[0])
        self._say(fault, f"started again with a clock that is wrong by {fault.detail} s")
        await asyncio.sleep(fault.lasts_s)
        self._world.set_clock(number_of(fault.whom[0]), 0)
        self._say(fault, "right again")

    async def _poison(self, fault: Fault) -> None:
        count = await self._poisoner.write(int(fault.detail))
        self._say(fault, f"{count} records that nobody can use")

    def _say(self, fault: Fault, what: str) -> None:
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
