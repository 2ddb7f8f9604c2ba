"""Alerts fire when they should and only then; their runbook and the files of deploy/ are as their sources say."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import yaml

from streams.cli.registry import load
from tests.support.promtool import run_promtool
from tests.support.stack import ROOT
from tools.alerts import ALERTS, PAGE, TICKET
from tools.dashboards import DASHBOARDS
from tools.monitoring import FILES, main, metrics, stale

Series = dict[str, str]
"""Series in the notation of promtool -> its values, one a minute."""
BUCKETS = 'dabbawala_{name}_bucket{{instance="w1",le="{le}"}}'


class Case(NamedTuple):
    """Series for which an alert fires within the minutes, and series for which it does not."""

    fires: Series
    silent: Series
    minutes: int = 40


def slow(name: str, fast: float, most: str, *, is_slow: bool) -> Series:
    """Return a histogram with 100 observations a minute, that are all slow or all fast."""
    return {
        BUCKETS.format(name=name, le=fast): "0+0x60" if is_slow else "0+100x60",
        BUCKETS.format(name=name, le=most): "0+100x60",
        BUCKETS.format(name=name, le="+Inf"): "0+100x60",
    }


MOVES = 'dabbawala_order_transitions_total{from="CREATED",to="ASKED"}'
REQUESTS = 'http_server_request_duration_seconds_count{{http_response_status_code="{status}"}}'
CHARGING = 'dabbawala_orders{status="CREATED",waits_for="charge"}'
CASES = {
    "OrdersNotProgressing": Case(
        {CHARGING: "3x60", MOVES: "5x60"},
        {CHARGING: "3x60", MOVES: "0+1x60", 'dabbawala_orders{status="SCHEDULED",waits_for="start"}': "9x60"},
    ),
    "RequestsFailing": Case(
        {REQUESTS.format(status=201): "0+90x60", REQUESTS.format(status=503): "0+10x60"},
        {REQUESTS.format(status=201): "0+99x60", REQUESTS.format(status=503): "0+1x60"},
    ),
    "PaymentProviderDown": Case(
        {'dabbawala_party_breakers_open{party="payment"}': "1x60"},
        {
            'dabbawala_party_breakers_open{party="payment"}': "0 1 0x60",
            'dabbawala_party_breakers_open{party="restaurant"}': "1x60",
        },
    ),
    "PartitionNotOpen": Case(
        {"dabbawala_partitions": "2x60", 'dabbawala_task_state{partition="0",state="running"}': "1x60"},
        {
            "dabbawala_partitions": "2x60",
            'dabbawala_task_state{partition="0",state="running"}': "1x60",
            'dabbawala_task_state{partition="1",state="running"}': "1x60",
        },
    ),
    "WorkerAbsent": Case(
        {'up{job="dabbawala",instance="w1"}': "1 0x60", 'up{job="dabbawala",instance="w2"}': "1x60"},
        {'up{job="dabbawala",instance="w1"}': "1x60"},
    ),
    "TaskHeld": Case(
        {'dabbawala_task_state{instance="w1",partition="0",state="held"}': "1x60"},
        {'dabbawala_task_state{instance="w1",partition="0",state="restoring"}': "1x60"},
    ),
    "LagHigh": Case(
        {'kafka_consumergroup_lag_seconds{topic="orders",partition="0"}': "0+60x60"},
        {'kafka_consumergroup_lag_seconds{topic="orders",partition="0"}': "59x60"},
    ),
    "NoDrivers": Case(
        {'dabbawala_deliveries_pending{region="fort"}': "2x60", 'dabbawala_drivers_waiting{region="fort"}': "0x60"},
        {'dabbawala_deliveries_pending{region="fort"}': "2x60", 'dabbawala_drivers_waiting{region="fort"}': "1x60"},
    ),
    "OrdersNeedAttention": Case(
        {'dabbawala_orders_attention{waits_for="charge"}': "1x60"},
        {'dabbawala_orders_attention{waits_for="charge"}': "1x3 0x60"},
    ),
    "OrdersLate": Case(
        slow("order_lateness_seconds", 900, "1800", is_slow=True),
        slow("order_lateness_seconds", 900, "1800", is_slow=False),
    ),
    "RestaurantsDown": Case(
        {'dabbawala_party_breakers_open{party="restaurant"}': "1x60"},
        {'dabbawala_party_breakers_open{party="restaurant"}': "1x5 0x60"},
    ),
    "DeadLettersWaiting": Case(
        {"dabbawala_dead_letters_waiting": "1x60"}, {"dabbawala_dead_letters_waiting": "1x9 0x60"}
    ),
    "CommitSlow": Case(
        slow("task_commit_duration_seconds", 1, "2.5", is_slow=True),
        slow("task_commit_duration_seconds", 1, "2.5", is_slow=False),
    ),
    "TaskResets": Case(
        {'dabbawala_task_resets_total{instance="w1",partition="0"}': "0+1x60"},
        {'dabbawala_task_resets_total{instance="w1",partition="0"}': "0 0 0 1x60"},
    ),
    "TimersLate": Case(
        slow("timer_lateness_seconds", 1, "2.5", is_slow=True),
        slow("timer_lateness_seconds", 1, "2.5", is_slow=False),
    ),
    "DiskFilling": Case(
        {'dabbawala_disk_free_bytes{instance="w1"}': "20-0.1x60", 'dabbawala_disk_size_bytes{instance="w1"}': "100x60"},
        {'dabbawala_disk_free_bytes{instance="w1"}': "90-0.9x60", 'dabbawala_disk_size_bytes{instance="w1"}': "100x60"},
    ),
    "SpansDropped": Case(
        {'dabbawala_spans_dropped_total{instance="w1"}': "0+9x60"},
        {'dabbawala_spans_dropped_total{instance="w1"}': "9x60"},
    ),
}
"""Alert -> its case. Each silent case is as near as it gets."""


@pytest.mark.parametrize("path", FILES)
def test_generated_file_is_current(path: str) -> None:
    assert path not in stale(), f"{path} is out of date: run `make docs`"


def test_missing_files_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], tmp_path) == 1
    assert "deploy/prometheus/alerts.yml is out of date" in capsys.readouterr().err
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0


def test_no_other_dashboards_and_rules_lie_there() -> None:
    found = [*(ROOT / "deploy/grafana/dashboards").iterdir(), ROOT / "deploy/prometheus/alerts.yml"]
    assert {str(file.relative_to(ROOT)) for file in found} == set(FILES)


def test_promtool_accepts_configuration_and_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "alerts.yml"):
        written = (ROOT / "deploy/prometheus" / name).read_text()
        (tmp_path / name).write_text(written.replace("/access/keys/monitor", "key"))
    (tmp_path / "key").write_text("a key")
    run_promtool("check", "config", "prometheus.yml", directory=tmp_path)


def test_every_alert_has_a_case() -> None:
    assert list(CASES) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_when_it_should_and_only_then(tmp_path: Path, name: str) -> None:
    (tmp_path / "alerts.yml").write_text(FILES["deploy/prometheus/alerts.yml"])
    case = CASES[name]
    firing = _unit(
        case.fires, case.minutes, f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > 0', "1 or more"
    )
    silent = _unit(case.silent, case.minutes, f'ALERTS{{alertname="{name}",alertstate="firing"}}', "")
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [firing, silent]}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    run_promtool("test", "rules", "tests.yml", directory=tmp_path)


def _unit(series: Series, minutes: int, expression: str, expected: str) -> dict[str, Any]:
    """Return a test of promtool: how many alerts an expression finds after these minutes, `expected` or none."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"({expression}) ^ 0",
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if expected else [],
            }
        ],
    }


