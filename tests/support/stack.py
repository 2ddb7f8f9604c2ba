"""A complete installation for a test: workers and simulators as separate processes, on a real Kafka."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from simulators.city import KITCHENS
from simulators.ledger import AnswerEntry, PaymentEntry, TicketEntry, TripEntry
from streams.access.keys import Role
from streams.access.local_keys import make_party_secrets
from streams.demo.processes import Child, Supervisor
from streams.local.ports import is_free
from tests.support.keys import HEADERS, KEYS, SECRET, write_keys
from tests.support.plain_http import NO_CERTIFICATES
from topics.restaurants import Restaurant

ROOT = Path(__file__).parents[2]
FAUST = str(Path(sys.executable).parent / "faust")
POLL_S = 0.05
READY_S = 480.0
"""Deadline of a start. It is far above what a busy machine needs."""
FIRST_PORT = 20_000
SEED = "7"
ROLES = {"provider": Role.PROVIDER, "drivers": Role.DRIVER}
"""Simulator -> role of its key."""
FIRST_WORKER_PORT, WORKERS = 10_000, 5
"""First port of the workers, and number of ports reserved for them. No other process may take one while it is free."""
TAKES_ANYTHING = "lakshmi-tiffin"
"""Restaurant of the city without a menu here, so that tests may order anything from it."""


class Stack:
    """One installation with separate topics, directory and ports."""

    def __init__(
        self,
        kafka: str,
        name: str,
        directory: Path,
        supervisor: Supervisor,
        speed: float,
        kitchens: Sequence[Restaurant],
    ) -> None:
        """Reserve the ports and write the catalogue; `kitchens` are restaurants besides the simulated city's."""
        self.kafka = kafka
        self.name = name
        self.directory = directory
        self.speed = speed
        self.ledgers = directory / "ledgers"
        self.workers: dict[int, Child] = {}
        """Number -> process; the first worker is number 1."""
        self.simulators: dict[str, Child] = {}
        self.front: str | None = None
        """URL at which outside parties reach the workers; None for the first worker's."""
        self._supervisor = supervisor
        self._payment_port, self._pos_port = _free_ports(2)
        self._worker_ports = ports_of_its_own(WORKERS)
        self._homes: dict[int, Path] = {}
        write_keys(directory / "keys.json")
        (directory / "secret").write_text(SECRET)
        self.party_secrets = directory / "party-secrets.json"
        """Secrets of the simulated parties, which verify the proofs. Restaurants by hand have none."""
        make_party_secrets(self.party_secrets, KITCHENS)
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "DABBAWALA_DIR": str(directory),
            "DABBAWALA_TOPIC_PREFIX": name,
            "DABBAWALA_REPLICATION_FACTOR": "1",
            "DABBAWALA_COMMIT_GAP_MS": "0",
            "DABBAWALA_SPEED_UP": str(speed),
            "DABBAWALA_ALLOW_FAILPOINTS": "1",
            "DABBAWALA_DECISION_S": "30",  # a busy machine takes longer than the 5 s after which the answer is 202
            "DABBAWALA_PAYMENT_URL": f"http://127.0.0.1:{self._payment_port}",
            "DABBAWALA_CATALOGUE": str(self._catalogue(kitchens)),
            "DABBAWALA_KEYS": str(directory / "keys.json"),
            "DABBAWALA_SECRET_FILE": str(directory / "secret"),
            "DABBAWALA_PARTY_SECRETS": str(self.party_secrets),
            "DABBAWALA_KEY": KEYS[Role.OPERATOR],
            "PYTHONPATH": str(ROOT),
        }

    @property
    def url(self) -> str:
        """URL at which outside parties reach the workers."""
        return self.front or self.url_of(1)

    @property
    def payment_url(self) -> str:
        """URL of the payment provider."""
        return f"http://127.0.0.1:{self._payment_port}"

    @property
    def pos_url(self) -> str:
        """URL of the restaurants' points of sale."""
        return f"http://127.0.0.1:{self._pos_port}"

    def url_of(self, number: int) -> str:
        """Return the URL that a worker has written to its directory."""
        return (self.home(number) / "url").read_text().strip()

    def home(self, number: int) -> Path:
        """Return a worker's directory."""
        return self._homes.get(number, self.directory / f"worker-{number}")

    def set_apart(self, number: int) -> None:
        """Give a worker a separate installation directory, as on another machine."""
        self._homes[number] = self.directory / f"machine-{number}" / "worker-1"

    def start_worker(
        self, number: int = 1, *, wait: bool = True, app: str = "streams.app", port: str = "", **more: str
    ) -> Child:
        """Start a worker, and wait until it is ready unless `wait` is false.

        `app` is the module of the app, `port` replaces the reserved port, and `more` adds to the environment.
        """
        if number in self._homes:
            more["DABBAWALA_DIR"] = str(self._homes[number].parent)
        command = [FAUST, "-A", app, "worker", "-l", "info"]
        command += ["--web-port", port or str(self._worker_ports[number - 1])]
        child = self._supervisor.start(
            f"worker-{number}", command, environment={**self.environment, **more}, ready_s=READY_S, wait=False
        )
        child.ready = lambda: self._is_ready(child, number)
        self.workers[number] = child
        if wait:
            child.wait_until_ready()
        return child

    def start_payment(self, *options: str) -> Child:
        """Start the payment provider; stop the running one first."""
        return self._serve("payment", self._payment_port, options)

    def start_pos(self, *options: str) -> Child:
        """Start the restaurants' points of sale; stop the running ones first."""
        return self._serve("pos", self._pos_port, options)

    def start_drivers(self, count: int, *options: str) -> Child:
        """Start the drivers."""
        return self._simulator("drivers", "--drivers", str(count), *options)

    def place(self, run: str, orders: int, rate: float = 50.0, *options: str) -> Child:
        """Start a provider that places `orders` orders, `rate` a second, in the background."""
        patience = ("--patience", "600")  # a busy machine needs minutes to start a worker
        return self._simulator(
            "provider", "--run", run, "--orders", str(orders), "--rate", str(rate), *patience, *options
        )

    def faust(self, *arguments: str, **more: str) -> tuple[int, str, str]:
        """Run a command of `faust -A streams.app`; return exit status, stdout and stderr."""
        return run_command([FAUST, "-A", "streams.app", *arguments], {**self.environment, **more})

    def get(self, path: str, **query: str) -> Any:
        """GET a path of the API and return the decoded body; `httpx.HTTPError` for an error."""
        answer = httpx.get(self.url + path, params=query, headers=HEADERS, timeout=60, verify=NO_CERTIFICATES)
        answer.raise_for_status()
        return answer.json()

    def statuses(self, run: str) -> dict[str, str]:
        """Return order id -> status of a run's orders."""
        orders = self.get("/v1/orders", limit="1000")["orders"]
        return {order["id"]: order["status"] for order in orders if f":{run}-" in order["id"]}

    def wait_until_ended(self, run: str, orders: int, deadline_s: float) -> dict[str, str]:
        """Wait until so many orders of a run have ended, and return their statuses."""
        deadline, found = time.monotonic() + deadline_s, {}
        while time.monotonic() < deadline:
            try:
                found = self.statuses(run)
            except httpx.HTTPError:
                found = {}
            if len(found) >= orders and all(status in ("DELIVERED", "REJECTED") for status in found.values()):
                return found
            time.sleep(POLL_S)
        raise AssertionError(f"after {deadline_s:.0f} s the {orders} orders of {run} are {_counted(found)}")

    def payments(self) -> list[PaymentEntry]:
        """Return the payment provider's ledger."""
        return _read(self.ledgers / "payment.jsonl", PaymentEntry)

    def tickets(self) -> list[TicketEntry]:
        """Return the restaurants' ledger."""
        return _read(self.ledgers / "pos.jsonl", TicketEntry)

    def trips(self) -> list[TripEntry]:
        """Return the drivers' ledger."""
        return _read(self.ledgers / "trips.jsonl", TripEntry)

    def answers(self) -> list[AnswerEntry]:
        """Return the ordering provider's ledger of answers."""
        return _read(self.ledgers / "answers.jsonl", AnswerEntry)

    def _serve(self, name: str, port: int, options: Sequence[str]) -> Child:
        if name in self.simulators:
            self.simulators[name].stop()
        secrets = ("--secrets", str(self.party_secrets))
        return self._simulator(name, "--port", str(port), *secrets, *options, port=port)

    def _simulator(self, name: str, *options: str, port: int | None = None) -> Child:
        """Start a simulator, and wait until it listens if it has a port."""
        environment = self.environment | ({} if port else {"DABBAWALA_URL": self.url})
        if name in ROLES:
            environment["DABBAWALA_KEY"] = KEYS[ROLES[name]]
        self.simulators[name] = self._supervisor.start(
            name,
            [sys.executable, "-m", f"simulators.{name}", "--seed", SEED, *options],
            environment=environment,
            ready=lambda: port is None or not is_free(port),
            ready_s=READY_S,
        )
        return self.simulators[name]

    def _is_ready(self, child: Child, number: int) -> bool:
        pid = (self.home(number) / "pid").read_text().strip()
        if pid != str(child.pid):
            return False
        return httpx.get(f"{self.url_of(number)}/readyz", timeout=2, verify=NO_CERTIFICATES).status_code == 200

    def _catalogue(self, kitchens: Sequence[Restaurant]) -> Path:
        city = msgspec.json.decode((ROOT / "catalogue.json").read_bytes(), type=list[Restaurant])
        moved = [
            msgspec.structs.replace(
                r,
                pos_url=f"http://127.0.0.1:{self._pos_port}/restaurants/{r.restaurant}",
                menu=() if r.restaurant == TAKES_ANYTHING else r.menu,
            )
            for r in city
        ]
        file = self.directory / "catalogue.json"
        file.write_bytes(msgspec.json.encode([*moved, *kitchens]))
        return file


