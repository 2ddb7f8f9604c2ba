"""Installation in which everything can fail.

Each worker runs as if on a separate machine, a proxy lies between any two parties, and the broker can be killed.

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

from exactly_once.faust.worker import USAGE
from simulators.ledger import now
from streams.demo.processes import Child
from streams.local.kafka.broker import EmbeddedKafka
from streams.local.ports import LOOPBACK
from tests.support.keys import HEADERS
from tests.support.own_broker import own_broker
from tests.support.stack import WORKERS, Stack, installed, ports_of_its_own
from verification.chaos.plan import BROKER, CITY, FRONT, MAX_WORKERS, PAYMENT, POS, Fault, line, number_of, worker
from verification.chaos.proxy import Address, Proxy

SPEED = 600.0
"""Speed-up at which a preparation takes one second and a ride two."""
CLOCK_APP, CLOCK_FILE = "tests.support.clock_app", "CLOCK_FILE"
TO_PAYMENT, TO_POS = line("workers", PAYMENT), line("workers", POS)
LISTENERS = """
listeners=PLAINTEXT://{{host}}:{{port}},CONTROLLER://{{host}}:{{controller_port}},{listeners}
advertised.listeners=PLAINTEXT://{{host}}:{{port}},{advertised}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,{protocols}
"""
"""Listeners of the broker: each advertises its own line, so that clients cannot bypass the proxy."""


class Log:
    """Log of the run, with times: on the screen and, a JSON object a line, in a file."""

    def __init__(self, file: Path, show: Callable[[str], None], updates: Callable[[], int]) -> None:
        self._began = time.monotonic()
        self._show = show
        self._updates = updates
        self._file: IO[str] = file.open("a")

    def show(self, what: str) -> None:
        """Print a line on the screen only."""
        self._show(f"{time.monotonic() - self._began:7.1f} s {self._updates():6d} updates  {what}")

    def fault(self, fault: Fault, what: str) -> None:
        """Log an event of a fault, on the screen and in the file."""
        entry = {
            "at": now().isoformat(),
            "updates": self._updates(),
            "fault": str(fault),
            "moment": fault.moment,
            "what": what,
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        self.show(f"{fault}: {what}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Installation:
    """Processes and lines of a chaos run."""

    def __init__(self, stack: Stack, broker: EmbeddedKafka, lines: Mapping[str, Proxy], log: Log) -> None:
        self.stack = stack
        self.broker = broker
        self.lines = lines
        self.log = log
        self.present: set[int] = set()
        """Numbers of the workers that should run."""
        self.parties: dict[str, Callable[[], Child]] = {}
        """Simulator -> the function that starts it."""
        self._locks: dict[str, asyncio.Lock] = {}

    def supervise(self, *, excused: bool) -> None:
        """Raise `ChildDied` if a process has ended without a fault.

        `excused`: restart a worker that could not start, as a supervisor does during an outage of the broker.
        """
        for name in [*self.parties, *map(worker, sorted(self.present))]:
            child = self.child(name)
            if self._lock(name).locked() or child.status in (None, 0):
                continue
            if excused and name not in self.parties and child.status == USAGE:
                self.log.show(f"{name} could not start, starting it again")
                self.start_worker(number_of(name))
            else:
                child.check()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    @asynccontextmanager
    async def exclusive(self, targets: Sequence[str]) -> AsyncIterator[None]:
        """Keep other faults from these targets within the block. Locks are taken in name order to avoid deadlocks."""
        async with AsyncExitStack() as held:
            for name in sorted(targets):
                await held.enter_async_context(self._lock(name))
            yield

    # -- workers -----------------------------------------------------------------------------------------------------

    def start_worker(self, number: int, failpoints: str = "") -> Child:
        """Start or restart a worker without waiting until it is ready."""
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
        """Return the directory that is a worker's disk."""
        return self.stack.home(number).parent

    def clock_file(self, number: int) -> Path:
        """Return the file with the seconds by which a worker's clock is wrong."""
        return self.stack.directory / f"clock-{number}"

    def set_clock(self, number: int, offset_s: float) -> None:
        """Set the error of a worker's wall clock."""
        new = self.clock_file(number).with_suffix(".new")
        new.write_text(f"{offset_s}")
        new.rename(self.clock_file(number))

    def child(self, name: str) -> Child:
        """Return the process of a party or a worker."""
        return self.stack.simulators[name] if name in self.stack.simulators else self.stack.workers[number_of(name)]

    def urls(self) -> list[str]:
        """Return the URLs of the workers that should run."""
        return [self.stack.url_of(n) for n in sorted(self.present) if (self.stack.home(n) / "url").exists()]

    def addresses(self) -> list[Address]:
        """Return the addresses of the workers that should run."""
        return [Address(urlsplit(url).port or 0) for url in self.urls()]

    async def ask(self, path: str) -> object:
        """Return the answer of the first worker that answers, or None."""
        async with httpx.AsyncClient(timeout=5, headers=HEADERS) as http:
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
    """Provide an installation in which only the broker runs; every process ends with the block."""
    async with AsyncExitStack() as held:
        ports = ports_of_its_own(MAX_WORKERS + 1, after=WORKERS)
        to_broker = [line(worker(number), BROKER) for number in range(1, MAX_WORKERS + 1)] + [CITY]
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
        _route_through(stack, lines)
        yield found


def _route_through(stack: Stack, lines: Mapping[str, Proxy]) -> None:
    """Route the traffic of all parties through the lines."""
    stack.front = f"http://{lines[FRONT].address}"
    stack.environment |= {
        "DABBAWALA_PUBLIC_URL": stack.front,
        "DABBAWALA_PAYMENT_URL": f"http://{lines[TO_PAYMENT].address}",
        "KAFKA_BOOTSTRAP_SERVERS": str(lines[CITY].address),
    }
    catalogue = Path(stack.environment["DABBAWALA_CATALOGUE"])
    catalogue.write_text(catalogue.read_text().replace(stack.pos_url, f"http://{lines[TO_POS].address}"))


def _properties(listeners: Mapping[int, int]) -> str:
    """Return the broker's properties: the ports to listen on and the ports to advertise."""
    return LISTENERS.format(
        listeners=",".join(f"LINE{port}://{LOOPBACK}:{port}" for port in listeners),
        advertised=",".join(f"LINE{port}://{LOOPBACK}:{there}" for port, there in listeners.items()),
        protocols=",".join(f"LINE{port}:PLAINTEXT" for port in listeners),
    )


def _listening_at(port: int) -> list[Address]:
    return [Address(port)]


def _address(url: str) -> Address:
    return Address(urlsplit(url).port or 0)
