"""The trace of an order, drawn from its journal: the same tree as the exported spans, without any collector.

Spans that last, such as calls and searches for drivers, stand for what the journal does not have: each attempt, and the
steps of dispatch and of the driver. Pure: lines and rows in, spans out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from processors.call_kinds import parse_call_key
from processors.causes import causes_of
from processors.decision import Outcome
from processors.events import DeliveryEtaChanged, PreparationDue, WaitTimedOut
from processors.order import FINAL_STAGES, STATUS
from processors.workflow import JournalLine
from streams.tracing.ids import attempt_span, root_of, span_id, step_span
from topics.deliveries import EtaChanged
from topics.order_history import RowKind

ETA_EVENTS = frozenset({EtaChanged.__name__, DeliveryEtaChanged.__name__})
"""Events that only move the ETA: one a second while a driver is on the way."""
TIMER_EVENTS = frozenset({WaitTimedOut.__name__, PreparationDue.__name__})
"""Events of an order that timers cause."""
_FINAL = {stage.value: STATUS[stage].value for stage in FINAL_STAGES}


class OpenCall(NamedTuple):
    """A call without an answer."""

    key: str
    attempts: int
    """Attempts made so far."""
    next_ms: int
    last_error: str


class PendingTimer(NamedTuple):
    """The timer that an order waits for."""

    name: str
    since_ms: int
    due_ms: int


class DrawnSpan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One span as it is shown. Times are in milliseconds since 1970."""

    id: str
    parent: str = ""
    """Empty: the root."""
    depth: int = 0
    name: str
    start_ms: int
    end_ms: int | None = None
    """None: it has not ended."""
    notes: tuple[str, ...] = ()
    error: str = ""
    attempts: int | None = None
    """Attempts of an open call."""
    next_ms: int | None = None
    """Time of the next attempt of an open call, or at which a timer is due."""


def transitions(lines: Iterable[JournalLine]) -> tuple[str, ...]:
    """Return what lines did to the machines: `order CREATED → SCHEDULED`."""
    moved = (line for line in lines if line.after and line.after != line.before)
    return tuple(f"{line.machine} {line.before or '·'} → {line.after}" for line in moved)


def final_status(lines: Iterable[JournalLine]) -> str:
    """Return the status with which lines ended the order; empty if they did not."""
    ends = (_FINAL[line.after] for line in lines if _moves_order(line) and line.after in _FINAL)
    return next(ends, "")


def _moves_order(line: JournalLine) -> bool:
    return line.machine == RowKind.ORDER and line.before not in _FINAL


def steps_of(lines: Iterable[JournalLine]) -> list[list[JournalLine]]:
    """Return the lines by step: those of one event from outside, applied at one time."""
    steps: list[list[JournalLine]] = []
    for line in lines:
        if steps and (line.event_id, line.at_ms) == (steps[-1][-1].event_id, steps[-1][-1].at_ms):
            steps[-1].append(line)
        else:
            steps.append([line])
    return steps


def first_of_step(lines: Iterable[JournalLine], number: int) -> int:
    """Return the number of the first line of the step that has this line."""
    return next(step[0].seq for step in steps_of(lines) if step[-1].seq >= number)


def drawn_trace(
    order: str,
    lines: Sequence[JournalLine],
    placed_ms: int,
    calls: Iterable[OpenCall] = (),
    timer: PendingTimer | None = None,
) -> list[DrawnSpan]:
    """Return the spans of an order, each after its parent, siblings by their start.

    ``lines`` is the whole journal, oldest first; ``calls`` and ``timer`` are what the order waits for now.
    """
    drawing = _Drawing(order, lines, {call.key: call for call in calls})
    for step in steps_of(lines):
        if not all(line.event in ETA_EVENTS for line in step):
            drawing.add_step(step, placed_ms)
    if timer is not None and drawing.spans:
        drawing.add_timer(timer)
    return _in_order(drawing.spans)


