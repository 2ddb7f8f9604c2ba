"""A client of Kafka's current transaction protocol (KIP-890, ``transaction.version=2``, Kafka >= 4.0), one a task.

A transaction is ``produce()`` as often as wanted, then ``end()``. Nothing is sent but what is called here, and in that
order; the first produce opens the transaction on the broker. There are no consumer offsets in it: how far a task has
read is a row of its own, so that a commit is two requests and not three (see ``positions`` in ``task``).

Why it is safe: every request carries the producer's (id, epoch), and ``end()`` raises the epoch. A request of a
transaction that has ended, delayed in the network and delivered in the next one, is therefore refused; so is every
request of an owner whose successor has called ``start()``. aiokafka's own producer speaks version 0 of the protocol,
where such a late EndTxn commits half of the next transaction, and it resends EndTxn by itself.

Any exception means: this client is finished. Open a new one; ``start()`` finishes whatever is left.

What a coordinator has noted as ended may be open in some partition all the same: see ``markers``, and
``write_lost_markers()``.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import aiokafka.errors as errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.engine.changes import Appended, Outgoing
from streams.engine.markers import (
    FORBIDDEN,
    FORGOTTEN,
    MarkersLost,
    NoLeader,
    Outcomes,
    last_outcome,
    still_open,
    write_markers,
)
from streams.engine.protocol import (
    COORDINATOR_MOVED,
    FINALIZED_FEATURES,
    LEADER_MOVED,
    RETRY_S,
    ApiVersions,
    EndTxn,
    InitProducerId,
    Metadata,
    NotAllowed,
    Produce,
    TopicAndPartition,
    TransactionError,
    check,
    leader_of,
    listed,
)

BATCH_BYTES = 900_000
"""Batches are closed here, below the broker's ``message.max.bytes`` of 1,048,588; one larger record goes alone."""
PRODUCE_TIMEOUT_MS = 8_000
"""How long a leader may wait for its replicas; the caller's deadline is usually sooner."""

REMEMBERED = 16
"""Transactions whose end is remembered. One that is not marked is noticed when the next one begins."""
TRANSACTION_VERSION = 2
OLD_BROKER = (
    "The broker at {where} offers transaction.version {found}, but exactly-once tasks need {needed}: use Apache Kafka "
    "4.0 or later, and after an upgrade run `kafka-features.sh upgrade --feature transaction.version={needed}`."
)


class OutcomeUnknown(TransactionError):
    """EndTxn was sent and not answered: committed or not, only a successor's ``start()`` makes it certain."""


class OldBroker(Exception):
    """The cluster does not speak the protocol that this client relies on."""


class TopicInfo(NamedTuple):
    """What the cluster says of a topic. A recreated topic has another id."""

    id: str
    partitions: int


# -- what is asked of the cluster, outside any transaction ----------------------------------------------------------


async def refuse_old_brokers(client: AIOKafkaClient) -> None:
    """Raise ``OldBroker`` unless the cluster has finalized ``transaction.version`` 2 (Kafka >= 4.0)."""
    reply = await client.send(client.get_random_node(), ApiVersions("dabbawala", "1"))
    tag, schema = FINALIZED_FEATURES
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


# -- the client -----------------------------------------------------------------------------------------------------


