"""Whether the clock of a task that opens can be gone by.

A task goes by the wall clock as it was when the task opened. With a wrong one its timers would fire early, and those
that it sets would be wrong for whoever has the task next. So a broker is asked for the time first: it stamps what is
appended to a changelog (``message.timestamp.type=LogAppendTime``) and tells the stamp. What is appended is the deletion
of a row that never is: nobody ever sees it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from streams.engine.changes import Appended, Outgoing
from streams.engine.task import RESERVED_PREFIX, Clock

CLOCK = RESERVED_PREFIX + b"clock"
DELETION: Outgoing = (CLOCK, None, ())


class Stamping(Protocol):
    """The transactions of the task that opens."""

    async def produce(
        self, outputs: Mapping[tuple[str, int], Sequence[Outgoing]]
    ) -> Mapping[tuple[str, int], Appended]: ...
    async def end(self) -> None: ...


async def doubt_of(clock: Clock, transactions: Stamping, changelog: tuple[str, int], apart_s: float) -> str:
    """Why nobody can go by this clock, and what to do; empty where it is no more than ``apart_s`` from the broker's.

    The broker's time lies between ours before it was asked and ours when it answered, so a slow answer is no doubt.
    """
    before_ms = clock.now_ms()
    broker_ms = (await transactions.produce({changelog: [DELETION]}))[changelog].broker_ms
    after_ms = clock.now_ms()
    await transactions.end()
    if broker_ms < 0:
        return (
            f"the broker does not tell its time: the topic {changelog[0]}, and every other changelog, needs "
            "message.timestamp.type=LogAppendTime (`topics check --create` sets it)"
        )
    ahead_s, behind_s = (before_ms - broker_ms) / 1000, (broker_ms - after_ms) / 1000
    if max(ahead_s, behind_s) <= apart_s:
        return ""
    how = f"{ahead_s:.1f} s ahead of" if ahead_s > 0 else f"{behind_s:.1f} s behind"
    return f"this machine's clock is {how} the broker's, set right the one that is wrong: at most {apart_s:g} s will do"
