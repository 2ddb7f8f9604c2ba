"""`dabbawala reconcile` on a run of orders: no violation, and every violation that is planted in the ledgers."""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.flow.client import Client, order_id, partition_of
from tests.flow.reading import Following
from tests.support.stack import Stack, run_command
from topics.families import DEAD_LETTERS, ORDER_UPDATES, ORDERS
from verification.kills.flow import at_work, ended

RUN, ORDERS_PLACED = "reconciled", 25
MIXED = ("--kafka", "0.3", "--later", "0.3")
"""Options of the provider: some orders come over Kafka, some are for later."""


@pytest.fixture(scope="module")
def stack(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack at 600 times the speed."""
    with at_work(kafka, tmp_path_factory.mktemp("reconcile")) as stack:
        yield stack


@pytest.fixture
async def reconciled(stack: Stack, tmp_path: Path) -> Path:
    """Finish a run of orders, and return a copy of its ledgers that the test may change."""
    async with Following(stack.kafka, stack.name, [ORDER_UPDATES]) as feed:
        await feed.catch_up()
        if not feed.updates(RUN):
            stack.place(RUN, ORDERS_PLACED, 50.0, "--follow", *MIXED)
        await ended(stack, feed, RUN, ORDERS_PLACED)
        await feed.until(lambda: ends_noted(stack) == ORDERS_PLACED, "the provider's ledger has every end")
    shutil.copytree(stack.ledgers, tmp_path / "ledgers")
    return tmp_path / "ledgers"


def ends_noted(stack: Stack) -> int:
    """Count the ends of orders in the provider's ledger."""
    return sum(entry.event == "ended" and RUN in entry.order for entry in stack.answers())


async def reconcile(stack: Stack, *options: str) -> tuple[int, dict[str, Any]]:
    """Run `dabbawala reconcile` on the run; return its exit code and its JSON."""
    command = [sys.executable, "-m", "streams.cli", "reconcile", "--final", "--only", RUN, "--json", *options]
    status, printed, errors = await asyncio.to_thread(run_command, command, stack.environment)
    assert not errors
    return status, json.loads(printed)


def wrong(report: dict[str, Any]) -> dict[int, list[str]]:
    """Return promise -> the subjects of its violations."""
    return {
        promise["number"]: [violation["about"] for violation in promise["violations"]]
        for promise in report["promises"]
        if promise["violations"]
    }


def append(ledgers: Path, name: str, **line: Any) -> None:
    """Append a line to a ledger."""
    with (ledgers / f"{name}.jsonl").open("ab") as file:
        file.write(msgspec.json.encode({"at": datetime.now(UTC), **line}) + b"\n")


async def test_a_run_of_orders_has_no_violations(stack: Stack, reconciled: Path) -> None:
    status, report = await reconcile(stack)
    assert wrong(report) == {}
    assert status == 0
    assert report["books"]["orders"] == ORDERS_PLACED
    assert report["books"]["open"] == 0
    assert report["books"]["net charges"] == report["books"]["delivered"] == report["books"]["cooked"]
    judged = {promise["number"]: promise["checked"] for promise in report["promises"]}
    assert all(judged[number] >= ORDERS_PLACED for number in judged if number not in (8, 9, 11))
    assert judged[9] >= 8, "at least the consumed topics"


async def test_violations_planted_in_the_ledgers_are_found(stack: Stack, reconciled: Path) -> None:
    order = next(e.order for e in stack.answers() if RUN in e.order and e.event == "ended" and e.outcome == "DELIVERED")
    charge = {"kind": "charge", "order": order, "outcome": "charged", "key": f"{order}/charge"}
    append(reconciled, "payment", **charge)
    append(reconciled, "pos", event="finished", order=order, key=f"{order}/prepare")
    append(reconciled, "trips", driver="planted-1", event="assigned", delivery=order)
    append(reconciled, "trips", driver="planted-2", event="assigned", delivery=order)
    append(reconciled, "answers", event="answer", order=f"{order}-lost", outcome="accepted")
    append(reconciled, "observers", observer="o", order=order, version=1, status="DELIVERED", via="http")
    append(reconciled, "poison", topic=f"{stack.name}.orders", partition=0, offset=10**9, id="planted")
    append(reconciled, "intrusions", order=order, who="no key", method="GET", path="/", status=200)
    status, report = await reconcile(stack, "--ledgers", str(reconciled))
    assert status == 1
    assert wrong(report) == {
        1: [f"{order}-lost"],
        2: [order],
        4: [order],
        6: [order],
        7: [order],
        9: ["planted"],
        11: [order],
    }


async def test_a_record_with_a_dead_letter_is_accounted_for(
    stack: Stack, client: Client, reconciled: Path, unique: str
) -> None:
    value = {"type": "Placed", "provider": 5, "external_id": unique}
    async with Following(stack.kafka, stack.name, [DEAD_LETTERS, ORDERS], from_now=True) as topics:
        await client.produce(ORDERS, value, key=order_id(unique))
        await topics.until(lambda: len([r for r in topics.records if unique in str(r.value)]) == 2, "the dead letter")
        offset = next(r.offset for r in topics.records if r.topic.endswith(".orders") and unique in str(r.value))
    where = {"topic": f"{stack.name}.orders", "partition": partition_of(order_id(unique)), "offset": offset}
    append(reconciled, "poison", id=unique, **where)
    status, report = await reconcile(stack, "--ledgers", str(reconciled))
    assert (status, wrong(report)) == (0, {})
