"""`python -m streams.embedded start|stop|address|clean`: the embedded Kafka by hand, and the end of everything."""

import contextlib
import itertools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from streams.embedded import kafka
from streams.embedded.errors import SetUpError
from streams.embedded.slots import is_held, living_workers

GRACE_S = 10.0
OURS = ("kafka", "worker-*", "ledgers", "logs", "tests", "catalogue.json", "speed-up")


def clean(directory: Path) -> None:
    """End the workers and the brokers that live in `directory`, then remove all that is ours from it."""
    for home in living_workers(directory):
        _end_worker(home)
    for used in directory.glob("**/kafka/server.properties"):
        kafka.EmbeddedKafka(used.parent.parent).kill()
    for ours in itertools.chain.from_iterable(map(directory.glob, OURS)):
        shutil.rmtree(ours) if ours.is_dir() else ours.unlink()
    (directory / "workers.lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody else's files are in it
        directory.rmdir()


def _end_worker(home: Path) -> None:
    """The pid is good: its process holds the lock of `home`, and wrote it when it took it."""
    pid = int((home / "pid").read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + GRACE_S
        while is_held(home) and time.monotonic() < deadline:
            time.sleep(0.02)


def main(command: str) -> None:
    directory = Path(os.environ.get("DABBAWALA_DIR", ".dabbawala"))
    match command:
        case "start":
            print(f"Kafka's address is {kafka.ensure(directory, print)}")
        case "stop":
            kafka.EmbeddedKafka(directory, print).stop()
        case "address":
            print(kafka.address(directory))
        case "clean":
            clean(directory)
        case _:
            raise SetUpError("python -m streams.embedded start|stop|address|clean")


if __name__ == "__main__":
    try:
        main(" ".join(sys.argv[1:]))
    except SetUpError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
