"""The transaction client against a cluster with scripted answers."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from io import BytesIO
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import aiokafka.errors as errors
import pytest
from aiokafka.protocol.types import CompactArray, CompactString, Int16, TaggedFields
from aiokafka.record.default_records import DefaultRecordBatch

from exactly_once.kafka import hanging_transactions, protocol
from exactly_once.kafka.hanging_transactions import HangingTransactionError, NoLeader
from exactly_once.kafka.producer import (
    BATCH_BYTES,
    BrokerTooOld,
    OutcomeUnknown,
    TransactionalClient,
)
from exactly_once.kafka.protocol import (
    ApiVersions,
    DescribeProducers,
    DescribeTransactions,
    EndTxn,
    Fenced,
    InitProducerId,
    ListOffsets,
    Metadata,
    Produce,
    TransactionError,
    WriteTxnMarkers,
)
from exactly_once.task.transaction import ProduceResult

APPENDED_MS = 1_234_000
"""Time of appending that leaders answer with."""
Answer = Callable[[Any], Any] | BaseException | SimpleNamespace


def features(level: int | None) -> SimpleNamespace:
    """Return an ApiVersions answer with transaction.version finalized at this level."""
    array = CompactArray(("name", CompactString()), ("max", Int16), ("min", Int16), ("tags", TaggedFields))
    found: list[tuple[Any, ...]] = [("group.version", 1, 0, {})] + (
        [("transaction.version", level, 0, {})] if level is not None else []
    )
    return SimpleNamespace(tags={2: array.encode(found)})


class Cluster:
    """Stand-in for ``AIOKafkaClient``. It gives the queued answers of a request type first, then success."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []
        self.queued: defaultdict[Any, deque[Answer]] = defaultdict(deque)
        self.leaders: defaultdict[tuple[str, int], int] = defaultdict(lambda: 1)
        self.lookups = self.metadata_updates = 0
        self.ends: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.cluster = SimpleNamespace(leader_for_partition=lambda tp: self.leaders[tp.topic, tp.partition])
        self.hosts = [("kafka", 9092, None)]
        self._conns: dict[Any, Any] = {}

    def requests(self, kind: Any) -> list[Any]:
        return [request for _, request in self.sent if isinstance(request, kind)]

    def batches(self) -> list[DefaultRecordBatch]:
        """Return every produced batch in the order of sending."""
        return [
            DefaultRecordBatch(records)
            for request in self.requests(Produce)
            for _, partitions, _ in request.values[3]
            for _, records, _ in partitions
        ]

    async def send(self, node: int, request: Any, *, group: Any = None) -> Any:
        self.sent.append((node, request))
        await asyncio.sleep(0)
        queue = self.queued[type(request)]
        answer = queue.popleft() if queue else self._success
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, SimpleNamespace) else answer(request)

    def _success(self, request: Any) -> Any:
        if isinstance(request, ApiVersions):
            return features(2)
        if isinstance(request, DescribeTransactions):
            return SimpleNamespace(transactions=[(0, "app-0", "Empty", 10_000, -1, 7, 0, [], {})])
        if isinstance(request, InitProducerId):
            return SimpleNamespace(error_code=0, producer_id=7, producer_epoch=0)
        if isinstance(request, EndTxn):
            return SimpleNamespace(error_code=0, producer_id=request.values[1], producer_epoch=request.values[2] + 1)
        if isinstance(request, Produce):
            return self.produced(request)
        if isinstance(request, Metadata):
            return SimpleNamespace(topics=[])
        raise AssertionError(f"unexpected {request}")

    def produced(self, request: Any, failing: dict[tuple[str, int], int] | None = None) -> SimpleNamespace:
        """Append to all partitions except those that fail with a code."""
        topics: list[tuple[Any, ...]] = []
        for topic, partitions, _ in request.values[3]:
            lines: list[tuple[Any, ...]] = []
            for partition, records, _ in partitions:
                code = (failing or {}).get((topic, partition), 0)
                lines.append((partition, code, self.ends[topic, partition], APPENDED_MS, 0, [], None, {}))
                if not code:
                    self.ends[topic, partition] += len(list(DefaultRecordBatch(records)))
            topics.append((topic, lines, {}))
        return SimpleNamespace(topics=topics)

    async def coordinator_lookup(self, kind: Any, key: str) -> int:
        self.lookups += 1
        return 1

    def get_random_node(self) -> int:
        return 1

    async def bootstrap(self) -> None: ...

    async def set_topics(self, topics: list[str]) -> None: ...

    async def force_metadata_update(self) -> None:
        self.metadata_updates += 1
        self.leaders.clear()

    async def close(self) -> None: ...


