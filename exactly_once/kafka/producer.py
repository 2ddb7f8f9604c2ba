"""A client of Kafka's current transaction protocol (KIP-890, ``transaction.version=2``, Kafka >= 4.0), one a task.

A transaction is any number of ``produce()``, then one ``end()``. The client sends only what the caller requests, in
order; the first produce opens the transaction on the broker. The transaction holds no consumer offsets: the position
of a task is a row, so a commit takes two requests instead of three (see ``positions`` in ``task``).

It is safe because every request carries the producer's (id, epoch), and ``end()`` raises the epoch. The broker thus
refuses a request of an ended transaction that the network delivers late, and every request of an owner whose successor
has called ``start()``. aiokafka's own producer speaks version 0 of the protocol, where a late EndTxn commits half of
the next transaction, and it resends EndTxn by itself.

After any exception the client cannot be used any further. Open another one; its ``start()`` finishes the transaction.

A transaction that has ended may still be open in some partition: see ``hanging_transactions`` and
``complete_hanging()``.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import aiokafka.errors as errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.hanging_transactions import (
    ALTER_FORBIDDEN,
    OUTCOME_UNKNOWN,
    HangingTransactionError,
    NoLeader,
    Outcomes,
    find_hanging,
    last_outcome,
    write_markers,
)
from exactly_once.kafka.protocol import (
    FINALIZED_FEATURES,
    NOT_COORDINATOR,
    NOT_LEADER,
    RETRY_S,
    ApiVersions,
    EndTxn,
    InitProducerId,
    Metadata,
    NotAllowed,
    Produce,
    TopicAndPartition,
    TransactionError,
    format_partitions,
    leader_of,
    raise_or_retry,
)
from exactly_once.task.transaction import ProduceResult, ProducerRecord

BATCH_BYTES = 900_000
"""Limit of a batch, below the broker's ``message.max.bytes`` of 1,048,588; a larger record is a batch by itself."""
PRODUCE_TIMEOUT_MS = 8_000
"""Limit of a leader's wait for its replicas; the caller's deadline is usually sooner."""

REMEMBERED = 16
"""Number of outcomes kept. A transaction without a marker is noticed when the next one begins."""
TRANSACTION_VERSION = 2
METADATA_MAX_AGE_MS = 60_000
"""Limit of the time in which an idle task does not learn of a moved leader."""
OLD_BROKER = (
    "The broker at {where} offers transaction.version {found}, but exactly-once tasks need {needed}: use Apache Kafka "
    "4.0 or later, and after an upgrade run `kafka-features.sh upgrade --feature transaction.version={needed}`."
)


class OutcomeUnknown(TransactionError):
    """EndTxn was sent and not answered. Only a successor's ``start()`` settles whether the transaction is committed."""


class BrokerTooOld(Exception):
    """The cluster does not support the protocol that this client needs."""


class TopicInfo(NamedTuple):
    """Id and number of partitions of a topic. A recreated topic has another id."""

    id: str
    partitions: int


# -- requests outside any transaction -------------------------------------------------------------------------------


async def refuse_old_brokers(client: AIOKafkaClient) -> None:
    """Raise ``BrokerTooOld`` unless the cluster has finalized ``transaction.version`` 2 (Kafka >= 4.0)."""
    reply = await client.send(client.get_random_node(), ApiVersions("exactly-once", "1"))
    tag, schema = FINALIZED_FEATURES
    features = schema.decode(BytesIO(reply.tags[tag])) if tag in reply.tags else []
    found = next((level for name, level, _, _ in features or () if name == "transaction.version"), 0)
    if found < TRANSACTION_VERSION:
        where = ", ".join(f"{host}:{port}" for host, port, _ in client.hosts)
        raise BrokerTooOld(OLD_BROKER.format(where=where, found=found, needed=TRANSACTION_VERSION))


async def describe_topics(client: AIOKafkaClient, topics: Iterable[str]) -> dict[str, TopicInfo]:
    """Return the existing ones of these topics."""
    names: list[Any] = [(bytes(16), topic, {}) for topic in topics]
    reply = await client.send(client.get_random_node(), Metadata(names, False, False))
    return {
        name: TopicInfo(topic_id.hex(), len(partitions))
        for code, name, topic_id, _, partitions, _, _ in reply.topics
        if not code
    }


# -- the client -----------------------------------------------------------------------------------------------------


