"""Dispatch queues of the regions, pending timers, and the tasks of all workers."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web
from aiokafka.errors import KafkaError
from msgspec import UNSET, Meta, UnsetType

from exactly_once import PartitionNotOwned, SourceProgress, Task
from processors.dispatch import PendingDelivery, WaitingDriver
from streams.services import Services
from streams.views.api_view import ApiView
from streams.web.doorkeeper import is_forwarded, sender_of
from streams.web.forwarding import FORWARD_TIMEOUT_S
from streams.web.listing import PAGE_QUERY, Listing, limit_of
from streams.web.masking import masked
from streams.web.operation import operation
from streams.web.operators import sees_personal_data
from streams.web.problems import SOON, Problem
from streams.web.requests import parse_id, respond
from streams.worker.tables import shown
from topics.identity import OrderId, PartyId
from topics.places import Position
from topics.records import Instant, instant

T = TypeVar("T")
TIMERS = "timers"
HASH_TIMEOUT_S = 590.0
"""Time that another worker may take to read all its rows: a little less than `dabbawala tasks --hash` waits."""


class ShownWaitingDriver(msgspec.Struct, frozen=True):
    """A driver who waits for work."""

    driver: PartyId
    shift: int
    position: Position


class ShownPendingDelivery(msgspec.Struct, frozen=True):
    """A delivery that waits for a driver."""

    delivery: OrderId
    restaurant: PartyId
    attempt: int
    since: Instant


class RegionQueues(msgspec.Struct, frozen=True, kw_only=True):
    """Dispatch queues of a region: the counts of all rows, and the first rows."""

    region: PartyId
    drivers_waiting: int
    deliveries_pending: int
    drivers: list[ShownWaitingDriver]
    deliveries: list[ShownPendingDelivery]


class ShownTimer(msgspec.Struct, frozen=True, kw_only=True):
    """A pending timer."""

    timer: str
    due: Instant
    payload: str
    partition: int


class TimerPage(msgspec.Struct, frozen=True):
    """Page of the list of timers."""

    timers: list[ShownTimer]
    next: str | None


class WorkerState(msgspec.Struct, frozen=True):
    """State of a worker."""

    worker: str
    ready: bool
    counters: dict[str, int]


class TopicProgress(msgspec.Struct, frozen=True):
    """Progress of a task in one topic, in offsets."""

    next: int
    end: int
    lag: int


class TaskState(msgspec.Struct, frozen=True, kw_only=True):
    """State of a partition's task. Fields without a value for this state are absent."""

    partition: int
    state: str
    worker: str | None
    why: str | UnsetType = UNSET
    lag: int | UnsetType | None = UNSET
    commits: int | UnsetType = UNSET
    resets: int | UnsetType = UNSET
    calls: int | UnsetType = UNSET
    backlog: int | UnsetType = UNSET
    topics: dict[str, TopicProgress] | UnsetType = UNSET
    hash: str | UnsetType | None = UNSET


class TaskList(msgspec.Struct, frozen=True):
    """Workers and tasks."""

    workers: list[WorkerState]
    tasks: list[TaskState]


class Region(ApiView):
    """The dispatch queues of a region."""

    scans = True
    is_personal = True

    @operation("getRegion", {200: RegionQueues}, query={"limit": PAGE_QUERY["limit"]})
    async def get(self, request: web.Request, region: str) -> web.Response:
        """Count the waiting drivers and deliveries of a region, and list the first ones.

        `?limit=` is the number of drivers and of deliveries to list, from 1 to 1000, by default 100.

        - 200: `region`, `drivers_waiting` and `deliveries_pending` (counts), `drivers` (by id) and `deliveries` (the
          oldest first). A driver has `driver`, `shift` and `position`; a delivery has `delivery`, `restaurant`,
          `attempt` and `since`.
        - 404: the region is unknown: the catalogue has no restaurant in it, and no one waits.
        """
        parse_id(region, PartyId, "a region")
        limit = limit_of(request)
        if (answer := await self.services.forwarding.forward_to_owner(request, region)) is not None:
            return answer
        waiting = _waiting if sees_personal_data(request) else lambda row: _waiting(masked(row))
        drivers_waiting, drivers = await _counted(self.services, region, "driver", waiting, limit)
        deliveries_pending, deliveries = await _counted(self.services, region, "pending", _pending, limit)
        if not (drivers_waiting or deliveries_pending or _in_catalogue(self.services, region)):
            raise Problem(404, "unknown", f"the catalogue has no restaurant in {region}, and nobody waits there")
        found = RegionQueues(
            region=region,
            drivers_waiting=drivers_waiting,
            deliveries_pending=deliveries_pending,
            drivers=drivers,
            deliveries=deliveries,
        )
        return respond(200, found)


class Timers(ApiView):
    """All timers."""

    scans = True

    @operation("listTimers", {200: TimerPage}, query=PAGE_QUERY)
    async def get(self, request: web.Request) -> web.Response:
        """List the pending timers in the order in which they are due, page by page.

        - 200: `{"timers": [...], "next"}`. Each has `timer` (its id), `due` (time), `payload` and `partition`.
        """
        return await timers(self.services).answer(request)


