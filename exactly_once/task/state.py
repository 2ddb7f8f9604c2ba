"""The states of a task, and the legal transitions between them.

                +---------+
        +-------| CREATED |-------+
        |       +----+----+       |
        |            | start      | suspend
        |            v            v
        |       +---------+   +-----------+
        +-------| RUNNING |<->| SUSPENDED |<-+ suspend
        |       +----+----+   +-----+-----+--+
        |            |              |
        | failure    +------+-------+
        v                   |
    +--------+              | close (from any state)
    | BROKEN |----------+   |
    +--------+          v   v
                      +--------+
                      | CLOSED |<-+ close
                      +--------+--+

A task is opened from what is committed: CREATED. It applies records, but commits, fires timers and makes calls only
once it is RUNNING. In a rebalance it is SUSPENDED: it commits what it has applied, and starts again if it stays in this
worker. An error at any step makes it BROKEN; a broken task can only be closed, and is opened again as a new one. A
repeated ``suspend`` or ``close`` is legal, because a rebalance may interrupt the first.
"""

from enum import Enum


class TaskState(Enum):
    """The state of a task."""

    CREATED = "created"
    RUNNING = "running"
    SUSPENDED = "suspended"
    BROKEN = "broken"
    CLOSED = "closed"


TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.CREATED: frozenset({TaskState.RUNNING, TaskState.SUSPENDED, TaskState.BROKEN, TaskState.CLOSED}),
    TaskState.RUNNING: frozenset({TaskState.SUSPENDED, TaskState.BROKEN, TaskState.CLOSED}),
    TaskState.SUSPENDED: frozenset({TaskState.RUNNING, TaskState.SUSPENDED, TaskState.BROKEN, TaskState.CLOSED}),
    TaskState.BROKEN: frozenset({TaskState.CLOSED}),
    TaskState.CLOSED: frozenset({TaskState.CLOSED}),
}
"""State -> the states that may follow it."""
ALIVE = frozenset({TaskState.CREATED, TaskState.RUNNING, TaskState.SUSPENDED})
"""States in which the task has its memory and may still commit."""
ACCEPTS_WORK = frozenset({TaskState.CREATED, TaskState.RUNNING})
"""States in which the task applies records and starts calls."""
