"""One run of measurements: a broker, the samples of all rounds, their medians and targets."""

import os
import platform
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.console import Console

from streams.local.kafka.broker import EmbeddedKafka

LIB = Path(".dabbawala/kafka/lib")


class Sample(NamedTuple):
    """One measurement of one subject in one round. ``of`` is the figure with its unit."""

    bench: str
    subject: str
    of: str
    value: float


class Ratio(NamedTuple):
    """Wanted ratio of two subjects in the same run."""

    bench: str
    of: str
    one: str
    other: str
    wanted: str


class Target(NamedTuple):
    """Wanted value of a figure."""

    bench: str
    subject: str
    of: str
    wanted: str


@dataclass
class Lab:
    """One run of the benchmarks. Each subject is measured ``rounds`` times, in turns with the others."""

    kafka: str
    broker: psutil.Process
    directory: Path
    rounds: int = 5
    samples: list[Sample] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(benchmark, a paragraph or table in Markdown)."""
    began: float = field(default_factory=time.monotonic)
    _console: Console = field(default_factory=lambda: Console(stderr=True))

    def say(self, line: str) -> None:
        """Print a line of progress."""
        self._console.print(f"[dim]{time.monotonic() - self.began:6.0f} s[/] {line}", highlight=False)

    def add(self, sample: Sample) -> None:
        """Keep one measurement."""
        self.samples.append(sample)
        self.say(f"        {sample.subject}: {shown(sample.value)} {sample.of}")

    def ratio(self, bench: str, of: str, one: str, other: str, wanted: str) -> None:
        """Add a ratio of medians to the results."""
        self.ratios.append(Ratio(bench, of, one, other, wanted))

    def target(self, bench: str, subject: str, of: str, wanted: str) -> None:
        """Add the wanted value of a figure to the results."""
        self.targets.append(Target(bench, subject, of, wanted))

    def note(self, bench: str, text: str) -> None:
        """Add a paragraph under a benchmark."""
        self.notes.append((bench, text))

    def values(self, bench: str, subject: str, of: str) -> list[float]:
        """Return all measurements of a figure."""
        return [s.value for s in self.samples if (s.bench, s.subject, s.of) == (bench, subject, of)]

    def median(self, bench: str, subject: str, of: str) -> float:
        """Return the median of a figure."""
        return statistics.median(self.values(bench, subject, of))

    def overall(self, bench: str, of: str) -> float:
        """Return the mean of a figure over all subjects and rounds."""
        return statistics.mean(s.value for s in self.samples if (s.bench, s.of) == (bench, of))

    def subdirectory(self, name: str) -> Path:
        """Make an empty directory."""
        made = self.directory / f"{name}-{len(list(self.directory.iterdir()))}"
        made.mkdir()
        return made


@contextmanager
def lab(directory: Path, rounds: int) -> Iterator[Lab]:
    """Start a broker for one run, and kill it at the end."""
    broker = EmbeddedKafka(directory, lib=LIB)
    try:
        kafka = broker.start()
        process = broker.process()
        assert process is not None
        runs = directory / "runs"
        runs.mkdir()
        yield Lab(kafka, process, runs, rounds)
    finally:
        broker.kill()


class Cpu:
    """CPU time of some processes since the construction of this object."""

    def __init__(self, processes: dict[str, list[psutil.Process]]) -> None:
        self._processes = processes
        self._before = self._now()

    def used_s(self) -> dict[str, float]:
        """Return the CPU seconds used since then, by name."""
        return {name: used - self._before[name] for name, used in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {
            name: sum(sum(process.cpu_times()[:2]) for process in processes)
            for name, processes in self._processes.items()
        }


def machine() -> str:
    """Return a line that describes this machine."""
    with open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {system}, Python {platform.python_version()}"


def shown(value: float) -> str:
    """Format a figure with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value at this share of the ordered values: 0.5 for the median."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
