"""A client of Kafka's current transaction protocol (KIP-890, ``transaction.version=2``, Kafka >= 4.0), one a task.

A transaction is ``produce()`` as often as wanted, then ``end()``. Nothing is sent but what is called here, and in that
order; the first produce opens the transaction on the broker. There are no consumer offsets in it: how far a task has
read is a row of its own, so that a commit is two requests and not three (see ``positions`` in ``task``).

Why it is safe: every request carries the producer's (id, epoch), and ``end()`` raises the epoch. A request of a
transaction that has ended, delayed in the network and delivered in the next one, is therefore refused; so is every
request of an owner whose successor has called ``start()``. aiokafka's own producer speaks version 0 of the protocol,
where such a late EndTxn commits half of the next transaction, and it resends EndTxn by itself.

Any exception means: this client is finished. Open a new one; ``start()`` finishes whatever is left.

What a coordinator has noted as ended is to get a marker in every partition that was written to, and is seen there from
then on. A coordinator that finds no leader for a partition takes it for one that was deleted, and does without: since
Kafka 4.3 that is any broker that is just starting (``KRaftMetadataCache.getPartitionLeaderEndpoint`` says the same of a
partition without a leader as of one that is not there). Then a transaction is committed here and hidden there, until
the next of this producer in that partition decides for both. So whoever goes by what is committed calls
``write_lost_markers()`` after ``start()``.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import aiokafka.errors as errors
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams.engine.changes import Appended, Outgoing
from streams.engine.protocol import (
    FINALIZED_FEATURES,
    LATEST,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    ApiVersions,
    DescribeProducers,
    DescribeTransactions,
    EndTxn,
    InitProducerId,
    ListOffsets,
    Metadata,
    Produce,
    WriteTxnMarkers,
)

TopicAndPartition = tuple[str, int]

BATCH_BYTES = 900_000
"""Batches are closed here, below the broker's ``message.max.bytes`` of 1,048,588; one larger record goes alone."""
PRODUCE_TIMEOUT_MS = 8_000
"""How long a leader may wait for its replicas; the caller's deadline is usually sooner."""
RETRY_S = 0.003
"""Between attempts: the usual cause, the previous transaction's markers, takes one to a few milliseconds."""

RETRIABLE = frozenset({5, 6, 7, 14, 15, 16, 19, 20, 51, 78})
"""The same request may be sent again: no leader yet or not the leader (5, 6), replicas slow (7) or too few (19, 20),
coordinator loading or moved (14, 15, 16), previous transaction still completing (51), a new leader that does not know
the end yet (78).
A produce keeps its sequence number, so the broker recognises a batch that it has already."""
LEADER_MOVED = frozenset({5, 6})
COORDINATOR_MOVED = frozenset({15, 16})
FENCED = frozenset({22, 25, 47, 49, 90})
NO_SUCH_ID = 105
"""The coordinator does not know the transactional id."""
ENDED = {
    # state of a transactional id -> how much lower than its epoch that of the last records is, whether committed
    "Ongoing": (0, False),  # taking over the id aborts it
    "PrepareCommit": (1, True),
    "CompleteCommit": (1, True),
    "PrepareAbort": (1, False),
    "CompleteAbort": (1, False),
}
LEADERS_S = 5.0
"""How long leaders are waited for where all have to be asked."""
NOT_ALLOWED = 31
LOST = "a transaction of {id} has ended, but the broker has not marked that in {where}, and {why}"
FORGOTTEN = (
    "does not know any more whether it was committed: look at it with `kafka-transactions.sh find-hanging` and end it "
    "with `kafka-transactions.sh abort`, which takes its records there for not written"
)
FORBIDDEN = (
    "does not let us do it: we need the right to ALTER the CLUSTER (`kafka-acls.sh --operation Alter --cluster`)"
)

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


class NotAllowed(TransactionError):
    """An access control list does not let us."""


class MarkersLost(TransactionError):
    """A transaction has ended and is open all the same, and nobody can tell any more how it has ended."""


class OldBroker(Exception):
    """The cluster does not speak the protocol that this client relies on."""


class Open(NamedTuple):
    """A transaction that is open in a partition, by the producer id and epoch of its records."""

    producer_id: int
    epoch: int
    coordinator_epoch: int
    """Of the last marker there; -1: there is none."""


class Ended(NamedTuple):
    """How a transaction has ended, by the producer id and epoch of its records."""

    producer_id: int
    epoch: int
    committed: bool


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


def _check(code: int, what: str) -> bool:
    """Raise for an error that ends the transaction; True if the request has to be sent again."""
    if code in RETRIABLE:
        return True
    if code:
        kind = Fenced if code in FENCED else NotAllowed if code == NOT_ALLOWED else TransactionError
        raise kind(f"{what}: {errors.for_code(code).__name__} ({code})")
    return False


def _described_code(reply: Any) -> int:
    code = int(reply.transactions[0][0])
    return 0 if code == NO_SUCH_ID else code


def _answered(topics: Iterable[Any]) -> dict[TopicAndPartition, Any]:
    """The lines of an answer, but for those that have to be asked for again."""
    return {
        (topic, line[0]): line
        for topic, lines, _ in topics
        for line in lines
        if not _check(line[1], f"{topic}/{line[0]}")
    }


