"""A hanging transaction on a real Kafka: it has ended, but a partition lacks its marker. It is completed as it ended.

A broker cannot be made to omit a marker. The tests make the same state: records in a partition that the coordinator
does not have in the transaction. Kafka accepts them by an old version of Produce if it does not verify partitions
(KIP-890).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient

from exactly_once.kafka.hanging_transactions import HangingTransactionError
from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.protocol import PRODUCED, PRODUCING, TransactionError, leader_of, versioned_request
from exactly_once.kafka.topic_admin import TopicSpec, check_topics, create_topics
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import Run
from tests.support.own_broker import own_broker

UNVERIFIED = "transaction.partition.verification.enable=false\n"
OutsideTransactions = versioned_request(0, 11, PRODUCING, PRODUCED)


@pytest.fixture(scope="module")
def unverifying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Kafka that does not verify partitions, and return its bootstrap servers."""
    with own_broker(tmp_path_factory.mktemp("kafka"), UNVERIFIED) as broker:
        yield broker.start()


class Partitions:
    """Two partitions of a topic, written by one transactional id; the second lacks markers."""

    def __init__(self, kafka: str, name: str) -> None:
        self.kafka = kafka
        self.topic = name
        self.id = f"{name}-0"
        self.marked = (name, 0)
        self.unmarked = (name, 1)
        self._clients: list[TransactionalClient] = []

    async def owner(self, before: TransactionalClient | None = None) -> TransactionalClient:
        """Start a client that takes over the id, with the outcomes that the client `before` knew."""
        outcomes = before._outcomes if before else None
        client = TransactionalClient(AIOKafkaClient(bootstrap_servers=self.kafka), self.id, outcomes=outcomes)
        self._clients.append(client)
        await client.start([self.topic])
        return client

    async def write(self, client: TransactionalClient) -> None:
        """Append a record to each partition. The coordinator does not learn of the second."""
        await client.produce({self.marked: [(b"k", b"marked", ())]})
        await append_unnoticed(client, self.unmarked, b"k", b"unmarked")

    async def committed(self) -> list[bytes]:
        """Return the values that a read_committed consumer sees; check that no transaction is open."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka, isolation_level="read_committed")
        anything = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        await asyncio.gather(consumer.start(), anything.start())
        try:
            tps = [TopicPartition(*self.marked), TopicPartition(*self.unmarked)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends, found = await consumer.end_offsets(tps), list[bytes]()
            assert ends == await anything.end_offsets(tps)
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    found += [record.value for record in records]
            return sorted(found)
        finally:
            await asyncio.gather(consumer.stop(), anything.stop())

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


async def append_unnoticed(client: TransactionalClient, tp: tuple[str, int], key: bytes, value: bytes) -> None:
    """Append a record of the open transaction for which the coordinator will write no marker."""
    ((batch, _),) = client._batches(tp, [(key, value, ())])
    leader = leader_of(client._client, tp)
    request = OutsideTransactions(client.transactional_id, -1, 5000, [(tp[0], [(tp[1], batch, {})], {})])
    code = 6
    while code == 6:  # not the leader yet: the topic was created just now
        await asyncio.sleep(0.02)
        code = (await client._client.send(leader, request)).topics[0][1][0][1]
    assert code == 0


@pytest.fixture
async def partitions(unverifying: str, unique: str) -> AsyncIterator[Partitions]:
    made = Partitions(unverifying, unique)
    specs = [TopicSpec(unique, 2)]
    await create_topics({"bootstrap_servers": made.kafka}, specs, 1)
    await check_topics({"bootstrap_servers": made.kafka}, specs, wait_s=120)
    yield made
    await made.close()


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "aborted"])
async def test_an_ended_transaction_is_completed_everywhere(partitions: Partitions, committed: bool) -> None:
    first = await partitions.owner()
    await partitions.write(first)
    await first.end(commit=committed)
    second = await partitions.owner()
    both = [partitions.marked, partitions.unmarked]
    assert await second.complete_hanging(both) == [partitions.unmarked]
    assert await partitions.committed() == ([b"marked", b"unmarked"] if committed else [])
    assert await second.complete_hanging(both) == []


async def test_an_open_transaction_is_aborted_everywhere(partitions: Partitions) -> None:
    await partitions.write(await partitions.owner())
    second = await partitions.owner()
    assert await second.complete_hanging([partitions.unmarked]) == [partitions.unmarked]
    assert await partitions.committed() == []


async def test_a_failed_owner_passes_the_outcome_on(partitions: Partitions) -> None:
    """The coordinator returns the outcome only to the first client that takes over."""
    first = await partitions.owner()
    await partitions.write(first)
    await first.end()
    failed = await partitions.owner()
    third = await partitions.owner(before=failed)
    assert await third.complete_hanging([partitions.unmarked]) == [partitions.unmarked]
    assert await partitions.committed() == [b"marked", b"unmarked"]


async def test_an_unknown_outcome_is_not_guessed(partitions: Partitions) -> None:
    first = await partitions.owner()
    await partitions.write(first)
    await first.end()
    await partitions.owner()
    third = await partitions.owner()
    with pytest.raises(
        HangingTransactionError, match=rf"{partitions.topic}/1, and no longer knows .*`kafka-transactions.sh abort`"
    ):
        await third.complete_hanging([partitions.marked, partitions.unmarked])


async def test_an_owner_in_doubt_does_not_write_after_open_records(
    partitions: Partitions,
) -> None:
    """The record would join the hanging transaction and share its outcome."""
    owner = await partitions.owner()
    await partitions.write(owner)
    await owner.end()
    assert not owner.in_doubt
    for connection in list(owner._client._conns.values()):
        connection.close()
    assert owner.in_doubt
    with pytest.raises(TransactionError, match=f"is open in {partitions.topic}/1"):
        await owner.produce({partitions.unmarked: [(b"k", b"next", ())]})
    successor = await partitions.owner(before=owner)
    assert await successor.complete_hanging([partitions.unmarked]) == [partitions.unmarked]
    assert await partitions.committed() == [b"marked", b"unmarked"]


async def test_an_owner_in_doubt_continues_if_all_is_marked(partitions: Partitions) -> None:
    owner = await partitions.owner()
    await owner.produce({partitions.marked: [(b"k", b"first", ())]})
    await owner.end()
    for connection in list(owner._client._conns.values()):
        connection.close()
    await owner.produce({partitions.marked: [(b"k", b"second", ())]})
    await owner.end()
    assert not owner.in_doubt
    assert (await partitions.owner())._outcomes != {}
    assert await partitions.committed() == [b"first", b"second"]


async def test_open_transactions_of_others_are_left_alone(partitions: Partitions) -> None:
    other = TransactionalClient(AIOKafkaClient(bootstrap_servers=partitions.kafka), f"{partitions.id}-other")
    await other.start([partitions.topic])
    await other.produce({partitions.unmarked: [(b"k", b"open", ())]})
    owner = await partitions.owner()
    assert await owner.complete_hanging([partitions.marked, partitions.unmarked]) == []
    await other.end()
    await other.close()


async def test_a_task_sees_the_whole_of_its_last_transaction(unverifying: str, unique: str, tmp_path: Path) -> None:
    """Otherwise it would restore positions without their rows."""
    async with Run(unverifying, unique, tmp_path) as toy:
        worker = await toy.at_work(toy.start())
        await toy.send(40)
        await toy.done()
        assert worker.terminate() == 0
        last = TransactionalClient(AIOKafkaClient(bootstrap_servers=toy.kafka), f"{unique}-0")
        counts, journal = ((names.changelog(unique, table), 0) for table in ("counts", "journal"))
        await last.start([counts[0], journal[0]])
        await last.produce({journal: [(b"lost", b"1", ())]})
        await append_unnoticed(last, counts, b"lost", b"5")
        await last.end()
        await last.close()
        again = toy.start()
        await toy.wait(lambda: again.logged("the worker has written the marker"), why="the worker writes the marker")
        await toy.wait(lambda: toy.judge.rows["counts"].get((0, b"lost")) == b"5", why="the hidden row is visible")
        await toy.wait(lambda: len(again.tasks) == names.PARTITIONS, why="all tasks are open again")
        assert again.terminate() == 0
        assert toy.stored()["counts", 0, b"lost"] == b"5"
