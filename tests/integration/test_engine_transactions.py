"""The transaction client on a real Kafka, and the broker's behaviour that it relies on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup

from exactly_once.kafka.producer import (
    OutcomeUnknown,
    TransactionalClient,
)
from exactly_once.kafka.protocol import EndTxn, Fenced, InitProducerId, TransactionError
from exactly_once.kafka.topic_admin import TopicMismatch, TopicSpec, check_topics, create_topics

LAST_EPOCH = 32_767
"""The epoch is a signed 16-bit number."""


class Stage:
    """A topic, and clients of one transactional id."""

    def __init__(self, kafka: str, unique: str) -> None:
        self.kafka = kafka
        self.id = unique
        self.out = f"{unique}-out"
        self.clients: list[TransactionalClient] = []

    async def owner(self) -> TransactionalClient:
        """Start a client that takes over the transactional id and fences its last owner."""
        client = TransactionalClient(AIOKafkaClient(bootstrap_servers=self.kafka), self.id)
        self.clients.append(client)
        await client.start([self.out])
        return client

    async def produce(self, client: TransactionalClient, value: bytes, partition: int = 0) -> int:
        """Append a record within the transaction, and return the next offset."""
        appended = await client.produce({(self.out, partition): [(b"k", value, ())]})
        return appended[self.out, partition].next_offset

    async def committed(self, partition: int = 0) -> list[ConsumerRecord]:
        """Return the records that a read_committed consumer sees, up to the last stable offset."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", enable_auto_commit=False
        )
        await consumer.start()
        try:
            tp = TopicPartition(self.out, partition)
            consumer.assign([tp])
            await consumer.seek_to_beginning(tp)
            end, found = (await consumer.end_offsets([tp]))[tp], []
            while await consumer.position(tp) < end:
                found += (await consumer.getmany(tp, timeout_ms=50)).get(tp, [])
            return found
        finally:
            await consumer.stop()

    async def values(self, partition: int = 0) -> list[bytes]:
        return [record.value for record in await self.committed(partition)]

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


@pytest.fixture
async def stage(kafka: str, unique: str) -> AsyncIterator[Stage]:
    stage = Stage(kafka, unique)
    specs = [TopicSpec(stage.out, 2)]
    await create_topics({"bootstrap_servers": kafka}, specs, 1)
    await check_topics({"bootstrap_servers": kafka}, specs, wait_s=120)
    yield stage
    await stage.close()


async def test_a_transaction_is_visible_as_a_whole_once_committed(stage: Stage) -> None:
    owner = await stage.owner()
    await owner.produce({(stage.out, p): [(b"k", b"1", [("h", b"x")]), (b"k", None, ())] for p in (0, 1)})
    assert await stage.values(0) == await stage.values(1) == []
    await owner.end()
    first, second = await stage.committed(1)
    assert (first.value, first.headers, second.value) == (b"1", (("h", b"x"),), None)


async def test_an_aborted_transaction_leaves_nothing(stage: Stage) -> None:
    owner = await stage.owner()
    await stage.produce(owner, b"no")
    await owner.end(commit=False)
    assert await stage.values() == []


async def test_a_late_end_of_a_transaction_does_not_end_the_next(stage: Stage) -> None:
    owner = await stage.owner()
    await stage.produce(owner, b"one")
    late = EndTxn(owner.transactional_id, owner.producer_id, owner.epoch, True)
    await owner.end()
    await stage.produce(owner, b"two")
    coordinator = owner._coordinator
    reply = await owner._client.send(coordinator, late, group=ConnectionGroup.COORDINATION)
    assert reply.error_code == 90
    assert await stage.values() == [b"one"]
    await owner.end()
    assert await stage.values() == [b"one", b"two"]


async def test_a_zombie_is_fenced_at_each_request(stage: Stage) -> None:
    zombie = await stage.owner()
    await stage.produce(zombie, b"before")
    await zombie.end()
    await stage.owner()
    with pytest.raises(Fenced):
        await stage.produce(zombie, b"zombie")
    with pytest.raises(Fenced):
        await zombie.end()
    assert await stage.values() == [b"before"]


async def test_a_takeover_aborts_the_open_transaction(stage: Stage) -> None:
    owner = await stage.owner()
    await stage.produce(owner, b"open")
    successor = await stage.owner()
    await stage.produce(successor, b"mine")
    await successor.end()
    with pytest.raises(TransactionError):  # fenced, or the successor's own end is still being written
        await owner.end()
    assert await stage.values() == [b"mine"]


