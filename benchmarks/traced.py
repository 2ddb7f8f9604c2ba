"""Cost of traces: orders over HTTP without a collector, with 1 % of the orders traced and with all, in turns."""

import asyncio
from collections.abc import Mapping

from benchmarks import orders_http
from benchmarks.lab import Lab, Sample
from benchmarks.orders_http import UNDER_WAY
from tests.flow.collector import collecting

BENCH = "traces, 1 worker"
SHARES: Mapping[str, str] = {"off": "", "1 % traced": "0.01", "all traced": "1"}
"""Subject -> share of the orders that are traced; empty without a collector."""
CPU = "CPU ms an order: worker"


def run(lab: Lab) -> None:
    """Measure each share in turns, and take the worker's CPU time an order from each run."""
    for turn in range(lab.rounds):
        for subject, share in sorted(SHARES.items(), reverse=turn % 2 == 1):
            lab.say(f"{BENCH}, round {turn + 1}: {subject}")
            once = f"{subject}, round {turn + 1}"
            with collecting() as collector:
                named = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} if share else {}
                asyncio.run(orders_http.measure(lab, once, 1, **named, OTEL_TRACES_SAMPLER_ARG=share))
            taken = [sample for sample in lab.samples if sample.bench == once]
            lab.samples = [sample for sample in lab.samples if sample.bench != once]
            for sample in taken:
                if sample.of in (CPU, "orders/s") and sample.subject.endswith(f"{UNDER_WAY[0]} under way"):
                    lab.add(Sample(BENCH, subject, sample.of, sample.value))
    lab.ratio(BENCH, CPU, "1 % traced", "off", "<= 1.01")
    lab.ratio(BENCH, CPU, "all traced", "off", "<= 2")
