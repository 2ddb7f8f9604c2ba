"""Files for Prometheus and Grafana in ``deploy/``, and the page of the metrics.

``python -m tools.monitoring`` writes the files, ``--check`` names those that are out of date.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from streams.metrics.instruments import Instruments, engine_families
from tools.alerts import ALERTS
from tools.dashboards import DASHBOARDS, model

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "# Generated: change tools/alerts.py, then run `make docs`.\n"
INTRODUCTION = """# Monitoring

Every worker shows its metrics at `/metrics`, in the text format of Prometheus. A request needs a key with the role
`monitor` or `operator`:

```sh
curl -H "Authorization: Bearer $(cat .dabbawala/keys/monitor)" http://127.0.0.1:6066/metrics
```

| file | contents |
|---|---|
| `deploy/prometheus/prometheus.yml` | scrapes the workers of `docker-compose.yaml`, with a key of the role `monitor` |
| `deploy/prometheus/alerts.yml` | alerts; [runbook.md](runbook.md#alerts) has what to do about each |
| `deploy/grafana/dashboards/` | dashboards: overview, orders, tasks, calls and parties, drivers |
| `deploy/grafana/provisioning/` | the data source and the dashboards, for a Grafana that starts with them |

`tools/alerts.py` and `tools/dashboards.py` are the source of these files. Each worker shows its own tasks: sum over the
workers, as in `sum by (status) (dabbawala_orders)`. A task that moves takes its gauges with it. Counters start at 0
with each worker and count what is committed.

A worker logs one JSON object a line where its output is no terminal (`DABBAWALA_LOG_FORMAT`). Lines about an order have
`order` and `trace_id`, lines about a task `partition`.

## Metrics

| metric | type | labels | meaning |
|---|---|---|---|
"""
CONVENTIONAL = """
The process and Python's garbage collector have their conventional metrics, `process_*` and `python_gc_*`.
"""


def rules() -> str:
    """Return the file of the alerts."""
    found = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook_url": alert.runbook_url},
        }
        for alert in ALERTS
    ]
    return NOTICE + yaml.safe_dump({"groups": [{"name": "dabbawala", "rules": found}]}, sort_keys=False, width=120)


FILES = {
    "deploy/prometheus/alerts.yml": rules(),
    **{
        f"deploy/grafana/dashboards/{each.uid.removeprefix('dabbawala-')}.json": json.dumps(model(each), indent=1)
        + "\n"
        for each in DASHBOARDS
    },
}
"""Path of each generated file -> its text."""


def metrics() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return name, type, meaning and labels of each metric of a worker, except those of the process."""
    counters = [
        (f"{family.name}_total", family.type, family.documentation, tuple(family._labelnames))
        for family in engine_families({}, {})
    ]
    return sorted([*Instruments().described(), *counters])


def render() -> str:
    """Return docs/monitoring.md."""
    rows = "".join(
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |\n"
        for name, kind, meaning, labels in metrics()
    )
    return INTRODUCTION + rows + CONVENTIONAL


def stale(root: Path = ROOT) -> list[str]:
    """Return the paths of the files that are out of date."""
    return [path for path, text in FILES.items() if not (root / path).exists() or (root / path).read_text() != text]


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check the files; return the exit code: 1 if the check finds a file that is out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.monitoring", description="Write the files of deploy/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    is_check = parser.parse_args(arguments).check
    found = stale(root)
    for path in found:
        if is_check:
            print(f"{path} is out of date: run `make docs`", file=sys.stderr)
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(FILES[path])
        print(f"{path} is written")
    return 1 if is_check and found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
