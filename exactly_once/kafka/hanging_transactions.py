"""Hanging transactions (KIP-664): they have ended, but a partition has no marker of their end and shows them as open.

When a transaction ends, the coordinator writes a marker to every partition that the transaction wrote to; readers see
the records only after the marker. A coordinator that finds no leader for a partition assumes that the partition was
deleted, and skips the marker. Since Kafka 4.3 any partition may lack a leader in this way while a broker starts:
``KRaftMetadataCache.getPartitionLeaderEndpoint`` returns the same answer for "no leader" and "no partition". The
transaction is then committed in one partition and hidden in another, until the next marker of its producer in that
partition, which counts for both transactions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient

from exactly_once.kafka.protocol import (
    LATEST,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    RETRIABLE,
    RETRY_S,
    TOPIC_AUTHORIZATION_FAILED,
    TRANSACTIONAL_ID_NOT_FOUND,
    DescribeProducers,
    DescribeTransactions,
    ListOffsets,
    TopicAndPartition,
    TransactionError,
    WriteTxnMarkers,
    format_partitions,
    leader_of,
    raise_or_retry,
)

ENDED = {"PrepareCommit": True, "CompleteCommit": True, "PrepareAbort": False, "CompleteAbort": False}
"""State of a transactional id that has ended its last transaction -> whether it committed. The id's epoch is then one
higher than that of the transaction's records."""
LEADERS_S = 3.0
"""Limit of the wait for the leaders' answers."""
LOOKS, LOOK_S = 15, 0.01
"""Number of further looks at open transactions, and the pause between them: most transactions end soon."""
OUTCOME_UNKNOWN = (
    "a transaction of {id} has ended, but the broker has not marked its end in {where}, and no longer knows whether it "
    "was committed: find it with `kafka-transactions.sh find-hanging` and, if it was not committed, end it with "
    "`kafka-transactions.sh abort`, which discards its records there"
)
ALTER_FORBIDDEN = (
    "a transaction of {id} has ended, but the broker has not marked its end in {where}, and this worker may not do so: "
    "grant it the right to alter the cluster (`kafka-acls.sh --operation Alter --cluster`)"
)


class HangingTransactionError(TransactionError):
    """A transaction hangs, and this worker cannot or may not complete it."""


class NoLeader(TransactionError):
    """A partition has no leader that answers."""


Outcomes = dict[tuple[int, int], bool]
"""(producer id, epoch of the records) of a transaction that has ended -> whether it committed."""


class HangingTransaction(NamedTuple):
    """A transaction that is open in a partition, with the producer id and epoch of its last records."""

    producer_id: int
    epoch: int
    coordinator_epoch: int
    """Coordinator epoch of the partition's last marker; -1 without one."""

    @property
    def transaction(self) -> tuple[int, int]:
        """The key under which ``Outcomes`` lists the transaction."""
        return self.producer_id, self.epoch


async def last_outcome(ask_coordinator: Callable[[Any], Awaitable[Any]], transactional_id: str) -> Outcomes:
    """Return the outcome of the id's last transaction; empty if that has not ended, or is unknown."""
    (answer,) = (await ask_coordinator(DescribeTransactions([transactional_id]))).transactions
    code, _, state, _, _, producer_id, epoch, *_ = answer
    if code in RETRIABLE or code == TRANSACTIONAL_ID_NOT_FOUND:
        return {}
    raise_or_retry(code, "transaction coordinator")
    return {(producer_id, epoch - 1): ENDED[state]} if state in ENDED else {}


async def find_hanging(
    kafka: AIOKafkaClient, partitions: Iterable[TopicAndPartition], producer_ids: Collection[int] | None
) -> dict[TopicAndPartition, HangingTransaction]:
    """Return the transactions of these producers that are open now and were open at the call, by partition.

    ``producer_ids`` None means every producer. A partition that this worker may not read counts as free of them.
    Raises ``NoLeader``.
    """
    stable = await _ends(kafka, partitions, READ_COMMITTED)
    ends = await _ends(kafka, stable, READ_UNCOMMITTED)
    unstable = {tp: end for tp, end in ends.items() if stable[tp] < end}
    for _ in range(LOOKS):
        if not unstable:
            return {}
        await asyncio.sleep(LOOK_S)
        stable = await _ends(kafka, unstable, READ_COMMITTED)
        unstable = {tp: end for tp, end in unstable.items() if stable[tp] < end}
    found = await _ask_leaders(
        kafka, unstable, lambda topics: DescribeProducers(topics), accepted=TOPIC_AUTHORIZATION_FAILED
    )
    return {
        tp: HangingTransaction(producer_id, epoch, coordinator_epoch)
        for tp, line in found.items()
        for producer_id, epoch, _, _, coordinator_epoch, start, _ in line[3]
        if start >= 0 and (producer_ids is None or producer_id in producer_ids)
    }


