"""`python -m streams.local start|stop|address|clean`: control the embedded Kafka, or remove everything."""

import contextlib
import itertools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from streams.local.errors import SetUpError
from streams.local.kafka import broker as kafka
from streams.local.worker_slots import is_locked, running_workers

STOP_TIMEOUT_S = 10.0
"""Limit for a worker to stop after SIGTERM, and again after SIGKILL."""
POLL_S = 0.02
OWN_FILES = ("kafka", "worker-*", "ledgers", "logs", "tests", "catalogue.json", "demo.lock")


def clean(directory: Path) -> None:
    """Stop the workers and brokers of `directory`, then remove every file that Dabbawala made there."""
    for home in running_workers(directory):
        _stop_worker(home)
    for properties in directory.glob("**/kafka/server.properties"):
        kafka.EmbeddedKafka(properties.parent.parent).kill()
    for path in itertools.chain.from_iterable(map(directory.glob, OWN_FILES)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (directory / "workers.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the directory holds other files
        directory.rmdir()


def _stop_worker(home: Path) -> None:
    """Stop the worker that holds the lock of `home`. It wrote its pid when it took the lock."""
    pid = int((home / "pid").read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while is_locked(home) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def main(command: str) -> None:
    """Run one command. Raises `SetUpError`."""
    directory = Path(os.environ.get("DABBAWALA_DIR", ".dabbawala"))
    match command:
        case "start":
            print(f"Kafka runs at {kafka.ensure(directory, print)}")
        case "stop":
            kafka.EmbeddedKafka(directory, print).stop()
        case "address":
            print(kafka.address(directory))
        case "clean":
            clean(directory)
        case _:
            raise SetUpError("python -m streams.local start|stop|address|clean")


if __name__ == "__main__":
    try:
        main(" ".join(sys.argv[1:]))
    except SetUpError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
