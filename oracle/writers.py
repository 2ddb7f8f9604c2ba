"""Detection of writes by replaced producers.

Every commit of a task raises the epoch of its producer, and so does a new owner of the task. Within a partition the
epochs of a producer id therefore never decrease. This includes the markers that end transactions: the marker of a
commit has the epoch of the next transaction.

A task gets a new producer id when its epochs are used up. In a partition that only one task writes (of a changelog, of
`order-updates` and of `order-history`) a producer id therefore never returns after another one.
"""

from typing import NamedTuple

from aiokafka import TopicPartition

from oracle.facts import Location, StaleWrite
from oracle.log import Batch


class ProducerEpoch(NamedTuple):
    """Highest epoch of a producer, and the location of its first batch with it."""

    epoch: int
    where: Location


class Writers:
    """The producers seen in each partition."""

    def __init__(self) -> None:
        self._highest: dict[tuple[TopicPartition, int], ProducerEpoch] = {}
        self._newest: dict[TopicPartition, int] = {}
        """Newest producer id of each partition with one writer."""

    def note(self, batch: Batch, *, single_writer: bool) -> StaleWrite | None:
        """Add a batch of a transaction; return the stale write if a replaced producer wrote it.

        Batches of a partition have to be added in their order. ``single_writer`` means that only one task writes there.
        """
        tp, where = TopicPartition(batch.topic, batch.partition), Location(batch.topic, batch.partition, batch.offset)
        known = self._highest.get((tp, batch.producer))
        newest = self._newest.setdefault(tp, batch.producer) if single_writer else batch.producer
        if known is None or batch.epoch > known.epoch:
            self._highest[tp, batch.producer] = ProducerEpoch(batch.epoch, where)
        if known is not None and newest != batch.producer:
            return self._stale_write(batch, where, tp, newest)
        if known is not None and batch.epoch < known.epoch:
            return StaleWrite(where, batch.producer, batch.epoch, batch.producer, known.epoch, known.where)
        if single_writer:
            self._newest[tp] = batch.producer
        return None

    def _stale_write(self, batch: Batch, where: Location, tp: TopicPartition, newest: int) -> StaleWrite:
        by = self._highest[tp, newest]
        return StaleWrite(where, batch.producer, batch.epoch, newest, by.epoch, by.where)
