"""One fetch from one topic, handed to Faust as one event: Faust's 60 us an event are then paid once a topic."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from faust.types import TP

from exactly_once.task.interfaces import Record
from exactly_once.task.task import Task


class TaskBatch(NamedTuple):
    """The records that a fetch brought for one task.

    ``task`` is the incarnation that the records were fetched for. ``follows`` is the offset after the batch before.
    """

    task: Task
    follows: int
    records: Sequence[Record]


class TopicBatch:
    """The records of one fetch from one topic, in the shape of one Faust record."""

    __slots__ = ("_fetched", "offset", "partition", "parts", "timestamp", "topic")
    timestamp_type = 0
    headers = ()
    key = checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, fetched: Sequence[tuple[int, Sequence[Record]]]) -> None:
        """``tp`` is the partition that Faust books the batch under. ``fetched`` has (partition, records) pairs; the
        first pair is of ``tp``."""
        last = fetched[0][1][-1]
        self.topic = tp.topic
        self.partition = tp.partition
        self.offset = last.offset
        self.timestamp = last.timestamp
        self.parts: list[TaskBatch] = []
        self._fetched = fetched

    @property
    def value(self) -> "TopicBatch":
        return self

    def bind(self, tasks: Mapping[int, Task]) -> None:
        """Give each task its part. Records of a partition without a task are dropped; its next owner reads them."""
        for partition, records in self._fetched:
            task = tasks.get(partition)
            if task is not None:
                self.parts.append(TaskBatch(task, task.fetched_to[self.topic], records))
                task.fetched_to[self.topic] = records[-1].offset + 1
                task.backlog[id(records)] = len(records)


class BatchScheduler:
    """Faust's ``ConsumerScheduler``, which yields one item a topic instead of one a record."""

    def iterate(self, records: Mapping[TP, Sequence[Record]]) -> Iterator[tuple[TP, TopicBatch]]:
        topics: dict[str, list[tuple[int, Sequence[Record]]]] = {}
        for tp, fetched in records.items():
            topics.setdefault(tp.topic, []).append((tp.partition, fetched))
        for topic, fetched_of_topic in topics.items():
            tp = TP(topic, fetched_of_topic[0][0])
            yield tp, TopicBatch(tp, fetched_of_topic)
