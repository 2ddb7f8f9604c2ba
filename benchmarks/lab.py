"""Where measurements are taken and kept: one broker, rounds in turns, medians and their spread, a table and a plot."""

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

from streams.embedded.kafka import EmbeddedKafka

LIB = Path(".dabbawala/kafka/lib")


class Sample(NamedTuple):
    """One measurement of one subject in one round. ``of`` names the figure with its unit."""

    bench: str
    subject: str
    of: str
    value: float


class Ratio(NamedTuple):
    """How one subject stands to another in the same run."""

    bench: str
    of: str
    one: str
    other: str
    wanted: str


class Target(NamedTuple):
    """What a figure is meant to be."""

    bench: str
    subject: str
    of: str
    wanted: str


@dataclass
class Lab:
    """One run of the benchmarks. ``rounds``: how often each subject is measured, in turns with the others."""

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
        """Progress."""
        self._console.print(f"[dim]{time.monotonic() - self.began:6.0f} s[/] {line}", highlight=False)

    def add(self, sample: Sample) -> None:
        """Keep one measurement."""
        self.samples.append(sample)
        self.say(f"        {sample.subject}: {shown(sample.value)} {sample.of}")

    def ratio(self, bench: str, of: str, one: str, other: str, wanted: str) -> None:
        """Have a ratio of medians in the results."""
        self.ratios.append(Ratio(bench, of, one, other, wanted))

    def target(self, bench: str, subject: str, of: str, wanted: str) -> None:
        """Have it said what a figure is meant to be."""
        self.targets.append(Target(bench, subject, of, wanted))

    def note(self, bench: str, text: str) -> None:
        """Have this said under a benchmark."""
        self.notes.append((bench, text))

    def values(self, bench: str, subject: str, of: str) -> list[float]:
        """All measurements of a figure."""
        return [s.value for s in self.samples if (s.bench, s.subject, s.of) == (bench, subject, of)]

    def median(self, bench: str, subject: str, of: str) -> float:
        """The median of a figure."""
        return statistics.median(self.values(bench, subject, of))

    def overall(self, bench: str, of: str) -> float:
        """The mean of a figure over all subjects and rounds."""
        return statistics.mean(s.value for s in self.samples if (s.bench, s.of) == (bench, of))

    def subdirectory(self, name: str) -> Path:
        """A fresh one."""
        made = self.directory / f"{name}-{len(list(self.directory.iterdir()))}"
        made.mkdir()
        return made


@contextmanager
def lab(directory: Path, rounds: int) -> Iterator[Lab]:
    """A lab with a broker of its own, killed at the end."""
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
    """CPU time of some processes since this was made."""

    def __init__(self, processes: dict[str, list[psutil.Process]]) -> None:
        self._processes = processes
        self._before = self._now()

    def used_s(self) -> dict[str, float]:
        """Seconds by name."""
        return {name: used - self._before[name] for name, used in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {
            name: sum(sum(process.cpu_times()[:2]) for process in processes)
            for name, processes in self._processes.items()
        }


def machine() -> str:
    """What this is measured on, in a line."""
    with open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    memory = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {system}, Python {platform.python_version()}"


def shown(value: float) -> str:
    """A figure with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
