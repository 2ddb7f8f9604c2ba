"""The demo's screen: the orders, live, as `order-updates` tells of them; plain lines where there is no terminal."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping

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
FRAMES_PER_S = 8
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

    def say(self, line: str) -> None:
        """Progress, before there are orders."""
        self.console.print(line, highlight=False)

    def open(self, orders: Orders, goal: int | None) -> None:
        """From now on the orders are shown, where there is a terminal."""
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=lambda: self._drawn(orders, goal),
                console=self.console,
                refresh_per_second=FRAMES_PER_S,
                screen=False,
            )
            self._live.start()

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

    def _drawn(self, orders: Orders, goal: int | None) -> RenderableType:
        table = Table(expand=True, header_style="bold", box=None, pad_edge=False)
        for head in ("order", "restaurant", "status", "driver"):
            table.add_column(head, no_wrap=True)
        table.add_column("ETA", justify="right")
        table.add_column("age", justify="right")
        for seen in orders.latest(max(4, self.console.height - AROUND)):
            update = seen.update
            status = Text(update.status.value, STYLES[update.status])
            if update.attention:
                status.append(f"  ! {waits(update.attention)}", "bold red")
            ended_ms = _at_ms(seen) if update.status.ended else _now_ms()
            age = f"{max(0, ended_ms - seen.since_ms) / 1000:.0f} s"
            table.add_row(update.order, self._name(update), status, update.driver or "", _eta(update), age)
        faults = [Text(line, "red") for line in [told_faults(self.faults)] if line]
        return Group(self._counts(orders, goal), *faults, Text(), table, Text(), Text(self.footer, "dim"))

    def _counts(self, orders: Orders, goal: int | None) -> Text:
        counts = Counter(seen.update.status for seen in orders.seen.values())
        line = Text("Dabbawala  ", "bold")
        for status in OrderStatus:
            if counts[status]:
                line.append(f"{status.value} {counts[status]}  ", STYLES[status])
        if stuck := len(orders.stuck()):
            line.append(f"attention {stuck}  ", "bold red")
        if goal:
            line.append(f"of {goal}", "bold")
        return line

    def _name(self, update: OrderUpdated) -> str:
        return self.names.get(update.restaurant, update.restaurant)


def waits(attention: Attention) -> str:
    """What is waited for and since when, as this machine's clock has it."""
    since_ms = epoch_ms(attention.since)
    clock = time.strftime("%H:%M:%S", time.localtime(since_ms / 1000))
    return f"waits for {attention.waits_for} since {clock} ({max(0, _now_ms() - since_ms) / 1000:.0f} s)"


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
