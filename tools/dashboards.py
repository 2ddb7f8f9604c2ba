"""The panels of the dashboards. `tools.monitoring` writes them for Grafana."""

from typing import Any, NamedTuple

SECONDS, BYTES, PERCENT, COUNT, PER_SECOND = "s", "bytes", "percentunit", "short", "ops"
"""Grafana's units."""


class Query(NamedTuple):
    """One expression of a panel. The legend names its series by their labels."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """One graph."""

    title: str
    unit: str
    queries: tuple[Query, ...]


class Dashboard(NamedTuple):
    """One dashboard. The uid never changes: links name it."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def _rate(metric: str, *labels: str) -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} (rate({metric}[$__rate_interval]))"


def _quantiles(metric: str, *labels: str, quantiles: tuple[float, ...] = (0.5, 0.99)) -> tuple[Query, ...]:
    by = ", ".join(("le", *labels))
    shown = " ".join(f"{{{{{label}}}}}" for label in labels)
    return tuple(
        Query(
            f"histogram_quantile({each}, sum by ({by}) (rate({metric}_bucket[$__rate_interval])))",
            f"p{each * 100:g} {shown}".rstrip(),
        )
        for each in quantiles
    )


def _sum(metric: str, *labels: str) -> Query:
    shown = " ".join(f"{{{{{label}}}}}" for label in labels)
    return Query(f"sum by ({', '.join(labels)}) ({metric})" if labels else f"sum({metric})", shown)


PLACED = Panel(
    "Orders placed and ended",
    PER_SECOND,
    (
        Query(_rate("dabbawala_orders_placed_total"), "placed"),
        Query(_rate("dabbawala_orders_ended_total", "outcome"), "{{outcome}}"),
    ),
)
OPEN = Panel("Open orders by status", COUNT, (_sum("dabbawala_orders", "status"),))
ATTENTION = Panel("Orders that need a person", COUNT, (_sum("dabbawala_orders_attention", "waits_for"),))
LATENESS = Panel(
    "Lateness of deliveries", SECONDS, _quantiles("dabbawala_order_lateness_seconds", quantiles=(0.5, 0.9))
)
LAG = Panel("Lag in seconds", SECONDS, (Query("max by (topic) (kafka_consumergroup_lag_seconds)", "{{topic}}"),))
REQUESTS = Panel(
    "HTTP requests by status",
    PER_SECOND,
    (
        Query(
            _rate("http_server_request_duration_seconds_count", "http_response_status_code"),
            "{{http_response_status_code}}",
        ),
    ),
)
TASKS = Panel(
    "Tasks by state",
    COUNT,
    (
        Query("count by (state) (dabbawala_task_state)", "{{state}}"),
        Query("max(dabbawala_partitions)", "partitions"),
    ),
)
BREAKERS = Panel("Parties that do not answer", COUNT, (_sum("dabbawala_party_breakers_open", "party"),))
DRIVERS = Panel("Drivers by state", COUNT, (_sum("dabbawala_drivers", "state"),))
LETTERS = Panel(
    "Dead letters",
    COUNT,
    (
        _sum("dabbawala_dead_letters_waiting"),
        Query(_rate("dabbawala_dead_letters_total", "origin"), "written a second: {{origin}}"),
    ),
)