class AllTasks(ApiView):
    """The tasks of all workers."""

    @operation(
        "listTasks",
        {200: TaskList},
        query={"hash": Annotated[bool, Meta(description="Whether to compute the hash of each task's tables.")]},
    )
    async def get(self, request: web.Request) -> web.Response:
        """List the partitions with their tasks, and the workers with their counters.

        With `?hash=true` each open task has the hash of its tables, for which it reads every row. A worker answers one
        such request at a time.

        - 200: `{"workers": [...], "tasks": [...]}`. A worker has `worker` (its URL), `ready` and `counters`. A task has
          `partition`, `worker` and `state`: `open`, `restoring`, `held` (`why` gives the reason), `unknown` (its worker
          does not answer) or `unassigned` (no worker is assigned). An open task also has `lag` and `topics` (records to
          read; `lag` is null if Kafka does not answer), `commits`, `resets`, `calls`, `backlog`, and `hash`. `hash` is
          null if the task was closed meanwhile.
        """
        if request.query.get("hash") != "true":
            return await self._list(request, hashed=False)
        with self.services.limits.hashes.take(sender_of(request).name):
            return await self._list(request, hashed=True)

    async def _list(self, request: web.Request, *, hashed: bool) -> web.Response:
        if is_forwarded(request):
            return respond(200, await _own(self.services, hashed))
        within_s = HASH_TIMEOUT_S if hashed else FORWARD_TIMEOUT_S
        others = asyncio.gather(
            *(_ask(self.services, request, worker, within_s) for worker in self.services.forwarding.other_workers())
        )
        own, answers = await asyncio.gather(_own(self.services, hashed), others)
        found = [own, *(answer for answer in answers if answer is not None)]
        tasks = {task["partition"]: task for each in found for task in each["tasks"]}
        owners = self.services.engine.owners()
        missing = {
            partition: owners.get(partition)
            for partition in range(self.services.engine.partitions)
            if partition not in tasks
        }
        for partition, owner in missing.items():
            tasks[partition] = {
                "partition": partition,
                "state": "unassigned" if owner is None else "unknown",
                "worker": owner and owner.rstrip("/"),
            }
        workers = [worker for each in found for worker in each["workers"]]
        return respond(200, {"workers": workers, "tasks": [tasks[partition] for partition in sorted(tasks)]})


async def _own(services: Services, hashed: bool) -> dict[str, list[dict[str, Any]]]:
    """Return this worker and its tasks."""
    try:
        reached = await services.engine.source_progress()
    except (TimeoutError, KafkaError):  # everything else is known without Kafka
        reached = {}
    here = services.forwarding.this_worker()
    tasks = [_open(services, here, task, reached.get(task.partition)) for task in _open_tasks(services)]
    if hashed:
        for shown in tasks:
            shown["hash"] = await _digest(services, shown["partition"])
    opened = {task["partition"] for task in tasks}
    opening = [
        _opening(services, here, partition)
        for partition in services.engine.owned_partitions()
        if partition not in opened
    ]
    worker = {"worker": here, "ready": services.engine.ready(), "counters": dict(services.engine.counters)}
    return {"workers": [worker], "tasks": tasks + opening}


def _open_tasks(services: Services) -> list[Task]:
    return [services.engine.tasks[partition] for partition in services.engine.open_partitions()]


def _open(services: Services, here: str, task: Task, reached: dict[str, SourceProgress] | None) -> dict[str, Any]:
    return {
        "partition": task.partition,
        "state": "open",
        "worker": here,
        "lag": None if reached is None else sum(topic.lag for topic in reached.values()),
        "commits": task.commits,
        "resets": services.engine.resets[task.partition],
        "calls": len(task.calls),
        "backlog": sum(task.backlog.values()),
        "topics": {topic: at._asdict() for topic, at in sorted((reached or {}).items())},
    }


def _opening(services: Services, here: str, partition: int) -> dict[str, Any]:
    shown = {"partition": partition, "state": "restoring", "worker": here}
    if partition in services.engine.clock_skewed:
        return {**shown, "state": "held", "why": services.engine.clock_skewed[partition]}
    return shown


async def _digest(services: Services, partition: int) -> str | None:
    """Return the hash of a task's tables; None if the task was closed meanwhile."""
    try:
        return await services.engine.digest(partition)
    except PartitionNotOwned:
        return None


async def _ask(
    services: Services, request: web.Request, worker: str, within_s: float
) -> dict[str, list[dict[str, Any]]] | None:
    """Return another worker and its tasks; None if it does not answer."""
    try:
        answer = await services.forwarding.forward(request, worker, within_s)
    except Problem:
        return None
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise Problem(503, "busy", f"{worker} is busy with another request for hashes; try again", headers=SOON)
    return msgspec.json.decode(answer.text or "") if answer.status == HTTPStatus.OK else None


async def _counted(
    services: Services, region: str, kind: str, show: Callable[[object], T], limit: int
) -> tuple[int, list[T]]:
    """Count the rows of a kind in a region, and return the first ones as shown. There may be very many rows."""
    count = 0
    first: list[T] = []
    async for _, row in services.tables.dispatch.pages(region, f"{region}/{kind}/"):
        count += 1
        if count <= limit:
            first.append(show(row))
    return count, first


def _in_catalogue(services: Services, region: str) -> bool:
    return any(restaurant.region == region for restaurant in services.catalogue.all())


def _waiting(row: object) -> ShownWaitingDriver:
    assert isinstance(row, WaitingDriver)
    return ShownWaitingDriver(row.driver, row.shift, row.position)


def _pending(row: object) -> ShownPendingDelivery:
    assert isinstance(row, PendingDelivery)
    return ShownPendingDelivery(row.delivery, row.restaurant, row.attempt, instant(row.since_ms))


def _timer(partition: int, row: tuple[bytes, bytes]) -> ShownTimer:
    timer, content = shown(TIMERS, *row)
    return ShownTimer(timer=timer, due=content["due"], payload=content["payload"], partition=partition)


def timers(services: Services) -> Listing[tuple[bytes, bytes]]:
    """Return the list of all timers, with the table and the form of its rows."""
    return Listing(
        services.engine,
        services.forwarding,
        TIMERS,
        "timers",
        lambda key, value: (key, value),
        _timer,
        cursor_of=bytes.hex,
        key_of=bytes.fromhex,
    )
