"""Check this machine's clock against the broker's before a task opens.

A task uses the wall clock of the moment in which it opened. A wrong clock would fire timers early, and set timers that
are wrong for the next owner. So the task first appends a record to a changelog: the broker stamps it
(``message.timestamp.type=LogAppendTime``) and returns the stamp. The record deletes a row that never exists, so no
reader sees a change.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from exactly_once.task.interfaces import RESERVED_PREFIX, Clock
from exactly_once.task.transaction import ProduceResult, ProducerRecord

CLOCK = RESERVED_PREFIX + b"clock"
PROBE: ProducerRecord = (CLOCK, None, ())


class BrokerClock(Protocol):
    """The transactional producer of the task that opens."""

    async def produce(
        self, outputs: Mapping[tuple[str, int], Sequence[ProducerRecord]]
    ) -> Mapping[tuple[str, int], ProduceResult]: ...
    async def end(self) -> None: ...


async def clock_skew_error(clock: Clock, transactions: BrokerClock, changelog: tuple[str, int], apart_s: float) -> str:
    """Return what is wrong with this clock and what to do; empty if it is within ``apart_s`` of the broker's.

    The broker's stamp lies between our times before the request and after the answer, so a slow answer does no harm.
    """
    before_ms = clock.now_ms()
    broker_ms = (await transactions.produce({changelog: [PROBE]}))[changelog].broker_ms
    after_ms = clock.now_ms()
    await transactions.end()
    if broker_ms < 0:
        return (
            f"the broker does not tell its time: the topic {changelog[0]}, and every other changelog, needs "
            "message.timestamp.type=LogAppendTime (`kafka-configs.sh --alter --entity-type topics` sets it)"
        )
    ahead_s, behind_s = (before_ms - broker_ms) / 1000, (broker_ms - after_ms) / 1000
    if max(ahead_s, behind_s) <= apart_s:
        return ""
    how = f"{ahead_s:.1f} s ahead of" if ahead_s > 0 else f"{behind_s:.1f} s behind"
    return f"this machine's clock is {how} the broker's, set right the one that is wrong: at most {apart_s:g} s will do"
