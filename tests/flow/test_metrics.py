"""The metrics and the log of real workers: what an order leaves in them, and what moves with a task."""

import json
import re
import uuid
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.access.keys import Role
from tests.flow.client import Client, an_order, order_id
from tests.flow.hand_pos import HandPos
from tests.flow.reading import PARTITIONS
from tests.support.keys import KEYS
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.promtool import run_promtool
from tests.support.stack import Stack, installed
from tools.alerts import ALERTS
from tools.dashboards import DASHBOARDS
from topics.families import ORDERS, topic_name
from topics.restaurants import Restaurant

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
MONITOR = {"Authorization": f"Bearer {KEYS[Role.MONITOR]}"}
NAME = re.compile(r"\b(?:dabbawala|kafka|http|process|python)_[a-z0-9_]+\b(?!\s*=)")
"""A metric in an expression, and no label of one."""
PERSONAL = ("Asha", "Mint Road", "5550 1234")
"""Words of the customer in `an_order`."""


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker, a payment provider, restaurants and drivers."""
    name, directory = f"metrics-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("metrics")
    with installed(kafka, name, directory, 1.0, hand_pos.kitchens(1)) as stack:
        stack.start_payment("--speed", "0")
        stack.start_pos("--speed", "0")
        stack.start_worker()
        stack.start_drivers(12, "--speed", "0")
        yield stack


def scraped(stack: Stack, number: int = 1) -> str:
    """Return the metrics of a worker as text."""
    answer = httpx.get(f"{stack.url_of(number)}/metrics", headers=MONITOR, timeout=60, verify=NO_CERTIFICATES)
    assert answer.status_code == 200, answer.text
    return answer.text


def series(stack: Stack, number: int = 1) -> Series:
    """Return the metrics of a worker."""
    families = text_string_to_metric_families(scraped(stack, number))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Series, name: str, **labels: str) -> float:
    """Return the sum of the series of this name with these labels."""
    return sum(
        number for (other, its), number in found.items() if other == name and labels.items() <= dict(its).items()
    )


async def test_an_order_is_in_the_metrics_from_its_start_to_its_end(
    client: Client, stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    before = series(stack)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order_id(unique), "DELIVERED")
    after = series(stack)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("dabbawala_orders_placed_total") == 1
    assert more("dabbawala_orders_ended_total", outcome="DELIVERED") == 1
    assert more("dabbawala_order_duration_seconds_count", outcome="DELIVERED") == 1
    assert more("dabbawala_order_lateness_seconds_count") == 1
    assert more("dabbawala_order_stage_duration_seconds_count", stage="CREATED") == 1
    assert more("dabbawala_order_transitions_total", to="DELIVERED") == 1
    for kind in ("charge", "prepare"):
        assert more("dabbawala_call_attempts_total", kind=kind, outcome="completed") == 1
        assert more("dabbawala_call_duration_seconds_count", kind=kind) == 1
    assert more("dabbawala_record_e2e_latency_seconds_count", topic=topic_name(ORDERS.name, stack.name)) >= 1
    commits = more("dabbawala_task_commit_duration_seconds_count")
    assert commits == more("dabbawala_task_commit_records_count") >= 5
    placing = {"http_route": "/v1/orders", "http_request_method": "POST", "http_response_status_code": "201"}
    assert more("http_server_request_duration_seconds_count", **placing) == 1
    assert value(after, "dabbawala_drivers") == 12
    assert abs(value(after, "dabbawala_clock_offset_seconds")) < 60
    assert value(after, "dabbawala_rocksdb_bytes", kind="files") > 0


async def test_gauges_count_what_is_open(client: Client, stack: Stack, hand_pos: HandPos, unique: str) -> None:
    [kitchen] = hand_pos.kitchens(1)
    await client.place(an_order(kitchen, unique))
    await client.reaches(order_id(unique), "IN_PREPARATION")
    found = series(stack)
    assert value(found, "dabbawala_orders", status="IN_PREPARATION", waits_for="preparation") == 1
    assert value(found, "dabbawala_timers_pending") >= 1
    await client.ticket(kitchen, order_id(unique), "finished")
    await client.reaches(order_id(unique), "SCHEDULING_DELIVERY")

    async def is_pending() -> bool:
        return value(series(stack), "dabbawala_deliveries_pending", region=kitchen.region) == 1

    await client.until(is_pending, "the delivery waits for a driver")
    assert value(series(stack), "dabbawala_drivers_waiting", region=kitchen.region) == 0


async def test_a_dead_letter_is_counted_and_waits(client: Client, stack: Stack, unique: str) -> None:
    topic = topic_name(ORDERS.name, stack.name)
    before = series(stack)
    await client.produce(ORDERS, b"no JSON", key=unique)

    async def is_counted() -> bool:
        return value(series(stack), "dabbawala_dead_letters_waiting") > value(before, "dabbawala_dead_letters_waiting")

    await client.until(is_counted, "the dead letter waits")
    assert value(series(stack), "dabbawala_dead_letters_total", origin=topic) == 1


def test_promtool_accepts_the_metrics(stack: Stack) -> None:
    run_promtool("check", "metrics", text=scraped(stack))


def test_no_series_names_a_party_or_an_order(stack: Stack) -> None:
    names = {label for _, labels in series(stack) for label, _ in labels}
    assert not names & {"order", "driver", "restaurant", "provider"}
    assert "lakshmi" not in scraped(stack)


def test_dashboards_and_alerts_name_exposed_metrics(stack: Stack) -> None:
    exposed = {family.name for family in text_string_to_metric_families(scraped(stack))}
    expressions = [alert.expression for alert in ALERTS]
    expressions += [query.expression for each in DASHBOARDS for panel in each.panels for query in panel.queries]
    named = {name for expression in expressions for name in NAME.findall(_without_labels(expression))}
    assert len(named) > 30
    assert not {
        name for name in named if re.sub("_(total|bucket|count|sum)$", "", name) not in exposed | {name} & exposed
    }


def _without_labels(expression: str) -> str:
    """Return an expression without selectors and grouping, whose labels look like metrics."""
    return re.sub(r"\{[^}]*\}|\b(?:by|on) \([^)]*\)", "", expression)


async def test_the_log_is_json_without_personal_data(
    client: Client, stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    await client.place(an_order(tiffin, unique))
    await client.reaches(order_id(unique), "DELIVERED")
    lines = stack.workers[1].log.read_text().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert any("is ready" in line["event"] for line in logged)
    assert {line["partition"] for line in logged if "changelog records restored" in line["event"]} == {
        *range(PARTITIONS)
    }
    text = "\n".join(lines)
    assert not [word for word in (*PERSONAL, *KEYS.values(), "/v1/callbacks/") if word in text]


async def test_gauges_move_with_their_task(client: Client, stack: Stack) -> None:
    def running(number: int) -> set[str]:
        found = series(stack, number)
        return {dict(its)["partition"] for name, its in found if name == "dabbawala_task_state"}

    def lagging(number: int) -> set[str]:
        return {dict(its)["partition"] for name, its in series(stack, number) if name == "kafka_consumergroup_lag"}

    everything = {str(partition) for partition in range(PARTITIONS)}
    assert running(1) == lagging(1) == everything
    stack.start_worker(2)

    async def are_shared() -> bool:
        return running(2) != set() and running(1) == everything - running(2) == lagging(1) and lagging(2) == running(2)

    await client.until(are_shared, "both workers have tasks")
    assert value(series(stack, 2), "dabbawala_orders_placed_total") == 0, "a counter starts at 0"
    assert value(series(stack, 2), "dabbawala_task_restore_duration_seconds_count") == len(running(2))
