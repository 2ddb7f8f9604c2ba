"""A Kafka in memory: logs, transactions as in KIP-890, and one consumer group with static members.

No acknowledged record is lost. Requests arrive through ``network`` and are answered at once. The loop schedules what
takes time: the markers of a transaction, the time-out of an abandoned transaction, the end of a session.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from aiokafka.errors import KafkaConnectionError
from aiokafka.record.memory_records import MemoryRecords

from exactly_once.faust.assignor import spread
from exactly_once.task.transaction import Header
from verification.simulation.loop import VirtualLoop

TopicAndPartition = tuple[str, int]
DOWN_S = 0.4
"""Duration of a restart of the broker."""
MAX_EPOCH = 32_766
"""Last epoch of a producer; its next epoch is 0 of another producer id."""
OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
INVALID_TXN_STATE = 48
CONCURRENT_TRANSACTIONS = 51
PRODUCER_FENCED = 90
TRANSACTIONAL_ID_NOT_FOUND = 105


class StoredRecord(NamedTuple):
    """A record as a consumer receives it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Transaction:
    """One transaction of a producer. ``committed`` is None until the transaction ends."""

    __slots__ = ("committed", "epoch", "id", "partitions", "producer_id")

    def __init__(self, transactional_id: str, producer_id: int, epoch: int) -> None:
        self.id = transactional_id
        self.producer_id = producer_id
        self.epoch = epoch
        self.committed: bool | None = None
        self.partitions: set[TopicAndPartition] = set()


class Entry(NamedTuple):
    """Entry of a log: a record, or the marker of a transaction if ``record`` is None."""

    offset: int
    record: StoredRecord | None
    transaction: Transaction | None


class Log:
    """Log of one partition."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.end = 0
        self.open: dict[Transaction, int] = {}
        """Transaction without a marker here -> its first offset."""
        self.ended: dict[Transaction, bool] = {}
        """Transaction with a marker here -> whether the marker commits it."""
        self.listeners: list[Callable[[], None]] = []
        """Functions to call when readers can read more."""

    @property
    def stable_end(self) -> int:
        """Last stable offset: the first offset of the oldest open transaction, or the end of the log."""
        return min(self.open.values(), default=self.end)

    def append(self, record: StoredRecord | None, transaction: Transaction | None) -> None:
        self.entries.append(Entry(self.end, record, transaction))
        self.end += 1

    def is_committed(self, entry: Entry) -> bool:
        """Return whether a reader with isolation level ``read_committed`` receives the entry."""
        return entry.transaction is None or self.ended.get(entry.transaction, False)

    def end_transactions(self, producer_id: int, *, committed: bool) -> None:
        """Apply a producer's marker; it ends all open transactions of the producer."""
        for transaction in [each for each in self.open if each.producer_id == producer_id]:
            del self.open[transaction]
            self.ended[transaction] = committed

    def read(self, position: int, limit: int) -> tuple[list[StoredRecord], int]:
        """Return at most ``limit`` committed records from a position on, and the next position."""
        found: list[StoredRecord] = []
        stable_end = self.stable_end
        for entry in self.entries[bisect_left(self.entries, position, key=lambda entry: entry.offset) :]:
            if entry.offset >= stable_end:
                break
            if len(found) == limit:
                return found, entry.offset
            if entry.record is not None and self.is_committed(entry):
                found.append(entry.record)
        return found, max(position, stable_end)

    def compact(self, gone_before: float) -> None:
        """Keep the newest committed record of each key, but drop tombstones older than ``gone_before`` (ms)."""
        stable_end = self.stable_end
        newest = {
            entry.record.key: entry.offset
            for entry in self.entries
            if entry.offset < stable_end and entry.record and self.is_committed(entry)
        }
        self.entries = [
            entry
            for entry in self.entries
            if entry.offset >= stable_end
            or (
                entry.record is not None
                and newest.get(entry.record.key) == entry.offset
                and (entry.record.value is not None or entry.record.timestamp >= gone_before)
            )
        ]


@dataclass(slots=True)
class Producer:
    """State of one transactional id at the coordinator."""

    producer_id: int
    epoch: int
    transaction: Transaction | None = None
    state: str = "Empty"
    timeout_s: float = 0.0
    last_end: tuple[int, bool] | None = None
    next_sequences: dict[TopicAndPartition, int] = field(default_factory=dict)
    appended: dict[tuple[TopicAndPartition, int], tuple[int, int]] = field(default_factory=dict)
    """(partition, first sequence) -> base offset and time of appending (ms)."""

    @property
    def is_completing(self) -> bool:
        """True while markers are being written."""
        return self.state.startswith("Prepare")


