"""Causes in the journal of an order: the line from which each line follows.

A line's cause is the first of these that exists:

1. the first line of its step: one event from outside moves several machines, and each makes a line;
2. the latest line before it that emitted its event's id: the answer to a call has the key of the call;
3. the latest line of the same machine before it that changed the stage or asked an outside party: the stage sets the
   timer, and a party reports what it was asked for under an id that only the party knows;
4. the first line of the journal.

So a journal is one tree, whose root is the placing of the order.
"""

from collections.abc import Iterable, Mapping

from processors.decision import Outcome
from processors.workflow import JournalLine
from topics.order_history import RowKind


def causes_of(lines: Iterable[JournalLine]) -> Mapping[int, int]:
    """Return the number of a line -> the number of its cause, for all but the first line. The oldest line is first."""
    causes: dict[int, int] = {}
    emitters: dict[str, int] = {}
    movers: dict[str, int] = {}
    step, first = 0, 0
    before: JournalLine | None = None
    for line in lines:
        if before is None:
            step = first = line.seq
        elif _is_one_step(before, line):
            causes[line.seq] = step
        else:
            step = line.seq
            causes[line.seq] = emitters.get(line.event_id) or movers.get(line.machine) or first
        emitters |= dict.fromkeys(line.emitted, line.seq)
        if _awaits_more(line):
            movers[line.machine] = line.seq
        before = line
    return causes


def emitter_of(lines: Iterable[JournalLine], emitted: str) -> int | None:
    """Return the number of the latest line that emitted a record or call; None if none did."""
    return max((line.seq for line in lines if emitted in line.emitted), default=None)


def _is_one_step(before: JournalLine, line: JournalLine) -> bool:
    return (before.event_id, before.at_ms) == (line.event_id, line.at_ms)


def _awaits_more(line: JournalLine) -> bool:
    """Return whether later events of the machine follow from this one."""
    asked = bool(line.emitted) and line.machine != RowKind.ORDER  # the order emits its updates, which nobody answers
    return line.outcome is Outcome.APPLIED and (line.before != line.after or asked)