def _listed(partitions: Iterable[TopicAndPartition]) -> str:
    return ", ".join(f"{topic}/{number}" for topic, number in sorted(partitions))


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
        self.ended: Ended | None = None
        """How the last transaction of this id ended, as far as known. The coordinator tells it to the first who takes
        over the id, and has forgotten it then: whoever makes another client has to give it this."""
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
        self._coordinator = await self._find_coordinator()
        self.ended = await self._last_ended() or self.ended
        taken_over = InitProducerId(self.transactional_id, self._timeout_ms, -1, -1)
        reply = await self._insist(taken_over, lambda reply: int(reply.error_code))
        self.producer_id, self.epoch, self._sequences = reply.producer_id, reply.producer_epoch, {}

    async def write_lost_markers(self, partitions: Iterable[TopicAndPartition]) -> list[TopicAndPartition]:
        """Where the last transaction before ``start()`` has ended and is open all the same: mark it as it has ended.

        The markers are written by us, as a coordinator writes them: to add the partitions to a transaction that ends in
        the same way would be undone, and they with it, if we died before its end. Returns the partitions. Raises
        ``MarkersLost`` where nobody knows how it has ended, or the cluster does not let us.
        """
        still_open = await self._open_in(partitions)
        if not still_open:
            return []
        ended = self.ended
        if ended is None or {(each.producer_id, each.epoch) for each in still_open.values()} != {ended[:2]}:
            raise MarkersLost(LOST.format(id=self.transactional_id, where=_listed(still_open), why=FORGOTTEN))
        marker = ended.producer_id, ended.epoch + 1, ended.committed
        coordinator_epoch = max(each.coordinator_epoch for each in still_open.values())
        try:
            await self._ask_leaders(
                still_open,
                lambda topics: WriteTxnMarkers([(*marker, topics, max(0, coordinator_epoch), {})]),
                lambda number: number,
                lambda reply: reply.markers[0][1],
            )
        except NotAllowed:
            raise MarkersLost(LOST.format(id=self.transactional_id, where=_listed(still_open), why=FORBIDDEN)) from None
        return sorted(still_open)

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

    async def _last_ended(self) -> Ended | None:
        """None where the coordinator does not know, or not any more."""
        reply = await self._insist(DescribeTransactions([self.transactional_id]), _described_code)
        _, _, state, _, _, producer_id, epoch, *_ = reply.transactions[0]
        if state not in ENDED:
            return None
        lower, committed = ENDED[state]
        return Ended(producer_id, epoch - lower, committed)

    async def _open_in(self, partitions: Iterable[TopicAndPartition]) -> dict[TopicAndPartition, Open]:
        """In which of these this id's last producer has a transaction open."""
        ours = {self.producer_id, *([self.ended.producer_id] if self.ended else [])}
        partitions = list(partitions)
        stable = await self._ends(partitions, READ_COMMITTED)
        ends = await self._ends(partitions, READ_UNCOMMITTED)
        # few, if any: what a partition knows of its producers is a lot to tell
        unstable = [tp for tp, end in ends.items() if stable[tp] != end]
        found = await self._ask_leaders(unstable, lambda topics: DescribeProducers(topics), lambda number: number)
        return {
            tp: Open(producer_id, epoch, coordinator_epoch)
            for tp, line in found.items()
            for producer_id, epoch, _, _, coordinator_epoch, start, _ in line[3]
            if producer_id in ours and start >= 0
        }

    async def _ends(self, partitions: Iterable[TopicAndPartition], isolation: int) -> dict[TopicAndPartition, int]:
        answers = await self._ask_leaders(
            partitions, lambda topics: ListOffsets(-1, isolation, topics), lambda number: (number, -1, LATEST, {})
        )
        return {tp: line[3] for tp, line in answers.items()}

    async def _ask_leaders(
        self,
        partitions: Iterable[TopicAndPartition],
        request: Callable[[list[Any]], Any],
        asked: Callable[[int], Any],
        topics_of: Callable[[Any], list[Any]] = lambda reply: reply.topics,
    ) -> dict[TopicAndPartition, Any]:
        """What the leader of each partition answers of it. ``asked``: what the request says of one."""
        left, answered = set(partitions), dict[TopicAndPartition, Any]()
        try:
            async with asyncio.timeout(LEADERS_S):
                while left:
                    for reply in await self._ask_leaders_once(left, request, asked):
                        answered |= _answered(topics_of(reply))
                    left -= answered.keys()
                    if left:
                        await asyncio.sleep(RETRY_S)
                        await self._client.force_metadata_update()
        except TimeoutError:
            raise TransactionError(f"nobody leads {_listed(left)}") from None
        return answered

    async def _ask_leaders_once(
        self, partitions: Iterable[TopicAndPartition], request: Callable[[list[Any]], Any], asked: Callable[[int], Any]
    ) -> list[Any]:
        by_leader: dict[int, dict[str, list[Any]]] = {}
        for topic, number in sorted(partitions):
            if (leader := self._leader((topic, number))) is not None:
                by_leader.setdefault(leader, {}).setdefault(topic, []).append(asked(number))
        requests = [
            self._client.send(leader, request([(topic, lines, {}) for topic, lines in topics.items()]))
            for leader, topics in by_leader.items()
        ]
        return list(await asyncio.gather(*requests))

    async def _insist(self, request: Any, code_of: Callable[[Any], int]) -> Any:
        """Send until it is answered without a retriable error. The caller sets the deadline."""
        while True:
            reply = await self._ask_coordinator(request)
            code = code_of(reply)
            if not _check(code, "transaction coordinator"):
                return reply
            await asyncio.sleep(RETRY_S)
            if code in COORDINATOR_MOVED:
                self._coordinator = await self._find_coordinator()

    async def _find_coordinator(self) -> int:
        while True:
            try:
                return int(await self._client.coordinator_lookup(CoordinationType.TRANSACTION, self.transactional_id))
            except (errors.CoordinatorNotAvailableError, errors.CoordinatorLoadInProgressError):
                await asyncio.sleep(0.02)

    async def _ask_coordinator(self, request: Any) -> Any:
        return await self._client.send(self._coordinator, request, group=ConnectionGroup.COORDINATION)