async def write_markers(
    kafka: AIOKafkaClient, found: Mapping[TopicAndPartition, HangingTransaction], outcomes: Outcomes
) -> None:
    """Write the missing markers, as a coordinator does. ``NotAllowed`` without the right to alter the cluster."""
    coordinator_epoch = max(0, *(each.coordinator_epoch for each in found.values()))
    for transaction in {each.transaction for each in found.values()} & outcomes.keys():
        where = [tp for tp, each in found.items() if each.transaction == transaction]
        await _mark(kafka, where, transaction, outcomes[transaction], coordinator_epoch)


async def _mark(
    kafka: AIOKafkaClient,
    partitions: Iterable[TopicAndPartition],
    transaction: tuple[int, int],
    committed: bool,
    coordinator_epoch: int,
) -> None:
    producer_id, epoch = transaction
    await _ask_leaders(
        kafka,
        partitions,
        lambda topics: WriteTxnMarkers([(producer_id, epoch + 1, committed, topics, coordinator_epoch, {})]),
        topics_of=lambda reply: reply.markers[0][1],
    )


async def _ends(
    kafka: AIOKafkaClient, partitions: Iterable[TopicAndPartition], isolation: int
) -> dict[TopicAndPartition, int]:
    def request(topics: list[Any]) -> Any:
        lines: list[Any] = [
            (topic, [(number, -1, LATEST, {}) for number in numbers], {}) for topic, numbers, _ in topics
        ]
        return ListOffsets(-1, isolation, lines)

    return {tp: line[3] for tp, line in (await _ask_leaders(kafka, partitions, request)).items()}


async def _ask_leaders(
    kafka: AIOKafkaClient,
    partitions: Iterable[TopicAndPartition],
    request: Callable[[list[Any]], Any],
    *,
    topics_of: Callable[[Any], list[Any]] = lambda reply: reply.topics,
    accepted: int = 0,
) -> dict[TopicAndPartition, Any]:
    """Return the answer of each partition's leader. ``request`` makes a request of (topic, partition numbers) lines;
    ``accepted`` is an error code that counts as an answer."""
    missing, answered, last_error = set(partitions), dict[TopicAndPartition, Any](), 0
    try:
        async with asyncio.timeout(LEADERS_S):
            while missing:
                for reply in await _ask_once(kafka, missing, request):
                    for tp, line in _lines(topics_of(reply)):
                        if line[1] == accepted or not raise_or_retry(line[1], f"{tp[0]}/{tp[1]}"):
                            answered[tp] = line
                        else:
                            last_error = line[1]
                missing -= answered.keys()
                if missing:
                    await asyncio.sleep(RETRY_S)
                    await kafka.force_metadata_update()
    except TimeoutError:
        raise NoLeader(
            f"no leader answers for {format_partitions(missing)} (the last error code was {last_error})"
        ) from None
    return answered


def _lines(topics: Iterable[Any]) -> Iterable[tuple[TopicAndPartition, Any]]:
    return (((topic, line[0]), line) for topic, lines, _ in topics for line in lines)


async def _ask_once(
    kafka: AIOKafkaClient, partitions: Iterable[TopicAndPartition], request: Callable[[list[Any]], Any]
) -> list[Any]:
    by_leader: dict[int, dict[str, list[int]]] = {}
    for topic, number in sorted(partitions):
        if (leader := leader_of(kafka, (topic, number))) is not None:
            by_leader.setdefault(leader, {}).setdefault(topic, []).append(number)
    requests = [
        kafka.send(leader, request([(topic, numbers, {}) for topic, numbers in topics.items()]))
        for leader, topics in by_leader.items()
    ]
    return list(await asyncio.gather(*requests))
