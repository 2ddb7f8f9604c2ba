"""Committed batches of Kafka's topics, with the ids and epochs of their producers.

aiokafka's consumer hides the producers of records, so this client sends `Fetch` requests to the leaders (isolation
level `read_committed`). It skips aborted batches by the list of aborted transactions in each answer.

A batch that cannot be decoded is reported and skipped. Its header is still readable and shows whether the batch belongs
to a transaction; if not, no task wrote it.
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
MAX_PARTITION_BYTES = 4 << 20
MAX_REQUEST_BYTES = 32 << 20
STALLED_S = 30.0
"""Time without progress after which a read fails."""
RETRY_S = 0.1


class CannotRead(Exception):
    """Kafka cannot be read. The message is one sentence with the remedy."""


class NotDecodable(Exception):
    """The bytes are not a batch of records."""


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
    """A batch in a partition: committed records, or the marker that ends a transaction."""

    topic: str
    partition: int
    offset: int
    """Offset of the first record."""
    next_offset: int
    """Offset after the last record."""
    timestamp_ms: int
    """Time of the newest record in milliseconds since 1970."""
    producer: int
    """Producer id; -1 if the producer has none."""
    epoch: int
    transactional: bool
    is_marker: bool
    content: Any
    """Iterable of records, as aiokafka returns it."""

    def records(self, first: int) -> Iterator[Committed]:
        """Return the records from the offset ``first`` on. Raises `NotDecodable`."""
        try:
            found = list(self.content)
        except Exception as error:  # decompressors and aiokafka raise many types
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
"""Handler of a batch, and of the offset of the first record that counts."""
Undecoded = Callable[[Batch, NotDecodable], None]


class Log:
    """Client that reads the committed records of a cluster's partitions."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._client = AIOKafkaClient(bootstrap_servers=kafka, request_timeout_ms=int(STALLED_S * 1000))

    async def __aenter__(self) -> Self:
        try:
            await self._client.bootstrap()
        except errors.KafkaConnectionError:
            await self._client.close()
            raise CannotRead(f"No Kafka answers at {self._kafka}: start it, or correct the address.") from None
        except (ValueError, OverflowError):  # aiokafka and sockets raise them for a wrong port
            await self._client.close()
            raise CannotRead(f"{self._kafka!r} is not an address of Kafka: write host:port[,host:port].") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()

    async def topics(self) -> dict[str, int]:
        """Return all topics with their numbers of partitions."""
        try:
            found = await self._client.fetch_all_metadata()
        except errors.KafkaError:
            raise CannotRead(f"Kafka does not list its topics: check that {self._kafka} runs, and try again.") from None
        return {topic: len(found.partitions_for_topic(topic) or ()) for topic in found.topics()}

    async def follow(self, topics: Iterable[str]) -> None:
        """Find the leaders of these topics' partitions. Call it before other requests about them."""
        await self._client.set_topics(topics)

    async def offsets(self, partitions: Collection[TopicPartition], moment: int) -> Positions:
        """Return an offset in each partition.

        ``moment`` is ``EARLIEST`` for the first record, ``LATEST`` for the end of the committed records, or a time in
        milliseconds since 1970 for the first record that is not older. Without such a record it is the end.
        """
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

    async def read(
        self, positions: Positions, take: Take, undecoded: Undecoded, progress: Callable[[int], None]
    ) -> None:
        """Read each partition from its position to the current end of the committed records; advance ``positions``.

        ``progress`` is called with the number of offsets that are left.
        """
        ends = await self.offsets(list(positions), LATEST)
        left = sum(max(0, end - positions[tp]) for tp, end in ends.items())
        deadline = time.monotonic() + STALLED_S
        while wanted := [tp for tp, end in ends.items() if positions[tp] < end]:
            progress(left)
            for leader, there in self._by_leader(wanted).items():
                await self._fetch(leader, {tp: positions[tp] for tp in there}, positions, take, undecoded)
            left, before = sum(max(0, end - positions[tp]) for tp, end in ends.items()), left
            if left < before:
                deadline = time.monotonic() + STALLED_S
            else:
                await self._wait_for_leaders(deadline)
        progress(0)

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
            asked[tp.topic].append((tp.partition, start, MAX_PARTITION_BYTES))
        request = FetchRequest(WAIT_MS, 1, MAX_REQUEST_BYTES, READ_COMMITTED, list(asked.items()))
        reply = await self._send(leader, request)
        for topic, partitions in () if reply is None else reply.topics:
            for partition, code, *_, aborted, _replica, data in partitions:
                tp = TopicPartition(topic, partition)
                if errors.for_code(code) is errors.OffsetOutOfRangeError:  # the records have expired
                    positions.update(await self.offsets([tp], EARLIEST))
                elif _is_success(tp, code):
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
            if _is_success(TopicPartition(topic, partition), code)
        }

    async def _send(self, leader: int, request: Any) -> Any:
        """Return the answer; None if the broker is not reachable now."""
        try:
            return await self._client.send(leader, request)
        except (errors.KafkaConnectionError, errors.NodeNotReadyError, errors.RequestTimedOutError):
            return None
        except errors.IncompatibleBrokerVersion:
            raise CannotRead("This Kafka is too old: use 4.0 or newer.") from None

    async def _wait_for_leaders(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise CannotRead(
                f"Kafka has sent no data for {STALLED_S:.0f} s: check that its brokers run, and try again."
            )
        await asyncio.sleep(RETRY_S)
        await self._client.force_metadata_update()

    def _by_leader(self, partitions: Iterable[TopicPartition]) -> dict[int | None, list[TopicPartition]]:
        found: defaultdict[int | None, list[TopicPartition]] = defaultdict(list)
        for tp in partitions:
            leader = self._client.cluster.leader_for_partition(tp)
            found[None if leader == -1 else leader].append(tp)
        return found


class _Partition:
    """Reader of one partition's part of the answer to a fetch."""

    def __init__(self, tp: TopicPartition, start: int, aborted: Any, take: Take, undecoded: Undecoded) -> None:
        self._tp = tp
        self._start = start
        self._take = take
        self._undecoded = undecoded
        self._aborts_ahead = sorted((first, producer) for producer, first in aborted or ())
        """(first offset, producer id) of the aborted transactions that begin at a later batch."""
        self._aborting: set[int] = set()
        """Ids of the producers whose transaction at the current batch is aborted."""

    def read(self, data: bytes) -> int:
        """Hand over the committed batches, and return the offset of the next fetch."""
        position, batches = self._start, MemoryRecords(data)
        while batches.has_next():
            batch = _batch(self._tp, batches.next_batch())
            if batch.next_offset > position:
                self._hand_over(batch, position)
                position = batch.next_offset
        return position

    def _hand_over(self, batch: Batch, first: int) -> None:
        while self._aborts_ahead and self._aborts_ahead[0][0] <= batch.offset:
            self._aborting.add(self._aborts_ahead.pop(0)[1])
        if batch.is_marker and _aborts(batch):
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


def _aborts(marker: Batch) -> bool:
    record = next(iter(marker.content), None)
    return record is not None and ControlRecord.parse(record.key) == ABORT_MARKER


def _is_success(tp: TopicPartition, code: int) -> bool:
    """Return False if the request should be sent again, perhaps to another broker. Raises `CannotRead`."""
    kind = errors.for_code(code)
    if kind in (errors.TopicAuthorizationFailedError, errors.GroupAuthorizationFailedError):
        raise CannotRead(f"Kafka does not permit reading {tp.topic}: grant this user the right to read it.")
    return kind is errors.NoError
