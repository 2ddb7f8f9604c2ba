"""A machine's behaviour as a grid: one line an event, one column a stage, every pair of them decided.

A column stands for a state in some stage. A cell says what becomes of the event there: the stage it leads to, `!`
(applied, the stage stays), `=` (absorbed), `x` (refused) or `?` (no such driver). The column `-` is before there is
a state.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import pytest

from processors.decision import Moment, Outcome, Table, Transition
from tests.processors.cases import NOW, P

OUTCOMES = {"!": Outcome.APPLIED, "=": Outcome.ABSORBED, "x": Outcome.REFUSED, "?": Outcome.UNKNOWN}


class Cell(NamedTuple):
    """One pair of the grid."""

    event: str
    stage: str
    leads_to: str


def cells(grid: str) -> Iterator[Cell]:
    """The cells of a grid."""
    head, *lines = (line.split() for line in grid.strip().splitlines())
    for name, *row in lines:
        assert len(row) == len(head), f"{name}: {len(row)} cells, {len(head)} stages"
        yield from (Cell(name, stage, leads_to) for stage, leads_to in zip(head, row, strict=True))


def parameters(grid: str) -> pytest.MarkDecorator:
    """For a test of one cell."""
    return pytest.mark.parametrize(
        "cell", [pytest.param(cell, id=f"{cell.event}-{cell.stage}") for cell in cells(grid)]
    )


def check(
    cell: Cell, decide: Callable[..., Any], states: Mapping[str, Any], events: Mapping[str, Any], stages: type[Enum]
) -> None:
    """Decide the pair and compare."""
    state = states[cell.stage]
    decision = decide(state, events[cell.event], NOW, P)
    before = "-" if state is None else state.stage.name
    stage = before if decision.state is None else decision.state.stage.name
    if cell.leads_to in OUTCOMES:
        assert (decision.outcome, stage) == (OUTCOMES[cell.leads_to], before)
    else:
        assert (decision.outcome, stage) == (Outcome.APPLIED, stages[cell.leads_to].name)
    if decision.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
        assert decision.reason
        assert decision.state is None


def rows_missed(grid: str, table: Table[Any], states: Mapping[str, Any], events: Mapping[str, Any]) -> set[Transition]:
    """The rows of a table that no cell of the grid takes."""
    moment = Moment(NOW, P)
    taken = {table.find(states[cell.stage], events[cell.event], moment) for cell in cells(grid)}
    return set(table) - taken