@dataclass(slots=True)
class Member:
    """A static member of the group."""

    number: int
    """Identifies one start of the member's process."""
    request_rejoin: Callable[[], None]
    claims: set[int]
    joining: "asyncio.Future[tuple[int, set[int], int]] | None" = None
    expiry: asyncio.TimerHandle | None = None


class Broker:
    """A cluster of brokers that fail together.

    ``now_ms`` returns the world's time and ``note`` records an event. ``fault_at`` returns the fault of a transaction
    that is about to be marked: the broker restarts and every connection is cut. Some markers are then never written,
    because a restarting coordinator assumes that partitions without a leader were deleted (as in Kafka 4.3). With
    ``lost`` the producer's EndTxn stays unanswered, with ``answered`` it is answered.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        chance: Random,
        topics: Mapping[str, int],
        now_ms: Callable[[], int],
        session_s: float,
        note: Callable[..., None],
        fault_at: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._loop = loop
        self._chance = chance
        self._now_ms = now_ms
        self._session_s = session_s
        self._note = note
        self._fault_at = fault_at
        self.logs = {(topic, partition): Log() for topic, count in topics.items() for partition in range(count)}
        self.topics = dict(topics)
        self.commits: list[tuple[int, Transaction]] = []
        """Committed transactions in the order of their commits, each with its time (ms)."""
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.owners: dict[int, str] = {}
        """Partition -> the member it is assigned to."""
        self.starts = 0
        """Number of restarts. A connection belongs to one start."""
        self._producers: dict[str, Producer] = {}
        self._next_producer_id = 1
        self._member_numbers = 0
        self._rebalancing = False

    # -- transactions -------------------------------------------------------------------------------------------------

    def init_producer(self, transactional_id: str, timeout_s: float) -> tuple[int, int, int]:
        """Fence the previous producer of the id; return (error, producer id, epoch)."""
        producer = self._producers.get(transactional_id)
        if producer is None:
            epoch = self._chance.choice((0, 0, MAX_EPOCH - 40))
            self._producers[transactional_id] = producer = Producer(self._new_id(), epoch - 1)
        if producer.is_completing:
            return CONCURRENT_TRANSACTIONS, -1, -1
        self._raise_epoch(producer)
        if producer.transaction is not None:
            self._decide(producer, committed=False)
            return CONCURRENT_TRANSACTIONS, -1, -1
        producer.last_end, producer.timeout_s, producer.state = None, timeout_s, "Empty"
        self._note("init", transactional_id, producer.producer_id, producer.epoch)
        return 0, producer.producer_id, producer.epoch

    def produce(
        self, transactional_id: str, batches: Mapping[TopicAndPartition, bytes]
    ) -> dict[TopicAndPartition, tuple[int, int, int]]:
        """Append a batch to each partition; return partition -> (error, base offset, time of appending in ms)."""
        return {tp: self._produce(transactional_id, tp, batch) for tp, batch in batches.items()}

    def _produce(self, transactional_id: str, tp: TopicAndPartition, batch: bytes) -> tuple[int, int, int]:
        producer = self._producers[transactional_id]
        header = MemoryRecords(batch).next_batch()
        if (header.producer_id, header.producer_epoch) != (producer.producer_id, producer.epoch):
            self._note("refused", transactional_id, tp, header.producer_epoch)
            return INVALID_PRODUCER_EPOCH, -1, -1
        if producer.is_completing:
            return CONCURRENT_TRANSACTIONS, -1, -1
        if (tp, header.base_sequence) in producer.appended:
            return 0, *producer.appended[tp, header.base_sequence]
        if header.base_sequence != producer.next_sequences.get(tp, 0):
            return OUT_OF_ORDER_SEQUENCE_NUMBER, -1, -1
        if producer.transaction is None:
            producer.transaction = Transaction(transactional_id, producer.producer_id, producer.epoch)
            producer.state = "Ongoing"
            self._loop.later(producer.timeout_s, self._loop.world, self._time_out, producer, producer.transaction)
        transaction, log = producer.transaction, self.logs[tp]
        base, now_ms = log.end, self._now_ms()
        log.open.setdefault(transaction, base)
        transaction.partitions.add(tp)
        for record in header:
            log.append(
                StoredRecord(tp[0], tp[1], log.end, now_ms, record.key, record.value, record.headers),
                transaction,
            )
        producer.appended[tp, header.base_sequence] = base, now_ms
        producer.next_sequences[tp] = header.base_sequence + log.end - base
        self._note("produce", tp, base, log.end, transactional_id, producer.epoch)
        return 0, base, now_ms

    def write_marker(self, tp: TopicAndPartition, producer_id: int, epoch: int, *, committed: bool) -> None:
        """Write the marker of a hanging transaction for a client that knows its outcome."""
        log = self.logs[tp]
        transaction = next(each for each in log.open if each.producer_id == producer_id)
        assert (epoch, committed) == (transaction.epoch + 1, transaction.committed), "the outcome differs"
        self._note("marked", tp, producer_id, committed)
        self._mark(log, transaction)

    def describe(self, transactional_id: str) -> tuple[int, str, int, int]:
        """Return (error, state, producer id, epoch)."""
        producer = self._producers.get(transactional_id)
        if producer is None:
            return TRANSACTIONAL_ID_NOT_FOUND, "", -1, -1
        return 0, producer.state, producer.producer_id, producer.epoch

    def open_producers(self, tp: TopicAndPartition) -> list[tuple[int, int, int]]:
        """Return (producer id, epoch, first offset) of each transaction that is open in a partition."""
        return [(each.producer_id, each.epoch, first) for each, first in self.logs[tp].open.items()]

    def end_transaction(
        self, transactional_id: str, producer_id: int, epoch: int, commit: bool
    ) -> tuple[int, int, int]:
        """Commit or abort; return (error, producer id, epoch of the next transaction).

        Raises ``KafkaConnectionError`` if a fault leaves the request unanswered.
        """
        producer = self._producers[transactional_id]
        if producer.last_end == (epoch, commit) and not producer.transaction:
            return 0, producer.producer_id, producer.epoch  # a repeated request
        if (producer_id, epoch) != (producer.producer_id, producer.epoch):
            self._note("refused", transactional_id, "end", epoch)
            return PRODUCER_FENCED, -1, -1
        if producer.is_completing:
            return CONCURRENT_TRANSACTIONS, -1, -1
        if producer.transaction is None:
            return INVALID_TXN_STATE, -1, -1
        self._raise_epoch(producer)
        producer.last_end = (epoch, commit)
        if self._decide(producer, committed=commit):
            raise KafkaConnectionError("the broker restarts")
        return 0, producer.producer_id, producer.epoch

    def _time_out(self, producer: Producer, transaction: Transaction) -> None:
        if producer.transaction is transaction and transaction.committed is None:
            self._note("timed out", transaction.id)
            self._raise_epoch(producer)
            self._decide(producer, committed=False)

    def _raise_epoch(self, producer: Producer) -> None:
        producer.epoch += 1
        if producer.epoch > MAX_EPOCH:
            producer.producer_id, producer.epoch = self._new_id(), 0
        producer.next_sequences.clear()
        producer.appended.clear()

    def _new_id(self) -> int:
        self._next_producer_id += 1
        return self._next_producer_id

    def _decide(self, producer: Producer, *, committed: bool) -> bool:
        """Decide the outcome of a transaction. Readers see it in a partition once its marker is written there.

        Return whether the producer's request stays unanswered.
        """
        transaction = producer.transaction
        assert transaction is not None
        transaction.committed = committed
        producer.state = "PrepareCommit" if committed else "PrepareAbort"
        self._note("commit" if committed else "abort", transaction.id, transaction.epoch)
        if committed:
            self.commits.append((self._now_ms(), transaction))
        # After its last epoch a producer gets another id, and markers of that id would not end this transaction.
        fault = self._fault_at("marking") if producer.producer_id == transaction.producer_id else ""
        loses_markers = bool(fault)
        unmarked = {tp for tp in sorted(transaction.partitions) if loses_markers and self._chance.random() < 0.5}
        slow = self._chance.random() < 0.1
        last = 0.0
        for tp in sorted(transaction.partitions - unmarked):
            delay_s = self._chance.uniform(0.0002, 0.05 if slow else 0.002)
            last = max(last, delay_s)
            self._loop.later(delay_s, self._loop.world, self._mark, self.logs[tp], transaction)
        if loses_markers:
            self._note("unmarked", transaction.id, sorted(unmarked))
            self._loop.later(last + DOWN_S / 2, self._loop.world, self._restart)
            last += DOWN_S
        self._loop.later(last, self._loop.world, self._complete, producer)
        return fault == "lost"

    def _restart(self) -> None:
        self.starts += 1

    def _mark(self, log: Log, transaction: Transaction) -> None:
        log.append(None, transaction)
        log.end_transactions(transaction.producer_id, committed=bool(transaction.committed))
        self._notify_listeners(log)

    @staticmethod
    def _complete(producer: Producer) -> None:
        producer.transaction, producer.state = None, producer.state.replace("Prepare", "Complete")

    # -- plain records ------------------------------------------------------------------------------------------------

    def append(
        self, tp: TopicAndPartition, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()
    ) -> int:
        """Append a record outside any transaction; return its offset."""
        log = self.logs[tp]
        offset = log.end
        log.append(StoredRecord(*tp, offset, self._now_ms(), key, value, tuple(headers)), None)
        self._note("append", tp, offset, key)
        self._notify_listeners(log)
        return offset

    def _notify_listeners(self, log: Log) -> None:
        for listener in log.listeners:
            listener()

    def committed(self, topic: str) -> list[StoredRecord]:
        """Return the committed records of a topic, partition by partition."""
        found: list[StoredRecord] = []
        for partition in range(self.topics[topic]):
            found += self.logs[topic, partition].read(0, 1 << 30)[0]
        return found

    # -- the group ----------------------------------------------------------------------------------------------------

    def join(
        self, name: str, number: int, claims: set[int], request_rejoin: Callable[[], None]
    ) -> "asyncio.Future[tuple[int, set[int], int]]":
        """Return a future of (generation, partitions, member number), which completes when all members have joined.

        A ``number`` of 0 stands for a process that has just started. Member number 0 in the result means that the
        member was expelled and has to join again. ``request_rejoin`` is called at the next rebalance.
        """
        joined: asyncio.Future[tuple[int, set[int], int]] = self._loop.create_future()
        member = self.members.get(name)
        if number and (member is None or member.number != number):
            number = 0  # an expelled or replaced member joins as a new one
        if member is None or not number:
            self._member_numbers += 1
            number = self._member_numbers
        restarted = member is not None and member.number != number
        if member is not None and member.expiry is not None:
            member.expiry.cancel()
        if restarted and not self._rebalancing:
            mine = {partition for partition, owner in self.owners.items() if owner == name}
            self.members[name] = Member(number, request_rejoin, mine)
            joined.set_result((self.generation, mine, number))
            self._note("rejoined", name, sorted(mine))
            return joined
        self.members[name] = Member(number, request_rejoin, claims, joined)
        self._rebalance()
        return joined

    def leave(self, name: str, number: int) -> None:
        """Remove a member at once, without waiting for its session to end."""
        member = self.members.get(name)
        if member is not None and member.number == number:
            self._remove(name, "left")

    def is_member(self, name: str, number: int) -> bool:
        """Return whether the member is in the group under this number, as the answer to a heartbeat does."""
        return name in self.members and self.members[name].number == number

    def silent(self, name: str) -> None:
        """Start the session time-out of a member whose heartbeats have stopped."""
        member = self.members.get(name)
        if member is not None and member.expiry is None:
            member.expiry = self._loop.later(self._session_s, self._loop.world, self._remove, name, "expelled")

    def heard(self, name: str) -> None:
        """Cancel the session time-out of a member whose heartbeats have resumed."""
        member = self.members.get(name)
        if member is not None and member.expiry is not None:
            member.expiry.cancel()
            member.expiry = None

    def _remove(self, name: str, why: str) -> None:
        self._note(why, name)
        member = self.members.pop(name)
        if member.expiry is not None:
            member.expiry.cancel()
        member.request_rejoin()
        if member.joining is not None and not member.joining.done():
            member.joining.set_result((0, set(), 0))  # it has to join again
        if self.members:
            self._rebalance()

    def _rebalance(self) -> None:
        if not self._rebalancing:
            self._rebalancing = True
            for member in self.members.values():
                if member.joining is None:
                    member.request_rejoin()
        if all(member.joining is not None for member in self.members.values()):
            self._assign()

    def _assign(self) -> None:
        self._rebalancing = False
        self.generation += 1
        partitions = max(self.topics.values())
        shares = spread(partitions, {name: member.claims for name, member in sorted(self.members.items())})
        self.owners = {partition: name for name, share in shares.items() for partition in share}
        self._note("assigned", self.generation, sorted(self.owners.items()))
        for name, member in self.members.items():
            joining, member.joining, member.claims = member.joining, None, shares[name]
            if joining is not None and not joining.done():
                joining.set_result((self.generation, set(shares[name]), member.number))
