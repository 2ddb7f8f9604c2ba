"""The demo's screen: the orders, live, as `order-updates` tells of them; plain lines where there is no terminal."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from topics.order_updates import Attention, OrderStatus, OrderUpdated
from topics.records import epoch_ms

STYLES = {
    OrderStatus.CREATED: "white",
    OrderStatus.SCHEDULED: "cyan",
    OrderStatus.IN_PREPARATION: "yellow",
    OrderStatus.SCHEDULING_DELIVERY: "magenta",
    OrderStatus.WAITING_FOR_DRIVER: "magenta",
    OrderStatus.IN_DELIVERY: "blue",
    OrderStatus.DELIVERED: "green",
    OrderStatus.REJECTED: "red",
    OrderStatus.CANCELLED: "red",
}
FRAME_S = 0.25
WIDTHS = {"order": 20, "driver": 9, "ETA": 6, "age": 6}
GAP = 2
STATUS_WIDTH, RESTAURANT_WIDTH = 46, 12
"""A status has so much at most, with what the order waits for; the restaurant what is left, if it is so much."""
AROUND = 11
"""Lines of the screen that are no orders."""


class Seen(msgspec.Struct):
    """An order as it was last heard of. Times in milliseconds since 1970."""

    update: OrderUpdated
    since_ms: int
    """When it was first heard of."""


class Orders:
    """The orders heard of, and how many are how far."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def take(self, update: OrderUpdated) -> bool:
        """Note an update; whether it is more than a new ETA."""
        known = self.seen.get(update.order)
        if known is None:
            self.seen[update.order] = Seen(update, epoch_ms(update.at) if update.at else _now_ms())
            return True
        before, known.update = known.update, update
        return (before.status, before.attention) != (update.status, update.attention)

    def count(self, status: OrderStatus, among: Iterable[str] | None = None) -> int:
        """How many are in this status, of all or of some."""
        ids = self.seen.keys() if among is None else among
        return sum(1 for order in ids if order in self.seen and self.seen[order].update.status is status)

    def latest(self, limit: int) -> list[Seen]:
        """Those under way, oldest first, then those that ended last, as far as there is room."""
        by_age = sorted(self.seen.values(), key=lambda seen: seen.since_ms)
        under_way = [seen for seen in by_age if not seen.update.status.ended]
        ended = sorted(
            (seen for seen in by_age if seen.update.status.ended), key=lambda seen: _at_ms(seen), reverse=True
        )
        return (under_way + ended)[:limit]

    def stuck(self) -> list[Seen]:
        """Those that a person should look at, the oldest first."""
        return sorted((seen for seen in self.seen.values() if seen.update.attention), key=lambda seen: seen.since_ms)


