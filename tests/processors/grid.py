"""Behaviour of a machine as a grid: one line for each event, one column for each stage.

A column stands for a state in that stage; the column `-` stands for no state. A cell has the outcome of the event: the
next stage, `!` (applied, the stage stays), `=` (absorbed), `x` (refused) or `?` (no such driver).
"""

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import pytest

from processors.decision import DecisionContext, Outcome, Table, Transition
from tests.processors.cases import NOW, P

OUTCOMES = {"!": Outcome.APPLIED, "=": Outcome.ABSORBED, "x": Outcome.REFUSED, "?": Outcome.NOT_FOUND}


class Cell(NamedTuple):
    """One cell of the grid."""

    event: str
    stage: str
    leads_to: str


def cells(grid: str) -> Iterator[Cell]:
    """List the cells of a grid."""
    head, *lines = (line.split() for line in grid.strip().splitlines())
    for name, *row in lines:
        assert len(row) == len(head), f"{name}: {len(row)} cells, {len(head)} stages"
        yield from (Cell(name, stage, leads_to) for stage, leads_to in zip(head, row, strict=True))


def parameters(grid: str) -> pytest.MarkDecorator:
    """Return the parameters of a test of one cell."""
    return pytest.mark.parametrize(
        "cell", [pytest.param(cell, id=f"{cell.event}-{cell.stage}") for cell in cells(grid)]
    )


def check(
    cell: Cell, decide: Callable[..., Any], states: Mapping[str, Any], events: Mapping[str, Any], stages: type[Enum]
) -> None:
    """Decide the event in the state and compare the outcome with the cell."""
    state = states[cell.stage]
    decision = decide(state, events[cell.event], NOW, P)
    before = "-" if state is None else state.stage.name
    stage = before if decision.state is None else decision.state.stage.name
    if cell.leads_to in OUTCOMES:
        assert (decision.outcome, stage) == (OUTCOMES[cell.leads_to], before)
    else:
        assert (decision.outcome, stage) == (Outcome.APPLIED, stages[cell.leads_to].name)
    if decision.outcome in (Outcome.REFUSED, Outcome.NOT_FOUND):
        assert decision.reason
        assert decision.state is None


def rows_missed(
    grid: str, table: Table[Any, Any, Any], states: Mapping[str, Any], events: Mapping[str, Any]
) -> set[Transition[Any, Any, Any]]:
    """Return the rows of a table that no cell of the grid takes."""
    context = DecisionContext(NOW, P)
    taken = {table.find(states[cell.stage], events[cell.event], context) for cell in cells(grid)}
    return set(table) - taken