DASHBOARDS = (
    Dashboard(
        "dabbawala-overview",
        "Dabbawala: overview",
        (
            PLACED,
            OPEN,
            ATTENTION,
            LATENESS,
            LAG,
            REQUESTS,
            TASKS,
            BREAKERS,
            DRIVERS,
            LETTERS,
            Panel(
                "Workers",
                COUNT,
                (
                    Query("sum(dabbawala_worker_ready)", "ready"),
                    Query("sum by (version) (dabbawala_build_info)", "{{version}}"),
                ),
            ),
            Panel(
                "CPU of workers", PERCENT, (Query("rate(process_cpu_seconds_total[$__rate_interval])", "{{instance}}"),)
            ),
        ),
    ),
    Dashboard(
        "dabbawala-orders",
        "Dabbawala: orders",
        (
            PLACED,
            OPEN,
            ATTENTION,
            Panel("Open orders by awaited event", COUNT, (_sum("dabbawala_orders", "waits_for"),)),
            Panel(
                "Transitions",
                PER_SECOND,
                (Query(_rate("dabbawala_order_transitions_total", "from", "to"), "{{from}} to {{to}}"),),
            ),
            Panel("Time in a stage", SECONDS, _quantiles("dabbawala_order_stage_duration_seconds", "stage")),
            Panel("Time from placing to the end", SECONDS, _quantiles("dabbawala_order_duration_seconds", "outcome")),
            LATENESS,
            Panel("Event streams", COUNT, (_sum("dabbawala_feed_listeners"),)),
            Panel(
                "Duration of HTTP requests by route",
                SECONDS,
                _quantiles("http_server_request_duration_seconds", "http_route", quantiles=(0.99,)),
            ),
            REQUESTS,
        ),
    ),
    Dashboard(
        "dabbawala-tasks",
        "Dabbawala: tasks",
        (
            TASKS,
            Panel(
                "Resets",
                COUNT,
                (
                    Query(
                        "sum by (partition) (increase(dabbawala_task_resets_total[$__rate_interval]))",
                        "task {{partition}}",
                    ),
                ),
            ),
            LAG,
            Panel("Lag in records", COUNT, (_sum("kafka_consumergroup_lag", "topic"),)),
            Panel(
                "Records",
                PER_SECOND,
                (
                    Query(_rate("dabbawala_records_total"), "applied"),
                    Query(_rate("dabbawala_records_forwarded_total"), "forwarded"),
                ),
            ),
            Panel("Records fetched and not applied", COUNT, (_sum("dabbawala_task_backlog_records", "partition"),)),
            Panel("From a record to its commit", SECONDS, _quantiles("dabbawala_record_e2e_latency_seconds", "topic")),
            Panel("Duration of commits", SECONDS, _quantiles("dabbawala_task_commit_duration_seconds")),
            Panel("Records of a commit", COUNT, _quantiles("dabbawala_task_commit_records")),
            Panel(
                "Restoring",
                COUNT,
                (
                    _sum("dabbawala_task_restore_remaining_records", "partition"),
                    Query(_rate("dabbawala_task_restore_records_total"), "records a second"),
                ),
            ),
            Panel("Duration of restores", SECONDS, _quantiles("dabbawala_task_restore_duration_seconds")),
            Panel(
                "Timers",
                COUNT,
                (
                    Query("sum(dabbawala_timers_pending)", "pending, in memory"),
                    Query("sum(dabbawala_timers_due)", "due"),
                    Query(_rate("dabbawala_timers_fired_total"), "fired a second"),
                ),
            ),
            Panel("Lateness of timers", SECONDS, _quantiles("dabbawala_timer_lateness_seconds")),
            Panel("Clock ahead of the broker's", SECONDS, (Query("dabbawala_clock_offset_seconds", "{{instance}}"),)),
            LETTERS,
            Panel(
                "Repairs",
                COUNT,
                (
                    Query("sum(dabbawala_transaction_markers_written_total)", "transaction markers written"),
                    Query("sum(dabbawala_sources_changed_total)", "topics recreated or cut"),
                    Query("sum(dabbawala_spans_dropped_total)", "spans dropped"),
                ),
            ),
            Panel("RocksDB", BYTES, (_sum("dabbawala_rocksdb_bytes", "kind"),)),
            Panel(
                "Disk",
                BYTES,
                (
                    Query("dabbawala_disk_free_bytes", "free {{instance}}"),
                    Query("dabbawala_disk_size_bytes", "size {{instance}}"),
                ),
            ),
            Panel("Memory", BYTES, (Query("process_resident_memory_bytes", "{{instance}}"),)),
            Panel(
                "Garbage collections",
                PER_SECOND,
                (Query(_rate("python_gc_collections_total", "generation"), "generation {{generation}}"),),
            ),
            Panel("Open files", COUNT, (Query("process_open_fds", "{{instance}}"),)),
        ),
    ),
    Dashboard(
        "dabbawala-calls",
        "Dabbawala: calls and parties",
        (
            BREAKERS,
            Panel(
                "Calls without an answer",
                COUNT,
                (
                    _sum("dabbawala_calls_waiting", "kind"),
                    Query("sum(dabbawala_calls_running)", "attempts under way"),
                ),
            ),
            Panel(
                "Attempts",
                PER_SECOND,
                (Query(_rate("dabbawala_call_attempts_total", "kind", "outcome"), "{{kind}} {{outcome}}"),),
            ),
            Panel("Duration of attempts", SECONDS, _quantiles("dabbawala_call_duration_seconds", "kind")),
        ),
    ),
    Dashboard(
        "dabbawala-drivers",
        "Dabbawala: drivers",
        (
            DRIVERS,
            Panel("Deliveries without a driver", COUNT, (_sum("dabbawala_deliveries_pending", "region"),)),
            Panel("Waiting drivers where deliveries wait", COUNT, (_sum("dabbawala_drivers_waiting", "region"),)),
            Panel(
                "Wait for a driver",
                SECONDS,
                (
                    Query(
                        "histogram_quantile(0.9, sum by (le) (rate(dabbawala_order_stage_duration_seconds_bucket"
                        '{stage="SCHEDULING_DELIVERY"}[$__rate_interval])))',
                        "p90",
                    ),
                ),
            ),
            LATENESS,
        ),
    ),
)
"""Every dashboard."""


def model(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard in the form that Grafana imports: two panels a row, the data source chosen by a variable."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["dabbawala"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "links": [{"type": "dashboards", "title": "Dabbawala", "tags": ["dabbawala"], "asDropdown": True}],
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": panel.title,
                "datasource": source,
                "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {
                        "refId": chr(65 + index),
                        "datasource": source,
                        "expr": query.expression,
                        "legendFormat": query.legend,
                    }
                    for index, query in enumerate(panel.queries)
                ],
            }
            for number, panel in enumerate(dashboard.panels)
        ],
    }
