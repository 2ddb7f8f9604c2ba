"""Orders under way, selected on the worker, and the page of one order, from rows that the machines wrote."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web

from exactly_once.calls.rows import Call as CallRow
from exactly_once.calls.rows import encode_call
from processors import workflow
from processors.call_kinds import CallKind
from processors.events import CallAnswered
from processors.workflow import Workflow, journal_key
from streams.calls.http_performer import row_of
from streams.services import Services
from streams.views import tables as table_views
from streams.views import workflows
from streams.web.forwarding import Forwarding
from streams.web.problems import Problem
from tests.processors.cases import NOW, RESTAURANT, P, later, placed
from tests.streams.views.test_listing import admitted, body_of
from tests.support.services import unconnected_services, view_of
from topics.orders import CallAbandonRequested
from topics.pos import TicketAccepted

MINUTE_MS = 60_000
TABLES = {"order": "orders", "placed": "bodies", "payment": "payments", "ticket": "tickets", "delivery": "deliveries"}
ATTEMPTS = 4


class Partition:
    """Stand-in for an open task: committed rows by table and key."""

    alive = True

    def __init__(self, number: int) -> None:
        self.partition = number
        self.rows: dict[str, dict[bytes, bytes]] = {}

    def read(self, table: str, key: bytes) -> bytes | None:
        return self.rows.get(table, {}).get(key)

    def scan(self, table: str, prefix: bytes = b"", after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for key, value in sorted(self.rows.get(table, {}).items()):
            if key.startswith(prefix) and key > after:
                yield key, value


class World:
    """One worker that has all partitions open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.services: Services = replace(unconnected_services(), now_ms=lambda: NOW + 60 * MINUTE_MS)
        self._partitions = [Partition(number) for number in range(self.services.engine.partitions)]

        async def owned(_: int) -> None:
            """Verify nothing."""

        engine: Any = self.services.engine
        monkeypatch.setattr(engine, "tasks", {each.partition: each for each in self._partitions})
        monkeypatch.setattr(engine, "verify_ownership", owned)
        monkeypatch.setattr(Forwarding, "other_workers", lambda _: [])

    def has(self, name: str, *events: Any, minutes: int = 0, **changes: Any) -> str:
        """Apply these events to a new order so many minutes after its placing, and keep its rows; return its id."""
        flow, order = Workflow(), f"bites:{name}"
        rows = self._partitions[self.services.engine.partition_of(order.encode())].rows
        for event in (placed(name, **changes), *events):
            step = workflow.decide_step(flow, event, NOW + minutes * MINUTE_MS, P, RESTAURANT)
            flow = step.workflow
            for line in step.journal:
                self._put(rows, "journal", journal_key(order, line.seq), msgspec.json.encode(line))
            if isinstance(event, CallAnswered):
                del rows["calls"][event.key.encode()]
            for call in step.calls:
                row = encode_call(CallRow(row_of(call, "http://here", "bank"), ATTEMPTS, NOW, "status 500"))
                self._put(rows, "calls", call.key, row)
            for key in step.cancel_calls:
                rows["calls"].pop(key.encode(), None)
        for field, table in TABLES.items():
            if (value := getattr(flow, field)) is not None:
                self._put(rows, table, order, msgspec.json.encode(value))
        return order

    @staticmethod
    def _put(rows: dict[str, dict[bytes, bytes]], table: str, key: str, value: bytes) -> None:
        rows.setdefault(table, {})[key.encode()] = value

    async def listed(self, query: str = "") -> Any:
        """Return the page of a query."""
        view = view_of(self.services, workflows.Workflows)
        return body_of(await view.get(admitted(f"/v1/workflows?{query}")))

    async def ids(self, query: str = "") -> list[str]:
        """Return the external ids on the page of a query."""
        return [row["id"].partition(":")[2] for row in (await self.listed(query))["workflows"]]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a worker without orders."""
    return World(monkeypatch)


def charged(name: str) -> CallAnswered:
    body = '{"charge_id": "c1", "amount": 630, "currency": "INR"}'
    return CallAnswered(f"bites:{name}/charge", CallKind.CHARGE, 200, body)


def abandoned(name: str) -> CallAbandonRequested:
    return CallAbandonRequested(id=f"bites:{name}/abandon/1", call=f"bites:{name}/prepare", by="ana")


def declined(name: str) -> CallAnswered:
    return CallAnswered(f"bites:{name}/charge", CallKind.CHARGE, 402, "{}")


def with_several(world: World) -> None:
    """Give the worker one order of each kind."""
    world.has("paying", minutes=1)
    world.has("asked", charged("asked"), minutes=2)
    world.has("given-up", charged("given-up"), abandoned("given-up"), minutes=3)
    world.has("cooking", charged("cooking"), TicketAccepted(order="bites:cooking"), minutes=4)
    world.has("later", charged("later"), minutes=5, deliver_at=later(7200))
    world.has("declined", declined("declined"), minutes=6)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["later", "cooking", "given-up", "asked", "paying"]),
        ("sort=oldest", ["paying", "asked", "given-up", "cooking", "later"]),
        ("waiting_on=payment", ["paying"]),
        ("waiting_on=restaurant", ["cooking", "given-up", "asked"]),
        ("waiting_on=timer", ["later"]),
        ("waiting_on=driver", []),
        ("waiting_on=operator", ["given-up"]),
        ("waited_s=3480", ["asked", "paying"]),
        ("waited_s=3481", ["paying"]),
        ("status=CREATED,IN_PREPARATION", ["cooking", "paying"]),
        ("status=SCHEDULED&waiting_on=restaurant&sort=oldest", ["asked", "given-up"]),
    ],
)
async def test_orders_under_way_are_selected(world: World, query: str, found: list[str]) -> None:
    with_several(world)
    assert await world.ids(query) == found


async def test_pages_have_every_order_once_and_the_count_of_all(world: World) -> None:
    with_several(world)
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = await world.listed(f"sort=oldest&limit=2&cursor={cursor}")
        assert page["count"] == 5
        found += [row["id"] for row in page["workflows"]]
        cursor = page["next"]
    assert found == [f"bites:{name}" for name in ("paying", "asked", "given-up", "cooking", "later")]


async def test_the_count_has_the_orders_of_other_workers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with_several(world)
    tasks = world.services.engine.tasks
    number = world.services.engine.partition_of(b"bites:paying")
    moved = {number: tasks.pop(number)}

    async def forward(forwarding: Forwarding, request: web.Request, _worker: str) -> web.Response:
        """Answer as the worker that has the partition which is missing here."""
        with monkeypatch.context() as other:
            other.setattr(world.services.engine, "tasks", moved)
            other.setattr("streams.web.listing.is_forwarded", lambda _: True)
            return await view_of(world.services, workflows.Workflows).get(request)

    monkeypatch.setattr(Forwarding, "forward", forward)
    monkeypatch.setattr(Forwarding, "other_workers", lambda _: ["http://other"])
    page = await world.listed("sort=oldest")
    assert page["count"] == len(page["workflows"]) == 5
    assert page["workflows"][0]["id"] == "bites:paying"


async def test_a_row_has_the_wait_the_call_and_the_command(world: World) -> None:
    order = world.has("asked", charged("asked"), minutes=2)
    [row] = (await world.listed())["workflows"]
    assert (row["waits_on"], row["waits_for"], row["waited_s"]) == (["restaurant"], "the restaurant's answer", 58 * 60)
    assert (row["call"]["key"], row["call"]["attempts"]) == (f"{order}/prepare", ATTEMPTS - 1)
    assert (row["call"]["last_error"], row["command"]) == ("status 500", f"dabbawala calls retry {order}/prepare")
    assert row["due"].startswith("2027-")
    world.has("given-up", charged("given-up"), abandoned("given-up"), minutes=3)
    given_up = (await world.listed())["workflows"][0]
    assert (given_up["call"], given_up["waits_on"]) == (None, ["restaurant", "operator"])
    assert given_up["attention"] == ["the restaurant's answer, given up by ana"]


async def test_a_call_that_a_callback_answered_is_not_waited_for(world: World) -> None:
    order = world.has("cooking", charged("cooking"), TicketAccepted(order="bites:cooking"))
    [row] = (await world.listed())["workflows"]
    assert (row["waits_for"], row["call"]) == ("the food", None)
    page = body_of(await view_of(world.services, workflows.OrderWorkflow).get(admitted("/"), order))
    assert [call["key"] for call in page["calls"]] == [f"{order}/prepare"], "it goes on until the restaurant answers it"
    assert [remedy["command"] for remedy in page["remedies"]] == ["dabbawala catalogue get lakshmi"]


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("waiting_on=cook", "waiting_on=cook: it must be one of payment, restaurant, driver, timer, operator"),
        ("waited_s=5m", "waited_s=5m: it must be a whole number"),
        ("waited_s=9999999999", "it must be a whole number from 0 to 1000000000"),
        ("status=CREATED,LOST", "status=CREATED,LOST: it must be one or more of CREATED"),
        ("sort=id", "sort=id: it must be newest or oldest"),
    ],
)
async def test_a_wrong_parameter_is_named(world: World, query: str, detail: str) -> None:
    with pytest.raises(Problem) as wrong:
        await world.listed(query)
    assert wrong.value.status == 422
    assert detail in wrong.value.detail


async def test_a_page_has_all_about_an_order(world: World) -> None:
    order = world.has("asked", charged("asked"), minutes=2)
    view = view_of(world.services, workflows.OrderWorkflow)
    answer: web.Response = await view.get(admitted("/"), order)
    page = body_of(answer)
    assert page["waiting"]["on"] == ["restaurant"]
    assert page["timers"] == [{"timer": f"{order}/acceptance-wait", "due": page["upcoming"][0]["at"]}]
    assert [each["happens"].split()[0] for each in page["upcoming"]] == ["the", "attempt"]
    assert page["remedies"][0]["command"] == f"dabbawala calls retry {order}/prepare"
    assert [line["cause"] for line in page["journal"]] == [None, 1, 2, 3, 3]
    assert [(call["key"], call["cause"]) for call in page["calls"]] == [(f"{order}/prepare", 5)]
    assert (page["payment"]["status"], page["ticket"]["status"], page["delivery"]) == ("CHARGED", "ASKED", None)
    assert len(page["trace_id"]) == 32
    assert isinstance(answer.body, bytes)
    hidden = ("Meera", "Marine Drive", "ring twice", "callback", "~capability~")
    assert not [secret for secret in hidden if secret in answer.body.decode()]


async def test_a_page_of_no_order_is_404(world: World) -> None:
    with pytest.raises(Problem, match="there is no order bites:none here") as missing:
        await view_of(world.services, workflows.OrderWorkflow).get(admitted("/"), "bites:none")
    assert missing.value.status == 404


async def test_rows_are_found_by_exact_key_and_by_prefix(world: World) -> None:
    order = world.has("asked", charged("asked"))
    world.has("asking")
    one, every = (view_of(world.services, view) for view in (table_views.RowsOfOwner, table_views.TableRows))

    async def keys(view: Any, query: str, *path: str) -> list[str]:
        return [row["key"] for row in body_of(await view.get(admitted(f"/?{query}"), *path))["rows"]]

    assert len(await keys(one, "", "journal", order)) == 5
    assert await keys(one, "exact=true", "journal", order) == []
    assert await keys(one, "exact=true", "journal", f"{order}/000002") == [f"{order}/000002"]
    assert await keys(one, "exact=true", "orders", order) == [order]
    assert sorted(await keys(every, "prefix=bites:ask", "orders")) == ["bites:asked", "bites:asking"]
    assert await keys(every, "prefix=bites:asked/00000", "journal") == [f"{order}/{n:06d}" for n in range(1, 6)]
    assert await keys(every, "prefix=bites:x", "orders") == []
    with pytest.raises(Problem, match="exact=maybe: it must be true or false"):
        await keys(one, "exact=maybe", "orders", order)
