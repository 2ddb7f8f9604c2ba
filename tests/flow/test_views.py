"""The journal, lists, tables as JSON and as pages, and the commands of `faust -A streams.app`."""

import json
from datetime import datetime

import pytest

from tests.flow.client import Client, Driver, an_order, order_id
from tests.support.keys import REVEALED
from tests.support.stack import FAUST, Stack, run_command
from topics.families import ORDERS, topic_name
from topics.restaurants import Restaurant

TABLES = {
    "orders",
    "bodies",
    "payments",
    "tickets",
    "deliveries",
    "journal",
    "drivers",
    "forgotten_shifts",
    "dispatch",
    "restaurants",
    "history",
    "positions",
    "timers",
    "calls",
    "dead_letters",
    "used_keys",
}
AGENTS = ("dead_letters", "deliveries", "dispatch", "drivers", "locations", "orders", "payments", "pos")


async def in_preparation(client: Client, kitchen: Restaurant, name: str) -> str:
    """Place an order that a restaurant by hand cooks until the test finishes it; return its id."""
    await client.place(an_order(kitchen, name))
    await client.reaches(order_id(name), "IN_PREPARATION")
    return order_id(name)


async def test_the_journal_has_an_orders_steps_in_order(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(tiffin, unique))
    await client.reaches(order, "DELIVERED")
    entries = await client.journal(order)
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    times = [datetime.fromisoformat(entry["at"]) for entry in entries]
    assert times == sorted(times)
    assert [entry["after"] for entry in entries if entry["machine"] == "order"] == [
        "CREATED",
        "SCHEDULED, asked",
        "IN_PREPARATION",
        "SCHEDULING_DELIVERY",
        "WAITING_FOR_DRIVER",
        "IN_DELIVERY",
        "DELIVERED",
    ]
    assert {entry["machine"] for entry in entries} == {"order", "payment", "ticket", "delivery"}
    emitted = [name for entry in entries for name in entry.get("emitted", ())]
    assert {f"{order}/charge", f"{order}/prepare"} <= set(emitted)
    assert len(emitted) == len(set(emitted)), "no id is emitted twice"


async def test_an_order_shows_its_current_state(client: Client, kitchen: Restaurant, unique: str) -> None:
    order = await in_preparation(client, kitchen, unique)
    shown = await client.order(order) or {}
    assert shown["version"] == 3
    assert (shown["restaurant"], shown["driver"], shown["reason"]) == (kitchen.restaurant, None, "")
    assert (shown["total"], shown["currency"]) == (200_00, "INR")
    assert (shown["payment"], shown["ticket"], shown["delivery"]) == (
        {"status": "CHARGED"},
        {"status": "ACCEPTED"},
        None,
    )
    assert 0 < shown["eta_s"] <= 261, "a kilometre by scooter"
    assert datetime.fromisoformat(shown["placed_at"]) <= datetime.fromisoformat(shown["updated_at"])


async def test_orders_are_listed_by_status(client: Client, kitchen: Restaurant, unique: str) -> None:
    order = await in_preparation(client, kitchen, unique)

    async def listed(**query: str) -> list[str]:
        return [row["id"] for row in (await client.get("/v1/orders", limit=1000, **query))["orders"]]

    assert order in await listed()
    assert order in await listed(status="IN_PREPARATION")
    assert order not in await listed(status="DELIVERED")
    assert {row["status"] for row in (await client.get("/v1/orders", status="IN_PREPARATION"))["orders"]} == {
        "IN_PREPARATION"
    }
    assert len((await client.get("/v1/orders", limit=1))["orders"]) == 1


async def test_every_table_shows_its_rows_decoded(client: Client, kitchen: Restaurant, unique: str) -> None:
    driver = Driver(client, unique)
    await driver.available(kitchen.region, kitchen.position)
    order = await in_preparation(client, kitchen, unique)
    tables = {table["name"]: table["help"] for table in (await client.get("/table/"))["tables"]}
    assert tables.keys() == TABLES
    assert all(tables.values()), "each table has a description"
    assert (await client.rows("orders", order))[order]["stage"] == "IN_PREPARATION"
    assert (await client.rows("bodies", order))[order]["customer"]["name"] == "Asha Rao"
    assert (await client.rows("payments", order))[order]["stage"] == "CHARGED"
    assert list(await client.rows("journal", order)) == [f"{order}/{n:06d}" for n in range(1, 8)]
    assert (await client.rows("drivers", unique))[unique]["stage"] == "WAITING_FOR_WORK"
    (timer,) = (await client.rows("timers", order)).items()
    assert timer[0].startswith(f"{order}/")
    assert datetime.fromisoformat(timer[1]["due"]).tzinfo
    topic = topic_name(ORDERS.name, client.stack.name)
    assert topic in await client.rows("positions", topic)
    every = await client.rows("orders")
    assert {order} <= every.keys()
    assert await client.rows("orders", "nobody:nothing") == {}


