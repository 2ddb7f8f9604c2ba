"""The demo's screen: the orders, live, from `order-updates`; plain lines without a terminal."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streams.cli.output import STATUS_STYLES, attention_text
from topics.order_updates import Attention, OrderStatus, OrderUpdated, in_words
from topics.records import epoch_ms
from topics.text import plain, plain_lines

FRAME_S = 0.25
WIDTHS = {"status": 19, "driver": 12, "ETA": 6, "age": 6}
OPTIONAL = ("driver", "age")
"""Columns that a narrow terminal leaves out, first one first; ids and statuses stay whole."""
MAX_ID, MIN_RESTAURANT, MAX_RESTAURANT = 40, 12, 30
GAP = 2
AROUND = 9
"""Lines of the screen that are neither orders nor reasons for attention."""
MAX_REASONS = 5
"""Orders that need a person and are listed with the reason."""


class Seen(msgspec.Struct):
    """The latest update of an order. Times are in milliseconds since 1970."""

    update: OrderUpdated
    since_ms: int
    """Time of the first update seen."""
    is_new: bool = True
    """True if that was the order's very first update, and not the order of an earlier run."""


class Orders:
    """The orders seen, by id."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}

    def take(self, update: OrderUpdated) -> bool:
        """Record an update; return True if it is more than a new ETA."""
        known = self.seen.get(update.order)
        if known is None:
            since_ms = epoch_ms(update.at) if update.at else _now_ms()
            self.seen[update.order] = Seen(update, since_ms, is_new=update.version == 1)
            return True
        before, known.update = known.update, update
        return (before.status, before.attention) != (update.status, update.attention)

    def count(self, status: OrderStatus, among: Iterable[str] | None = None) -> int:
        """Count the orders in a status, of all or of some."""
        ids = self.seen.keys() if among is None else among
        return sum(1 for order in ids if order in self.seen and self.seen[order].update.status is status)

    def latest(self, limit: int) -> list[Seen]:
        """Return orders under way, oldest first, then those that ended last; at most ``limit``."""
        by_age = sorted(self.seen.values(), key=lambda seen: seen.since_ms)
        under_way = [seen for seen in by_age if not seen.update.status.ended]
        ended = sorted(
            (seen for seen in by_age if seen.update.status.ended), key=lambda seen: _at_ms(seen), reverse=True
        )
        return (under_way + ended)[:limit]

    def stuck(self) -> list[Seen]:
        """Return the orders that need a person, oldest first."""
        return sorted((seen for seen in self.seen.values() if seen.update.attention), key=lambda seen: seen.since_ms)


class Screen:
    """The screen of the demo: lines of progress, then the orders."""

    def __init__(self, names: Mapping[str, str], console: Console | None = None) -> None:
        """Make the screen; `names` maps restaurant ids to names."""
        self.console = console or Console()
        self.names = names
        self.footer = ""
        self.faults: dict[str, Mapping[str, float]] = {}
        """Party -> kind -> rate of the faults that are switched on."""
        self._live: Live | None = None
        self._drawn_at = 0.0

    def say(self, line: str) -> None:
        """Print a line of progress."""
        self.console.print(plain_lines(line), highlight=False, soft_wrap=True)

    def open(self, orders: Orders, run: str, goal: int | None) -> None:
        """Start to show the orders in a terminal; `refresh` redraws them."""
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=lambda: self._drawn(orders, run, goal),
                console=self.console,
                auto_refresh=False,  # its thread would draw data that changes meanwhile
                screen=False,
            )
            self._live.start(refresh=True)

    def refresh(self) -> None:
        """Redraw the orders, at most every `FRAME_S`."""
        now = time.monotonic()
        if self._live is not None and now - self._drawn_at >= FRAME_S:
            self._drawn_at = now
            self._live.refresh()

    def close(self) -> None:
        """Stop redrawing; the last picture stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print_update(self, seen: Seen) -> None:
        """Print an order that has changed as one line, unless there is a terminal."""
        if self._live is None:
            update = seen.update
            parts = [time.strftime("%H:%M:%S"), update.order, self._name(update), update.status.value]
            parts += [in_words(update.reason)] if update.reason else []
            parts += [f"driver {update.driver}"] if update.driver else []
            parts += [f"ETA {_eta(update)}"] if _eta(update) else []
            parts += [f"needs a person: {reason_text(update.attention)}"] if update.attention else []
            print(plain("  ".join(parts)), flush=True)

    def _drawn(self, orders: Orders, run: str, goal: int | None) -> RenderableType:
        table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, GAP, 0, 0))
        latest = orders.latest(max(4, self.console.height - AROUND))
        widths = _widths(self.console.width, max((len(seen.update.order) for seen in latest), default=0))
        for head, width in widths.items():
            justify: Literal["left", "right"] = "right" if head in ("ETA", "age") else "left"
            table.add_column(head, no_wrap=True, width=width, justify=justify)
        stuck = orders.stuck()
        reasons = [_reason(seen.update) for seen in stuck[:MAX_REASONS]]
        if stuck:
            reasons.append(Text("Next: dabbawala orders list --attention", "dim"))
        for seen in latest[: max(4, self.console.height - AROUND - len(reasons))]:
            update = seen.update
            ended_ms = _at_ms(seen) if update.status.ended else _now_ms()
            shown: dict[str, str | Text] = {
                "order": update.order,
                "restaurant": self._name(update),
                "status": Text(update.status.value, STATUS_STYLES[update.status]),
                "driver": update.driver or "",
                "ETA": _eta(update),
                "age": f"{max(0, ended_ms - seen.since_ms) / 1000:.0f} s" if seen.is_new else "",
            }
            table.add_row(*(shown[head] for head in widths))
        faults = [Text(line, "red") for line in [faults_text(self.faults)] if line]
        footer = Text(self.footer, "dim")
        return Group(self._counts(orders, run, goal), *faults, Text(), table, *reasons, Text(), footer)

    def _counts(self, orders: Orders, run: str, goal: int | None) -> Text:
        counts = Counter(seen.update.status for seen in orders.seen.values())
        line = Text("Dabbawala  ", "bold")
        for status in OrderStatus:
            if counts[status]:
                line.append(f"{status.value} {counts[status]}  ", STATUS_STYLES[status])
        if stuck := len(orders.stuck()):
            line.append(f"needs a person {stuck}  ", "bold red")
        own = [seen for order, seen in orders.seen.items() if run in order]
        if goal:
            line.append(f"{sum(seen.update.status.ended for seen in own)} of {goal} ended  ", "bold")
        if earlier := len(orders.seen) - len(own):
            line.append(f"{earlier} of earlier runs or other providers", "dim")
        return line

    def _name(self, update: OrderUpdated) -> str:
        return plain(self.names.get(update.restaurant, update.restaurant))