def seconds(duration_ms: int) -> str:
    """Return a duration for people: `12 ms`, `3.4 s`, `12 min`, `3.2 h`."""
    for unit, size in (("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if duration_ms >= size:
            return f"{duration_ms / size:.3g} {unit}"
    return f"{duration_ms} ms"


class _Drawing:
    """Spans of one order while they are collected."""

    def __init__(self, order: str, lines: Sequence[JournalLine], calls: Mapping[str, OpenCall]) -> None:
        self.spans: list[DrawnSpan] = []
        self._order = order
        self._lines = lines
        self._calls = calls
        self._causes = causes_of(lines)
        self._emitted: dict[str, int] = {}
        """Id of a record, or key of a call -> the span that stands for it."""

    def add_timer(self, timer: PendingTimer) -> None:
        """Add the wait that goes on."""
        root, name = root_of(self._order), timer.name.partition("/")[2].removesuffix("-wait")
        self._add(span_id(timer.name), f"wait for {name}", root, timer.since_ms, None, next_ms=timer.due_ms)

    def _add(self, span: int, name: str, parent: int | None, start_ms: int, end_ms: int | None, **more: Any) -> None:
        above = "" if parent is None else f"{parent:016x}"
        drawn = DrawnSpan(id=f"{span:016x}", parent=above, name=name, start_ms=start_ms, end_ms=end_ms, **more)
        self.spans.append(drawn)

    def add_step(self, step: list[JournalLine], placed_ms: int) -> None:
        """Add the span of a step, those of what it asked for, and the end of the order."""
        first, at_ms = step[0], step[0].at_ms
        span = step_span(self._order, first.seq)
        refused = next((line for line in step if line.outcome is Outcome.REFUSED), None)
        error = "" if refused is None else f"refused: {refused.reason}"
        notes = self._notes(step)
        self._add(span, self._name(first), self._parent(first), at_ms, at_ms, notes=notes, error=error)
        for line in step:
            for emitted in line.emitted:
                self._add_emitted(emitted, span, line)
        if status := final_status(step):
            note = f"{status} after {seconds(at_ms - placed_ms)}"
            self._add(span_id(f"{self._order}/ended"), "order ended", span, at_ms, at_ms, notes=(note,))

    def _name(self, first: JournalLine) -> str:
        if first.seq == 1:
            return "order placed"
        if first.event in TIMER_EVENTS:
            return f"timer {first.event}"
        return f"{'answer' if first.event_id in self._emitted else 'process'} {first.event}"

    def _notes(self, step: list[JournalLine]) -> tuple[str, ...]:
        first, moved = step[0], transitions(step)
        if first.event not in TIMER_EVENTS:
            return moved
        set_by = self._lines[self._causes[first.seq] - 1]
        return (*moved, f"waited {seconds(first.at_ms - set_by.at_ms)}")

    def _parent(self, first: JournalLine) -> int | None:
        if first.seq == 1:
            return None
        if first.event in TIMER_EVENTS:
            return root_of(self._order)
        caused_by = self._emitted.get(first.event_id) or self._emitted.get(self._search_of(first.event_id))
        return caused_by or step_span(self._order, first_of_step(self._lines, self._causes[first.seq]))

    def _search_of(self, event_id: str) -> str:
        """Return the id of the request for a driver that a report from the driver's machine answers; else empty."""
        what, _, rest = event_id.removeprefix(f"{self._order}/").partition("/")
        return f"{self._order}/driver/{rest.partition('/')[0]}" if what in ("assigned", "refused") else ""

    def _add_emitted(self, emitted: str, asked_by: int, line: JournalLine) -> None:
        """Add the span of a call or of a search for a driver; other records have none."""
        what = emitted.removeprefix(f"{self._order}/")
        if emitted in self._emitted:  # asked for again
            return
        if what.startswith("driver/"):
            span, name = span_id(emitted), f"find a driver, attempt {what.partition('/')[2]}"
            self._add(span, name, asked_by, line.at_ms, self._answered_ms(line, emitted))
        elif _is_call(emitted):
            span = attempt_span(emitted, 1, asked_by)
            self._add_call(span, f"call {what}", asked_by, line, emitted)
        else:
            return
        self._emitted[emitted] = span

    def _add_call(self, span: int, name: str, asked_by: int, line: JournalLine, key: str) -> None:
        call = self._calls.get(key)
        if call is not None:
            waiting = {"error": call.last_error, "attempts": call.attempts, "next_ms": call.next_ms}
            self._add(span, name, asked_by, line.at_ms, None, **waiting)
            return
        self._add(span, name, asked_by, line.at_ms, self._answered_ms(line, key) or line.at_ms)  # or it was cancelled

    def _answered_ms(self, line: JournalLine, emitted: str) -> int | None:
        """Return the time of the first event that answers a call or request; None without one."""
        after = self._after(line)
        return next((each.at_ms for each in after if emitted in (each.event_id, self._search_of(each.event_id))), None)

    def _after(self, line: JournalLine) -> Sequence[JournalLine]:
        return self._lines[line.seq :]


def _is_call(key: str) -> bool:
    try:
        parse_call_key(key)
    except ValueError:
        return False
    return True


def _in_order(spans: Sequence[DrawnSpan]) -> list[DrawnSpan]:
    """Return the spans with their depths, each followed by its descendants."""
    children: dict[str, list[DrawnSpan]] = {}
    for span in spans:
        children.setdefault(span.parent, []).append(span)
    found: list[DrawnSpan] = []
    left = [(span, 0) for span in reversed(children.get("", []))]
    while left:
        span, depth = left.pop()
        found.append(msgspec.structs.replace(span, depth=depth))
        below = sorted(children.get(span.id, []), key=lambda child: child.start_ms)
        left += [(child, depth + 1) for child in reversed(below)]
    return found
