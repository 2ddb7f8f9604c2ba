"""The share of orders that are traced."""

from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from streams.settings import TRACED_SHARE, Settings, WrongSetting
from streams.tracing.ids import trace_id
from streams.tracing.spans import OFF, Tracing

COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
ORDERS = [f"my-shop:{number}" for number in range(2_000)]


def sampled(share: float) -> list[bool]:
    tracing = Tracing(share, lambda _: None)
    return [tracing.is_sampled(order) for order in ORDERS]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_orders_are_chosen_by_the_rule_of_opentelemetry(share: float) -> None:
    theirs = TraceIdRatioBased(share)
    chosen = [theirs.should_sample(None, trace_id(order), "").decision for order in ORDERS]
    assert sampled(share) == [decision is Decision.RECORD_AND_SAMPLE for decision in chosen]


def test_a_tenth_of_the_orders_is_about_a_tenth() -> None:
    assert 0.07 < sum(sampled(0.1)) / len(ORDERS) < 0.13


def test_tracing_is_off_without_a_collector() -> None:
    assert not OFF.is_on
    assert not OFF.is_sampled("my-shop:1")
    assert OFF.traceparent("my-shop:1", 1).endswith("-00")


@pytest.mark.parametrize(
    ("variables", "share"),
    [
        ({}, 0.0),
        (COLLECTOR, TRACED_SHARE),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, TRACED_SHARE),
        ({**COLLECTOR, "OTEL_TRACES_SAMPLER_ARG": "0.5"}, 0.5),
        ({**COLLECTOR, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, 0.5),
        ({**COLLECTOR, "OTEL_TRACES_SAMPLER": "always_on"}, 1.0),
        ({**COLLECTOR, "OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
        ({**COLLECTOR, "OTEL_SDK_DISABLED": "true"}, 0.0),
        ({**COLLECTOR, "OTEL_TRACES_EXPORTER": "none"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, 0.0),
    ],
)
def test_the_share_follows_from_the_standard_variables(variables: dict[str, str], share: float) -> None:
    assert Settings.from_environment(variables).traced_share == share


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(WrongSetting, match=f"^{name}='{value}': it must be "):
        Settings.from_environment({**COLLECTOR, name: value})


def test_a_worker_without_a_collector_imports_no_sdk(tmp_path: Any) -> None:
    import subprocess
    import sys

    code = "import sys, streams.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=".")
    assert done.stdout.strip() == "[]", done.stderr
