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
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB
from tests.planted.catalogue import BUGS
from tests.planted.scenarios import SCENARIOS, Scenario, play

NONE = "-"


def main(names: list[str]) -> int:
    """Play all; the exit status."""
    table, missed = Table("bug", "promise", "caught by", "s"), 0
    with tempfile.TemporaryDirectory() as directory:
        broker = EmbeddedKafka(Path(directory), lib=LIB, progress=print)
        try:
            kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or broker.start()
            for scenario, bug in _wanted(names):
                began = time.monotonic()
                wrong = asyncio.run(play(kafka, Path(directory), scenario, bug))
                took = f"{time.monotonic() - began:.0f}"
                caught = [each.sentence for each in wrong if bug is None or each.promise == BUGS[bug].breaks]
                missed += bool(caught) if bug is None else not caught
                fine = "nothing, as it should be" if bug is None else f"nobody; {len(wrong)} of other promises"
                promise = NONE if bug is None else str(BUGS[bug].breaks)
                table.add_row(bug or f"none: {scenario.__name__}", promise, caught[0] if caught else fine, took)
                print(f"{bug or scenario.__name__}: {len(caught)} in {took} s", flush=True)
        finally:
            broker.kill()
    Console(width=200).print(table)
    return int(missed > 0)


def _wanted(names: list[str]) -> Iterator[tuple[Scenario, str | None]]:
    """Each scenario without a bug, then with each of its bugs."""
    for scenario, bugs in SCENARIOS.items():
        if wanted := [bug for bug in bugs if not names or bug in names]:
            yield scenario, None
            yield from ((scenario, bug) for bug in wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
