"""The operators' view of two workers: lists by page, regions, timers, tasks, and the commands that show them."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.flow.client import Client, Driver, an_order, order_id
from tests.flow.hand_pos import HandPos
from tests.flow.reading import PARTITIONS
from tests.flow.two_workers import one_of_each
from tests.support.stack import ROOT, Stack, installed, run_command
from topics.restaurants import Restaurant

ORDERS = 300
APP = "tests.support.patient_app"


@pytest.fixture(scope="module")
def stack(kafka: str, hand_pos: HandPos, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run two workers and no payment provider: the orders stay CREATED and their calls pending."""
    name, directory = f"operations-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("operations")
    with installed(kafka, name, directory, 1.0, hand_pos.kitchens(20)) as stack:
        stack.start_worker(app=APP)
        stack.start_worker(2, app=APP)
        yield stack


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[tuple[Client, Client]]:
    """Return a client of each worker."""
    async with one_of_each(stack) as clients:
        yield clients


@pytest.fixture
def kitchens(hand_pos: HandPos) -> list[Restaurant]:
    """Return restaurants that are never asked to cook, because no order is charged."""
    return hand_pos.kitchens(20)


def dabbawala(stack: Stack, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Run a `dabbawala` command; return exit status, stdout and stderr."""
    command = [sys.executable, "-m", "streams.cli", *arguments]
    return run_command(command, {**stack.environment, "PYTHONPATH": str(ROOT), **more})


async def placed(client: Client, kitchen: Restaurant, unique: str, count: int) -> list[str]:
    """Place so many orders, and return their ids, sorted."""
    names = [f"{unique}-{number}" for number in range(count)]
    for start in range(0, count, 20):
        some = names[start : start + 20]
        answers = await asyncio.gather(*(client.place(an_order(kitchen, name)) for name in some))
        assert {answer.status_code for answer in answers} == {201}
    return sorted(map(order_id, names))


async def walked(client: Client, path: str, member: str, **query: Any) -> list[dict[str, Any]]:
    """Return every row of a list, read page by page."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await client.get(path, **query, **cursor)
        rows += page[member]
        if page["next"] is None:
            return rows
        assert len(page[member]) == query["limit"]
        cursor = {"cursor": page["next"]}


async def test_pages_of_two_workers_list_each_order_once_in_order(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    orders = await placed(clients[0], kitchens[0], unique, ORDERS)
    others = await placed(clients[1], kitchens[1], f"{unique}-other", 5)
    for client in clients:
        for limit in (7, 100):
            found = [row["id"] for row in await walked(client, "/v1/orders", "orders", limit=limit)]
            assert found == sorted(found)
            assert len(found) == len(set(found))
            assert {*orders, *others} <= set(found)
        mine = await walked(client, "/v1/orders", "orders", limit=50, restaurant=kitchens[0].restaurant)
        assert [row["id"] for row in mine] == orders
        assert {*orders, *others} <= (await client.rows("orders")).keys()
        calls = await walked(client, "/v1/calls", "calls", limit=90)
        assert {f"{order}/charge" for order in orders} <= {call["key"] for call in calls}


async def test_orders_placed_between_two_pages_shift_no_row(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    here, kitchen = clients[0], kitchens[2].restaurant
    orders = await placed(here, kitchens[2], f"{unique}-b", 10)
    first = await here.get("/v1/orders", limit=5, restaurant=kitchen)
    await placed(here, kitchens[2], f"{unique}-a", 10)
    rest = await here.get("/v1/orders", limit=5, restaurant=kitchen, cursor=first["next"])
    assert [row["id"] for row in first["orders"] + rest["orders"]] == orders
    assert rest["next"] is None


async def test_a_wrong_query_of_a_list_names_the_remedy(clients: tuple[Client, Client]) -> None:
    for path, query in (
        ("/v1/orders", {"limit": "1001"}),
        ("/v1/orders", {"attention": "maybe"}),
        ("/v1/orders", {"cursor": "x" * 2000}),
        ("/v1/timers", {"cursor": "no hex"}),
        ("/v1/drivers", {"status": "ASLEEP"}),
    ):
        answer = await clients[0].http.get(path, params=query)
        assert answer.status_code == 422, f"{path} {query}"
        assert "must be" in answer.json()["detail"]


async def test_a_request_is_forwarded_with_any_headers(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    headers = {b"Idempotency-Key": f'"a key: {unique}"'.encode(), b"Accept": b"\xff", b"X": "\u00fc".encode()}
    body = {name: value for name, value in an_order(kitchens[0], unique).items() if name != "external_id"}
    answers = [await client.http.post("/v1/orders", json=body, headers=headers) for client in clients]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].content == answers[1].content
    for client in clients:
        assert (await client.http.get("/v1/orders", headers=headers)).status_code == 200


async def test_a_region_lists_its_waiting_drivers(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    kitchen = kitchens[3]
    for client in clients:
        await Driver(client, f"{unique}-{client.http.base_url.port}").available(kitchen.region, kitchen.position)
    names = sorted(f"{unique}-{client.http.base_url.port}" for client in clients)
    for client in clients:

        async def both(client: Client = client) -> bool:
            return bool((await client.get(f"/v1/regions/{kitchen.region}"))["drivers_waiting"] == 2)

        await client.until(both, "dispatch has both drivers")
        found = await client.get(f"/v1/regions/{kitchen.region}", limit=1)
        assert [driver["driver"] for driver in found["drivers"]] == names[:1]
        assert (found["deliveries_pending"], found["deliveries"]) == (0, [])
        listed = await walked(client, "/v1/drivers", "drivers", limit=1, region=kitchen.region)
        assert [driver["driver"] for driver in listed] == names
        assert {driver["status"] for driver in listed} == {"WAITING_FOR_WORK"}


async def test_timers_are_listed_by_due_time(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    orders = await placed(clients[0], kitchens[4], unique, 10)
    for client in clients:
        found = await walked(client, "/v1/timers", "timers", limit=25)
        due = [datetime.fromisoformat(timer["due"]) for timer in found]
        assert due == sorted(due)
        assert {f"{order}/charge-wait" for order in orders} <= {timer["timer"] for timer in found}


async def test_every_worker_lists_all_tasks_without_lag(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    await placed(clients[0], kitchens[5], unique, 10)
    for client in clients:

        async def even(client: Client = client) -> list[dict[str, Any]]:
            tasks: list[dict[str, Any]] = (await client.get("/v1/tasks"))["tasks"]
            return tasks if [task.get("lag") for task in tasks] == [0] * PARTITIONS else []

        tasks = await client.until(even, "no task lags")
        assert [task["partition"] for task in tasks] == list(range(PARTITIONS))
        assert {task["state"] for task in tasks} == {"open"}
        assert {task["worker"] for task in tasks} == {client.stack.url_of(1), client.stack.url_of(2)}
        assert all(task["topics"][f"{client.stack.name}.orders"]["next"] > 0 for task in tasks)
        assert len((await client.get("/v1/tasks"))["workers"]) == 2
        positions = (await client.get(f"/table/positions/{client.stack.name}.orders"))["rows"]
        assert sorted(row["partition"] for row in positions) == list(range(PARTITIONS))
        assert all(task["hash"] for task in (await client.get("/v1/tasks", hash="true"))["tasks"])


async def test_commands_print_tables_and_json(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    stack, orders = clients[0].stack, await placed(clients[0], kitchens[6], unique, 3)
    status, printed, error = dabbawala(stack, "orders", "list", "--restaurant", kitchens[6].restaurant, "--json")
    assert status == 0, error
    listed = json.loads(printed)["orders"]
    assert {row["id"] for row in listed} == set(orders)
    assert listed == sorted(listed, key=lambda row: str(row["placed_at"]), reverse=True), "the newest first"
    status, printed, error = dabbawala(stack, "orders", "get", orders[0])
    assert status == 0, error
    assert "CREATED" in printed
    status, printed, error = dabbawala(stack, "tasks")
    assert status == 0, error
    assert printed.count("open") == PARTITIONS
    status, printed, error = dabbawala(stack, "calls", "list", "--all")
    assert status == 0, error
    assert f"{orders[0]}/charge" in printed
    status, printed, error = stack.faust("orders", "journal", orders[0], "--json")
    assert status == 0, error
    assert json.loads(printed)["entries"][0]["event"] == "OrderPlaced"


async def test_a_list_is_complete_or_503_after_a_kill(
    clients: tuple[Client, Client], kitchens: list[Restaurant], unique: str
) -> None:
    """Runs last in this file: it leaves one worker.

    The dead worker keeps its partitions until an operator removes it from the group.
    """
    survivor, killed = clients
    orders = await placed(survivor, kitchens[7], unique, 30)
    killed.stack.workers[2].kill()

    async def is_complete() -> bool:
        answer = await survivor.http.get("/v1/orders", params={"restaurant": kitchens[7].restaurant})
        assert answer.status_code in (200, 503)
        if answer.status_code == 200:
            assert [row["id"] for row in answer.json()["orders"]] == orders
        return answer.status_code == 200

    assert {task["state"] for task in (await survivor.get("/v1/tasks"))["tasks"]} != {"open"}
    assert not await is_complete()
    status, _, error = killed.stack.faust("leave", "2")
    assert status == 0, error
    await survivor.until(is_complete, "the other worker has taken over")
