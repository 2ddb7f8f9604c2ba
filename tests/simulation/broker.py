"""A Kafka in memory: logs, transactions as KIP-890 has them, and one consumer group with static members.

Nothing is lost that was acknowledged. What takes time (markers of a transaction, the time-out of one that nobody ends,
the end of a session) comes by the loop; requests reach it by the network (``network``) and are answered at once.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from aiokafka.errors import KafkaConnectionError
from aiokafka.record.memory_records import MemoryRecords

from streams.engine.assignor import spread
from streams.engine.changes import Header
from tests.simulation.loop import VirtualLoop

TopicAndPartition = tuple[str, int]
DOWN_S = 0.4
"""While a broker starts anew."""
LAST_EPOCH = 32_766
"""A producer that has used up its epochs gets another id."""
CONCURRENT, INVALID_EPOCH, OUT_OF_ORDER, INVALID_STATE, FENCED, NO_SUCH_ID = 51, 47, 45, 48, 90, 105


class StoredRecord(NamedTuple):
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]


class Transaction:
    """What one producer has written since its last one. ``committed`` is None as long as nobody has decided."""

    __slots__ = ("committed", "epoch", "id", "partitions", "producer_id")

    def __init__(self, transactional_id: str, producer_id: int, epoch: int) -> None:
        self.id, self.producer_id, self.epoch = transactional_id, producer_id, epoch
        self.committed: bool | None = None
        self.partitions: set[TopicAndPartition] = set()


class Entry(NamedTuple):
    """A place in a log: a record, or the marker of a transaction."""

    offset: int
    record: StoredRecord | None
    transaction: Transaction | None


class Log:
    """One partition."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.end = 0
        self.open: dict[Transaction, int] = {}
        """Transactions without their marker here -> their first offset."""
        self.ended: dict[Transaction, bool] = {}
        """Those with one -> what it says. A producer's marker ends all that it has open."""
        self.listeners: list[Callable[[], None]] = []

    @property
    def stable_end(self) -> int:
        """Where what is decided ends."""
        return min(self.open.values(), default=self.end)

    def append(self, record: StoredRecord | None, transaction: Transaction | None) -> None:
        self.entries.append(Entry(self.end, record, transaction))
        self.end += 1

    def shows(self, entry: Entry) -> bool:
        """Whether a reader of what is committed gets it."""
        return entry.transaction is None or self.ended.get(entry.transaction, False)

    def end_of(self, producer_id: int, *, committed: bool) -> None:
        """A producer's marker."""
        for transaction in [each for each in self.open if each.producer_id == producer_id]:
            del self.open[transaction]
            self.ended[transaction] = committed

    def read(self, position: int, limit: int) -> tuple[list[StoredRecord], int]:
        """Committed records from a position on, and where to read on."""
        found: list[StoredRecord] = []
        stable_end = self.stable_end
        for entry in self.entries[bisect_left(self.entries, position, key=lambda entry: entry.offset) :]:
            if entry.offset >= stable_end:
                break
            if len(found) == limit:
                return found, entry.offset
            if entry.record is not None and self.shows(entry):
                found.append(entry.record)
        return found, max(position, stable_end)

    def compact(self, gone_before: float) -> None:
        """Keep the newest committed record of each key, and of the deletions those that are young."""
        stable_end = self.stable_end
        newest = {
            entry.record.key: entry.offset
            for entry in self.entries
            if entry.offset < stable_end and entry.record and self.shows(entry)
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
    """What the coordinator knows of one transactional id."""

    producer_id: int
    epoch: int
    transaction: Transaction | None = None
    state: str = "Empty"
    timeout_s: float = 0.0
    last_end: tuple[int, bool] | None = None
    next_sequences: dict[TopicAndPartition, int] = field(default_factory=dict)
    appended: dict[tuple[TopicAndPartition, int], tuple[int, int]] = field(default_factory=dict)
    """(partition, first sequence) -> base offset."""

    @property
    def completing(self) -> bool:
        """Whether markers are on their way."""
        return self.state.startswith("Prepare")


@dataclass(slots=True)
class Member:
    """A static member of the group."""

    number: int
    told: Callable[[], None]
    claims: set[int]
    joining: "asyncio.Future[tuple[int, set[int], int]] | None" = None
    expiry: asyncio.TimerHandle | None = None


class Broker:
    """``now_ms`` is the world's time. ``note`` is told of everything that happens. ``strikes`` tells of a fault where
    a transaction is to be marked: the broker starts anew, every connection is cut, and some markers are left out for
    good, for it takes partitions that have no leader yet for deleted ones (as Kafka 4.3 does). ``lost``: that the
    transaction has ended has not been answered; ``answered``: it has."""

    def __init__(
        self,
        loop: VirtualLoop,
        chance: Random,
        topics: Mapping[str, int],
        now_ms: Callable[[], int],
        session_s: float,
        note: Callable[..., None],
        strikes: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._strikes = strikes
        self._loop, self._chance, self._now_ms, self._session_s, self._note = loop, chance, now_ms, session_s, note
        self.logs = {(topic, partition): Log() for topic, count in topics.items() for partition in range(count)}
        self.topics = dict(topics)
        self.commits: list[tuple[int, Transaction]] = []
        """In the order in which they were decided: when (ms), and which."""
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.owners: dict[int, str] = {}
        """Partition -> the member that was assigned it."""
        self.starts = 0
        """How often it has started anew. Connections are to one of these."""
        self._producers: dict[str, Producer] = {}
        self._next_producer_id = 1
        self._member_numbers = 0
        self._rebalancing = False

    # -- transactions -------------------------------------------------------------------------------------------------

    def init_producer(self, transactional_id: str, timeout_s: float) -> tuple[int, int, int]:
        """(error, producer id, epoch). Fences whoever had the id."""
        producer = self._producers.get(transactional_id)
        if producer is None:
            epoch = self._chance.choice((0, 0, LAST_EPOCH - 40))
            self._producers[transactional_id] = producer = Producer(self._new_id(), epoch - 1)
        if producer.completing:
            return CONCURRENT, -1, -1
        self._raise_epoch(producer)
        if producer.transaction is not None:
            self._decide(producer, committed=False)
            return CONCURRENT, -1, -1
        producer.last_end, producer.timeout_s, producer.state = None, timeout_s, "Empty"
        self._note("init", transactional_id, producer.producer_id, producer.epoch)
        return 0, producer.producer_id, producer.epoch

    def produce(
        self, transactional_id: str, batches: Mapping[TopicAndPartition, bytes]
    ) -> dict[TopicAndPartition, tuple[int, int, int]]:
        """Partition -> (error, base offset, time of appending)."""
        return {tp: self._produce(transactional_id, tp, batch) for tp, batch in batches.items()}

    def _produce(self, transactional_id: str, tp: TopicAndPartition, batch: bytes) -> tuple[int, int, int]:
        producer = self._producers[transactional_id]
        header = MemoryRecords(batch).next_batch()
        if (header.producer_id, header.producer_epoch) != (producer.producer_id, producer.epoch):
            self._note("refused", transactional_id, tp, header.producer_epoch)
            return INVALID_EPOCH, -1, -1
        if producer.completing:
            return CONCURRENT, -1, -1
        if (tp, header.base_sequence) in producer.appended:
            return 0, *producer.appended[tp, header.base_sequence]
        if header.base_sequence != producer.next_sequences.get(tp, 0):
            return OUT_OF_ORDER, -1, -1
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
        """By somebody who knows how the transaction of a producer has ended that is open there."""
        log = self.logs[tp]
        transaction = next(each for each in log.open if each.producer_id == producer_id)
        assert (epoch, committed) == (transaction.epoch + 1, transaction.committed), "it has ended otherwise"
        self._note("marked", tp, producer_id, committed)
        self._mark(log, transaction)

    def describe(self, transactional_id: str) -> tuple[int, str, int, int]:
        """(error, state, producer id, epoch)."""
        producer = self._producers.get(transactional_id)
        if producer is None:
            return NO_SUCH_ID, "", -1, -1
        return 0, producer.state, producer.producer_id, producer.epoch

    def open_producers(self, tp: TopicAndPartition) -> list[tuple[int, int, int]]:
        """(producer id, epoch, first offset) of the transactions that are open in a partition."""
        return [(each.producer_id, each.epoch, first) for each, first in self.logs[tp].open.items()]

    def end_transaction(
        self, transactional_id: str, producer_id: int, epoch: int, commit: bool
    ) -> tuple[int, int, int]:
        """(error, producer id, epoch of the next transaction)."""
        producer = self._producers[transactional_id]
        if producer.last_end == (epoch, commit) and not producer.transaction:
            return 0, producer.producer_id, producer.epoch  # the same request again
        if (producer_id, epoch) != (producer.producer_id, producer.epoch):
            self._note("refused", transactional_id, "end", epoch)
            return FENCED, -1, -1
        if producer.completing:
            return CONCURRENT, -1, -1
        if producer.transaction is None:
            return INVALID_STATE, -1, -1
        self._raise_epoch(producer)
        producer.last_end = (epoch, commit)
        if self._decide(producer, committed=commit):
            raise KafkaConnectionError("the broker starts anew")
        return 0, producer.producer_id, producer.epoch

    def _time_out(self, producer: Producer, transaction: Transaction) -> None:
        if producer.transaction is transaction and transaction.committed is None:
            self._note("timed out", transaction.id)
            self._raise_epoch(producer)
            self._decide(producer, committed=False)

    def _raise_epoch(self, producer: Producer) -> None:
        producer.epoch += 1
        if producer.epoch > LAST_EPOCH:
            producer.producer_id, producer.epoch = self._new_id(), 0
        producer.next_sequences.clear()
        producer.appended.clear()

    def _new_id(self) -> int:
        self._next_producer_id += 1
        return self._next_producer_id

    def _decide(self, producer: Producer, *, committed: bool) -> bool:
        """From here it has happened, or not; who reads sees so when the partition has its marker. Whether whoever asked
        for it is not told."""
        transaction = producer.transaction
        assert transaction is not None
        transaction.committed = committed
        producer.state = "PrepareCommit" if committed else "PrepareAbort"
        self._note("commit" if committed else "abort", transaction.id, transaction.epoch)
        if committed:
            self.commits.append((self._now_ms(), transaction))
        # who has used up its epochs goes on as another producer, and what that one writes ends nothing of this one
        fault = self._strikes("marking") if producer.producer_id == transaction.producer_id else ""
        losing = bool(fault)
        unmarked = {tp for tp in sorted(transaction.partitions) if losing and self._chance.random() < 0.5}
        slow = self._chance.random() < 0.1
        last = 0.0
        for tp in sorted(transaction.partitions - unmarked):
            delay_s = self._chance.uniform(0.0002, 0.05 if slow else 0.002)
            last = max(last, delay_s)
            self._loop.later(delay_s, self._loop.world, self._mark, self.logs[tp], transaction)
        if losing:
            self._note("unmarked", transaction.id, sorted(unmarked))
            self._loop.later(last + DOWN_S / 2, self._loop.world, self._start_anew)
            last += DOWN_S
        self._loop.later(last, self._loop.world, self._complete, producer)
        return fault == "lost"

    def _start_anew(self) -> None:
        self.starts += 1

    def _mark(self, log: Log, transaction: Transaction) -> None:
        log.append(None, transaction)
        log.end_of(transaction.producer_id, committed=bool(transaction.committed))
        self._tell(log)

    @staticmethod
    def _complete(producer: Producer) -> None:
        producer.transaction, producer.state = None, producer.state.replace("Prepare", "Complete")

    # -- plain records ------------------------------------------------------------------------------------------------

    def append(
        self, tp: TopicAndPartition, key: bytes | None, value: bytes | None, headers: Sequence[Header] = ()
    ) -> int:
        """A record outside any transaction; its offset."""
        log = self.logs[tp]
        offset = log.end
        log.append(StoredRecord(*tp, offset, self._now_ms(), key, value, tuple(headers)), None)
        self._note("append", tp, offset, key)
        self._tell(log)
        return offset

    def _tell(self, log: Log) -> None:
        for listener in log.listeners:
            listener()

    def committed(self, topic: str) -> list[StoredRecord]:
        """Every committed record of a topic, a partition after the other."""
        found: list[StoredRecord] = []
        for partition in range(self.topics[topic]):
            found += self.logs[topic, partition].read(0, 1 << 30)[0]
        return found

    # -- the group ----------------------------------------------------------------------------------------------------

    def join(
        self, name: str, number: int, claims: set[int], told: Callable[[], None]
    ) -> "asyncio.Future[tuple[int, set[int], int]]":
        """(generation, partitions, member number), when all have joined. ``number`` 0 is a member that has started."""
        joined: asyncio.Future[tuple[int, set[int], int]] = self._loop.create_future()
        member = self.members.get(name)
        if number and (member is None or member.number != number):
            number = 0  # expelled, or replaced: it joins as a new one
        if member is None or not number:
            self._member_numbers += 1
            number = self._member_numbers
        restarted = member is not None and member.number != number
        if member is not None and member.expiry is not None:
            member.expiry.cancel()
        if restarted and not self._rebalancing:
            mine = {partition for partition, owner in self.owners.items() if owner == name}
            self.members[name] = Member(number, told, mine)
            joined.set_result((self.generation, mine, number))
            self._note("rejoined", name, sorted(mine))
            return joined
        self.members[name] = Member(number, told, claims, joined)
        self._rebalance()
        return joined

    def leave(self, name: str, number: int) -> None:
        """It gives up its place at once."""
        member = self.members.get(name)
        if member is not None and member.number == number:
            self._remove(name, "left")

    def is_member(self, name: str, number: int) -> bool:
        """What a heartbeat tells."""
        return name in self.members and self.members[name].number == number

    def silent(self, name: str) -> None:
        """No heartbeat comes any more."""
        member = self.members.get(name)
        if member is not None and member.expiry is None:
            member.expiry = self._loop.later(self._session_s, self._loop.world, self._remove, name, "expelled")

    def heard(self, name: str) -> None:
        """Heartbeats come again."""
        member = self.members.get(name)
        if member is not None and member.expiry is not None:
            member.expiry.cancel()
            member.expiry = None

    def _remove(self, name: str, why: str) -> None:
        self._note(why, name)
        member = self.members.pop(name)
        if member.expiry is not None:
            member.expiry.cancel()
        member.told()
        if member.joining is not None and not member.joining.done():
            member.joining.set_result((0, set(), 0))  # it has to join anew
        if self.members:
            self._rebalance()

    def _rebalance(self) -> None:
        if not self._rebalancing:
            self._rebalancing = True
            for member in self.members.values():
                if member.joining is None:
                    member.told()
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
