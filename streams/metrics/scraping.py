"""The gauges of one worker, read from its parts when a server scrapes it, and the text of all its metrics.

What is read is in memory, except the ends of the topics (Kafka) and the sizes of files (in another thread). The text is
written in another thread too.
"""

import asyncio
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from aiokafka.errors import KafkaError
from prometheus_client import Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from exactly_once import Engine, SourceProgress, Task
from exactly_once.calls.destinations import HALF_OPEN, OPEN
from exactly_once.calls.rows import CALLS
from exactly_once.state.rocksdb import block_cache_bytes
from processors.call_kinds import CallKind
from processors.driver import STATUS as DRIVER_STATUS
from processors.order import FINAL_STAGES, STATUS, WAITS
from processors.spatial_index import DispatchIndex
from streams.feed.feed import Feed
from streams.metrics.indexes import OpenOrders, RowCount
from streams.metrics.instruments import Instruments, engine_families
from streams.metrics.observed import TaskMetrics
from streams.worker.tables import Tables

MAX_REGIONS = 100
"""Limit of the regions with their own series."""
OTHER_REGIONS = "other"
MAX_SAMPLES = 1000
"""Ends of a topic that are remembered for the age of its lag."""
RESTORING, HELD = "restoring", "held"
PAYMENT, RESTAURANT = "payment", "restaurant"


class LagAge:
    """Age of the oldest record that a task has still to apply, from what the ends of its topic were and when."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque()
        """Time at which an end was first seen, oldest first."""

    def age_s(self, now_s: float, progress: SourceProgress) -> float:
        """Return the age in seconds; 0 without lag."""
        if not self._ends or progress.end > self._ends[-1][1]:
            self._ends.append((now_s, progress.end))
        if len(self._ends) > MAX_SAMPLES:
            self._ends = deque(list(self._ends)[::2])
        while self._ends and (self._ends[0][1] <= progress.next or not progress.lag):
            self._ends.popleft()
        return now_s - self._ends[0][0] if self._ends else 0.0


class EngineCounters(Collector):
    """Counters that the engine keeps."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the counters as they are now."""
        resets = dict.fromkeys(self._engine.owned_partitions(), 0) | self._engine.resets
        return list(engine_families(dict(self._engine.counters), resets))


