"""`make bench`: run all benchmarks on one broker, and write the results as tables and a plot.

    python -m benchmarks [--rounds 5] [--only NAME ...] [--into benchmarks/RESULTS.md]
    python -m benchmarks --against DIR [--rounds 5] [--only NAME ...]

Run it alone on the machine; it takes about half an hour. An interrupted run writes the results so far. `--against`
measures this checkout and another in turns and prints the ratios (`benchmarks.compare`).
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    contest,
    doors,
    hop,
    hung,
    matching,
    one_order,
    orders_http,
    orders_topics,
    overload,
    rebalance,
    restart,
    sql,
    traced,
    where,
)
from benchmarks.compare import COMPARED, compare
from benchmarks.lab import Lab, lab, machine, shown
from benchmarks.plot import draw

BENCHES: dict[str, Callable[[Lab], None]] = {
    # benchmarks that wait for the disk come before those that write hundreds of megabytes
    "hop": hop.run,
    "one-order": one_order.run,
    "contest": contest.run,
    "matching": matching.run,
    "restart": restart.run,
    "rebalance": rebalance.run,
    "orders-topics": orders_topics.run,
    "orders-http": orders_http.run,
    "doors": doors.run,
    "traced": traced.run,
    "overload": overload.run,
    "hung": hung.run,
    "sql": sql.run,
    "where": where.run,
}


def main() -> None:
    """Run the benchmarks and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each benchmark (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=BENCHES, help="run only these benchmarks")
    parser.add_argument(
        "--into",
        type=Path,
        default=Path("benchmarks/RESULTS.md"),
        metavar="FILE",
        help="the results (default: %(default)s)",
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to compare with")
    arguments = parser.parse_args()
    if arguments.against:
        compare(arguments.against, arguments.rounds, arguments.only or COMPARED)
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, lab(Path(directory), arguments.rounds) as here:
        load = os.getloadavg()[0]
        try:
            if arguments.only != ["contest"]:
                contest.calibrate(here)
            for name in arguments.only or BENCHES:
                BENCHES[name](here)
        finally:
            if here.samples:
                picture = arguments.into.with_suffix(".svg")
                draw(here, picture)
                arguments.into.write_text(report(here, load, picture.name))
                here.say(f"written: {arguments.into}")


def report(lab: Lab, load: float, picture: str) -> str:
    """Return the results in Markdown."""
    lines = [
        "# Measurements",
        "",
        f"Written by `make bench` on {time.strftime('%Y-%m-%d', time.gmtime())} at {_commit()}: {machine()}. Broker, "
        f"workers, simulators and the benchmark share them. {lab.rounds} rounds in turns; the load average before was "
        f"{load:.1f}. The figures are medians, with the lowest and the highest round in brackets.",
        "",
        f"![]({picture})",
    ]
    for bench in dict.fromkeys(sample.bench for sample in lab.samples):
        lines += ["", f"## {bench[0].upper()}{bench[1:]}", "", *_table(lab, bench)]
        if bench != contest.BENCH and (rates := lab.values(contest.BENCH, contest.OURS.name, contest.RATE)):
            lines += [
                "",
                f"In this run the engine counted and forwarded {shown(statistics.median(rates))} records/s.",
            ]
        for ratio in (ratio for ratio in lab.ratios if ratio.bench == bench):
            value = lab.median(bench, ratio.one, ratio.of) / lab.median(bench, ratio.other, ratio.of)
            lines += ["", f"{ratio.one} / {ratio.other}, {ratio.of}: **{shown(value)}** (wanted {ratio.wanted})"]
        for target in (target for target in lab.targets if target.bench == bench):
            value = lab.median(bench, target.subject, target.of)
            lines += ["", f"{target.subject}, {target.of}: **{shown(value)}** (wanted {target.wanted})"]
        lines += [line for name, note in lab.notes if name == bench for line in ("", note)]
    return "\n".join(lines) + "\n"


def _table(lab: Lab, bench: str) -> list[str]:
    """Return a table with a row for each subject and a column for each figure."""
    samples = [sample for sample in lab.samples if sample.bench == bench]
    subjects, figures = (dict.fromkeys(names) for names in zip(*((s.subject, s.of) for s in samples), strict=True))
    rows = [["", *figures], ["---", *("---:" for _ in figures)]]
    for subject in subjects:
        rows.append([subject, *(_cell(lab.values(bench, subject, of)) for of in figures)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return shown(values[0])
    return f"{shown(statistics.median(values))} ({shown(min(values))} - {shown(max(values))})"


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "an unknown commit"


if __name__ == "__main__":
    main()
