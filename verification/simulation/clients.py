"""Stand-ins for aiokafka: the client of the engine's transactions, and the consumer that restores a task.

The engine creates both by the names that it imports. Each belongs to the worker whose code is running (``site``).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from exactly_once.kafka import protocol
from verification.simulation.broker import Broker, StoredRecord, TopicAndPartition
from verification.simulation.loop import Actor
from verification.simulation.network import Network

NODES = 2
MAX_FETCH_RECORDS = 40
"""Records in one answer; few enough that a restore needs several requests."""
FEATURES = protocol.FINALIZED_FEATURES[1].encode([("transaction.version", 2, 1, {})])


class Site(Protocol):
    """The worker that a client belongs to."""

    actor: Actor
    network: Network
    broker: Broker
    disk: Any


site: ContextVar[Site] = ContextVar("site")
"""The worker whose code is running; set in the context of each worker."""


class VersionsAnswer(NamedTuple):
    """Answer to ``ApiVersions``."""

    tags: Mapping[int, bytes]


class TopicsAnswer(NamedTuple):
    """Answer to a request about topics."""

    topics: Sequence[Any]


class TransactionsAnswer(NamedTuple):
    """Answer to ``DescribeTransactions``."""

    transactions: Sequence[Any]


class MarkersAnswer(NamedTuple):
    """Answer to ``WriteTxnMarkers``."""

    markers: Sequence[Any]


class ProducerAnswer(NamedTuple):
    """Answer to ``InitProducerId`` and ``EndTxn``."""

    error_code: int
    producer_id: int
    producer_epoch: int


class Connection(NamedTuple):
    """Connection to one start of the broker."""

    broker: Broker
    start: int

    def connected(self) -> bool:
        return self.broker.starts == self.start


class Cluster:
    """Leaders of the partitions."""

    @staticmethod
    def leader_for_partition(tp: TopicPartition) -> int:
        """Return the node that leads a partition."""
        return int(tp.partition) % NODES


class Client:
    """The part of ``AIOKafkaClient`` that ``TransactionalClient`` uses."""

    hosts: Sequence[tuple[str, int, int]] = (("broker", 9092, 0),)
    cluster = Cluster()

    def __init__(self, **_: Any) -> None:
        here = site.get()
        self._actor = here.actor
        self._network = here.network
        self._broker = here.broker
        self._closed = False

    @property
    def _conns(self) -> dict[str, "Connection"]:
        """Return the single connection; a request after a restart of the broker opens a new one."""
        return {"broker": Connection(self._broker, self._broker.starts)}

    async def bootstrap(self) -> None:
        await self._ask("metadata", lambda: None)

    async def set_topics(self, topics: Sequence[str]) -> None:
        """Do nothing: every topic is known."""

    async def force_metadata_update(self) -> None:
        """Do nothing: leaders never move."""

    async def coordinator_lookup(self, _kind: Any, _key: str) -> int:
        await self._ask("metadata", lambda: None)
        return 0

    def get_random_node(self) -> int:
        return 0

    async def send(self, _node: int, request: Any, *, group: Any = None) -> Any:
        kind, handle = self._handler_of(request)
        return await self._ask(kind, handle)

    async def close(self) -> None:
        self._closed = True

    async def _ask(self, kind: str, handle: Callable[[], Any]) -> Any:
        if self._closed:
            raise KafkaConnectionError("the client is closed")
        broker, start = self._broker, self._broker.starts

        def handled() -> Any:
            if broker.starts != start:
                raise KafkaConnectionError("the connection was cut before the request arrived")
            return handle()

        return await self._network.ask(self._actor, kind, handled)

    def _handler_of(self, request: Any) -> tuple[str, Callable[[], Any]]:
        """Return the place of a request in a plan, and the function by which the broker handles it."""
        broker, values = self._broker, request.values
        match request:
            case protocol.InitProducerId():
                return "init", lambda: ProducerAnswer(*broker.init_producer(values[0], values[1] / 1000))
            case protocol.Produce():
                batches = {(topic, line[0]): line[1] for topic, lines, _ in values[3] for line in lines}
                return "produce", lambda: TopicsAnswer(_lines(broker.produce(values[0], batches)))
            case protocol.EndTxn():
                return "end", lambda: ProducerAnswer(*broker.end_transaction(*values))
            case protocol.Metadata():
                names = [name for _, name, _ in values[0]]
                return "metadata", lambda: TopicsAnswer([_described(broker, name) for name in names])
            case protocol.WriteTxnMarkers():
                return "marker", lambda: MarkersAnswer([self._mark(*marker) for marker in values[0]])
            case protocol.DescribeTransactions():
                return "metadata", lambda: TransactionsAnswer([_transaction(broker, name) for name in values[0]])
            case protocol.DescribeProducers():
                return "metadata", lambda: TopicsAnswer(
                    _per_partition(_partitions(values[0]), partial(_producers, broker))
                )
            case protocol.ListOffsets():
                tps = [(topic, line[0]) for topic, lines, _ in values[2] for line in lines]
                return "metadata", lambda: TopicsAnswer(_per_partition(tps, partial(_end, broker, values[1])))
            case _:
                return "metadata", lambda: VersionsAnswer({2: FEATURES})

    def _mark(
        self, producer_id: int, epoch: int, commit: bool, topics: Sequence[Any], _coordinator_epoch: int, _tags: Any
    ) -> tuple[Any, ...]:
        tps = _partitions(topics)
        for tp in tps:
            self._broker.write_marker(tp, producer_id, epoch, committed=commit)
        return (producer_id, _per_partition(tps, lambda _: (0,)), {})


def _lines(outcomes: Mapping[TopicAndPartition, tuple[int, int, int]]) -> list[Any]:
    return [(topic, [(partition, *outcome)], {}) for (topic, partition), outcome in outcomes.items()]


def _partitions(topics: Sequence[Any]) -> list[TopicAndPartition]:
    return [(topic, number) for topic, numbers, _ in topics for number in numbers]


def _per_partition(
    tps: Sequence[TopicAndPartition], describe: Callable[[TopicAndPartition], tuple[Any, ...]]
) -> list[Any]:
    return [(tp[0], [(tp[1], *describe(tp))], {}) for tp in tps]


def _transaction(broker: Broker, name: str) -> tuple[Any, ...]:
    code, state, producer_id, epoch = broker.describe(name)
    return (code, name, state, 0, 0, producer_id, epoch, [], {})


def _producers(broker: Broker, tp: TopicAndPartition) -> tuple[Any, ...]:
    found: list[Any] = [
        (producer_id, epoch, -1, -1, -1, first, {}) for producer_id, epoch, first in broker.open_producers(tp)
    ]
    return (0, None, found)


def _end(broker: Broker, isolation: int, tp: TopicAndPartition) -> tuple[Any, ...]:
    log = broker.logs[tp]
    return (0, -1, log.stable_end if isolation == protocol.READ_COMMITTED else log.end, -1)


def _described(broker: Broker, topic: str) -> tuple[Any, ...]:
    return (0, topic, topic.encode(), False, [None] * broker.topics[topic], 0, {})


class Reader:
    """The part of ``AIOKafkaConsumer`` that ``restore`` uses: it reads committed records of assigned partitions."""

    def __init__(self, **_: Any) -> None:
        here = site.get()
        self._actor = here.actor
        self._network = here.network
        self._broker = here.broker
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        await self._ask(lambda: None)

    async def stop(self) -> None:
        """Do nothing: there is nothing to release."""

    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(await self._ask(lambda: dict.fromkeys(partitions, 0)))

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict(await self._ask(lambda: {tp: self._broker.logs[tp].stable_end for tp in partitions}))

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[StoredRecord]]:
        asked = {tp: self._positions[tp] for tp in sorted(partitions)}
        fetched: dict[TopicPartition, tuple[list[StoredRecord], int]] = await self._ask(
            lambda: {tp: self._broker.logs[tp].read(at, MAX_FETCH_RECORDS) for tp, at in asked.items()}
        )
        self._positions |= {tp: next_offset for tp, (_, next_offset) in fetched.items()}
        return {tp: records for tp, (records, _) in fetched.items() if records}

    async def _ask(self, handle: Callable[[], Any]) -> Any:
        return await self._network.ask(self._actor, "restore", handle)


class SimulatedTime:
    """The part of the module ``time`` that the engine uses. Each reading of processor time adds a random duration."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self, epoch_s: float, loop_time: Callable[[], float], chance: Callable[[], float]) -> None:
        self._epoch_s = epoch_s
        self._loop_time = loop_time
        self._chance = chance
        self._work_s = 0.0

    def time(self) -> float:
        return self._epoch_s + self._loop_time()

    def monotonic(self) -> float:
        return self._loop_time()

    def clock_gettime(self, _: int) -> float:
        return self._loop_time()

    def perf_counter(self) -> float:
        self._work_s += self._chance()
        return self._loop_time() + self._work_s
