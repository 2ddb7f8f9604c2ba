"""An installation that everything can happen to: each worker on a machine of its own, a line that can fail between any
two parties, and a broker that can die.

    parties -> front -> workers -> a line each -> broker
                        workers -> a line each -> payment provider, points of sale
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx

from simulators.ledger import now
from streams.embedded.kafka import EmbeddedKafka
from streams.embedded.ports import LOOPBACK
from streams.embedded.processes import Child
from streams.engine.runtime import USAGE
from tests.chaos.plan import BROKER, CITY, FRONT, MOST_WORKERS, PAYMENT, POS, Fault, line, number_of, worker
from tests.chaos.proxy import Address, Proxy
from tests.own_broker import own_broker
from tests.stack import WORKERS, Stack, installed, ports_of_its_own

SPEED = 600.0
"""A preparation takes a second, a ride two."""
CLOCK_APP, CLOCK_FILE = "tests.clock_app", "CLOCK_FILE"
TO_PAYMENT, TO_POS = line("workers", PAYMENT), line("workers", POS)
LISTENERS = """
listeners=PLAINTEXT://{{host}}:{{port}},CONTROLLER://{{host}}:{{controller_port}},{listeners}
advertised.listeners=PLAINTEXT://{{host}}:{{port}},{advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,{protocols}
"""
"""Where a client is sent to that has come over a line: back to that line, and not around it."""


class Log:
    """What happens, with its time: on the screen and, a JSON object a line, in a file."""

    def __init__(self, file: Path, show: Callable[[str], None], updates: Callable[[], int]) -> None:
        self._began, self._show, self._updates = time.monotonic(), show, updates
        self._file: IO[str] = file.open("a")

    def say(self, what: str) -> None:
        """On the screen alone."""
        self._show(f"{time.monotonic() - self._began:7.1f} s {self._updates():6d} updates  {what}")

    def fault(self, fault: Fault, what: str) -> None:
        """Something that has to do with a fault."""
        entry = {
            "at": now().isoformat(),
            "updates": self._updates(),
            "fault": str(fault),
            "moment": fault.moment,
            "what": what,
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        self.say(f"{fault}: {what}")

    def close(self) -> None:
        """Nothing more happens."""
        self._file.close()


class Installation:
    """Everything that runs, and where it can be struck."""

    def __init__(self, stack: Stack, broker: EmbeddedKafka, lines: Mapping[str, Proxy], log: Log) -> None:
        self.stack, self.broker, self.lines, self.log = stack, broker, lines, log
        self.present: set[int] = set()
        """The numbers of the workers that are to be there."""
        self.parties: dict[str, Callable[[], Child]] = {}
        """How each simulator is started."""
        self._locks: dict[str, asyncio.Lock] = {}

    def look_after(self, *, excused: bool) -> None:
        """Raise `ChildDied` if somebody has ended whom nothing strikes. `excused`: a worker that could not start, as
        where the broker is away, is started again, as whoever runs it in earnest would."""
        for name in [*self.parties, *map(worker, sorted(self.present))]:
            child = self.child(name)
            if self._lock(name).locked() or child.status in (None, 0):
                continue
            if excused and name not in self.parties and child.status == USAGE:
                self.log.say(f"{name} could not start, and is started again")
                self.start_worker(number_of(name))
            else:
                child.check()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    @asynccontextmanager
    async def only_one(self, whom: Sequence[str]) -> AsyncIterator[None]:
        """Nobody else strikes these meanwhile. Taken in one order, so that nobody waits for each other."""
        async with AsyncExitStack() as held:
            for name in sorted(whom):
                await held.enter_async_context(self._lock(name))
            yield

    # -- workers -----------------------------------------------------------------------------------------------------

    def start_worker(self, number: int, failpoints: str = "") -> Child:
        """A worker, or the same one again, without waiting until it is ready."""
        self.present.add(number)
        if number in self.stack.workers:
            self.stack.workers[number].kill()
        self.stack.set_apart(number)
        return self.stack.start_worker(
            number,
            wait=False,
            app=CLOCK_APP,
            KAFKA_BOOTSTRAP_SERVERS=str(self.lines[line(worker(number), BROKER)].address),
            **{CLOCK_FILE: str(self.clock_file(number))},
            **({"DABBAWALA_FAILPOINTS": failpoints} if failpoints else {}),
        )

    def machine(self, number: int) -> Path:
        """What a worker has on its disk."""
        return self.stack.home(number).parent

    def clock_file(self, number: int) -> Path:
        """Where a worker's clock is told by how many seconds it is wrong."""
        return self.stack.directory / f"clock-{number}"

    def set_clock(self, number: int, offset_s: float) -> None:
        """Have a worker's wall clock be wrong by so much."""
        new = self.clock_file(number).with_suffix(".new")
        new.write_text(f"{offset_s}")
        new.rename(self.clock_file(number))

    def child(self, name: str) -> Child:
        """The process of a party or a worker."""
        return self.stack.simulators[name] if name in self.stack.simulators else self.stack.workers[number_of(name)]

    def urls(self) -> list[str]:
        """Of the workers that are to be there."""
        return [self.stack.url_of(n) for n in sorted(self.present) if (self.stack.home(n) / "url").exists()]

    def addresses(self) -> list[Address]:
        """Where they listen."""
        return [Address(urlsplit(url).port or 0) for url in self.urls()]

    async def ask(self, path: str) -> object:
        """What the first worker that answers says; None if none does."""
        async with httpx.AsyncClient(timeout=5) as http:
            for url in self.urls():
                try:
                    answer = await http.get(url + path)
                except httpx.HTTPError:
                    continue
                if answer.status_code == 200:
                    found: object = answer.json()
                    return found
        return None


