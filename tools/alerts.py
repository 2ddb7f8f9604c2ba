"""The alerts of an installation. docs/runbook.md has a section for each; `tools.monitoring` writes them in YAML."""

from typing import NamedTuple

PAGE, TICKET = "page", "ticket"
"""Severities: a person has to act now, or on the next working day."""


class Alert(NamedTuple):
    """One alerting rule. The summary may use the labels and the value of the expression."""

    name: str
    expression: str
    lasts: str
    """Time for which the expression has to hold (`for`)."""
    severity: str
    summary: str

    @property
    def runbook_url(self) -> str:
        """Section of the runbook."""
        return f"docs/runbook.md#{self.name.lower()}"


def _p(quantile: float, metric: str, window: str, *labels: str) -> str:
    """Return the quantile of a histogram over a window."""
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({quantile}, sum by ({by}) (rate({metric}_bucket[{window}])))"


ALERTS = (
    Alert(
        "OrdersNotProgressing",
        'sum(dabbawala_orders{waits_for=~"charge|acceptance|driver"}) > 0 '
        "unless on () sum(rate(dabbawala_order_transitions_total[10m])) > 0",
        "5m",
        PAGE,
        "{{ $value }} orders wait for a payment, a restaurant or a driver, and no order has moved for 10 minutes.",
    ),
    Alert(
        "RequestsFailing",
        'sum(rate(http_server_request_duration_seconds_count{http_response_status_code=~"5.."}[5m])) '
        "/ sum(rate(http_server_request_duration_seconds_count[5m])) > 0.05",
        "5m",
        PAGE,
        "{{ $value | humanizePercentage }} of the HTTP requests are answered with a server error.",
    ),
    Alert(
        "PaymentProviderDown",
        'sum(dabbawala_party_breakers_open{party="payment"}) > 0',
        "2m",
        PAGE,
        "The payment provider does not answer: new orders are not charged, and refunds wait.",
    ),
    Alert(
        "PartitionNotOpen",
        "max(dabbawala_partitions) "
        '- (count(sum by (partition) (dabbawala_task_state{state="running"})) or vector(0)) > 0',
        "1m",
        PAGE,
        "{{ $value }} partitions are not open in any worker: their orders stand still.",
    ),
    Alert(
        "WorkerAbsent",
        'up{job="dabbawala"} == 0 or absent(up{job="dabbawala"})',
        "2m",
        PAGE,
        "The worker {{ $labels.instance }} does not answer, or there is none to scrape.",
    ),
    Alert(
        "TaskHeld",
        'sum by (instance) (dabbawala_task_state{state="held"}) > 0',
        "1m",
        PAGE,
        "{{ $value }} tasks of {{ $labels.instance }} wait because its clock differs from the broker's.",
    ),
    Alert(
        "LagHigh",
        "max by (topic, partition) (kafka_consumergroup_lag_seconds) > 60",
        "5m",
        PAGE,
        "Records of {{ $labels.topic }}/{{ $labels.partition }} have waited for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "NoDrivers",
        "sum by (region) (dabbawala_deliveries_pending) > 0 "
        "unless on (region) sum by (region) (dabbawala_drivers_waiting) > 0",
        "5m",
        TICKET,
        "{{ $value }} deliveries of {{ $labels.region }} wait for a driver, and no driver waits there.",
    ),
    Alert(
        "OrdersNeedAttention",
        "sum by (waits_for) (dabbawala_orders_attention) > 0",
        "5m",
        TICKET,
        "{{ $value }} orders need a person: they wait for {{ $labels.waits_for }}.",
    ),
    Alert(
        "OrdersLate",
        f"{_p(0.9, 'dabbawala_order_lateness_seconds', '15m')} > 900",
        "10m",
        TICKET,
        "One delivery in ten is at least {{ $value | humanizeDuration }} late.",
    ),
    Alert(
        "RestaurantsDown",
        'sum(dabbawala_party_breakers_open{party="restaurant"}) > 0',
        "10m",
        TICKET,
        "{{ $value }} restaurants do not answer: their orders wait.",
    ),
    Alert(
        "DeadLettersWaiting",
        "sum(dabbawala_dead_letters_waiting) > 0",
        "15m",
        TICKET,
        "{{ $value }} records could not be applied, and nobody has looked at them.",
    ),
    Alert(
        "CommitSlow",
        f"{_p(0.99, 'dabbawala_task_commit_duration_seconds', '5m', 'instance')} > 1",
        "5m",
        TICKET,
        "One commit in a hundred of {{ $labels.instance }} takes {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TaskResets",
        "sum by (instance) (increase(dabbawala_task_resets_total[10m])) > 3",
        "1m",
        TICKET,
        "Tasks of {{ $labels.instance }} broke {{ $value | humanize }} times in 10 minutes.",
    ),
    Alert(
        "TimersLate",
        f"{_p(0.99, 'dabbawala_timer_lateness_seconds', '5m', 'instance')} > 1",
        "10m",
        TICKET,
        "One timer in a hundred of {{ $labels.instance }} fires {{ $value | humanizeDuration }} late.",
    ),
    Alert(
        "DiskFilling",
        "predict_linear(dabbawala_disk_free_bytes[1h], 4 * 3600) < 0 "
        "and dabbawala_disk_free_bytes < 0.3 * dabbawala_disk_size_bytes",
        "10m",
        PAGE,
        "The disk of {{ $labels.instance }} will be full in less than 4 hours.",
    ),
    Alert(
        "SpansDropped",
        "sum by (instance) (rate(dabbawala_spans_dropped_total[10m])) > 0",
        "10m",
        TICKET,
        "{{ $labels.instance }} loses spans of traces: the collector does not keep up.",
    ),
)
"""Alerts, symptoms of customers first."""
