"""The common part of the simulators' commands: options, shutdown, and the speed of simulated time."""

import argparse
import asyncio
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topics.families import Family, topic_name
from topics.text import plain, plain_lines


class Failure(Exception):
    """The simulator cannot continue. The message is one sentence with the cause and the remedy."""


class TimeScale:
    """The speed of simulated time: 2 is twice as fast as real time, 0 removes every delay."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @property
    def instant(self) -> bool:
        """Return whether every delay is removed."""
        return self.factor == 0

    def real(self, simulated_s: float) -> float:
        """Return the real seconds of so many simulated ones."""
        return 0.0 if self.instant else simulated_s / self.factor

    async def pass_time(self, simulated_s: float) -> None:
        """Wait for so many simulated seconds."""
        if not self.instant:
            await asyncio.sleep(self.real(simulated_s))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Formatter that shows defaults and leaves the text after the options as it is."""


def options(name: str, what: str, ledger: str) -> argparse.ArgumentParser:
    """Return a command line with the options of every simulator: `--ledger`, `--seed`, `--speed`, `--quiet`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m simulators.{name}", description=what, formatter_class=HelpFormatter
    )
    parser.add_argument(
        "--ledger", type=Path, default=home() / "ledgers" / ledger, help="append-only file of everything it did"
    )
    parser.add_argument("--seed", default="1", help="the same seed gives the same orders, drivers and faults")
    parser.add_argument(
        "--speed",
        type=time_scale,
        default=os.environ.get("DABBAWALA_SPEED_UP", "1"),
        metavar="FACTOR",
        help="speed of simulated time; 1: real time, 60: a minute a second, 0: no delays. The worker and every "
        "simulator need the same one: set DABBAWALA_SPEED_UP=60 for all of them (a demo: 30, with faults 120)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no line for each event")
    return parser


def serve_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the address that a called simulator listens on."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=whole(0, 65535), default=port, help="port to listen on; 0: any free one")
    worker = urlsplit(os.environ.get("DABBAWALA_URL", "")).hostname
    parser.add_argument(
        "--callback-host",
        action="append",
        default=[] if worker is None else [worker],
        metavar="HOST",
        help="host that it calls back, besides this machine and the host of DABBAWALA_URL; may be repeated",
    )


def strict_option(parser: argparse.ArgumentParser) -> None:
    """Add the strictness about idempotency keys."""
    parser.add_argument(
        "--strict",
        choices=("ietf", "stripe"),
        default="",
        help="compare whole bodies under a key (ietf: 422, stripe: 400) and answer 409 while the first is under way",
    )


def worker_options(parser: argparse.ArgumentParser, role: str) -> None:
    """Add the worker's address, and the key of a role, for a simulator that calls it."""
    parser.add_argument(
        "--worker",
        type=url,
        default=os.environ.get("DABBAWALA_URL", "http://127.0.0.1:6066"),
        metavar="URL",
        help="the worker's address (DABBAWALA_URL)",
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        default=home() / "keys" / role,
        metavar="FILE",
        help=f"file with a key of the role {role}; DABBAWALA_KEY goes first",
    )
    parser.add_argument(
        "--patience",
        type=positive,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for a worker, or for Kafka, that does not answer",
    )


def kafka_options(parser: argparse.ArgumentParser) -> None:
    """Add Kafka's address and the topics' prefix."""
    parser.add_argument(
        "--bootstrap-servers",
        default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        metavar="HOST:PORT",
        help="Kafka's address; by default the embedded Kafka of this directory (KAFKA_BOOTSTRAP_SERVERS)",
    )
    parser.add_argument(
        "--topic-prefix",
        default=os.environ.get("DABBAWALA_TOPIC_PREFIX", "dabbawala"),
        help="prefix of the topic names (DABBAWALA_TOPIC_PREFIX)",
    )


def topic(arguments: argparse.Namespace, family: Family) -> str:
    """Return the name of a family's topic under the given prefix."""
    return topic_name(family.name, arguments.topic_prefix)


def key_of(arguments: argparse.Namespace) -> str:
    """Return the key for the worker; empty while the worker has not made it."""
    if key := os.environ.get("DABBAWALA_KEY"):
        return key
    try:
        return str(arguments.key_file.read_text().strip())
    except OSError:
        return ""


def home() -> Path:
    """Return the directory of this installation (DABBAWALA_DIR)."""
    return Path(os.environ.get("DABBAWALA_DIR", ".dabbawala"))


def run(main: Coroutine[Any, Any, int]) -> None:
    """Run a simulator to its end, or until SIGTERM or Ctrl-C (status 0), and end the process.

    A `Failure` becomes one sentence on stderr and status 1. Its files are for its user alone.
    """
    os.umask(0o077)
    # aiokafka logs a hundred times a second that a broker is down; the simulators report it once
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        status = asyncio.run(_until_stopped(main))
    except BrokenPipeError:
        status = 0
    except (Failure, BaseExceptionGroup) as error:
        print(plain_lines(str(_failure(error))), file=sys.stderr, flush=True)
        status = 1
    sys.exit(status)


async def _until_stopped(main: Coroutine[Any, Any, int]) -> int:
    task = asyncio.create_task(main)
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        is_stopping = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not is_stopping:
            raise
        return 0


def _failure(error: BaseException) -> Failure:
    """Return the first failure of a group. Raises anything else, which is a defect."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, Failure):
        raise error
    return error


class Reporter:
    """Printer of a line for each event, unless the simulator is quiet."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet

    def event(self, line: str) -> None:
        """Print one of many events."""
        if not self._quiet:
            self.notice(line)

    def notice(self, line: str) -> None:
        """Print a line even if the simulator is quiet."""
        print(f"{self._name}: {plain(line)}", flush=True)


def counted(number: int, thing: str) -> str:
    """Return a count with its noun: `0 orders`, `1 order`, `2 orders`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def time_scale(text: str) -> TimeScale:
    """Parse a speed."""
    return TimeScale(_number(text, lambda value: value >= 0, "a number from 0 up"))


def positive(text: str) -> float:
    """Parse a number above 0."""
    return _number(text, lambda value: value > 0, "a number above 0")


def share(text: str) -> float:
    """Parse a share from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from low to high."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def url(text: str) -> str:
    """Parse an HTTP address, and remove the slash at its end."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL that starts with http:// or https://")
    return text.rstrip("/")


def _number(text: str, fits: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