@contextmanager
def installed(
    kafka: str, name: str, directory: Path, speed: float, kitchens: Sequence[Restaurant] = ()
) -> Iterator[Stack]:
    """Yield a stack without processes; those started within the block end with it."""
    directory.mkdir(parents=True, exist_ok=True)
    with Supervisor(directory / "logs") as supervisor:
        yield Stack(kafka, name, directory, supervisor, speed, kitchens)


@contextmanager
def running(kafka: str, name: str, directory: Path, speed: float = 300.0, drivers: int = 12) -> Iterator[Stack]:
    """Yield a stack with everything running except an ordering provider."""
    with installed(kafka, name, directory, speed) as stack:
        stack.start_payment()
        stack.start_pos()
        stack.start_worker()
        stack.start_drivers(drivers)
        yield stack


def switch_on(url: str, **rates: float) -> None:
    """Switch on faults of a party that listens; `rates` is fault -> share of requests."""
    httpx.post(f"{url}/faults", json=rates, verify=NO_CERTIFICATES).raise_for_status()


def switch_off(url: str) -> None:
    """Switch off all faults of a party."""
    httpx.delete(f"{url}/faults", verify=NO_CERTIFICATES).raise_for_status()


def run_command(command: Sequence[str], environment: dict[str, str], within_s: float = 480.0) -> tuple[int, str, str]:
    """Run a command to its end; return exit status, stdout and stderr."""
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=within_s, check=False
    )
    return done.returncode, done.stdout, done.stderr


def _read(file: Path, kind: type[Any]) -> list[Any]:
    if not file.exists():
        return []
    lines = file.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=kind) for line in lines]


def _counted(found: dict[str, str]) -> dict[str, int]:
    statuses = list(found.values())
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def ports_of_its_own(count: int, after: int = 0) -> list[int]:
    """Return free ports of a range that no other test process uses, beyond the first `after` ports of it."""
    start = FIRST_WORKER_PORT + os.getpid() % 500 * 20 + after
    free = (port for port in range(start, start + 10_000) if is_free(port))
    return [next(free) for _ in range(count)]


def _free_ports(count: int) -> list[int]:
    """Return free ports of a range that no other test process uses."""
    start = FIRST_PORT + os.getpid() % 1000 * 10
    free = (port for port in range(start, start + 10_000) if is_free(port))
    return [next(free) for _ in range(count)]