async def test_tables_are_escaped_html_pages(client: Client, kitchen: Restaurant, unique: str) -> None:
    body = an_order(kitchen, unique)
    body["customer"]["name"] = "<script>alert(1)</script>"
    await client.place(body)
    browser = {"Accept": "text/html,application/xhtml+xml"}
    for path, text in (
        ("/table/", 'href="/table/orders/"'),
        ("/table/orders/", "<table>"),
        (f"/table/bodies/{order_id(unique)}", "&lt;script&gt;"),
    ):
        page = await client.http.get(path, headers=browser, params=REVEALED)
        assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html"), path
        assert text in page.text
        assert "<script>" not in page.text


async def test_a_worker_reports_health_readiness_and_tasks(client: Client) -> None:
    assert await client.get("/livez") == {"status": "alive"}
    assert await client.get("/readyz") == {"status": "ready", "partitions": [0, 1, 2, 3]}
    found = await client.get("/v1/tasks")
    assert [(task["partition"], task["state"]) for task in found["tasks"]] == [(n, "open") for n in range(4)]
    (worker,) = found["workers"]
    assert worker["counters"]["commits"] > 0


def test_faust_lists_the_tables_with_their_help_and_every_agent(stack: Stack) -> None:
    status, tables, error = stack.faust("tables")
    assert status == 0, error
    assert all(name in tables for name in TABLES)
    assert "Order id -> state of its payment and refunds." in tables
    status, agents, error = stack.faust("agents")
    assert status == 0, error
    assert [line.split("|")[1].strip() for line in agents.splitlines() if "@agents." in line] == [
        f"@agents.{name}.{name}" for name in AGENTS
    ]


async def test_the_table_command_prints_decoded_rows(client: Client, kitchen: Restaurant, unique: str) -> None:
    order = await in_preparation(client, kitchen, unique)
    status, printed, error = client.stack.faust("--json", "table", "payments", order)
    assert status == 0, error
    (row,) = json.loads(printed)
    assert (row["key"], row["row"]["stage"], row["row"]["amount"]) == (order, "CHARGED", 200_00)
    status, printed, error = client.stack.faust("table", "orders", order, COLUMNS="400")
    assert status == 0, error
    assert order in printed
    assert '"IN_PREPARATION"' in printed


@pytest.mark.parametrize(
    ("arguments", "expected", "sentence"),
    [
        (("table", "nothing"), 2, "There is no table 'nothing'. The tables are: bodies, calls,"),
        (("table", "orders", "nobody:nothing"), 1, "Table orders has no row of 'nobody:nothing'."),
    ],
)
def test_the_table_command_fails_with_one_sentence(
    stack: Stack, arguments: tuple[str, ...], expected: int, sentence: str
) -> None:
    status, printed, error = stack.faust(*arguments)
    assert (status, printed) == (expected, "")
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_without_a_worker_the_table_command_gives_advice(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = tmp_path_factory.mktemp("nowhere")
    status, printed, error = stack.faust("table", "orders", DABBAWALA_DIR=str(nowhere))
    assert (status, printed) == (2, "")
    assert "start one with `make worker`" in error
    status, printed, error = stack.faust("table", "orders", DABBAWALA_URL="http://127.0.0.1:1")
    assert (status, printed) == (2, "")
    assert "is the worker running?" in error


def test_a_wrong_setting_stops_every_command_and_is_named(stack: Stack) -> None:
    command = [FAUST, "-A", "streams.app", "tables"]
    status, _, error = run_command(command, {**stack.environment, "DABBAWALA_PARTITIONS": "many"})
    assert status != 0
    assert "DABBAWALA_PARTITIONS='many': it must be a whole number from 1 to 1000" in error
    assert "Traceback" not in error
