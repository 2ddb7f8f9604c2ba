"""A client of Kafka's current transaction protocol (KIP-890, ``transaction.version=2``, Kafka >= 4.0), one a task.

A transaction is ``produce()`` as often as wanted, then ``end()``. Nothing is sent but what is called here, and in that
order; the first produce opens the transaction on the broker. There are no consumer offsets in it: how far a task has
read is a row of its own, so that a commit is two requests and not three (see ``positions`` in ``task``).

Why it is safe: every request carries the producer's (id, epoch), and ``end()`` raises the epoch. A request of a
transaction that has ended, delayed in the network and delivered in the next one, is therefore refused; so is every
request of an owner whose successor has called ``start()``. aiokafka's own producer speaks version 0 of the protocol,
where such a late EndTxn commits half of the next transaction, and it resends EndTxn by itself.

Any exception means: this client is finished. Open a new one; ``start()`` finishes whatever is left.
Message formats: Kafka's protocol guide, https://kafka.apache.org/protocol.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import aiokafka.errors as errors
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.engine.changes import Appended, Outgoing

TopicAndPartition = tuple[str, int]

BATCH_BYTES = 900_000
"""Batches are closed here, below the broker's ``message.max.bytes`` of 1,048,588; one larger record goes alone."""
PRODUCE_TIMEOUT_MS = 8_000
"""How long a leader may wait for its replicas; the caller's deadline is usually sooner."""
RETRY_S = 0.003
"""Between attempts: the usual cause, the previous transaction's markers, takes one to a few milliseconds."""

RETRIABLE = frozenset({5, 6, 7, 14, 15, 16, 19, 20, 51})
"""The same request may be sent again: no leader yet or not the leader (5, 6), replicas slow (7) or too few (19, 20),
coordinator loading or moved (14, 15, 16), previous transaction still completing (51).
A produce keeps its sequence number, so the broker recognises a batch that it has already."""
LEADER_MOVED = frozenset({5, 6})
COORDINATOR_MOVED = frozenset({15, 16})
FENCED = frozenset({22, 25, 47, 49, 90})

TRANSACTION_VERSION = 2
OLD_BROKER = (
    "The broker at {where} offers transaction.version {found}, but exactly-once tasks need {needed}: use Apache Kafka "
    "4.0 or later, and after an upgrade run `kafka-features.sh upgrade --feature transaction.version={needed}`."
)


class TransactionError(Exception):
    """The transaction is not committed, or nobody knows; this client is finished."""


class Fenced(TransactionError):
    """Somebody else has taken over the transactional id, or the broker gave up on the transaction."""


class OutcomeUnknown(TransactionError):
    """EndTxn was sent and not answered: committed or not, only a successor's ``start()`` makes it certain."""


class OldBroker(Exception):
    """The cluster does not speak the protocol that this client relies on."""


class TopicInfo(NamedTuple):
    """What the cluster says of a topic. A recreated topic has another id."""

    id: str
    partitions: int


# -- the requests, from the protocol guide --------------------------------------------------------------------------

TEXT, TAGS = CompactString("utf-8"), ("tags", TaggedFields)


class _Uuid(Int64):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: Any) -> bytes:
        return bytes(value)

    @classmethod
    def decode(cls, data: BytesIO) -> Any:
        return data.read(16)


def versioned_request(
    key: int, version: int, fields: Sequence[tuple[str, Any]], answer: Sequence[tuple[str, Any]], *, header: int = 1
) -> type[Any]:
    """A request class for ``AIOKafkaClient.send`` in exactly one version, so that nothing older is ever negotiated."""

    class _Answer(Response):  # type: ignore[misc]
        API_KEY = key
        API_VERSION = version
        SCHEMA = Schema(*answer, TAGS)

    class _Struct(RequestStruct):  # type: ignore[misc]
        API_KEY = key
        API_VERSION = version
        FLEXIBLE_VERSION = True
        RESPONSE_TYPE = _Answer
        SCHEMA = Schema(*fields, TAGS)

        def parse_response_header(self, read_buffer: BytesIO | bytes) -> Any:
            if header == 0:
                return ResponseHeader_v0.decode(read_buffer)
            return super().parse_response_header(read_buffer)

    class _Versioned(Request[_Struct]):  # type: ignore[misc]
        API_KEY = key

        def __init__(self, *values: Any) -> None:
            self.values = values

        def build(self, request_struct_class: type[_Struct]) -> _Struct:
            return request_struct_class(*self.values, {})

    return _Versioned


