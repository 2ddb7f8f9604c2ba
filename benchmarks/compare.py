"""Comparison of two checkouts, this one and a baseline, measured in turns on one machine.

    python -m benchmarks --against DIR [--rounds 5] [--only NAME ...]

Each round runs `python -m benchmarks --rounds 1` in either checkout, with its own code, broker and jars. The order
alternates, so a machine that slows down affects both checkouts alike.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.lab import shown

ROOT = Path(__file__).parent.parent
COMPARED = ("contest", "orders-topics", "orders-http", "one-order")
"""Benchmarks that are compared by default."""

Figure = tuple[str, str, str]
"""Benchmark, subject, figure with its unit."""


def compare(against: Path, rounds: int, names: Sequence[str]) -> None:
    """Measure both checkouts in turns and print the ratio of their medians; ``SystemExit`` if one run fails."""
    checkouts = {"baseline": against.resolve(), "this": ROOT}
    found: dict[str, dict[Figure, list[float]]] = {name: defaultdict(list) for name in checkouts}
    for turn in range(rounds):
        for name in names:
            for checkout in sorted(checkouts, reverse=turn % 2 == 1):
                print(f"round {turn + 1} of {rounds}: {name}, {checkout}", file=sys.stderr, flush=True)
                for figure, value in _measure(checkouts[checkout], name):
                    found[checkout][figure].append(value)
    print("| benchmark | subject | figure | baseline | this | this / baseline |\n|---|---|---|---:|---:|---:|")
    for figure in (figure for figure in found["baseline"] if figure in found["this"]):
        before, after = (statistics.median(found[checkout][figure]) for checkout in ("baseline", "this"))
        ratio = f"{after / before:.2f}" if before else ""
        print(f"| {' | '.join(figure)} | {shown(before)} | {shown(after)} | {ratio} |")


def _measure(checkout: Path, name: str) -> list[tuple[Figure, float]]:
    """Run one benchmark once in a checkout and return its figures."""
    python = checkout / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        into = Path(directory) / "results.md"
        options = ("--rounds", "1", "--only", name, "--into", into)
        done = subprocess.run(
            [python if python.exists() else sys.executable, "-m", "benchmarks", *options],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{name} failed in {checkout} with exit status {done.returncode}.")
        return list(figures(into.read_text()))


def figures(results: str) -> Iterator[tuple[Figure, float]]:
    """Yield the figures in a file of results: the median of each cell."""
    bench, columns = "", list[str]()
    for line in results.splitlines():
        if line.startswith("## "):
            bench, columns = line[3:], []
        elif not line.startswith("|"):
            columns = []
        elif cells := [cell.strip() for cell in line.strip("|").split("|")]:
            if not columns:
                columns = cells[1:]
                continue
            for column, cell in zip(columns, cells[1:], strict=False):
                if value := re.match(r"[\d,.]+(?:e[+-]?\d+)?", cell):
                    yield (bench, cells[0], column), float(value.group().replace(",", ""))