class TransactionalClient:
    """The transactions of one transactional id. Not for concurrent use: one request at a time, in order.

    ``client`` is this one's alone, and not bootstrapped yet.
    ``on_end_sent`` is called between sending EndTxn and reading its answer (for failpoints). ``now_ms`` gives records
    their time. ``outcomes`` is what is known of how the last transactions of this id have ended, and is kept up to
    date: the coordinator tells it to the first who takes over the id and has forgotten it then, so each client has to
    have it from the one before.
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
        """Of the transaction that ended last: its producer id, and where it has written."""
        self._connections: list[Any] = []
        """Those that there were when it ended."""

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

    async def write_lost_markers(
        self, partitions: Iterable[TopicAndPartition], *, alone: bool = False
    ) -> list[TopicAndPartition]:
        """Where a transaction before ``start()`` has ended and is open all the same: mark it as it has ended.

        ``alone``: nobody else writes there, so whatever is open is of this id. The markers are written by us, as a
        coordinator writes them: to add the partitions to a transaction that ends in the same way would be undone, and
        they with it, if we died before its end. Returns the partitions. Raises ``MarkersLost`` where nobody knows how
        it has ended, or the cluster does not let us, ``NoLeader`` where it cannot be found out now what is open.
        """
        ours = {self.producer_id, *(producer_id for producer_id, _ in self._outcomes)}
        found = await still_open(self._client, partitions, None if alone else ours)
        if not found:
            return []
        try:
            await write_markers(self._client, found, self._outcomes)
        except NotAllowed:
            raise MarkersLost(FORBIDDEN.format(id=self.transactional_id, where=listed(found))) from None
        except NoLeader as exc:  # of what is open nobody may think that it was only not looked at
            raise TransactionError(str(exc)) from None
        if unknown := [tp for tp, each in found.items() if each.transaction not in self._outcomes]:
            raise MarkersLost(FORGOTTEN.format(id=self.transactional_id, where=listed(unknown)))
        return sorted(found)

    @property
    def in_doubt(self) -> bool:
        """Whether a connection was lost since the last transaction ended: a broker that starts anew may have left out
        its markers. The first ``produce()`` of the next one finds out."""
        return any(not connection.connected() for connection in self._connections)

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
        first = not self._sequences
        queues = {tp: self._batches(tp, records) for tp, records in outputs.items() if records}
        appended: dict[TopicAndPartition, Appended] = {}
        while queues:
            if first and not appended and self.in_doubt:
                await self._look_back()
            by_leader: dict[int | None, dict[TopicAndPartition, bytes]] = {}
            for tp, batches in queues.items():
                by_leader.setdefault(leader_of(self._client, tp), {})[tp] = batches[0][0]
            replies = await asyncio.gather(*(self._produce_to(leader, data) for leader, data in by_leader.items()))
            failed = set()
            for tp, code, base_offset, append_ms in (line for reply in replies for line in reply):
                if check(code, f"produce to {tp[0]}/{tp[1]}"):
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
        if check(reply.error_code, "EndTxn"):
            raise TransactionError(f"EndTxn: {errors.for_code(reply.error_code).__name__} ({reply.error_code})")
        self._remember({(self.producer_id, self.epoch): commit})
        self._last, self._connections = (self.producer_id, list(self._sequences)), list(self._client._conns.values())
        # the epoch rises with every transaction; where it is used up, the broker hands out another producer id
        self.producer_id, self.epoch, self._sequences = reply.producer_id, reply.producer_epoch, {}

    async def topic_ids(self) -> dict[str, str]:
        """The ids of the topics given to ``start()``."""
        return {name: info.id for name, info in (await describe_topics(self._client, self._topics)).items()}

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
        """Send until it is answered without a retriable error. The caller sets the deadline.

        How the last transaction has ended is asked before each time: while one is, a broker says that it goes on.
        """
        self._coordinator = await self._find_coordinator()
        while True:
            self._remember(await last_outcome(self._ask_coordinator, self.transactional_id))
            reply = await self._ask_coordinator(request)
            if not check(reply.error_code, "transaction coordinator"):
                return reply
            await asyncio.sleep(RETRY_S)
            if reply.error_code in COORDINATOR_MOVED:
                self._coordinator = await self._find_coordinator()

    def _remember(self, outcomes: Outcomes) -> None:
        self._outcomes.update(outcomes)
        for forgotten in list(self._outcomes)[:-REMEMBERED]:
            del self._outcomes[forgotten]

    async def _look_back(self) -> None:
        """Raise ``TransactionError`` where the last transaction is open: what we are to write there would be one with
        it, and be undone together."""
        producer_id, partitions = self._last
        if unmarked := await still_open(self._client, partitions, {producer_id}):
            raise TransactionError(f"the last transaction of {self.transactional_id} is open in {listed(unmarked)}")
        self._connections = list(self._client._conns.values())

    async def _find_coordinator(self) -> int:
        while True:
            try:
                return int(await self._client.coordinator_lookup(CoordinationType.TRANSACTION, self.transactional_id))
            except (errors.CoordinatorNotAvailableError, errors.CoordinatorLoadInProgressError):
                await asyncio.sleep(0.02)

    async def _ask_coordinator(self, request: Any) -> Any:
        return await self._client.send(self._coordinator, request, group=ConnectionGroup.COORDINATION)