class Scraping:
    """Reads the gauges of one worker."""

    def __init__(
        self,
        instruments: Instruments,
        engine: Engine,
        tables: Tables,
        feed: Feed,
        observed: TaskMetrics,
        payment_url: str,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` returns seconds since some moment."""
        self._metrics = instruments
        self._engine = engine
        self._tables = tables
        self._feed = feed
        self._observed = observed
        self._payment_url = payment_url
        self._clock = clock
        self._ages: dict[tuple[str, int], LagAge] = {}
        self._turn = asyncio.Lock()
        instruments.add(EngineCounters(engine))
        instruments.add_process()
        instruments.partitions.set(engine.partitions)

    async def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        async with self._turn:
            progress = await self._progress()
            await asyncio.to_thread(self._read_disk)
            self._read_tasks()
            self._read_lag(progress)
            self._read_orders()
            self._read_dispatch()
            self._read_rest()
            return await asyncio.to_thread(generate_latest, self._metrics.registry)

    async def _progress(self) -> dict[int, dict[str, SourceProgress]]:
        try:
            return await self._engine.source_progress()
        except (TimeoutError, KafkaError):  # everything else is known without Kafka
            return {}

    @property
    def _tasks(self) -> list[Task]:
        return [task for task in self._engine.tasks.values() if task.alive]

    def _read_tasks(self) -> None:
        engine, metrics = self._engine, self._metrics
        for gauge in (metrics.task_state, metrics.backlog, metrics.restore_left):
            gauge.clear()
        states = {task.partition: task.state.value for task in [*engine.suspended.values(), *engine.tasks.values()]}
        opening = {partition: RESTORING for partition in engine.owned_partitions() if partition not in states}
        held = dict.fromkeys(engine.clock_skewed, HELD)
        for partition, state in {**opening, **states, **held}.items():
            metrics.task_state.labels(partition, state).set(1)
        for task in self._tasks:
            metrics.backlog.labels(task.partition).set(sum(task.backlog.values()))
        for partition, left in engine.restoring.items():
            metrics.restore_left.labels(partition).set(left)
        metrics.ready.set(engine.ready())
        metrics.timers_pending.set(sum(len(task.timers) for task in self._tasks))
        metrics.timers_due.set(sum(task.timers.due(task.now_ms) for task in self._tasks))

    def _read_lag(self, progress: Mapping[int, Mapping[str, SourceProgress]]) -> None:
        metrics, group, now_s = self._metrics, self._engine.app.conf.id, self._clock()
        metrics.lag.clear()
        metrics.lag_seconds.clear()
        found = {(topic, partition): at for partition, topics in progress.items() for topic, at in topics.items()}
        self._ages = {place: self._ages.get(place) or LagAge() for place in found}
        for (topic, partition), at in found.items():
            metrics.lag.labels(group, topic, partition).set(at.lag)
            age_s = self._ages[topic, partition].age_s(now_s, at)
            metrics.lag_seconds.labels(group, topic, partition).set(age_s)

    def _read_orders(self) -> None:
        metrics, name = self._metrics, self._tables.orders.name
        indexes = [index for task in self._tasks if isinstance(index := task.index(name), OpenOrders)]
        stages = sum((index.stages for index in indexes), Counter())
        attention = sum((index.attention for index in indexes), Counter())
        for stage in STATUS:
            if stage not in FINAL_STAGES:
                metrics.orders.labels(STATUS[stage].value, WAITS[stage].name).set(stages[stage])
        _set_all(metrics.attention, {**dict.fromkeys(_WAIT_NAMES, 0), **attention})

    def _read_dispatch(self) -> None:
        metrics, name = self._metrics, self._tables.dispatch.name
        indexes = [index for task in self._tasks if isinstance(index := task.index(name), DispatchIndex)]
        pending = Counter({region: n for index in indexes for region, n in index.pending_deliveries().items()})
        waiting = Counter({region: n for index in indexes for region, n in index.waiting_drivers.items()})
        kept = [region for region, _ in pending.most_common(MAX_REGIONS)]
        others = pending.keys() - set(kept)
        _set_all(metrics.deliveries_pending, {region: pending[region] for region in kept})
        _set_all(metrics.drivers_waiting, {region: waiting[region] for region in kept})
        if others:
            metrics.deliveries_pending.labels(OTHER_REGIONS).set(sum(pending[region] for region in others))
            metrics.drivers_waiting.labels(OTHER_REGIONS).set(sum(waiting[region] for region in others))

    def _read_rest(self) -> None:
        metrics, engine = self._metrics, self._engine
        calls, drivers = self._rows(CALLS), self._rows(self._tables.drivers.name)
        _set_all(metrics.calls_waiting, {kind.value: calls[kind.value] for kind in CallKind})
        _set_all(metrics.drivers, {state: drivers[state] for state in DRIVER_STATUS.values()})
        metrics.letters_waiting.set(self._rows(self._tables.dead_letters.name).total())
        metrics.calls_running.set(engine.calls.running)
        is_payment = [
            party.party.partition(" ")[2].startswith(self._payment_url)
            for party in engine.calls.destinations()
            if party.state in (OPEN, HALF_OPEN)
        ]
        _set_all(metrics.breakers_open, {PAYMENT: sum(is_payment), RESTAURANT: len(is_payment) - sum(is_payment)})
        metrics.clock_offset.set(self._observed.clock_ahead_ms / 1000)
        metrics.feed_listeners.set(self._feed.listener_count)

    def _rows(self, table: str) -> Counter[str]:
        indexes = [index for task in self._tasks if isinstance(index := task.index(table), RowCount)]
        return sum((index.counts for index in indexes), Counter())

    def _read_disk(self) -> None:
        directory = Path(self._engine.app.conf.datadir)
        usage = shutil.disk_usage(next(place for place in (directory, *directory.absolute().parents) if place.exists()))
        self._metrics.disk_free.set(usage.free)
        self._metrics.disk_size.set(usage.total)
        self._metrics.rocksdb.labels("files").set(_bytes_below(directory))
        self._metrics.rocksdb.labels("block_cache").set(block_cache_bytes())


_WAIT_NAMES = ("operator", *(wait.name for stage, wait in WAITS.items() if stage not in FINAL_STAGES))


def _set_all(gauge: Gauge, values: Mapping[str, int]) -> None:
    """Set the gauge for each value of its label, and drop other values."""
    gauge.clear()
    for label, value in values.items():
        gauge.labels(label).set(value)


def _bytes_below(directory: Path) -> int:
    """Return the size of all files below a directory. Files may go away meanwhile."""
    total = 0
    for file in directory.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total
