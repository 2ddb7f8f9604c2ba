"""Who writes where: a producer that was replaced must not be heard of again.

Every commit of a task raises its producer's epoch, and so does whoever takes the task over. Within a partition the
epochs of a producer's id therefore never go down, and those of the marks that end transactions count as well: the mark
of a commit has the epoch of what comes next. Where only one task writes (a table's changelog, what is told of orders),
an id that another one has followed on never comes again either: a task gets a new one when its epochs are used up.
"""

from typing import NamedTuple

from aiokafka import TopicPartition

from oracle.facts import Overtaken, Where
from oracle.log import Batch


class Written(NamedTuple):
    """The highest epoch of a producer, and where it was seen first."""

    epoch: int
    where: Where


class Writers:
    """The producers seen, partition by partition."""

    def __init__(self) -> None:
        self._highest: dict[tuple[TopicPartition, int], Written] = {}
        self._newest: dict[TopicPartition, int] = {}
        """The producer that came last, where only one task writes."""

    def note(self, batch: Batch, *, alone: bool) -> Overtaken | None:
        """A batch of a transaction, in the order of its partition; ``alone``: only one task writes there. What is wrong
        with it, if anything."""
        tp, where = TopicPartition(batch.topic, batch.partition), Where(batch.topic, batch.partition, batch.offset)
        known = self._highest.get((tp, batch.producer))
        newest = self._newest.setdefault(tp, batch.producer) if alone else batch.producer
        if known is None or batch.epoch > known.epoch:
            self._highest[tp, batch.producer] = Written(batch.epoch, where)
        if known is not None and newest != batch.producer:
            return self._overtaken(batch, where, tp, newest)
        if known is not None and batch.epoch < known.epoch:
            return Overtaken(where, batch.producer, batch.epoch, batch.producer, known.epoch, known.where)
        if alone:
            self._newest[tp] = batch.producer
        return None

    def _overtaken(self, batch: Batch, where: Where, tp: TopicPartition, newest: int) -> Overtaken:
        by = self._highest[tp, newest]
        return Overtaken(where, batch.producer, batch.epoch, newest, by.epoch, by.where)