@asynccontextmanager
async def installation(
    directory: Path, name: str, show: Callable[[str], None], updates: Callable[[], int]
) -> AsyncIterator[Installation]:
    """One in which only the broker runs. It all ends with the block."""
    async with AsyncExitStack() as held:
        ports = ports_of_its_own(MOST_WORKERS + 1, after=WORKERS)
        to_broker = [line(worker(number), BROKER) for number in range(1, MOST_WORKERS + 1)] + [CITY]
        lines: dict[str, Proxy] = {}
        for each, port in zip(to_broker, ports, strict=True):
            lines[each] = await held.enter_async_context(Proxy(each, partial(_listening_at, port)))
        listeners = dict(zip(ports, (lines[each].port for each in to_broker), strict=True))
        broker = held.enter_context(own_broker(directory, _properties(listeners)))
        kafka = await asyncio.to_thread(broker.start)
        stack = held.enter_context(installed(kafka, name, directory / "stack", SPEED))
        log = Log(directory / "faults.jsonl", show, updates)
        held.callback(log.close)
        found = Installation(stack, broker, lines, log)
        for each, targets in (
            (TO_PAYMENT, lambda: [_address(stack.payment_url)]),
            (TO_POS, lambda: [_address(stack.pos_url)]),
            (FRONT, found.addresses),
        ):
            lines[each] = await held.enter_async_context(Proxy(each, targets))
        _lead_through(stack, lines)
        yield found


def _lead_through(stack: Stack, lines: Mapping[str, Proxy]) -> None:
    """Have everybody take the lines."""
    stack.front = f"http://{lines[FRONT].address}"
    stack.environment |= {
        "DABBAWALA_PUBLIC_URL": stack.front,
        "DABBAWALA_PAYMENT_URL": f"http://{lines[TO_PAYMENT].address}",
        "KAFKA_BOOTSTRAP_SERVERS": str(lines[CITY].address),
    }
    catalogue = Path(stack.environment["DABBAWALA_CATALOGUE"])
    catalogue.write_text(catalogue.read_text().replace(stack.pos_url, f"http://{lines[TO_POS].address}"))


def _properties(listeners: Mapping[int, int]) -> str:
    """What the broker is told: it listens here, and says that it is there."""
    return LISTENERS.format(
        listeners=",".join(f"LINE{port}://{LOOPBACK}:{port}" for port in listeners),
        advertised=",".join(f"LINE{port}://{LOOPBACK}:{there}" for port, there in listeners.items()),
        protocols=",".join(f"LINE{port}:PLAINTEXT" for port in listeners),
    )


def _listening_at(port: int) -> list[Address]:
    return [Address(port)]


def _address(url: str) -> Address:
    return Address(urlsplit(url).port or 0)
