"""Agent of the topic `dispatch`: deliveries that need a driver, and available drivers. See `processors.dispatch`."""

from exactly_once import Record, Task
from processors import dispatch as machine
from processors.events import TimerDue
from processors.spatial_index import DispatchIndex, Overlay
from processors.timers import TimerKind
from streams.agents.decoding import decode_or_reject, forward_unless_owned
from streams.services import Services
from streams.worker.outbox import emit, set_timers
from topics.dispatch import READER

TIMER = TimerKind.DISPATCH.value
"""Payload of the timers of dispatch, by which a due timer finds its handler."""


def dispatch(services: Services, task: Task, record: Record) -> None:
    """Match deliveries with waiting drivers of the region."""
    event = decode_or_reject(task, READER, record)
    if forward_unless_owned(task, record, event.region):
        _apply(services, task, event)


def timer_due(services: Services, task: Task, name: str) -> None:
    """Delete the row of a driver request that is too old to be repeated; keep it if the delivery still waits."""
    _apply(services, task, TimerDue(name))


def _apply(services: Services, task: Task, event: object) -> None:
    index = task.index(services.tables.dispatch.name)
    assert isinstance(index, DispatchIndex)
    view = Overlay(index, lambda key: task.get(services.tables.dispatch.name, key))
    decision = machine.decide(view, event, task.now_ms, services.parameters)
    for key, row in decision.rows.items():
        services.tables.dispatch.put(task, key, row)
    for message in decision.emit:
        emit(task, message, services.settings.topic_prefix)
    set_timers(task, decision.timers, TIMER)
    index.write(decision.rows)  # last, because a failure after it would leave the index changed