def _topics(*fields: tuple[str, Any]) -> tuple[str, Any]:
    return ("topics", CompactArray(("name", TEXT), ("partitions", CompactArray(*fields, TAGS)), TAGS))


_PRODUCER = (("producer_id", Int64), ("producer_epoch", Int16))
_OWNER = (("transactional_id", TEXT), *_PRODUCER)
_ERROR = (("throttle", Int32), ("error_code", Int16))

ApiVersions = versioned_request(
    18,
    3,
    (("name", TEXT), ("version", TEXT)),
    (
        ("error_code", Int16),
        ("apis", CompactArray(("key", Int16), ("lowest", Int16), ("highest", Int16), TAGS)),
        ("throttle", Int32),
    ),
    header=0,
)
InitProducerId = versioned_request(
    22, 5, (("transactional_id", TEXT), ("timeout_ms", Int32), *_PRODUCER), (*_ERROR, *_PRODUCER)
)
Produce = versioned_request(
    0,
    12,
    (
        ("transactional_id", TEXT),
        ("acks", Int16),
        ("timeout_ms", Int32),
        _topics(("index", Int32), ("records", CompactBytes)),
    ),
    (
        _topics(
            ("index", Int32),
            ("error_code", Int16),
            ("base_offset", Int64),
            ("append_time", Int64),
            ("log_start", Int64),
            ("record_errors", CompactArray(("index", Int32), ("message", TEXT), TAGS)),
            ("message", TEXT),
        ),
        ("throttle", Int32),
    ),
)
EndTxn = versioned_request(26, 5, (*_OWNER, ("commit", Boolean)), (*_ERROR, *_PRODUCER))
Metadata = versioned_request(
    3,
    12,
    (("topics", CompactArray(("id", _Uuid), ("name", TEXT), TAGS)), ("create", Boolean), ("operations", Boolean)),
    (
        ("throttle", Int32),
        ("brokers", CompactArray(("id", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT), TAGS)),
        ("cluster", TEXT),
        ("controller", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", TEXT),
                ("id", _Uuid),
                ("internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("index", Int32),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        TAGS,
                    ),
                ),
                ("operations", Int32),
                TAGS,
            ),
        ),
    ),
)
_FINALIZED_FEATURES = (2, CompactArray(("name", TEXT), ("max_level", Int16), ("min_level", Int16), TAGS))
"""The tag under which an ApiVersions answer carries what the cluster has agreed on."""


# -- what is asked of the cluster, outside any transaction ----------------------------------------------------------


async def refuse_old_brokers(client: AIOKafkaClient) -> None:
    """Raise ``OldBroker`` unless the cluster has finalized ``transaction.version`` 2 (Kafka >= 4.0)."""
    reply = await client.send(client.get_random_node(), ApiVersions("dabbawala", "1"))
    tag, schema = _FINALIZED_FEATURES
    features = schema.decode(BytesIO(reply.tags[tag])) if tag in reply.tags else []
    found = next((level for name, level, _, _ in features or () if name == "transaction.version"), 0)
    if found < TRANSACTION_VERSION:
        where = ", ".join(f"{host}:{port}" for host, port, _ in client.hosts)
        raise OldBroker(OLD_BROKER.format(where=where, found=found, needed=TRANSACTION_VERSION))