def reason_text(attention: Attention) -> str:
    """Return the reason that an order needs a person, and for how long it has."""
    return plain(attention_text(attention.waits_for, attention.since))


def _reason(update: OrderUpdated) -> Text:
    assert update.attention is not None
    return Text(f"! {update.order}: {reason_text(update.attention)}", "bold red")


def _widths(width: int, longest_id: int) -> dict[str, int]:
    """Column -> its width in a terminal of this width. Columns that do not fit are left out."""
    widths = {"order": max(len("order"), min(longest_id, MAX_ID)), **WIDTHS}
    for head in OPTIONAL:
        if sum(widths.values()) + GAP * len(widths) > width:
            del widths[head]
    left = width - sum(widths.values()) - GAP * (len(widths) + 1)
    if left < MIN_RESTAURANT:
        return widths
    return {"order": widths.pop("order"), "restaurant": min(left, MAX_RESTAURANT), **widths}


def faults_text(faults: Mapping[str, Mapping[str, float]]) -> str:
    """Return the faults that are switched on as one line; empty without any."""
    on = [f"{party} {', '.join(_fault(*each) for each in rates.items())}" for party, rates in faults.items() if rates]
    return f"Faults: {'; '.join(on)}" if on else ""


def _fault(kind: str, rate: float) -> str:
    return kind if rate == 1 else f"{kind} ({rate:.0%})"


def _eta(update: OrderUpdated) -> str:
    if update.eta is None or update.status.ended:
        return ""
    left_ms = epoch_ms(update.eta) - _now_ms()
    return f"{left_ms / 1000:.0f} s" if left_ms >= 0 else "late"


def _at_ms(seen: Seen) -> int:
    return epoch_ms(seen.update.at) if seen.update.at else seen.since_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