class Screen:
    """Shows what goes on. Use as a context manager; `say` is for progress, `show` for orders."""

    def __init__(self, names: Mapping[str, str], console: Console | None = None) -> None:
        """`names`: restaurant id -> name."""
        self.console = console or Console()
        self.names = names
        self.footer = ""
        self.faults: dict[str, Mapping[str, float]] = {}
        """Party -> kind -> rate of the faults that are switched on."""
        self._live: Live | None = None
        self._drawn_at = 0.0

    def say(self, line: str) -> None:
        """Progress, before there are orders."""
        self.console.print(line, highlight=False)

    def open(self, orders: Orders, run: str, goal: int | None) -> None:
        """From now on the orders are shown, where there is a terminal, whenever `refresh` is called."""
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=lambda: self._drawn(orders, run, goal),
                console=self.console,
                auto_refresh=False,  # its thread would draw what is being changed meanwhile
                screen=False,
            )
            self._live.start(refresh=True)

    def refresh(self) -> None:
        """Draw it anew, unless that was done a moment ago."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn_at >= FRAME_S:
            self._drawn_at = now
            self._live.refresh()

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, seen: Seen) -> None:
        """An order has moved: a line of its own, where there is no terminal."""
        if self._live is None:
            update = seen.update
            parts = [time.strftime("%H:%M:%S"), update.order, self._name(update), update.status.value]
            parts += [f"driver {update.driver}"] if update.driver else []
            parts += [f"ETA {_eta(update)}"] if _eta(update) else []
            parts += [f"needs attention: {waits(update.attention)}"] if update.attention else []
            print("  ".join(parts), flush=True)

    def _drawn(self, orders: Orders, run: str, goal: int | None) -> RenderableType:
        table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        widths = _widths(self.console.width)
        for head, width in widths.items():
            justify: Literal["left", "right"] = "right" if head in ("ETA", "age") else "left"
            table.add_column(head, no_wrap=True, width=width, justify=justify)
        for seen in orders.latest(max(4, self.console.height - AROUND)):
            update = seen.update
            status = Text(update.status.value, STYLES[update.status])
            if update.attention:
                status.append(f" ! {_waits_briefly(update.attention)}", "bold red")
            ended_ms = _at_ms(seen) if update.status.ended else _now_ms()
            age = f"{max(0, ended_ms - seen.since_ms) / 1000:.0f} s"
            shown: dict[str, str | Text] = {
                "order": _short(update.order, run),
                "restaurant": self._name(update),
                "status": status,
                "driver": update.driver or "",
                "ETA": _eta(update),
                "age": age,
            }
            table.add_row(*(shown[head] for head in widths))
        faults = [Text(line, "red") for line in [told_faults(self.faults)] if line]
        return Group(self._counts(orders, run, goal), *faults, Text(), table, Text(), Text(self.footer, "dim"))

    def _counts(self, orders: Orders, run: str, goal: int | None) -> Text:
        counts = Counter(seen.update.status for seen in orders.seen.values())
        line = Text("Dabbawala  ", "bold")
        for status in OrderStatus:
            if counts[status]:
                line.append(f"{status.value} {counts[status]}  ", STYLES[status])
        if stuck := len(orders.stuck()):
            line.append(f"attention {stuck}  ", "bold red")
        own = [seen for order, seen in orders.seen.items() if run in order]
        if goal:
            line.append(f"{sum(seen.update.status.ended for seen in own)} of {goal} have ended  ", "bold")
        if earlier := len(orders.seen) - len(own):
            line.append(f"{earlier} are of earlier runs or of others", "dim")
        return line

    def _name(self, update: OrderUpdated) -> str:
        return self.names.get(update.restaurant, update.restaurant)


def waits(attention: Attention) -> str:
    """What is waited for and since when, as this machine's clock has it."""
    since_ms = epoch_ms(attention.since)
    clock = time.strftime("%H:%M:%S", time.localtime(since_ms / 1000))
    return f"waits for {attention.waits_for} since {clock} ({max(0, _now_ms() - since_ms) / 1000:.0f} s)"


def _waits_briefly(attention: Attention) -> str:
    return f"{attention.waits_for}, {max(0, _now_ms() - epoch_ms(attention.since)) / 1000:.0f} s"


def _widths(width: int) -> dict[str, int]:
    """Column -> its width, for a terminal of this one."""
    left = width - sum(WIDTHS.values()) - (len(WIDTHS)) * GAP
    restaurant = left - STATUS_WIDTH - GAP
    if restaurant < RESTAURANT_WIDTH:
        restaurant = RESTAURANT_WIDTH if left - RESTAURANT_WIDTH - GAP > STATUS_WIDTH / 2 else 0
    status = min(STATUS_WIDTH, left - (restaurant + GAP if restaurant else 0))
    widths = {"order": WIDTHS["order"], "restaurant": min(restaurant, 30), "status": max(1, status), **WIDTHS}
    return {head: each for head, each in widths.items() if each}


def _short(order: str, run: str) -> str:
    """What tells orders of this run apart comes first; all have the same in the middle of their ids."""
    provider, _, number = order.partition(f":{run}-")
    return f"…{number} {provider}" if number else order


def told_faults(faults: Mapping[str, Mapping[str, float]]) -> str:
    """The faults that are switched on, as a line; empty where none is."""
    on = [f"{party} {', '.join(_fault(*each) for each in rates.items())}" for party, rates in faults.items() if rates]
    return f"Faults: {'; '.join(on)}" if on else ""


def _fault(kind: str, rate: float) -> str:
    return kind if rate == 1 else f"{kind} ({rate:.0%})"


def _eta(update: OrderUpdated) -> str:
    if update.eta is None or update.status.ended:
        return ""
    return f"{max(0, epoch_ms(update.eta) - _now_ms()) / 1000:.0f} s"


def _at_ms(seen: Seen) -> int:
    return epoch_ms(seen.update.at) if seen.update.at else seen.since_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
