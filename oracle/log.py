"""What is committed on Kafka's topics, and by whom: batches as they lie there, with their producers' ids and epochs.

aiokafka's consumer gives records without their producers, so this asks the leaders itself (`Fetch`, isolation level
`read_committed`) and passes over what was aborted, by the list of aborted transactions that comes with each answer. A
batch that cannot be decoded is told of and passed over. Its header can be read all the same, and says whether it is of
a transaction: if it is not, nothing in it can be a task's.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiokafka.errors as errors
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

READ_COMMITTED = 1
EARLIEST, LATEST = -2, -1
WAIT_MS = 200
PARTITION_BYTES = 4 << 20
REQUEST_BYTES = 32 << 20
STALLED_S = 30.0
"""A read that gets nowhere for so long is given up."""
RETRY_S = 0.1
MOVED = (errors.NotLeaderForPartitionError, errors.UnknownTopicOrPartitionError, errors.LeaderNotAvailableError)


class CannotRead(Exception):
    """Kafka does not give what is asked for. The message is one sentence that says what to do."""


class NotDecodable(Exception):
    """These bytes are no batch of records."""


class Committed(NamedTuple):
    """A committed record."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    transactional: bool


class Batch(NamedTuple):
    """A batch of records as it lies in a partition: the mark of a transaction's end, or records that are committed."""

    topic: str
    partition: int
    offset: int
    """Of its first record."""
    next_offset: int
    timestamp_ms: int
    """Of its newest record."""
    producer: int
    """-1: none that can be told from others."""
    epoch: int
    transactional: bool
    mark: bool
    content: Any
    """aiokafka's."""

    def records(self, first: int) -> Iterator[Committed]:
        """Its records from an offset on. `NotDecodable` where the batch holds none."""
        try:
            found = list(self.content)
        except Exception as error:  # whatever a decompressor, or aiokafka, makes of bytes that it does not expect
            raise NotDecodable(repr(error)) from None
        return (
            Committed(
                self.topic,
                self.partition,
                each.offset,
                each.timestamp,
                each.key,
                each.value,
                tuple(each.headers),
                self.transactional,
            )
            for each in found
            if each.offset >= first
        )


Positions = dict[TopicPartition, int]
Take = Callable[[Batch, int], None]
"""Is given each batch and the offset from which on it counts."""
Undecoded = Callable[[Batch, NotDecodable], None]