@pytest.mark.parametrize("alert", ALERTS, ids=[alert.name for alert in ALERTS])
def test_every_alert_has_its_section_of_the_runbook(alert: Any) -> None:
    file, _, anchor = alert.runbook_url.partition("#")
    _, heading, section = (ROOT / file).read_text().partition(f"\n### {alert.name}\n")
    section = section.partition("\n#")[0]
    assert heading, f"docs/runbook.md has no section for {alert.name}"
    assert anchor == alert.name.lower()
    assert [*re.findall(r"^\*\*(.+?)\.\*\*", section, re.MULTILINE)] == ["Customers", "Look", "Act", "Over"]
    assert alert.severity in (PAGE, TICKET)


def test_the_runbook_shows_commands_that_exist() -> None:
    shown = re.findall(r"`dabbawala ([a-z-]+)(?: ([a-z-]+))?", (ROOT / "docs/runbook.md").read_text())
    assert len(shown) > 20
    for name, subcommand in shown:
        command = load(name)
        known = command.commands if isinstance(command, click.Group) else {}
        assert not subcommand or subcommand in known or not known, (name, subcommand)


def test_the_runbook_has_no_section_for_other_alerts() -> None:
    _, _, section = (ROOT / "docs/runbook.md").read_text().partition("\n## Alerts\n")
    assert re.findall(r"^### (\w+)$", section.partition("\n## ")[0], re.MULTILINE) == [alert.name for alert in ALERTS]


def test_every_metric_is_on_a_dashboard() -> None:
    shown = " ".join(query.expression for each in DASHBOARDS for panel in each.panels for query in panel.queries)
    assert not [name for name, *_ in metrics() if not re.search(rf"\b{name}(_bucket|_count)?\b", shown)]


def test_dashboards_have_fixed_names_and_choose_their_source() -> None:
    assert [each.uid for each in DASHBOARDS] == [
        f"dabbawala-{name}" for name in ("overview", "orders", "tasks", "calls", "drivers")
    ]
    for path, text in FILES.items():
        if path.endswith(".json"):
            board = json.loads(text)
            assert {target["datasource"]["uid"] for panel in board["panels"] for target in panel["targets"]} == {
                "${datasource}"
            }
            assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 4
