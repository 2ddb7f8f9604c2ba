"""Transactions that have ended and are open all the same, for their markers were left out.

What a coordinator has noted as ended is to get a marker in every partition that was written to, and is seen there from
then on. A coordinator that finds no leader for a partition takes it for one that was deleted, and does without. Since
Kafka 4.3 that may be any partition while a broker starts: ``KRaftMetadataCache.getPartitionLeaderEndpoint`` says of one
that has no leader what it says of one that is not there. Then a transaction is committed here and hidden there, until
the next marker of its producer in that partition, which counts for both.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient

from streams.engine.protocol import (
    LATEST,
    NO_READING,
    NO_SUCH_ID,
    READ_COMMITTED,
    READ_UNCOMMITTED,
    RETRIABLE,
    RETRY_S,
    DescribeProducers,
    DescribeTransactions,
    ListOffsets,
    TopicAndPartition,
    TransactionError,
    WriteTxnMarkers,
    check,
    leader_of,
    listed,
)

ENDED = {"PrepareCommit": True, "CompleteCommit": True, "PrepareAbort": False, "CompleteAbort": False}
"""States of a transactional id, and whether its last transaction was committed. Its epoch is one higher by then."""
LEADERS_S = 3.0
"""How long leaders are waited for."""
LOOKS, LOOK_S = 15, 0.01
"""How often, and how long after another, it is looked again at what others have open: they end it soon."""
FORGOTTEN = (
    "a transaction of {id} has ended, but the broker has not marked that in {where}, and does not know any more "
    "whether it was committed: look at it with `kafka-transactions.sh find-hanging` and, if it was not, end it with "
    "`kafka-transactions.sh abort`, which takes its records there for not written"
)
FORBIDDEN = (
    "a transaction of {id} has ended, but the broker has not marked that in {where}, and does not let us do it: for "
    "that we need the right to alter the cluster (`kafka-acls.sh --operation Alter --cluster`)"
)


class MarkersLost(TransactionError):
    """A transaction has ended and is open all the same, and we cannot, or must not, end it."""


class NoLeader(TransactionError):
    """Nobody can be asked now."""


Outcomes = dict[tuple[int, int], bool]
"""By producer id and epoch of its records: whether a transaction that has ended was committed."""


class Open(NamedTuple):
    """A transaction that is open in a partition, by the producer id and epoch of its last records."""

    producer_id: int
    epoch: int
    coordinator_epoch: int
    """Of the last marker there; -1: there is none."""

    @property
    def transaction(self) -> tuple[int, int]:
        """What it is known by."""
        return self.producer_id, self.epoch


async def last_outcome(ask_coordinator: Callable[[Any], Awaitable[Any]], transactional_id: str) -> Outcomes:
    """How the last transaction of this id has ended; empty where that is not so yet, or the coordinator does not know,
    or not any more."""
    (answer,) = (await ask_coordinator(DescribeTransactions([transactional_id]))).transactions
    code, _, state, _, _, producer_id, epoch, *_ = answer
    if code in RETRIABLE or code == NO_SUCH_ID:
        return {}
    check(code, "transaction coordinator")
    return {(producer_id, epoch - 1): ENDED[state]} if state in ENDED else {}


async def still_open(
    kafka: AIOKafkaClient, partitions: Iterable[TopicAndPartition], producer_ids: Collection[int] | None
) -> dict[TopicAndPartition, Open]:
    """In which of these one of these producers (None: anybody) has a transaction open that it had open before this was
    called. Where we may not read, nothing is known to be open. Raises ``NoLeader``."""
    stable = await _ends(kafka, partitions, READ_COMMITTED)
    ends = await _ends(kafka, stable, READ_UNCOMMITTED)
    unstable = {tp: end for tp, end in ends.items() if stable[tp] < end}
    for _ in range(LOOKS):
        if not unstable:
            return {}
        await asyncio.sleep(LOOK_S)
        stable = await _ends(kafka, unstable, READ_COMMITTED)
        unstable = {tp: end for tp, end in unstable.items() if stable[tp] < end}
    found = await _ask_leaders(kafka, unstable, lambda topics: DescribeProducers(topics), excused=NO_READING)
    return {
        tp: Open(producer_id, epoch, coordinator_epoch)
        for tp, line in found.items()
        for producer_id, epoch, _, _, coordinator_epoch, start, _ in line[3]
        if start >= 0 and (producer_ids is None or producer_id in producer_ids)
    }


async def write_markers(kafka: AIOKafkaClient, found: Mapping[TopicAndPartition, Open], outcomes: Outcomes) -> None:
    """As a coordinator does. Raises ``NotAllowed`` where access control lists do not let us alter the cluster."""
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
    excused: int = 0,
) -> dict[TopicAndPartition, Any]:
    """What the leader of each partition answers of it. ``request`` makes one of topics with the numbers of their
    partitions. ``excused``: an error that is an answer too."""
    left, answered, last_error = set(partitions), dict[TopicAndPartition, Any](), 0
    try:
        async with asyncio.timeout(LEADERS_S):
            while left:
                for reply in await _ask_once(kafka, left, request):
                    for tp, line in _lines(topics_of(reply)):
                        if line[1] == excused or not check(line[1], f"{tp[0]}/{tp[1]}"):
                            answered[tp] = line
                        else:
                            last_error = line[1]
                left -= answered.keys()
                if left:
                    await asyncio.sleep(RETRY_S)
                    await kafka.force_metadata_update()
    except TimeoutError:
        raise NoLeader(f"nobody answers for {listed(left)} (the last error was {last_error})") from None
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
