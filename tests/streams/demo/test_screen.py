"""The demo's screen: every status, the stuck orders with reasons, and the faults that are on."""

import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from streams.cli.output import STATUS_STYLES
from streams.demo.screen import Orders, Screen, faults_text, reason_text
from topics.order_updates import Attention, OrderStatus, OrderUpdated
from topics.text import plain_lines

SINCE = datetime.now(UTC) - timedelta(seconds=75)


def update(number: int, attention: Attention | None = None) -> OrderUpdated:
    order = f"s:{number}"
    return OrderUpdated(order=order, version=1, status=OrderStatus.SCHEDULED, restaurant="r", attention=attention)


@pytest.fixture
def orders() -> Orders:
    """Return two orders, one of them stuck."""
    orders = Orders()
    orders.take(update(1))
    orders.take(update(2, Attention(waits_for="the food", since=SINCE)))
    return orders


def test_every_status_has_a_colour() -> None:
    assert set(STATUS_STYLES) == set(OrderStatus)


def test_stuck_order_has_a_reason_and_a_duration(orders: Orders) -> None:
    [stuck] = orders.stuck()
    assert stuck.update.attention is not None
    now = datetime.now(UTC)
    recent = Attention(waits_for=stuck.update.attention.waits_for, since=now - timedelta(seconds=75))
    found = re.fullmatch(r"the food is not ready for (\d+) s", reason_text(recent))
    assert found
    assert 75 <= int(found[1]) < 120


def test_faults_are_listed_by_party_with_rates_below_one() -> None:
    assert faults_text({"pos": {"silent": 1.0, "500": 0.2}, "payment": {}, "drivers": {"gone": 0.05}}) == (
        "Faults: pos silent, 500 (20%); drivers gone (5%)"
    )
    assert faults_text({"pos": {}}) == ""


def test_screen_shows_faults_and_stuck_orders(orders: Orders) -> None:
    shown = io.StringIO()
    screen = Screen({}, Console(file=shown, force_terminal=True, width=120, height=30))
    screen.faults = {"pos": {"silent": 1.0}}
    screen.open(orders, "run", 2)
    screen.close()
    assert "Faults: pos silent" in shown.getvalue()
    assert "needs a person 1" in shown.getvalue()
    assert re.search(r"! s:2: the food is not ready for \d+ (s|min)", shown.getvalue())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_each_order_is_a_line_with_its_id_at_any_width(width: int) -> None:
    orders, shown, now = Orders(), io.StringIO(), datetime.now(UTC)
    for number in (1, 2):
        eta = now + timedelta(seconds=500)
        orders.take(
            OrderUpdated(
                order=f"tiffin-express:demo-6b097a12-{number}",
                version=3,
                status=OrderStatus.SCHEDULING_DELIVERY,
                restaurant="linking-road-sweets",
                driver="driver-12",
                eta=eta,
                attention=Attention(waits_for="a driver", since=SINCE) if number == 2 else None,
            )
        )
    orders.take(update(3))
    names = {"linking-road-sweets": "Linking Road Sweets and Savouries"}
    screen = Screen(names, Console(file=shown, force_terminal=True, width=width, height=30, color_system=None))
    screen.open(orders, "demo-6b097a12", 5)
    screen.close()
    took_s = (datetime.now(UTC) - now).total_seconds()
    lines = [line for line in shown.getvalue().splitlines() if line.strip()]
    assert "0 of 5 ended" in " ".join(shown.getvalue().split())
    assert "1 of earlier runs" in " ".join(shown.getvalue().split())
    for number in (1, 2):
        line = [line for line in lines if line.startswith(f"tiffin-express:demo-6b097a12-{number} ")][-1]
        left = re.search(r"\b(\d+) s", line)
        assert left, line
        assert 499 - took_s <= int(left[1]) <= 500
        assert "SCHEDULING_DELIVERY" in line
    assert any(line.startswith("! tiffin-express:demo-6b097a12-2: no driver found for ") for line in lines)


def test_stuck_order_is_a_line_without_a_terminal(orders: Orders, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen({}, Console(file=io.StringIO()))
    screen.print_update(orders.stuck()[0])
    assert "s:2  r  SCHEDULED  needs a person: the food is not ready for" in capsys.readouterr().out


def test_age_is_blank_without_the_first_update() -> None:
    orders, shown = Orders(), io.StringIO()
    for number, version in ((1, 1), (2, 4)):
        orders.take(
            OrderUpdated(order=f"s:{number}", version=version, status=OrderStatus.SCHEDULED, restaurant="r", at=SINCE)
        )
    screen = Screen({}, Console(file=shown, force_terminal=True, width=120, height=30, color_system=None))
    screen.open(orders, "run", None)
    screen.close()
    rows = {line[:3]: line.rstrip() for line in shown.getvalue().splitlines() if re.match(r"s:\d ", line)}
    assert re.search(r"SCHEDULED +\d+ s$", rows["s:1"])
    assert rows["s:2"].endswith("SCHEDULED")


@pytest.mark.parametrize("width", [40, 120])
def test_texts_of_others_are_harmless_on_the_screen(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]52;c;eA==\x9b2J\x7f\u202e"
    orders, written = Orders(), io.StringIO()
    orders.take(update(2, Attention(waits_for=f"the charge: {hostile}", since=SINCE)))
    screen = Screen({"r": f"name {hostile}"}, Console(file=written, width=width, color_system=None))
    screen.console.print(screen._drawn(orders, "s", 1))
    screen.say(f"Starting {hostile}")
    screen.print_update(orders.stuck()[0])
    shown = written.getvalue() + capsys.readouterr().out
    assert plain_lines(shown) == shown
    assert "\\u001b" in shown