def with_one_open(cluster: Cluster, *, describes: int = 0, marks: int = 0) -> None:
    """Leave a transaction of producer 7 open in out/0; requests about it are answered with these error codes."""

    def end(request: Any) -> SimpleNamespace:
        offset = 5 if request.values[1] == protocol.READ_COMMITTED else 6
        return SimpleNamespace(topics=[("out", [(0, 0, -1, offset, -1, {})], {})])

    producers: list[Any] = [] if describes else [(7, 3, 0, 0, 4, 5, {})]
    cluster.queued[ListOffsets].extend([end] * 100)
    cluster.queued[DescribeProducers].append(
        SimpleNamespace(topics=[("out", [(0, describes, None, producers, {})], {})])
    )
    cluster.queued[WriteTxnMarkers].append(SimpleNamespace(markers=[(7, [("out", [(0, marks, {})], {})], {})]))


@pytest.fixture
async def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def client(cluster: Cluster) -> TransactionalClient:
    client = TransactionalClient(cluster, "app-0")
    await client.start(["out"])
    return client


async def test_a_marker_equals_the_coordinators(cluster: Cluster) -> None:
    client = TransactionalClient(cluster, "app-0", outcomes={(7, 3): True})
    await client.start(["out"])
    with_one_open(cluster)
    assert await client.complete_hanging([("out", 0)]) == [("out", 0)]
    (written,) = cluster.requests(WriteTxnMarkers)
    assert written.values == ([(7, 4, True, [("out", [0], {})], 4, {})],)


async def test_an_unreadable_topic_has_no_known_open_transactions(cluster: Cluster) -> None:
    client = TransactionalClient(cluster, "app-0", outcomes={(7, 3): True})
    await client.start(["out"])
    with_one_open(cluster, describes=protocol.TOPIC_AUTHORIZATION_FAILED)
    assert await client.complete_hanging([("out", 0)]) == []


async def test_missing_cluster_permission_is_named_in_the_error(cluster: Cluster) -> None:
    client = TransactionalClient(cluster, "app-0", outcomes={(7, 3): True})
    await client.start(["out"])
    with_one_open(cluster, marks=protocol.CLUSTER_AUTHORIZATION_FAILED)
    with pytest.raises(HangingTransactionError, match=r"out/0, and this worker may not .* --operation Alter"):
        await client.complete_hanging([("out", 0)])