async def test_after_a_cut_the_successor_finds_all_or_nothing(stage: Stage) -> None:
    expected = []
    for n in range(10):
        client = TransactionalClient(
            AIOKafkaClient(bootstrap_servers=stage.kafka), stage.id, on_end_sent=TransactionalClient.disconnect
        )
        stage.clients.append(client)
        await client.start([stage.out])
        await client.produce({(stage.out, partition): [(b"k", b"%d" % n, ())] for partition in (0, 1)})
        with pytest.raises(OutcomeUnknown):
            await client.end()
        await stage.owner()
        if b"%d" % n in await stage.values(0):
            expected.append(b"%d" % n)
        assert await stage.values(0) == await stage.values(1) == expected


async def test_commits_are_visible_as_soon_as_a_successor_starts(stage: Stage) -> None:
    """The broker answers EndTxn before it writes the markers. A restore must not end before the last marker."""
    for n in range(1, 31):
        owner = await stage.owner()
        await stage.produce(owner, b"%d" % n)
        await owner.end()
        await stage.owner()
        assert len(await stage.values()) == n


async def test_several_batches_in_one_transaction_keep_their_order(stage: Stage) -> None:
    owner = await stage.owner()
    records = [(b"%d" % n, bytes(200_000), ()) for n in range(20)]
    appended = await owner.produce({(stage.out, 0): records, (stage.out, 1): records[:1]})
    await owner.end()
    found = await stage.committed()
    assert [record.key for record in found] == [key for key, _, _ in records]
    assert {tp[1]: each.next_offset for tp, each in appended.items()} == {0: found[-1].offset + 1, 1: 1}


async def test_every_commit_raises_the_epoch(stage: Stage) -> None:
    owner = await stage.owner()
    first = owner.epoch
    for n in range(1, 4):
        await stage.produce(owner, b"v")
        await owner.end()
        assert owner.epoch == first + n


async def test_transactions_continue_after_the_last_epoch(stage: Stage) -> None:
    owner = await stage.owner()
    first_id = owner.producer_id
    await use_up_epochs(owner, leave=20)
    owner = await stage.owner()
    assert owner.producer_id == first_id
    ids = set()
    for n in range(40):
        await stage.produce(owner, b"%d" % n)
        await owner.end()
        ids.add(owner.producer_id)
    assert len(ids) == 2
    assert await stage.values() == [b"%d" % n for n in range(40)]


async def use_up_epochs(owner: TransactionalClient, *, leave: int) -> None:
    """Raise the epoch by InitProducerId requests, many at once; 32,000 transactions would take minutes."""
    request = InitProducerId(owner.transactional_id, 10_000, -1, -1)
    coordinator, epoch = owner._coordinator, owner.epoch
    while (left := LAST_EPOCH - leave - epoch) > 0:
        sending = (
            owner._client.send(coordinator, request, group=ConnectionGroup.COORDINATION) for _ in range(min(left, 64))
        )
        epoch = max(reply.producer_epoch for reply in await asyncio.gather(*sending))


async def test_a_record_too_large_for_the_broker_ends_the_transaction(stage: Stage) -> None:
    owner = await stage.owner()
    with pytest.raises(TransactionError, match="MessageSizeTooLarge"):
        await stage.produce(owner, bytes(1_100_000))


async def test_missing_topics_and_wrong_partitions_are_named(stage: Stage, kafka: str, unique: str) -> None:
    settings = {"bootstrap_servers": kafka}
    with pytest.raises(TopicMismatch, match=f"These topics do not exist.*: {unique}-no, {unique}-none"):
        await check_topics(
            settings, [TopicSpec(f"{unique}-no", 2), TopicSpec(stage.out, 2), TopicSpec(f"{unique}-none", 2)]
        )
    with pytest.raises(TopicMismatch, match=f"The topic {stage.out} has 2 partitions where 3 are needed"):
        await check_topics(settings, [TopicSpec(stage.out, 3)])


async def test_creating_topics_leaves_existing_ones_unchanged(stage: Stage, kafka: str, unique: str) -> None:
    settings, new = {"bootstrap_servers": kafka}, f"{unique}-new"
    assert await create_topics(settings, [TopicSpec(stage.out, 5), TopicSpec(new, 1)], 1) == [new]
    await check_topics(settings, [TopicSpec(stage.out, 2), TopicSpec(new, 1)], wait_s=120)
    with pytest.raises(TopicMismatch, match=f"The topic {unique}-many could not be created: .*replication"):
        await create_topics(settings, [TopicSpec(f"{unique}-many", 1)], 30)
