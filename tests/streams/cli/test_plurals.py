"""Counts agree with their nouns and verbs, in the commands, the demo and the simulators."""

import argparse
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from simulators.cli import counted as simulators_counted
from streams.cli.output import counted
from streams.demo.__main__ import Demo
from streams.demo.screen import Orders, Screen
from streams.settings import Settings
from tests.streams.cli.conftest import FakeWorker, Run
from topics.order_updates import Attention, OrderStatus, OrderUpdated

NOUNS = "order|driver|delivery|deliveries|restaurant|item|topic|call|time|day"
WRONG = re.compile(
    rf"\b1 (?:[a-z]+ )?(?:deliveries|(?:{NOUNS})s|are|were|have|wait|work)\b"
    rf"|\b(?:0|[2-9]) (?:[a-z]+ )?(?:(?!deliveries)(?:{NOUNS})(?!s)|is|was|has|waits|works)\b"
)
"""A count of one with a plural, or another count with a singular."""
AT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sentence", "is_wrong"),
    [
        ("1 orders", True),
        ("1 free drivers", True),
        ("1 are of earlier runs", True),
        ("2 delivery", True),
        ("0 order", True),
        ("1 order, 0 drivers, 2 deliveries", False),
        ("menu with 1 item", False),
    ],
)
def test_pattern_finds_wrong_plurals(sentence: str, is_wrong: bool) -> None:
    assert bool(WRONG.search(sentence)) is is_wrong


@pytest.mark.parametrize("count", [counted, simulators_counted])
def test_counted_has_one_singular(count: Callable[[int, str], str]) -> None:
    assert [count(number, "order") for number in range(3)] == ["0 orders", "1 order", "2 orders"]
    assert [counted(number, "delivery", "deliveries") for number in (1, 2)] == ["1 delivery", "2 deliveries"]


@pytest.mark.parametrize("number", range(3))
def test_commands_agree_with_their_counts(worker: FakeWorker, run: Run, tmp_path: Path, number: int) -> None:
    drivers = [{"driver": "asha", "shift": 1, "position": {"lat": 1.0, "lon": 2.0}}] * number
    deliveries = [{"delivery": "s:1", "restaurant": "r", "attempt": 1, "since": AT.isoformat()}] * number
    counts = {"drivers_waiting": number, "deliveries_pending": number}
    worker.says("/v1/regions/fort", {"region": "fort", "drivers": drivers, "deliveries": deliveries, **counts})
    (tmp_path / "menu.json").write_bytes(msgspec.json.encode(_catalogue(number)))
    for line in (["regions", "get", "fort"], ["catalogue", "check", str(tmp_path / "menu.json")]):
        done = run(*line)
        assert done.status == 0, done.error
        assert not WRONG.search(done.printed), done.printed


@pytest.mark.parametrize("faults", [{}, {"pos": {"silent": 1.0}}])
@pytest.mark.parametrize("number", range(3))
def test_demo_agrees_with_its_counts(number: int, faults: dict[str, Any]) -> None:
    shown = io.StringIO()
    screen = Screen({}, Console(file=shown, force_terminal=True, width=200, height=30, color_system=None))
    arguments = argparse.Namespace(orders=number, seed="1", rate=1.0, day=None, faults=faults, speed=None)
    demo = Demo(arguments, Settings.from_environment(), screen)
    for run in (demo._run, "earlier"):
        for order in range(number):
            demo._orders.take(_update(f"s:{run}-{order}"))
    _show(screen, demo._orders, demo._run, number)
    for text in (shown.getvalue(), demo.ends()):
        assert not WRONG.search(text), text


def _show(screen: Screen, orders: Orders, run: str, goal: int) -> None:
    screen.open(orders, run, goal)
    screen.close()


def _update(order: str) -> OrderUpdated:
    attention = Attention(waits_for="the food", since=AT)
    return OrderUpdated(order=order, version=1, status=OrderStatus.DELIVERED, restaurant="r", attention=attention)


def _catalogue(number: int) -> list[dict[str, Any]]:
    item = {"pos_code": "A", "name": "Pizza", "unit_price": 100}
    return [
        {
            "restaurant": f"r-{each}",
            "name": "R",
            "region": "fort",
            "position": {"lat": 1.0, "lon": 2.0},
            "pos_url": "https://pos",
            "preparation_s": 60,
            "time_zone": "Asia/Kolkata",
            "currency": "INR",
            "menu": [item],
        }
        for each in range(number)
    ]
