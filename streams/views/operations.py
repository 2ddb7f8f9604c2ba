"""What operators look at: regions, timers, and the tasks of all workers."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from aiokafka.errors import KafkaError

from processors.dispatch import PendingDelivery, WaitingDriver
from streams import tables
from streams.app import app, catalogue, engine
from streams.engine import NotHere, Reached, Task
from streams.problems import Problem
from streams.views.ask import PROXY_S, SENT_ON, ApiView, elsewhere, named, other_workers, respond, send_on, this_worker
from streams.views.listing import Listing, limit_of
from topics.identity import PartyId
from topics.records import instant

TIMERS = "timers"
HASHED_S = 590.0
"""How long another worker may take to read all that it has: somewhat less than `dabbawala tasks --hash` waits."""


@app.page("/v1/regions/{region}")
class Region(ApiView):
    """Who waits for whom."""

    async def get(self, request: web.Request, region: str) -> web.Response:
        """How many drivers and deliveries wait, and the first `?limit=` of each; deliveries the oldest first.

        404 where nobody waits and the catalogue has no restaurant: no such region is known.
        """
        named(region, PartyId, "a region")
        limit = limit_of(request)
        if (answer := await elsewhere(request, region)) is not None:
            return answer
        drivers_waiting, drivers = await _counted(region, "driver", _waiting, limit)
        deliveries_pending, deliveries = await _counted(region, "pending", _pending, limit)
        if not (drivers_waiting or deliveries_pending or _in_catalogue(region)):
            raise Problem(404, "unknown", f"the catalogue has no restaurant in {region}, and nobody waits there")
        found = {
            "region": region,
            "drivers_waiting": drivers_waiting,
            "deliveries_pending": deliveries_pending,
            "drivers": drivers,
            "deliveries": deliveries,
        }
        return respond(200, found)


@app.page("/v1/timers")
class Timers(ApiView):
    """What is to come."""

    async def get(self, request: web.Request) -> web.Response:
        """In the order in which they are due."""
        return await timers.answer(request)


@app.page("/v1/tasks")
class AllTasks(ApiView):
    """The tasks of all workers."""

    async def get(self, request: web.Request) -> web.Response:
        """One entry a partition, also for one that no worker has open; and the workers, with their counters.

        With `?hash=true` the hash of each one's tables, for which every row is read.
        """
        hashed = request.query.get("hash") == "true"
        if SENT_ON in request.headers:
            return respond(200, await _own(hashed))
        within_s = HASHED_S if hashed else PROXY_S
        asked = asyncio.gather(*(_ask(request, worker, within_s) for worker in other_workers()))
        own, told = await asyncio.gather(_own(hashed), asked)
        found = [own, *(each for each in told if each is not None)]
        tasks = {task["partition"]: task for each in found for task in each["tasks"]}
        owners = engine.owners()
        missing = {partition: owners.get(partition) for partition in range(engine.partitions) if partition not in tasks}
        for partition, owner in missing.items():
            tasks[partition] = {
                "partition": partition,
                "state": "nobody's" if owner is None else "unknown",
                "worker": owner and owner.rstrip("/"),
            }
        workers = [worker for each in found for worker in each["workers"]]
        return respond(200, {"workers": workers, "tasks": [tasks[partition] for partition in sorted(tasks)]})


async def _own(hashed: bool) -> dict[str, list[dict[str, Any]]]:
    try:
        reached = await engine.reached()
    except (TimeoutError, KafkaError):  # the rest is known all the same
        reached = {}
    here = this_worker()
    tasks = [_open(here, task, reached.get(task.partition)) for task in _open_tasks()]
    if hashed:
        for shown in tasks:
            shown["hash"] = await _digest(shown["partition"])
    opened = {task["partition"] for task in tasks}
    opening = [_opening(here, partition) for partition in engine.owned_partitions() if partition not in opened]
    worker = {"worker": here, "ready": engine.ready(), "counters": dict(engine.counters)}
    return {"workers": [worker], "tasks": tasks + opening}


def _open_tasks() -> list[Task]:
    return [engine.tasks[partition] for partition in engine.open_partitions()]


def _open(here: str, task: Task, reached: dict[str, Reached] | None) -> dict[str, Any]:
    return {
        "partition": task.partition,
        "state": "open",
        "worker": here,
        "lag": None if reached is None else sum(topic.lag for topic in reached.values()),
        "commits": task.commits,
        "resets": engine.resets[task.partition],
        "calls": len(task.calls),
        "backlog": sum(task.backlog.values()),
        "topics": {topic: at._asdict() for topic, at in sorted((reached or {}).items())},
    }


def _opening(here: str, partition: int) -> dict[str, Any]:
    shown = {"partition": partition, "state": "restoring", "worker": here}
    return shown | ({"state": "held", "why": engine.held[partition]} if partition in engine.held else {})


async def _digest(partition: int) -> str | None:
    """None if it was closed meanwhile."""
    try:
        return await engine.digest(partition)
    except NotHere:
        return None


async def _ask(request: web.Request, worker: str, within_s: float) -> dict[str, list[dict[str, Any]]] | None:
    """What another worker says of its tasks; None if it says nothing."""
    try:
        answer = await send_on(request, worker, within_s=within_s)
    except Problem:
        return None
    return msgspec.json.decode(answer.text or "") if answer.status == HTTPStatus.OK else None


async def _counted(
    region: str, what: str, show: Callable[[object], dict[str, object]], limit: int
) -> tuple[int, list[dict[str, object]]]:
    """How many rows of that sort there are in a region, and the first ones, shown: there may be very many."""
    count = 0
    first: list[dict[str, object]] = []
    async for _, row in tables.dispatch.pages(region, f"{region}/{what}/"):
        count += 1
        if count <= limit:
            first.append(show(row))
    return count, first


def _in_catalogue(region: str) -> bool:
    return any(restaurant.region == region for restaurant in catalogue.all())


def _waiting(row: object) -> dict[str, object]:
    assert isinstance(row, WaitingDriver)
    return {"driver": row.driver, "shift": row.shift, "position": row.position}


def _pending(row: object) -> dict[str, object]:
    assert isinstance(row, PendingDelivery)
    return {
        "delivery": row.delivery,
        "restaurant": row.restaurant,
        "attempt": row.attempt,
        "since": instant(row.since_ms),
    }


def _timer(partition: int, row: tuple[bytes, bytes]) -> dict[str, object]:
    timer, shown = tables.shown(TIMERS, *row)
    return {"timer": timer, "due": shown["due"], "payload": shown["payload"], "partition": partition}


timers: Listing[tuple[bytes, bytes]] = Listing(
    TIMERS, "timers", lambda key, value: (key, value), _timer, cursor_of=bytes.hex, key_of=bytes.fromhex
)