class TransactionalClient:
    """The transactions of one transactional id. Not for concurrent use: one request at a time, in order.

    ``client`` belongs to this object alone, and is not bootstrapped. ``on_end_sent`` is called between sending EndTxn
    and reading its answer (for failpoints). ``now_ms`` gives records their time, in milliseconds since the epoch.
    ``outcomes`` has the outcomes of the id's last transactions, and is kept up to date. The coordinator reports an
    outcome to the first client that takes over the id and forgets it then, so successive clients share this object.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        transactional_id: str,
        *,
        transaction_timeout_s: float = 10.0,
        on_end_sent: Callable[["TransactionalClient"], None] | None = None,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
        outcomes: Outcomes | None = None,
    ) -> None:
        self.transactional_id = transactional_id
        self.now_ms = now_ms
        self.producer_id, self.epoch = -1, -1
        self._outcomes = {} if outcomes is None else outcomes
        self._client = client
        self._timeout_ms = int(transaction_timeout_s * 1000)
        self._on_end_sent = on_end_sent
        self._topics: list[str] = []
        self._sequences: dict[TopicAndPartition, int] = {}
        self._coordinator = -1
        self._last: tuple[int, list[TopicAndPartition]] = (-1, [])
        """Producer id of the transaction that ended last, and the partitions it wrote to."""
        self._connections: list[Any] = []
        """The connections that were open when it ended."""

    async def start(self, topics: Iterable[str]) -> None:
        """Take over the transactional id; the previous owner is fenced and its open transaction finished on return.

        ``topics`` are those that will be produced to. Raises ``BrokerTooOld``, ``TransactionError``, ``KafkaError``.
        """
        self._topics = list(topics)
        await self._client.bootstrap()
        await refuse_old_brokers(self._client)
        await self._client.set_topics(self._topics)
        reply = await self._take_over(InitProducerId(self.transactional_id, self._timeout_ms, -1, -1))
        self.producer_id, self.epoch, self._sequences = reply.producer_id, reply.producer_epoch, {}

    async def complete_hanging(
        self, partitions: Iterable[TopicAndPartition], *, alone: bool = False
    ) -> list[TopicAndPartition]:
        """Complete this id's hanging transactions from before ``start()``; return the partitions that were marked.

        ``alone`` means that no other producer writes there, so every open transaction is this id's. The client writes
        the markers itself, as a coordinator does. (Adding the partitions to another transaction with the same outcome
        would be undone, and the records with it, if the client died before that transaction's end.)

        Raises ``HangingTransactionError`` if the outcome is unknown or the cluster does not permit the markers, and
        ``NoLeader`` if the open transactions cannot be listed now.
        """
        ours = {self.producer_id, *(producer_id for producer_id, _ in self._outcomes)}
        found = await find_hanging(self._client, partitions, None if alone else ours)
        if not found:
            return []
        try:
            await write_markers(self._client, found, self._outcomes)
        except NotAllowed:
            raise HangingTransactionError(
                ALTER_FORBIDDEN.format(id=self.transactional_id, where=format_partitions(found))
            ) from None
        except NoLeader as exc:  # NoLeader means "not examined" to the caller; these are known to be open
            raise TransactionError(str(exc)) from None
        if unknown := [tp for tp, each in found.items() if each.transaction not in self._outcomes]:
            raise HangingTransactionError(
                OUTCOME_UNKNOWN.format(id=self.transactional_id, where=format_partitions(unknown))
            )
        return sorted(found)

    @property
    def in_doubt(self) -> bool:
        """True if a connection was lost since the last transaction ended: a broker that restarted may have skipped the
        transaction's markers. The first ``produce()`` of the next transaction checks them."""
        return any(not connection.connected() for connection in self._connections)

    async def close(self) -> None:
        """Close the connections. An open transaction stays open until the next ``start()`` or its timeout."""
        await self._client.close()

    def disconnect(self) -> None:
        """Close the connection to the coordinator, as a network would."""
        for (_, group), connection in list(self._client._conns.items()):
            if group is ConnectionGroup.COORDINATION:
                connection.close()

    async def produce(
        self, outputs: Mapping[TopicAndPartition, Sequence[ProducerRecord]]
    ) -> dict[TopicAndPartition, ProduceResult]:
        """Append to the partitions, at every leader at once, and a partition's batches in order.

        Raises ``Fenced``, ``TransactionError`` and ``KafkaError``.
        """
        first = not self._sequences
        queues = {tp: self._batches(tp, records) for tp, records in outputs.items() if records}
        appended: dict[TopicAndPartition, ProduceResult] = {}
        while queues:
            if first and not appended and self.in_doubt:
                await self._verify_last_transaction()
            by_leader: dict[int | None, dict[TopicAndPartition, bytes]] = {}
            for tp, batches in queues.items():
                by_leader.setdefault(leader_of(self._client, tp), {})[tp] = batches[0][0]
            replies = await asyncio.gather(*(self._produce_to(leader, data) for leader, data in by_leader.items()))
            failed = set()
            for tp, code, base_offset, append_ms in (line for reply in replies for line in reply):
                if raise_or_retry(code, f"produce to {tp[0]}/{tp[1]}"):
                    failed.add(code)
                    continue
                appended[tp] = ProduceResult(base_offset + queues[tp].pop(0)[1], append_ms)
                if not queues[tp]:
                    del queues[tp]
            if failed:
                await asyncio.sleep(RETRY_S)
            if failed & NOT_LEADER:
                await self._client.force_metadata_update()
        return appended

    async def end(self, *, commit: bool = True) -> None:
        """Commit or abort. EndTxn is sent once only; ``OutcomeUnknown`` without an answer."""
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
        if raise_or_retry(reply.error_code, "EndTxn"):
            raise TransactionError(f"EndTxn: {errors.for_code(reply.error_code).__name__} ({reply.error_code})")
        self._remember({(self.producer_id, self.epoch): commit})
        self._last, self._connections = (self.producer_id, list(self._sequences)), list(self._client._conns.values())
        # the epoch rises with every transaction; where it is used up, the broker hands out another producer id
        self.producer_id, self.epoch, self._sequences = reply.producer_id, reply.producer_epoch, {}

    async def topic_ids(self) -> dict[str, str]:
        """The ids of the topics given to ``start()``."""
        return {name: info.id for name, info in (await describe_topics(self._client, self._topics)).items()}

    def _batches(self, tp: TopicAndPartition, records: Sequence[ProducerRecord]) -> list[tuple[bytes, int]]:
        """Return the records as batches (bytes, number of records), each below the broker's limit, sequences rising."""
        batches: list[tuple[bytes, int]] = []
        now, sequence, count = self.now_ms(), self._sequences.get(tp, 0), 0
        builder = None
        for key, value, content in records:
            headers = list(content)  # the Cython builder accepts only a list
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
        """Send one request to one leader. Return lines of (partition, error code, base offset, append time)."""
        if leader is None:
            return [(tp, 5, -1, -1) for tp in data]
        topics: dict[str, list[Any]] = {}
        for (topic, partition), batch in data.items():
            topics.setdefault(topic, []).append((partition, batch, {}))
        lines: list[Any] = [(topic, partitions, {}) for topic, partitions in topics.items()]
        reply = await self._client.send(leader, Produce(self.transactional_id, -1, PRODUCE_TIMEOUT_MS, lines))
        return [((topic, line[0]), *line[1:4]) for topic, lines, _ in reply.topics for line in lines]

    async def _take_over(self, request: Any) -> Any:
        """Send until the answer has no retriable error. The caller sets the deadline.

        Each attempt first looks up the outcome of the last transaction: a broker reports it only once it has ended.
        """
        self._coordinator = await self._find_coordinator()
        while True:
            self._remember(await last_outcome(self._ask_coordinator, self.transactional_id))
            reply = await self._ask_coordinator(request)
            if not raise_or_retry(reply.error_code, "transaction coordinator"):
                return reply
            await asyncio.sleep(RETRY_S)
            if reply.error_code in NOT_COORDINATOR:
                self._coordinator = await self._find_coordinator()

    def _remember(self, outcomes: Outcomes) -> None:
        self._outcomes.update(outcomes)
        for forgotten in list(self._outcomes)[:-REMEMBERED]:
            del self._outcomes[forgotten]

    async def _verify_last_transaction(self) -> None:
        """Raise ``TransactionError`` if the last transaction is open in a partition: records of the next one would join
        it there, and be aborted with it."""
        producer_id, partitions = self._last
        if unmarked := await find_hanging(self._client, partitions, {producer_id}):
            raise TransactionError(
                f"the last transaction of {self.transactional_id} is open in {format_partitions(unmarked)}"
            )
        self._connections = list(self._client._conns.values())

    async def _find_coordinator(self) -> int:
        while True:
            try:
                return int(await self._client.coordinator_lookup(CoordinationType.TRANSACTION, self.transactional_id))
            except (errors.CoordinatorNotAvailableError, errors.CoordinatorLoadInProgressError):
                await asyncio.sleep(0.02)

    async def _ask_coordinator(self, request: Any) -> Any:
        return await self._client.send(self._coordinator, request, group=ConnectionGroup.COORDINATION)


def transactional_client(
    client_settings: ClientSettings,
    transactional_id: str,
    *,
    transaction_timeout_s: float,
    on_end_sent: Callable[[TransactionalClient], None],
    outcomes: Outcomes,
) -> TransactionalClient:
    """Return a client with a connection pool that no other client uses."""
    return TransactionalClient(
        AIOKafkaClient(**client_settings, metadata_max_age_ms=METADATA_MAX_AGE_MS),
        transactional_id,
        transaction_timeout_s=transaction_timeout_s,
        on_end_sent=on_end_sent,
        outcomes=outcomes,
    )
