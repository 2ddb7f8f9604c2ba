"""Plants every bug of the catalogue, or the named ones, and shows the violation that reveals it.

    python -m verification.planted [BUG...]

Each scenario also runs once without a bug and must then have no violation. Uses the broker of
`KAFKA_BOOTSTRAP_SERVERS`, or else starts an embedded one. Exit status 0 if every bug was caught by the promise that it
breaks, and the scenarios without a bug had no violation.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB
from verification.planted.catalogue import BUGS, UnknownBug, known
from verification.planted.scenarios import SCENARIOS, Scenario, play

WIDTH = 200
"""Width of the table if the output is no terminal."""


class Played(NamedTuple):
    """Outcome of a scenario."""

    what: str
    """Name of the bug, or of the scenario without one."""
    promise: str
    """Number of the promise that the bug breaks; empty without a bug."""
    found: str
    """Sentence on what was found."""
    passed: bool
    seconds: float

    @property
    def line(self) -> tuple[str, ...]:
        """Cells of its row in the table."""
        return self.what, self.promise, self.found, f"{self.seconds:.0f}"


def main(names: Sequence[str]) -> int:
    """Play the scenarios of all bugs, or of the named ones; return the exit status."""
    try:
        bugs = [known(name).name for name in names] or list(BUGS)
    except UnknownBug as wrong:
        print(wrong, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        broker = EmbeddedKafka(Path(directory), lib=LIB, progress=print)
        try:
            kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or broker.start()
            played = list(_play_all(kafka, Path(directory), bugs))
        finally:
            broker.kill()
    _show(played)
    return 0 if all(each.passed for each in played) else 1


def _play_all(kafka: str, directory: Path, bugs: Sequence[str]) -> Iterator[Played]:
    """Play each scenario without a bug, then with each of its bugs."""
    for scenario, own in SCENARIOS.items():
        wanted = [bug for bug in own if bug in bugs]
        for bug in (None, *wanted) if wanted else ():
            played = _play(kafka, directory, scenario, bug)
            print(" | ".join(played.line), flush=True)
            yield played


def _play(kafka: str, directory: Path, scenario: Scenario, bug: str | None) -> Played:
    began = time.monotonic()
    try:
        wrong = asyncio.run(play(kafka, directory, scenario, bug))
    except AssertionError as failed:  # a condition was not met in time
        return Played(bug or scenario.__name__, "", f"not played: {failed}", False, time.monotonic() - began)
    took_s = time.monotonic() - began
    if bug is None:
        found = wrong[0].sentence if wrong else "no violation without a bug"
        return Played(scenario.__name__, "", found, not wrong, took_s)
    promise = BUGS[bug].breaks
    caught = [each.sentence for each in wrong if each.promise == promise]
    missed = "; ".join(["not caught by this promise", *(f"{each.promise}: {each.sentence}" for each in wrong)])
    return Played(bug, str(promise), caught[0] if caught else missed, bool(caught), took_s)


def _show(played: Sequence[Played]) -> None:
    table = Table("bug, or scenario without one", "promise", "caught by", "s")
    for each in played:
        table.add_row(*each.line, style=None if each.passed else "bold red")
    bugs = [each for each in played if each.promise]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    console.print(f"{sum(each.passed for each in bugs)} of {len(bugs)} bugs caught, each by the promise that it breaks")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