async def test_a_marker_without_a_leader_keeps_the_task_closed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose last transaction is known to be open is not opened."""
    monkeypatch.setattr(hanging_transactions, "LEADERS_S", 0.05)
    client = TransactionalClient(cluster, "app-0", outcomes={(7, 3): True})
    await client.start(["out"])
    with_one_open(cluster, marks=5)
    cluster.queued[WriteTxnMarkers].extend([cluster.queued[WriteTxnMarkers][0]] * 1000)
    with pytest.raises(TransactionError, match="no leader answers for out/0") as raised:
        await client.complete_hanging([("out", 0)])
    assert not isinstance(raised.value, NoLeader)


async def test_only_useful_outcomes_are_remembered(client: TransactionalClient) -> None:
    for _ in range(40):
        await client.produce({("out", 0): [(b"k", b"v", ())]})
        await client.end()
    assert list(client._outcomes) == [(7, epoch) for epoch in range(24, 40)]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("Ongoing", {}),
        ("Empty", {}),
        ("PrepareCommit", {(7, 4): True}),
        ("CompleteCommit", {(7, 4): True}),
        ("PrepareAbort", {(7, 4): False}),
        ("CompleteAbort", {(7, 4): False}),
    ],
)
async def test_the_outcome_is_the_last_one_before_fencing_succeeds(
    cluster: Cluster, state: str, outcome: dict[tuple[int, int], bool]
) -> None:
    """An ongoing transaction may still commit while InitProducerId is refused."""
    answers: list[Any] = [(0, "app-0", each, 10_000, -1, 7, 5, [], {}) for each in ("Ongoing", state)]
    cluster.queued[DescribeTransactions].extend(SimpleNamespace(transactions=[line]) for line in answers)
    cluster.queued[InitProducerId].append(SimpleNamespace(error_code=51, producer_id=-1, producer_epoch=-1))
    outcomes: dict[tuple[int, int], bool] = {}
    await TransactionalClient(cluster, "app-0", outcomes=outcomes).start(["out"])
    assert outcomes == outcome


async def test_an_unanswered_end_is_never_repeated(cluster: Cluster, client: TransactionalClient) -> None:
    cluster.queued[EndTxn].append(errors.KafkaConnectionError())
    await client.produce({("out", 0): [(b"k", b"v", ())]})
    with pytest.raises(OutcomeUnknown):
        await client.end()
    assert len(cluster.requests(EndTxn)) == 1


@pytest.mark.parametrize("code", sorted(protocol.RETRIABLE))
async def test_no_error_code_repeats_an_end(cluster: Cluster, client: TransactionalClient, code: int) -> None:
    cluster.queued[EndTxn].append(SimpleNamespace(error_code=code, producer_id=7, producer_epoch=1))
    with pytest.raises(TransactionError):
        await client.end()
    assert len(cluster.requests(EndTxn)) == 1


async def test_a_failpoint_after_the_end_leaves_it_sent_once(cluster: Cluster) -> None:
    def cut(client: TransactionalClient) -> None:
        assert len(cluster.requests(EndTxn)) == 1
        raise RuntimeError("cut")

    client = TransactionalClient(cluster, "app-0", on_end_sent=cut)
    await client.start(["out"])
    with pytest.raises(RuntimeError, match="cut"):
        await client.end()
    assert len(cluster.requests(EndTxn)) == 1


async def test_a_retried_produce_carries_the_same_bytes(cluster: Cluster, client: TransactionalClient) -> None:
    cluster.queued[Produce].append(lambda request: cluster.produced(request, {("out", 0): 19}))
    appended = await client.produce({("out", 0): [(b"k", b"v", [("trace", b"1")])]})
    first, second = cluster.requests(Produce)
    assert first.values[3] == second.values[3]
    assert appended == {("out", 0): ProduceResult(1, APPENDED_MS)}


async def test_only_a_failed_partition_is_produced_to_again(cluster: Cluster, client: TransactionalClient) -> None:
    cluster.queued[Produce].append(lambda request: cluster.produced(request, {("out", 1): 51}))
    appended = await client.produce({("out", p): [(b"k", b"v", ())] * (p + 1) for p in range(3)})
    assert [p for _, partitions, _ in cluster.requests(Produce)[1].values[3] for p, _, _ in partitions] == [1]
    assert appended == {("out", p): ProduceResult(p + 1, APPENDED_MS) for p in range(3)}


async def test_each_leader_gets_one_request_with_its_partitions(cluster: Cluster, client: TransactionalClient) -> None:
    cluster.leaders.update({("out", 0): 1, ("out", 1): 2, ("log", 0): 2})
    await client.produce({tp: [(b"k", b"v", ())] for tp in [("out", 0), ("out", 1), ("log", 0)]})
    produced = [
        (node, {(t, p) for t, ps, _ in request.values[3] for p, _, _ in ps})
        for node, request in cluster.sent
        if isinstance(request, Produce)
    ]
    assert sorted(produced) == [(1, {("out", 0)}), (2, {("out", 1), ("log", 0)})]


@pytest.mark.parametrize("code", [5, 6])
async def test_a_produce_follows_a_moved_leader(cluster: Cluster, client: TransactionalClient, code: int) -> None:
    cluster.leaders["out", 0] = 2
    cluster.queued[Produce].append(lambda request: cluster.produced(request, {("out", 0): code}))
    await client.produce({("out", 0): [(b"k", b"v", ())]})
    assert [node for node, request in cluster.sent if isinstance(request, Produce)] == [2, 1]


async def test_a_produce_waits_for_a_missing_leader(cluster: Cluster, client: TransactionalClient) -> None:
    cluster.leaders["out", 0] = -1
    await client.produce({("out", 0): [(b"k", b"v", ())]})
    assert (cluster.metadata_updates, len(cluster.requests(Produce))) == (1, 1)


async def test_records_are_split_into_batches_with_rising_sequences(
    cluster: Cluster, client: TransactionalClient
) -> None:
    records = [(b"%d" % n, bytes(100_000), ()) for n in range(25)]
    appended = await client.produce({("out", 0): records})
    sizes = [len(list(batch)) for batch in cluster.batches()]
    assert sum(sizes) == 25
    assert len(sizes) > 2
    assert [batch.base_sequence for batch in cluster.batches()] == [0, *accumulate(sizes[:-1])]
    assert [record.key for batch in cluster.batches() for record in batch] == [key for key, _, _ in records]
    assert appended == {("out", 0): ProduceResult(25, APPENDED_MS)}


async def test_a_record_above_the_batch_size_has_its_own_batch(cluster: Cluster, client: TransactionalClient) -> None:
    await client.produce({("out", 0): [(b"a", b"1", ()), (b"b", bytes(BATCH_BYTES + 50_000), ()), (b"c", b"3", ())]})
    assert [[record.key for record in batch] for batch in cluster.batches()] == [[b"a"], [b"b"], [b"c"]]


async def test_headers_and_tombstones_are_produced(cluster: Cluster, client: TransactionalClient) -> None:
    await client.produce({("out", 0): [(b"k", None, (("a", b"1"), ("b", b"2")))]})
    (record,) = cluster.batches()[0]
    assert (record.key, record.value, record.headers) == (b"k", None, [("a", b"1"), ("b", b"2")])


async def test_sequences_continue_within_a_transaction_only(cluster: Cluster, client: TransactionalClient) -> None:
    one = {("out", 0): [(b"k", b"v", ()), (b"k", b"w", ())]}
    await client.produce(one)
    await client.produce(one)
    await client.end()
    await client.produce(one)
    assert [(batch.producer_epoch, batch.base_sequence) for batch in cluster.batches()] == [(0, 0), (0, 2), (1, 0)]


async def test_after_the_last_epoch_the_new_producer_id_is_used(cluster: Cluster, client: TransactionalClient) -> None:
    client.epoch = 32_766
    cluster.queued[EndTxn].append(SimpleNamespace(error_code=0, producer_id=8, producer_epoch=0))
    await client.produce({("out", 0): [(b"k", b"v", ())]})
    await client.end()
    await client.produce({("out", 0): [(b"k", b"v", ())]})
    await client.end()
    batches = [(batch.producer_id, batch.producer_epoch, batch.base_sequence) for batch in cluster.batches()]
    assert batches == [(7, 32_766, 0), (8, 0, 0)]
    assert cluster.requests(EndTxn)[1].values[1:3] == (8, 0)


@pytest.mark.parametrize("code", sorted(protocol.FENCED))
async def test_a_fenced_producer_raises_fenced(cluster: Cluster, client: TransactionalClient, code: int) -> None:
    cluster.queued[Produce].append(lambda request: cluster.produced(request, {("out", 0): code}))
    with pytest.raises(Fenced, match=r"produce to out/0"):
        await client.produce({("out", 0): [(b"k", b"v", ())]})
    cluster.queued[EndTxn].append(SimpleNamespace(error_code=code, producer_id=7, producer_epoch=1))
    with pytest.raises(Fenced):
        await client.end()


async def test_any_other_error_ends_the_transaction(cluster: Cluster, client: TransactionalClient) -> None:
    cluster.queued[Produce].append(lambda request: cluster.produced(request, {("out", 0): 10}))
    with pytest.raises(TransactionError, match="MessageSizeTooLarge"):
        await client.produce({("out", 0): [(b"k", b"v", ())]})


@pytest.mark.parametrize(("code", "lookups"), [(51, 1), (14, 1), (16, 2)])
async def test_fencing_is_retried_at_the_moved_coordinator(cluster: Cluster, code: int, lookups: int) -> None:
    cluster.queued[InitProducerId].append(SimpleNamespace(error_code=code))
    await TransactionalClient(cluster, "app-0").start(["out"])
    first, second = cluster.requests(InitProducerId)
    assert first.values == second.values
    assert cluster.lookups == lookups


@pytest.mark.parametrize("level", [None, 0, 1])
async def test_an_old_broker_is_refused_in_one_sentence(cluster: Cluster, level: int | None) -> None:
    cluster.queued[ApiVersions].append(features(level))
    with pytest.raises(BrokerTooOld, match=r"kafka:9092 offers transaction.version \d.*Kafka 4\.0 or later"):
        await TransactionalClient(cluster, "app-0").start(["out"])
    assert not cluster.requests(InitProducerId)


async def test_a_broker_without_features_is_refused(cluster: Cluster) -> None:
    cluster.queued[ApiVersions].append(SimpleNamespace(tags={}))
    with pytest.raises(BrokerTooOld):
        await TransactionalClient(cluster, "app-0").start(["out"])


def test_requests_are_sent_in_exactly_the_safe_version() -> None:
    versions = {0: (0, 99), 22: (0, 99), 26: (0, 99)}
    for request, version in ((Produce, 12), (InitProducerId, 5), (EndTxn, 5)):
        assert version == request().prepare.__self__._CLASSES[0].API_VERSION
    with pytest.raises(NotImplementedError):
        EndTxn("app-0", 7, 0, True).prepare({**versions, 26: (0, 4)})


def test_a_topic_id_survives_encoding() -> None:
    assert protocol.Uuid.decode(BytesIO(protocol.Uuid.encode(bytes(range(16))))) == bytes(range(16))
