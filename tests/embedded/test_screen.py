"""The demo's screen knows every status, and shows what is stuck: why, since when, and which faults are on."""

import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from streams.embedded.screen import STYLES, Orders, Screen, told_faults, waits
from topics.order_updates import Attention, OrderStatus, OrderUpdated

SINCE = datetime.now(UTC) - timedelta(seconds=75)


def update(number: int, attention: Attention | None = None) -> OrderUpdated:
    order = f"s:{number}"
    return OrderUpdated(order=order, version=1, status=OrderStatus.SCHEDULED, restaurant="r", attention=attention)


@pytest.fixture
def orders() -> Orders:
    """Two, one of them stuck."""
    orders = Orders()
    orders.take(update(1))
    orders.take(update(2, Attention(waits_for="the food", since=SINCE)))
    return orders


def test_every_status_has_its_colour() -> None:
    assert set(STYLES) == set(OrderStatus)


def test_what_is_stuck_tells_what_it_waits_for_and_since_when(orders: Orders) -> None:
    [stuck] = orders.stuck()
    assert stuck.update.attention is not None
    clock = SINCE.astimezone().strftime("%H:%M:%S")
    told = re.fullmatch(rf"waits for the food since {clock} \((\d+) s\)", waits(stuck.update.attention))
    assert told
    assert int(told[1]) == pytest.approx((datetime.now(UTC) - SINCE).total_seconds(), abs=1)


def test_faults_are_told_by_party_with_the_rates_below_one() -> None:
    assert told_faults({"pos": {"silent": 1.0, "500": 0.2}, "payment": {}, "drivers": {"gone": 0.05}}) == (
        "Faults: pos silent, 500 (20%); drivers gone (5%)"
    )
    assert told_faults({"pos": {}}) == ""


def test_the_screen_shows_faults_and_what_is_stuck(orders: Orders) -> None:
    shown = io.StringIO()
    screen = Screen({}, Console(file=shown, force_terminal=True, width=120, height=30))
    screen.faults = {"pos": {"silent": 1.0}}
    screen.open(orders, "run", 2)
    screen.close()
    assert "Faults: pos silent" in shown.getvalue()
    assert "attention 1" in shown.getvalue()
    assert re.search(r" ! the food, \d+ s", shown.getvalue())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_in_any_terminal_orders_can_be_told_apart_and_each_is_a_line(width: int) -> None:
    orders, shown = Orders(), io.StringIO()
    for number in (1, 2):
        eta = datetime.now(UTC) + timedelta(seconds=500)
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
    lines = [line for line in shown.getvalue().splitlines() if line.strip()]
    assert "0 of 5 have ended" in shown.getvalue()
    assert "1 are of earlier runs" in " ".join(shown.getvalue().split())
    for number in (1, 2):
        line = [line for line in lines if f"…{number} tiffin-express" in line][-1]
        assert re.search(r"\b(499|500) s +\d+ s", line), line
        assert "SCHEDULING_DELIVERY" in line
        assert ("! a d" in line) is (number == 2)


def test_without_a_terminal_an_order_that_is_stuck_is_a_line(
    orders: Orders, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen({}, Console(file=io.StringIO()))
    screen.tell(orders.stuck()[0])
    assert "s:2  r  SCHEDULED  needs attention: waits for the food since" in capsys.readouterr().out
