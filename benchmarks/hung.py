"""Latency of orders while another restaurant hangs, answers 500 or cuts connections.

Orders arrive at a steady rate, far below the capacity of a worker. Each is followed from POST to the committed
DELIVERED. A round starts with all restaurants answering. Then one restaurant has each fault in turn. Then it recovers
and the orders that waited for it are delivered. The round ends with all restaurants answering again, so that other load
on the machine affects both states alike. All points of sale share one host, or each has its own.
"""

import asyncio
from pathlib import Path

import httpx
import msgspec

from benchmarks.lab import Lab, Sample, quantile
from benchmarks.orders_http import Following, all_wait
from benchmarks.topics_only import made
from simulators.city import KITCHENS
from tests.support.stack import Stack, installed
from topics.orders import Placed
from topics.restaurants import Restaurant

BENCH = "one restaurant hangs"
HUNG = "ballard-slice"
WELL = "all answer"
FAULTS = {"silent": "one is silent", "500": "one answers 500", "cut": "one cuts connections"}
HOSTS = ("one host", "a host each")
RATE, ORDERS = 25.0, 500
"""Orders a second, and orders in each state."""
DRIVERS = 100
WARM_UP, WARM_UP_AT_ONCE = 200, 20
WITHIN_S = 240.0
P50, P99 = "ms an order of another, p50", "ms an order of another, p99"


def run(lab: Lab) -> None:
    """Measure both arrangements of hosts, in turns."""
    for turn in range(max(1, (lab.rounds + 1) // 2)):
        for hosts in HOSTS:
            lab.say(f"{BENCH}, round {turn + 1}: {hosts}")
            asyncio.run(_measure(lab, hosts))
    for hosts in HOSTS:
        for state in FAULTS.values():
            lab.ratio(BENCH, P99, f"{hosts}, {state}", f"{hosts}, {WELL}", "<= 1.2")
    lab.note(
        BENCH,
        f"{RATE:g} orders a second for {len(KITCHENS)} restaurants, {ORDERS} in each state. The figures exclude the "
        "orders of the faulty restaurant; all of them were delivered after it recovered.",
    )


async def _measure(lab: Lab, hosts: str) -> None:
    directory = lab.subdirectory("hung")
    with installed(lab.kafka, directory.name, directory, 0.0) as stack:
        stack.start_payment()
        stack.start_pos("--host", "0.0.0.0")
        stack.start_worker(DABBAWALA_CATALOGUE=str(_catalogue(stack, apart=hosts != HOSTS[0])))
        stack.start_drivers(DRIVERS)
        async with Following(stack) as following, httpx.AsyncClient(base_url=stack.pos_url) as pos:
            await all_wait(stack, DRIVERS)
            await following.run(made("warm", WARM_UP), WARM_UP_AT_ONCE)
            waiting = await _state(lab, following, f"{hosts}, {WELL}")
            for fault, state in FAULTS.items():
                await pos.delete("/faults")
                (await pos.post("/faults", json={f"{fault}@{HUNG}": 1})).raise_for_status()
                waiting += await _state(lab, following, f"{hosts}, {state}")
            await pos.delete("/faults")
            async with asyncio.timeout(WITHIN_S):
                await asyncio.gather(*waiting)
            await asyncio.gather(*await _state(lab, following, f"{hosts}, {WELL}"))


async def _state(lab: Lab, following: Following, subject: str) -> list["asyncio.Task[float]"]:
    """Measure one state, and return the orders of the faulty restaurant, which are delivered later."""
    others, hung = await _placed(following, made(f"run-{len(lab.samples)}", ORDERS))
    async with asyncio.timeout(WITHIN_S):
        took = await asyncio.gather(*others)
    lab.add(Sample(BENCH, subject, P50, 1000 * quantile(took, 0.5)))
    lab.add(Sample(BENCH, subject, P99, 1000 * quantile(took, 0.99)))
    return hung


async def _placed(
    following: Following, orders: list[Placed]
) -> tuple[list["asyncio.Task[float]"], list["asyncio.Task[float]"]]:
    """Place orders at the rate; return those of the other restaurants and those of the faulty one."""
    others: list[asyncio.Task[float]] = []
    hung: list[asyncio.Task[float]] = []
    began = asyncio.get_running_loop().time()
    for number, order in enumerate(orders):
        await asyncio.sleep(began + number / RATE - asyncio.get_running_loop().time())
        group = hung if order.restaurant == HUNG else others
        group.append(asyncio.create_task(following.delivered(order)))
    return others, hung


def _catalogue(stack: Stack, *, apart: bool) -> Path:
    """Write the catalogue of the city, all at the port of the simulator; `apart`: each at a different local address."""
    city = msgspec.json.decode((stack.directory / "catalogue.json").read_bytes(), type=list[Restaurant])
    moved = [
        msgspec.structs.replace(
            restaurant, pos_url=restaurant.pos_url.replace("127.0.0.1", f"127.0.0.{number if apart else 1}")
        )
        for number, restaurant in enumerate(city, 2)
    ]
    file = stack.directory / "hosts.json"
    file.write_bytes(msgspec.json.encode(moved))
    return file
