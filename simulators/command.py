"""What the simulators' commands have in common: their options, how they end, how fast their time goes."""

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

from topics.families import Family, topic_name


class Failure(Exception):
    """The simulator cannot go on; the message says why and what to do, in a sentence."""


class Pace:
    """How fast simulated time goes: twice as fast with a factor of 2, and 0 leaves it out altogether."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @property
    def instant(self) -> bool:
        """Nothing takes any time."""
        return self.factor == 0

    def real(self, simulated_s: float) -> float:
        """The seconds to wait for so many simulated ones."""
        return 0.0 if self.instant else simulated_s / self.factor

    async def pass_time(self, simulated_s: float) -> None:
        """Wait so many simulated seconds."""
        if not self.instant:
            await asyncio.sleep(self.real(simulated_s))


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Tells defaults, and leaves a table at the end as it is."""


def options(name: str, what: str, ledger: str) -> argparse.ArgumentParser:
    """A command line with what every simulator understands: `--ledger`, `--seed`, `--speed`, `--quiet`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m simulators.{name}", description=what, formatter_class=HelpFormatter
    )
    parser.add_argument("--ledger", type=Path, default=home() / "ledgers" / ledger, help="its append-only record")
    parser.add_argument("--seed", default="1", help="decides everything that is left to chance")
    parser.add_argument(
        "--speed",
        type=pace,
        default=os.environ.get("DABBAWALA_SPEED_UP", "1"),
        metavar="FACTOR",
        help="how much faster than real time; 0: no delays at all (DABBAWALA_SPEED_UP)",
    )
    parser.add_argument("--quiet", action="store_true", help="no line for each thing that happens")
    return parser


def serve_options(parser: argparse.ArgumentParser, port: int) -> None:
    """Add where a simulator that is called listens."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=whole(0, 65535), default=port, help="port to listen on; 0: any free one")


def worker_options(parser: argparse.ArgumentParser) -> None:
    """Add where a simulator that calls finds the worker."""
    parser.add_argument(
        "--worker",
        type=url,
        default=os.environ.get("DABBAWALA_URL", "http://127.0.0.1:6066"),
        metavar="URL",
        help="the worker's address (DABBAWALA_URL)",
    )
    parser.add_argument(
        "--patience", type=positive, default=60.0, metavar="SECONDS", help="how long to wait for one that is not there"
    )


def kafka_options(parser: argparse.ArgumentParser) -> None:
    """Add where Kafka is."""
    parser.add_argument(
        "--bootstrap-servers",
        default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        metavar="HOST:PORT",
        help="Kafka; else the embedded one, as the worker wrote it down (KAFKA_BOOTSTRAP_SERVERS)",
    )
    parser.add_argument(
        "--topic-prefix",
        default=os.environ.get("DABBAWALA_TOPIC_PREFIX", "dabbawala"),
        help="what topic names begin with (DABBAWALA_TOPIC_PREFIX)",
    )


def topic(arguments: argparse.Namespace, family: Family) -> str:
    """The name of a family's topic under the prefix given."""
    return topic_name(family.name, arguments.topic_prefix)


def home() -> Path:
    """Where everything of this installation lives (DABBAWALA_DIR)."""
    return Path(os.environ.get("DABBAWALA_DIR", ".dabbawala"))


def run(main: Coroutine[Any, Any, int]) -> None:
    """Run a simulator until it is done or told to stop (SIGTERM, Ctrl-C: status 0), and end the process.

    A `Failure` is one sentence on stderr and status 1.
    """
    # Kafka's client says a hundred times a second that a broker is away; the simulators say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        status = asyncio.run(_until_told(main))
    except BrokenPipeError:
        status = 0
    except (Failure, BaseExceptionGroup) as error:
        print(_failure(error), file=sys.stderr, flush=True)
        status = 1
    sys.exit(status)


async def _until_told(main: Coroutine[Any, Any, int]) -> int:
    task = asyncio.create_task(main)
    told = False

    def stop() -> None:
        nonlocal told
        told = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not told:
            raise
        return 0


def _failure(error: BaseException) -> Failure:
    """The failure in a group of them; anything else is a defect, and raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, Failure):
        raise error
    return error


class Teller:
    """Says on stdout what happens, a line each, unless told to be quiet."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name, self._quiet = name, quiet

    def event(self, line: str) -> None:
        """One of many."""
        if not self._quiet:
            self.notice(line)

    def notice(self, line: str) -> None:
        """Worth a line even when quiet."""
        print(f"{self._name}: {line}", flush=True)


def pace(text: str) -> Pace:
    """A speed-up factor."""
    return Pace(_number(text, lambda value: value >= 0, "a number from 0 up"))


def positive(text: str) -> float:
    """A number above 0."""
    return _number(text, lambda value: value > 0, "a number above 0")


def share(text: str) -> float:
    """A share from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number from low to high."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def url(text: str) -> str:
    """An HTTP address, without the slash at its end."""
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
