"""The whole of it for a test: a worker and the simulators as processes of their own, on a real Kafka."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from simulators.ledger import AnswerEntry, PaymentEntry, TicketEntry, TripEntry
from streams.embedded.ports import is_free
from streams.embedded.processes import Child, Supervisor
from topics.restaurants import Restaurant

ROOT = Path(__file__).parent.parent
POLL_S = 0.05
FIRST_PORT = 20_000


class Stack:
    """One installation: its own topics, directory and ports."""

    def __init__(self, kafka: str, name: str, directory: Path, supervisor: Supervisor, speed: float, **more: str):
        self.kafka, self.name, self.directory, self.speed = kafka, name, directory, speed
        self.ledgers = directory / "ledgers"
        self._supervisor = supervisor
        self.payment_port, self.pos_port = _free_ports(2)
        self.environment = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "DABBAWALA_DIR": str(directory),
            "DABBAWALA_TOPIC_PREFIX": name,
            "DABBAWALA_REPLICATION_FACTOR": "1",
            "DABBAWALA_COMMIT_GAP_MS": "0",
            "DABBAWALA_SPEED_UP": str(speed),
            "DABBAWALA_PAYMENT_URL": f"http://127.0.0.1:{self.payment_port}",
            "DABBAWALA_RESTAURANTS": str(self._restaurants()),
            "PYTHONPATH": str(ROOT),
            **more,
        }
        self.worker: Child

    @property
    def url(self) -> str:
        """The worker's."""
        return (self.directory / "worker-1" / "url").read_text().strip()

    def start(self, drivers: int = 12, worker: Mapping[str, str] | None = None) -> None:
        """Everything but orders; ``worker``: more environment for the worker alone."""
        self.simulator("payment", "--port", str(self.payment_port), port=self.payment_port)
        self.simulator("pos", "--port", str(self.pos_port), port=self.pos_port)
        self.start_worker(worker)
        if drivers:
            self.simulator("drivers", "--drivers", str(drivers))

    def start_worker(self, more: Mapping[str, str] | None = None) -> None:
        """A worker, ready."""
        command = [str(Path(sys.executable).parent / "faust"), "-A", "streams.app", "worker", "-l", "info"]
        self.worker = self._supervisor.start(
            "worker", command, environment={**self.environment, **(more or {})}, ready=self._ready
        )

    def simulator(self, name: str, *options: str, port: int | None = None) -> Child:
        """A simulator, listening if it has a port."""
        environment = self.environment | ({"DABBAWALA_URL": self.url} if name in ("drivers", "provider") else {})
        return self._supervisor.start(
            name,
            [sys.executable, "-m", f"simulators.{name}", "--seed", "7", *options],
            environment=environment,
            ready=lambda: port is None or not is_free(port),
        )

    def place(self, run: str, orders: int, rate: float = 50.0, *options: str) -> Child:
        """Have the provider place orders, in the background."""
        return self.simulator("provider", "--run", run, "--orders", str(orders), "--rate", str(rate), *options)

    def get(self, path: str, **query: str) -> Any:
        """What the worker's API says."""
        answer = httpx.get(self.url + path, params=query, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def statuses(self, run: str) -> dict[str, str]:
        """Order id -> status of a run's orders."""
        orders = self.get("/v1/orders", limit="1000")["orders"]
        return {order["id"]: order["status"] for order in orders if f":{run}-" in order["id"]}

    def wait_until_ended(self, run: str, orders: int, deadline_s: float) -> dict[str, str]:
        """Wait until so many orders of a run have ended; their statuses."""
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
        """The payment provider's ledger."""
        return _read(self.ledgers / "payment.jsonl", PaymentEntry)

    def tickets(self) -> list[TicketEntry]:
        """The restaurants' ledger."""
        return _read(self.ledgers / "pos.jsonl", TicketEntry)

    def trips(self) -> list[TripEntry]:
        """The drivers' log."""
        return _read(self.ledgers / "trips.jsonl", TripEntry)

    def answers(self) -> list[AnswerEntry]:
        """What the ordering provider was answered."""
        return _read(self.ledgers / "answers.jsonl", AnswerEntry)

    def _ready(self) -> bool:
        pid = (self.directory / "worker-1" / "pid").read_text().strip()
        return pid == str(self.worker_pid) and httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200

    @property
    def worker_pid(self) -> int:
        """Of the worker's process that was started last."""
        return self._supervisor.children[-1].pid if not hasattr(self, "worker") else self.worker.pid

    def _restaurants(self) -> Path:
        found = msgspec.json.decode((ROOT / "restaurants.json").read_bytes(), type=list[Restaurant])
        moved = [
            msgspec.structs.replace(r, pos_url=f"http://127.0.0.1:{self.pos_port}/restaurants/{r.restaurant}")
            for r in found
        ]
        file = self.directory / "restaurants.json"
        file.write_bytes(msgspec.json.encode(moved))
        return file


@contextmanager
def running(
    kafka: str, name: str, directory: Path, speed: float = 300.0, drivers: int = 12, **more: str
) -> Iterator[Stack]:
    """A stack that runs within the block."""
    directory.mkdir(parents=True, exist_ok=True)
    with Supervisor(directory / "logs") as supervisor:
        stack = Stack(kafka, name, directory, supervisor, speed, **more)
        stack.start(drivers)
        yield stack


def _read(file: Path, kind: type[Any]) -> list[Any]:
    if not file.exists():
        return []
    lines = file.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=kind) for line in lines]


def _counted(found: dict[str, str]) -> dict[str, int]:
    statuses = list(found.values())
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def _free_ports(count: int) -> list[int]:
    """Apart from those of other test processes: each searches in a stretch of its own."""
    start = FIRST_PORT + os.getpid() % 2000 * 10
    free = (port for port in range(start, start + 10_000) if is_free(port))
    return [next(free) for _ in range(count)]
