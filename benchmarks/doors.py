"""Cost of keys: orders over HTTP with the check of keys and quotas, and without, in turns."""

import asyncio

from benchmarks import orders_http
from benchmarks.lab import Lab, Sample
from benchmarks.orders_http import UNDER_WAY

BENCH = "keys, 1 worker"
APPS = {"with keys": "streams.app", "without keys": "benchmarks.open_doors"}
CPU = "CPU ms an order: worker"


def run(lab: Lab) -> None:
    """Measure both apps in turns, and take the worker's CPU time an order from each run."""
    for turn in range(lab.rounds):
        for subject, app in sorted(APPS.items(), reverse=turn % 2 == 1):
            lab.say(f"{BENCH}, round {turn + 1}: {subject}")
            once = f"{subject}, round {turn + 1}"
            asyncio.run(orders_http.measure(lab, once, 1, app=app))
            taken = [sample for sample in lab.samples if sample.bench == once]
            lab.samples = [sample for sample in lab.samples if sample.bench != once]
            for sample in taken:
                if sample.of in (CPU, "orders/s") and sample.subject.endswith(f"{UNDER_WAY[0]} under way"):
                    lab.add(Sample(BENCH, subject, sample.of, sample.value))
    lab.ratio(BENCH, CPU, "with keys", "without keys", "<= 1.03")
