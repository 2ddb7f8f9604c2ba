"""Plants every bug of the catalogue, or those that are named, and says who caught it.

    python -m tests.planted [BUG...]

Each scenario is played once without a bug: then nothing may be wrong. Uses the broker of `KAFKA_BOOTSTRAP_SERVERS`, or
an embedded one of its own. Exit status 0 if every bug was caught by the promise that it breaks, and nothing else was.
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

from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB
from tests.planted.catalogue import BUGS, UnknownBug, known
from tests.planted.scenarios import SCENARIOS, Scenario, play

WIDTH = 200
"""Of the table, where no terminal has one."""


class Played(NamedTuple):
    """What came of a scenario."""

    what: str
    promise: str
    found: str
    right: bool
    seconds: float

    @property
    def line(self) -> tuple[str, ...]:
        """As the table has it."""
        return self.what, self.promise, self.found, f"{self.seconds:.0f}"


def main(names: Sequence[str]) -> int:
    """Play all; the exit status."""
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
    return 0 if all(each.right for each in played) else 1


def _play_all(kafka: str, directory: Path, bugs: Sequence[str]) -> Iterator[Played]:
    """Each scenario without a bug, then with each of its bugs."""
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
    except AssertionError as failed:  # something did not come about in time
        return Played(bug or scenario.__name__, "", f"not played: {failed}", False, time.monotonic() - began)
    took_s = time.monotonic() - began
    if bug is None:
        found = wrong[0].sentence if wrong else "nothing is wrong without a bug"
        return Played(scenario.__name__, "", found, not wrong, took_s)
    promise = BUGS[bug].breaks
    caught = [each.sentence for each in wrong if each.promise == promise]
    missed = "; ".join(["not caught by that", *(f"{each.promise}: {each.sentence}" for each in wrong)])
    return Played(bug, str(promise), caught[0] if caught else missed, bool(caught), took_s)


def _show(played: Sequence[Played]) -> None:
    table = Table("bug, or scenario without one", "promise", "caught by", "s")
    for each in played:
        table.add_row(*each.line, style=None if each.right else "bold red")
    bugs = [each for each in played if each.promise]
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    console.print(f"{sum(each.right for each in bugs)} of {len(bugs)} bugs caught, each by the promise that it breaks")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
