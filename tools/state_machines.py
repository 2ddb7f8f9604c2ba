"""Page of the state machines: a diagram (Mermaid) and a table (Markdown) for each table of ``processors/``.

Dispatch has no stages: its section is made from the docstrings of its handlers.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, NamedTuple, get_type_hints

from processors import delivery, dispatch, driver, history, order, payment, ticket
from processors.decision import Table, Transition

INTRODUCTION = """# State machines

Each machine is a module of `processors/` with a table of transitions. The diagrams and tables on this page are made
from these tables. The first row that fits decides. An event without a row is refused. The order's journal records its
refusals.

- *in*: the stages in which the row applies; `-` is the state before the first event.
- *if*: the guard. *otherwise* means that the guards of the rows above do not hold.
- *to*: the next stage; empty if the stage stays.
- *what happens*: the effect. *call* means a call to an outside party; *notify the order* means an event for the
  order's machine in the same transaction; *send* means a record on a topic.

Dispatch, at the end, has rows instead of stages.
"""
MACHINES: tuple[tuple[str, str, Table[Any, Any, Any], type[Enum]], ...] = (
    ("Order", "processors/order.py", order.TABLE, order.Stage),
    ("Payment", "processors/payment.py", payment.TABLE, payment.Stage),
    ("Ticket", "processors/ticket.py", ticket.TABLE, ticket.Stage),
    ("Delivery", "processors/delivery.py", delivery.TABLE, delivery.Stage),
    ("History", "processors/history.py", history.TABLE, history.Stage),
    ("Driver", "processors/driver.py", driver.TABLE, driver.Stage),
)


class DispatchCase(NamedTuple):
    """One case of an event of dispatch."""

    event: type
    condition: str
    effect: str


def render() -> str:
    """Return the page of all state machines and of dispatch."""
    return "\n".join([INTRODUCTION, *(_machine(*machine) + "\n" for machine in MACHINES), _dispatch() + "\n"])


def dispatch_cases() -> list[DispatchCase]:
    """List the cases of dispatch, as the docstrings of its handlers have them: ``- condition: effect``."""
    return [case for handler in dispatch.HANDLERS for case in _cases(handler)]


def _cases(handler: Callable[..., object]) -> list[DispatchCase]:
    event = get_type_hints(handler)["event"]
    lines = re.findall(r"^- (.+?): (.+)$", inspect.cleandoc(handler.__doc__ or ""), re.MULTILINE)
    return [DispatchCase(event, condition, effect) for condition, effect in lines]


def _dispatch() -> str:
    lines = ["| event | if | what happens |", "|---|---|---|"]
    lines += [f"| {case.event.__name__} | {case.condition} | {case.effect} |" for case in dispatch_cases()]
    return "\n\n".join(["## Dispatch (`processors/dispatch.py`)", "\n".join(lines)])


def _machine(name: str, path: str, table: Table[Any, Any, Any], stages: type[Enum]) -> str:
    moves = [row for row in table if row.to is not None]
    parts = [f"## {name} (`{path}`)", *([_diagram(moves, stages)] if moves else []), _table(table, stages)]
    return "\n\n".join(parts)


def _diagram(moves: Iterable[Transition[Any, Any, Any]], stages: type[Enum]) -> str:
    lines = [f'    state "{stage.value}" as {stage.name}' for stage in stages if stage.value != stage.name]
    reached = {row.to for row in moves if row.to is not None}
    left = {stage for row in moves for stage in row.at}
    for row in moves:
        assert row.to is not None
        for stage in row.at:
            lines.append(f"    {'[*]' if stage is None else stage.name} --> {row.to.name}: {row.event.__name__}")
    lines += [f"    {stage.name} --> [*]" for stage in stages if stage in reached - left]
    return "\n".join(["```mermaid", "stateDiagram-v2", *dict.fromkeys(lines), "```"])


def _table(table: Iterable[Transition[Any, Any, Any]], stages: type[Enum]) -> str:
    lines = ["| in | event | if | to | what happens |", "|---|---|---|---|---|"]
    guarded: set[tuple[Enum | None, type]] = set()
    for row in table:
        otherwise = any((stage, row.event) in guarded for stage in row.at)
        lines.append(f"| {' | '.join(_cells(row, stages, otherwise))} |")
        guarded.update((stage, row.event) for stage in row.at if row.when is not None)
    return "\n".join(lines)


def _cells(row: Transition[Any, Any, Any], stages: type[Enum], otherwise: bool) -> tuple[str, ...]:
    does = [row.does.__doc__ or ""]
    if row.reapply:
        does.append("the event is applied once more in that stage")
    if row.update:
        does.append("a record on `order-updates`")
    condition = ("otherwise" if otherwise else "") if row.when is None else row.when.__doc__ or ""
    return _in(row, stages), row.event.__name__, condition, "" if row.to is None else row.to.value, "; ".join(does)


def _in(row: Transition[Any, Any, Any], stages: type[Enum]) -> str:
    if set(row.at) == set(stages):
        return "any"
    return " / ".join("-" if stage is None else stage.value for stage in row.at)