async def describe_topics(client: AIOKafkaClient, topics: Iterable[str]) -> dict[str, TopicInfo]:
    """The topics of these that exist."""
    names: list[Any] = [(bytes(16), topic, {}) for topic in topics]
    reply = await client.send(client.get_random_node(), Metadata(names, False, False))
    return {
        name: TopicInfo(topic_id.hex(), len(partitions))
        for code, name, topic_id, _, partitions, _, _ in reply.topics
        if not code
    }


def _check(code: int, what: str) -> bool:
    """Raise for an error that ends the transaction; True if the request has to be sent again."""
    if code in RETRIABLE:
        return True
    if code:
        kind = Fenced if code in FENCED else TransactionError
        raise kind(f"{what}: {errors.for_code(code).__name__} ({code})")
    return False


# -- the client -----------------------------------------------------------------------------------------------------


class TransactionalClient:
    """The transactions of one transactional id. Not for concurrent use: one request at a time, in order.

    ``client`` is this one's alone, and not bootstrapped yet.
    ``on_end_sent`` is called between sending EndTxn and reading its answer (for failpoints). ``now_ms`` gives records
    their time.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        transactional_id: str,
        *,
        transaction_timeout_s: float = 10.0,
        on_end_sent: Callable[["TransactionalClient"], None] | None = None,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.transactional_id = transactional_id
        self.now_ms = now_ms
        self.producer_id, self.epoch = -1, -1
        self._client = client
        self._timeout_ms = int(transaction_timeout_s * 1000)
        self._on_end_sent = on_end_sent
        self._topics: list[str] = []
        self._sequences: dict[TopicAndPartition, int] = {}
        self._coordinator = -1

    async def start(self, topics: Iterable[str]) -> None:
        """Take over the transactional id; the previous owner is fenced and its open transaction finished on return.

        ``topics`` are those that will be produced to. Raises ``OldBroker``, ``TransactionError``, ``KafkaError``.
        """
        self._topics = list(topics)
        await self._client.bootstrap()
        await refuse_old_brokers(self._client)
        await self._client.set_topics(self._topics)
        reply = await self._take_over(InitProducerId(self.transactional_id, self._timeout_ms, -1, -1))
        self.producer_id, self.epoch, self._sequences = reply.producer_id, reply.producer_epoch, {}

    async def close(self) -> None:
        """Let go of the connections. An open transaction stays open until the next ``start()`` or its timeout."""
        await self._client.close()

    def cut(self) -> None:
        """Close the connection to the coordinator, as a network would."""
        for (_, group), connection in list(self._client._conns.items()):
            if group is ConnectionGroup.COORDINATION:
                connection.close()

    async def produce(
        self, outputs: Mapping[TopicAndPartition, Sequence[Outgoing]]
    ) -> dict[TopicAndPartition, Appended]:
        """Append to the partitions, at every leader at once, a partition's batches in order."""
        queues = {tp: self._batches(tp, records) for tp, records in outputs.items() if records}
        appended: dict[TopicAndPartition, Appended] = {}
        while queues:
            by_leader: dict[int | None, dict[TopicAndPartition, bytes]] = {}
            for tp, batches in queues.items():
                by_leader.setdefault(self._leader(tp), {})[tp] = batches[0][0]
            replies = await asyncio.gather(*(self._produce_to(leader, data) for leader, data in by_leader.items()))
            failed = set()
            for tp, code, base_offset, append_ms in (line for reply in replies for line in reply):
                if _check(code, f"produce to {tp[0]}/{tp[1]}"):
                    failed.add(code)
                    continue
                appended[tp] = Appended(base_offset + queues[tp].pop(0)[1], append_ms)
                if not queues[tp]:
                    del queues[tp]
            if failed:
                await asyncio.sleep(RETRY_S)
            if failed & LEADER_MOVED:
                await self._client.force_metadata_update()
        return appended

    async def end(self, *, commit: bool = True) -> None:
        """Commit (or abort), once: EndTxn is never sent again. ``OutcomeUnknown`` when no answer came."""
        request = EndTxn(self.transactional_id, self.producer_id, self.epoch, commit)
        sending = asyncio.ensure_future(self._ask_coordinator(request))
        try:
            if self._on_end_sent:
                await asyncio.sleep(0)
                self._on_end_sent(self)
            reply = await sending
        except errors.KafkaError as exc:
            raise OutcomeUnknown(f"EndTxn of {self.transactional_id}: {exc!r}") from exc
        finally:
            sending.cancel()
        if _check(reply.error_code, "EndTxn"):
            raise TransactionError(f"EndTxn: {errors.for_code(reply.error_code).__name__} ({reply.error_code})")
        # the epoch rises with every transaction; where it is used up, the broker hands out another producer id
        self.producer_id, self.epoch, self._sequences = reply.producer_id, reply.producer_epoch, {}

    async def topic_ids(self) -> dict[str, str]:
        """The ids of the topics given to ``start()``."""
        return {name: info.id for name, info in (await describe_topics(self._client, self._topics)).items()}

    def _leader(self, tp: TopicAndPartition) -> int | None:
        leader = self._client.cluster.leader_for_partition(TopicPartition(*tp))
        return None if leader in (None, -1) else leader

    def _batches(self, tp: TopicAndPartition, records: Sequence[Outgoing]) -> list[tuple[bytes, int]]:
        """The records as batches (bytes, number of records), each below the broker's limit, sequences rising."""
        batches: list[tuple[bytes, int]] = []
        now, sequence, count = self.now_ms(), self._sequences.get(tp, 0), 0
        builder = None
        for key, value, content in records:
            headers = list(content)  # the Cython builder takes nothing but a list
            if builder is not None and builder.append(count, now, key, value, headers) is None:
                batches.append((bytes(builder.build()), count))
                sequence, builder = sequence + count, None
            if builder is None:
                builder = DefaultRecordBatchBuilder(
                    magic=2,
                    compression_type=0,
                    is_transactional=1,
                    producer_id=self.producer_id,
                    producer_epoch=self.epoch,
                    base_sequence=sequence,
                    batch_size=BATCH_BYTES,
                )
                builder.append(0, now, key, value, headers)
                count = 0
            count += 1
        assert builder is not None, "a partition without records is not produced to"
        batches.append((bytes(builder.build()), count))
        self._sequences[tp] = sequence + count
        return batches

    async def _produce_to(
        self, leader: int | None, data: Mapping[TopicAndPartition, bytes]
    ) -> list[tuple[TopicAndPartition, int, int, int]]:
        """One request to one leader. Returns (partition, error code, base offset, append time) of each."""
        if leader is None:
            return [(tp, 5, -1, -1) for tp in data]
        topics: dict[str, list[Any]] = {}
        for (topic, partition), batch in data.items():
            topics.setdefault(topic, []).append((partition, batch, {}))
        lines: list[Any] = [(topic, partitions, {}) for topic, partitions in topics.items()]
        reply = await self._client.send(leader, Produce(self.transactional_id, -1, PRODUCE_TIMEOUT_MS, lines))
        return [((topic, line[0]), *line[1:4]) for topic, lines, _ in reply.topics for line in lines]

    async def _take_over(self, request: Any) -> Any:
        """Send until it is answered without a retriable error. The caller sets the deadline."""
        self._coordinator = await self._find_coordinator()
        while True:
            reply = await self._ask_coordinator(request)
            if not _check(reply.error_code, "transaction coordinator"):
                return reply
            await asyncio.sleep(RETRY_S)
            if reply.error_code in COORDINATOR_MOVED:
                self._coordinator = await self._find_coordinator()

    async def _find_coordinator(self) -> int:
        while True:
            try:
                return int(await self._client.coordinator_lookup(CoordinationType.TRANSACTION, self.transactional_id))
            except (errors.CoordinatorNotAvailableError, errors.CoordinatorLoadInProgressError):
                await asyncio.sleep(0.02)

    async def _ask_coordinator(self, request: Any) -> Any:
        return await self._client.send(self._coordinator, request, group=ConnectionGroup.COORDINATION)
