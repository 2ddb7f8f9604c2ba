"""CPU time of an order in the worker, by activity, from a sampling profiler."""

import asyncio
from pathlib import Path

import msgspec

from benchmarks import orders_http, orders_topics
from benchmarks.lab import Lab, Sample

BENCH = "where an order's time goes"
APP = "benchmarks.sampled"


def run(lab: Lab) -> None:
    """Measure one round without HTTP and one with it, with a sampler in the worker."""
    for flow in ("without HTTP", "with HTTP"):
        lab.say(f"{BENCH}, {flow}")
        file = lab.directory / f"samples {flow}"
        environment = {"BENCH_SAMPLES": str(file.absolute())}
        inner = f"{BENCH}, {flow}"
        if flow == "without HTTP":
            asyncio.run(orders_topics.measure(lab, inner, APP, BENCH_ANSWERED="1", **environment))
        else:
            asyncio.run(orders_http.measure(lab, inner, 1, APP, **environment))
        cpu_us = 1000 * lab.overall(inner, "CPU ms an order: worker")
        lab.samples = [sample for sample in lab.samples if sample.bench != inner]  # the sampler slows the worker
        for kind, us in _shares(file, cpu_us).items():
            lab.add(Sample(BENCH, kind, f"us an order {flow}", us))


def _shares(file: Path, cpu_us: float) -> dict[str, float]:
    counts = msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    total = sum(counts.values())
    return {kind: cpu_us * count / total for kind, count in sorted(counts.items(), key=lambda item: -item[1])}
