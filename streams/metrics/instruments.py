"""Every metric of a worker: its name, its meaning and its labels. docs/monitoring.md is generated from this module.

Names follow Prometheus: base units, `_total` for counters. Where a convention exists, the name is the conventional one,
so that dashboards of others fit.
"""

from collections.abc import Iterator
from importlib.metadata import version
from platform import python_version

from prometheus_client import CollectorRegistry, Gauge, GCCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from processors.call_kinds import CallKind
from processors.order import FINAL_STAGES
from streams.metrics.tallies import Histogram, Tally

MINUTES_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200)
"""Buckets for what takes a kitchen or a driver some time."""
SECONDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets for what a machine does."""
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
COMPLETED, UNSETTLED, RETRY = "completed", "unsettled", "retry"
"""Outcomes of an attempt of a call."""


class Instruments:
    """The metrics of one worker and their registry. Two workers of one process share none."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        gauge, counter, histogram = self._gauge, self._counter, self._histogram

        self.orders = gauge("orders", "Open orders by public status, and by what they wait for.", "status", "waits_for")
        self.attention = gauge(
            "orders_attention", "Reasons why an order needs a person, by what it waits for.", "waits_for"
        )
        self.placed = counter("orders_placed", "Orders placed.")
        self.ended = counter("orders_ended", "Orders that ended, by outcome.", "outcome")
        self.transitions = counter("order_transitions", "Stages that orders left and entered.", "from", "to")
        self.stage_duration = histogram(
            "order_stage_duration_seconds", "Time that orders spent in a stage before they left it.", MINUTES_S, "stage"
        )
        self.order_duration = histogram(
            "order_duration_seconds", "Time from placing an order to its end, by outcome.", MINUTES_S, "outcome"
        )
        self.lateness = histogram(
            "order_lateness_seconds",
            "Time by which deliveries came later than preparation and travel should have taken; 0 if in time.",
            MINUTES_S,
        )

        self.ready = gauge("worker_ready", "1 if every task of this worker is open.")
        self.partitions = gauge("partitions", "Partitions of the installation, so the number of tasks of all workers.")
        self.task_state = gauge(
            "task_state",
            "1 for the state of each task of this worker: running, created, suspended, broken, restoring or held.",
            "partition",
            "state",
        )
        self.backlog = gauge("task_backlog_records", "Records fetched and not applied yet.", "partition")
        self.commit_duration = histogram(
            "task_commit_duration_seconds", "Time of a commit, from the first record produced to the disk.", SECONDS_S
        )
        self.commit_records = histogram(
            "task_commit_records", "Records of a commit: outputs, and changed rows in the changelogs.", RECORDS
        )
        self.restore_left = gauge(
            "task_restore_remaining_records",
            "Changelog records that a task which opens still has to read.",
            "partition",
        )
        self.restored_records = counter("task_restore_records", "Changelog records read by tasks that opened.")
        self.restore_duration = histogram(
            "task_restore_duration_seconds", "Time from the assignment of a task until it was restored.", SECONDS_S
        )
        self.latency = histogram(
            "record_e2e_latency_seconds",
            "Time from a record's timestamp to its commit, for the oldest record of each commit.",
            SECONDS_S,
            "topic",
        )
        self.lag = Gauge(
            "kafka_consumergroup_lag",
            "Records that a task of this worker has still to read or apply.",
            ("consumergroup", "topic", "partition"),
            registry=self.registry,
        )
        self.lag_seconds = Gauge(
            "kafka_consumergroup_lag_seconds",
            "Age of the oldest of these records, as far as this worker has been asked since it opened the task.",
            ("consumergroup", "topic", "partition"),
            registry=self.registry,
        )
        self.timers_pending = gauge(
            "timers_pending", "Pending timers in memory: the earliest 1,000 to 2,000 of each task, or all of them."
        )
        self.timers_due = gauge("timers_due", "Timers that are due and have not fired.")
        self.timer_lateness = histogram("timer_lateness_seconds", "Time by which timers fired late.", SECONDS_S)
        self.clock_offset = gauge(
            "clock_offset_seconds",
            "Time by which a task's clock was ahead of the broker's at the last commit, and the time of the answer.",
        )

        self.calls_waiting = gauge("calls_waiting", "Calls without a final answer.", "kind")
        self.calls_running = gauge("calls_running", "Attempts of calls under way.")
        self.attempts = counter(
            "call_attempts",
            f"Attempts of calls: {COMPLETED}, {UNSETTLED} (a person looks) or {RETRY}.",
            "kind",
            "outcome",
        )
        self.call_duration = histogram("call_duration_seconds", "Time of an attempt of a call.", SECONDS_S, "kind")
        self.breakers_open = gauge(
            "party_breakers_open", "Destinations of calls that pause because they failed again and again.", "party"
        )

        self.letters_waiting = gauge("dead_letters_waiting", "Dead letters that nobody has replayed or discarded.")
        self.letters = counter(
            "dead_letters", "Dead letters written, by the topic of the record, or `timer` or `call`.", "origin"
        )
        self.drivers = gauge("drivers", "Drivers by public state.", "state")
        self.deliveries_pending = gauge(
            "deliveries_pending",
            "Deliveries without a driver, by region; regions beyond a hundred count as `other`.",
            "region",
        )
        self.drivers_waiting = gauge(
            "drivers_waiting", "Drivers who wait for work, in the regions that have a pending delivery.", "region"
        )
        self.feed_listeners = gauge("feed_listeners", "Event streams that follow the updates of orders.")

        self.rocksdb = gauge(
            "rocksdb_bytes", "Bytes of RocksDB: files on disk, and the cache of blocks in memory.", "kind"
        )
        self.disk_free = gauge("disk_free_bytes", "Bytes that are free where RocksDB has its files.")
        self.disk_size = gauge("disk_size_bytes", "Size of the file system where RocksDB has its files.")
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "Time of HTTP requests; an event stream counts when it ends.",
            SECONDS_S,
            ("http_request_method", "http_route", "http_response_status_code"),
        )
        self.add(self.requests)
        self.build = gauge("build_info", "1 for the release of this worker.", "version", "python_version")
        self.build.labels(version("dabbawala"), python_version()).set(1)
        self._start_at_zero()

    def add(self, collector: Collector) -> None:
        """Add metrics that are kept elsewhere."""
        self.registry.register(collector)

    def add_process(self) -> None:
        """Add the conventional metrics of the process and of Python's garbage collector."""
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _start_at_zero(self) -> None:
        """Make the series whose labels are known: a rate needs a value before the first event."""
        for stage in FINAL_STAGES:
            self.ended.add(stage.value, count=0)
            self.order_duration.start(stage.value)
        for kind in CallKind:
            self.call_duration.start(kind.value)
            for outcome in (COMPLETED, UNSETTLED, RETRY):
                self.attempts.add(kind.value, outcome, count=0)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"dabbawala_{name}", meaning, labels, registry=self.registry)

    def _counter(self, name: str, meaning: str, *labels: str) -> Tally:
        tally = Tally(f"dabbawala_{name}", meaning, labels)
        self.add(tally)
        return tally

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        histogram = Histogram(f"dabbawala_{name}", meaning, buckets, labels)
        self.add(histogram)
        return histogram

    def described(self) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
        """Yield name, type, meaning and labels of each metric of this module."""
        for metric in vars(self).values():
            if isinstance(metric, Gauge):
                yield metric._name, "gauge", metric._documentation, tuple(metric._labelnames)
            elif isinstance(metric, Tally | Histogram):
                yield metric.name, metric.kind, metric.meaning, metric.labels


ENGINE_COUNTERS = {
    "records": ("dabbawala_records", "Records applied."),
    "timers_fired": ("dabbawala_timers_fired", "Timers fired."),
    "forwarded": ("dabbawala_records_forwarded", "Records that lay in the wrong partition and were sent on."),
    "markers_written": ("dabbawala_transaction_markers_written", "Markers written for transactions without their end."),
    "sources_not_as_left": ("dabbawala_sources_changed", "Topics that were recreated or had lost records."),
    "spans_dropped": ("dabbawala_spans_dropped", "Spans of traces that could not be exported."),
}
"""Name in `Engine.counters` -> name and meaning of the metric."""
RESETS = ("dabbawala_task_resets", "Times that a task broke and was opened again.", "partition")


def engine_families(counters: dict[str, int], resets: dict[int, int]) -> Iterator[CounterMetricFamily]:
    """Yield the counters that the engine keeps."""
    for name, (metric, meaning) in ENGINE_COUNTERS.items():
        yield CounterMetricFamily(metric, meaning, value=counters.get(name, 0))
    name, meaning, label = RESETS
    family = CounterMetricFamily(name, meaning, labels=(label,))
    for partition, count in sorted(resets.items()):
        family.add_metric((str(partition),), count)
    yield family
