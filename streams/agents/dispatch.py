"""The `dispatch` topic: deliveries that want a driver and drivers who want work. See `processors.dispatch`."""

from processors import dispatch as machine
from processors.events import TimerDue
from processors.waiting import DispatchIndex, Overlay
from streams import tables
from streams.agents.intake import decoded, from_here
from streams.app import dispatch as topic
from streams.app import engine, parameters, settings
from streams.engine import Record, Task
from streams.outbox import emit, set_timers
from topics.dispatch import READER

TIMER: bytes = b"dispatch"
"""Marks the timers of dispatch among those of the task."""

engine.index(tables.dispatch.name, DispatchIndex)


@engine.agent(topic)
def dispatch(task: Task, record: Record) -> None:
    """Bring deliveries and waiting drivers together."""
    event = decoded(task, READER, record)
    if not from_here(task, record, event.region):
        return
    _move(task, event)


def timer_due(task: Task, name: str) -> None:
    """Forget a request that is too old to come again."""
    _move(task, TimerDue(name))


def _move(task: Task, event: object) -> None:
    index = task.index(tables.dispatch.name)
    assert isinstance(index, DispatchIndex)
    view = Overlay(index, lambda key: task.get(tables.dispatch.name, key))
    decision = machine.decide(view, event, task.now_ms, parameters)
    for key, row in decision.rows.items():
        tables.dispatch.put(task, key, row)
    for said in decision.emit:
        emit(task, said, settings.topic_prefix)
    set_timers(task, decision.timers, TIMER)
    index.write(decision.rows)  # last: nothing that can fail comes after it
