"""Orders without HTTP: payment, restaurants and drivers answer on the topics (`benchmarks.topics_only`)."""

import asyncio
from typing import Any

import psutil

from benchmarks.lab import Cpu, Lab, Sample, quantile
from benchmarks.topics_only import Outside, made
from tests.support.stack import Stack, installed

BENCH = "whole flow without HTTP"
APP = "benchmarks.answered"
PARTITIONS = 4
DRIVERS = 3000
WARM_UP, ORDERS = 3000, 10_000
UNDER_WAY = 2000
WITHIN_S = 180.0


def run(lab: Lab) -> None:
    """Measure one worker in each round."""
    for turn in range(lab.rounds):
        lab.say(f"{BENCH}, round {turn + 1} of {lab.rounds}")
        asyncio.run(measure(lab, BENCH, APP))
    lab.target(BENCH, "1 worker", "orders/s", ">= 1,500")


async def measure(lab: Lab, bench: str, app: str, **environment: Any) -> None:
    """Measure one round with this app as the worker."""
    directory = lab.subdirectory("topics")
    with installed(lab.kafka, directory.name, directory, 0.0) as stack:
        worker = stack.start_worker(app=app, **environment)
        async with Outside(lab.kafka, stack.name, PARTITIONS, DRIVERS) as outside:
            await outside.bring_drivers()
            await _all_wait(stack)
            await outside.run(made("warm", WARM_UP), WARM_UP, UNDER_WAY, WITHIN_S)
            outside.took.clear()
            orders = made("run", ORDERS)
            processes = {"worker": psutil.Process(worker.pid), "broker": lab.broker, "outside": psutil.Process()}
            cpu = Cpu({name: [process] for name, process in processes.items()})
            seconds = await outside.run(orders, ORDERS, UNDER_WAY, WITHIN_S)
        lab.add(Sample(bench, "1 worker", "orders/s", ORDERS / seconds))
        lab.add(Sample(bench, "1 worker", "ms an order, p50", 1000 * quantile(outside.took, 0.5)))
        for name, used in cpu.used_s().items():
            lab.add(Sample(bench, "1 worker", f"CPU ms an order: {name}", 1000 * used / ORDERS))


async def _all_wait(stack: Stack) -> None:
    async with asyncio.timeout(60):
        while True:
            rows = (await asyncio.to_thread(stack.get, "/table/dispatch/", limit="10000"))["rows"]
            if sum("/driver/" in row["key"] for row in rows) >= DRIVERS:
                return
            await asyncio.sleep(0.1)