class Log:
    """The partitions of a cluster, to be read to the end of what is committed by now."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._client = AIOKafkaClient(bootstrap_servers=kafka, request_timeout_ms=int(STALLED_S * 1000))

    async def __aenter__(self) -> Self:
        try:
            await self._client.bootstrap()
        except errors.KafkaConnectionError:
            await self._client.close()
            raise CannotRead(f"No Kafka answers at {self._kafka}: start it, or say where it is.") from None
        except (ValueError, OverflowError):  # what aiokafka, or a socket, makes of a port that is none
            await self._client.close()
            raise CannotRead(f"{self._kafka!r} is no address of Kafka: write host:port[,host:port].") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()

    async def topics(self) -> dict[str, int]:
        """All topics, and their numbers of partitions."""
        try:
            found = await self._client.fetch_all_metadata()
        except errors.KafkaError:
            raise CannotRead(
                f"Kafka does not say which topics it has: see that {self._kafka} runs, and ask again."
            ) from None
        return {topic: len(found.partitions_for_topic(topic) or ()) for topic in found.topics()}

    async def follow(self, topics: Iterable[str]) -> None:
        """Find out who leads the partitions of these topics: before anything else is asked of them."""
        await self._client.set_topics(topics)

    async def offsets(self, partitions: Collection[TopicPartition], moment: int) -> Positions:
        """Where each partition begins (``EARLIEST``), where what is committed ends (``LATEST``), or the first record
        not older than a moment, in milliseconds since 1970; if there is none, where what is committed ends."""
        found: Positions = {}
        deadline = time.monotonic() + STALLED_S
        while missing := [tp for tp in partitions if tp not in found]:
            for leader, there in self._by_leader(missing).items():
                found.update(await self._offsets_at(leader, there, moment))
            if len(found) < len(partitions):
                await self._wait_for_leaders(deadline)
        if absent := [tp for tp, offset in found.items() if offset < 0]:
            found.update(await self.offsets(absent, LATEST))
        return found

    async def read(self, positions: Positions, take: Take, undecoded: Undecoded, tell: Callable[[int], None]) -> None:
        """Read each partition from its position to the end of what is committed by now; ``positions`` are moved on.
        ``tell`` is told how many offsets are left."""
        ends = await self.offsets(list(positions), LATEST)
        left = sum(max(0, end - positions[tp]) for tp, end in ends.items())
        deadline = time.monotonic() + STALLED_S
        while wanted := [tp for tp, end in ends.items() if positions[tp] < end]:
            tell(left)
            for leader, there in self._by_leader(wanted).items():
                await self._fetch(leader, {tp: positions[tp] for tp in there}, positions, take, undecoded)
            left, before = sum(max(0, end - positions[tp]) for tp, end in ends.items()), left
            if left < before:
                deadline = time.monotonic() + STALLED_S
            else:
                await self._wait_for_leaders(deadline)
        tell(0)

    async def _fetch(
        self,
        leader: int | None,
        starts: Mapping[TopicPartition, int],
        positions: Positions,
        take: Take,
        undecoded: Undecoded,
    ) -> None:
        if leader is None:
            return
        asked: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for tp, start in starts.items():
            asked[tp.topic].append((tp.partition, start, PARTITION_BYTES))
        request = FetchRequest(WAIT_MS, 1, REQUEST_BYTES, READ_COMMITTED, list(asked.items()))
        reply = await self._send(leader, request)
        for topic, partitions in () if reply is None else reply.topics:
            for partition, code, *_, aborted, _replica, data in partitions:
                tp = TopicPartition(topic, partition)
                if errors.for_code(code) is errors.OffsetOutOfRangeError:  # what was there is no more
                    positions.update(await self.offsets([tp], EARLIEST))
                elif _has_answered(tp, code):
                    reader = _Partition(tp, starts[tp], aborted, take, undecoded)
                    positions[tp] = reader.read(data)

    async def _offsets_at(self, leader: int | None, partitions: Iterable[TopicPartition], moment: int) -> Positions:
        if leader is None:
            return {}
        asked: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for tp in partitions:
            asked[tp.topic].append((tp.partition, moment))
        reply = await self._send(leader, OffsetRequest(-1, READ_COMMITTED, list(asked.items())))
        return {
            TopicPartition(topic, partition): offset
            for topic, lines in (() if reply is None else reply.topics)
            for partition, code, _, offset in lines
            if _has_answered(TopicPartition(topic, partition), code)
        }

    async def _send(self, leader: int, request: Any) -> Any:
        """The answer; None where the broker gives none just now."""
        try:
            return await self._client.send(leader, request)
        except (errors.KafkaConnectionError, errors.NodeNotReadyError, errors.RequestTimedOutError):
            return None
        except errors.IncompatibleBrokerVersion:
            raise CannotRead("This Kafka is too old: use 4.0 or newer.") from None

    async def _wait_for_leaders(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise CannotRead(f"Kafka has given nothing for {STALLED_S:.0f} s: see that its brokers run, and try again.")
        await asyncio.sleep(RETRY_S)
        await self._client.force_metadata_update()

    def _by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int | None, list[TopicPartition]]:
        found: defaultdict[int | None, list[TopicPartition]] = defaultdict(list)
        for tp in partitions:
            leader = self._client.cluster.leader_for_partition(tp)
            found[None if leader == -1 else leader].append(tp)
        return found


class _Partition:
    """The answer to a fetch, of one partition."""

    def __init__(self, tp: TopicPartition, start: int, aborted: Any, take: Take, undecoded: Undecoded) -> None:
        self._tp, self._start, self._take, self._undecoded = tp, start, take, undecoded
        self._to_come = sorted((first, producer) for producer, first in aborted or ())
        self._aborting: set[int] = set()

    def read(self, data: bytes) -> int:
        """Hand over what is committed; where the next fetch begins."""
        position, batches = self._start, MemoryRecords(data)
        while batches.has_next():
            batch = _batch(self._tp, batches.next_batch())
            if batch.next_offset > position:
                self._hand_over(batch, position)
                position = batch.next_offset
        return position

    def _hand_over(self, batch: Batch, first: int) -> None:
        while self._to_come and self._to_come[0][0] <= batch.offset:
            self._aborting.add(self._to_come.pop(0)[1])
        if batch.mark and _aborts(batch):
            self._aborting.discard(batch.producer)
        elif batch.transactional and batch.producer in self._aborting:
            return
        try:
            self._take(batch, max(first, batch.offset))
        except NotDecodable as error:
            self._undecoded(batch, error)


def _batch(tp: TopicPartition, found: Any) -> Batch:
    return Batch(
        tp.topic,
        tp.partition,
        found.base_offset,
        found.next_offset,
        found.max_timestamp,
        found.producer_id,
        found.producer_epoch,
        found.is_transactional,
        found.is_control_batch,
        found,
    )


def _aborts(mark: Batch) -> bool:
    record = next(iter(mark.content), None)
    return record is not None and ControlRecord.parse(record.key) == ABORT_MARKER


def _has_answered(tp: TopicPartition, code: int) -> bool:
    """False: ask again, elsewhere. `CannotRead` for what asking again does not change."""
    kind = errors.for_code(code)
    if kind in (errors.TopicAuthorizationFailedError, errors.GroupAuthorizationFailedError):
        raise CannotRead(f"Kafka does not let us read {tp.topic}: give this user the right to.")
    return kind is errors.NoError
