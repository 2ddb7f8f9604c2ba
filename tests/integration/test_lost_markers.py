"""A transaction that has ended and is open all the same in a partition, on a real Kafka: it is ended as it has ended.

A broker that leaves a marker out cannot be had at will. What it leaves behind can: records that the coordinator has not
been told of, which Kafka takes where it does not verify that (KIP-890), by a version of Produce that does not tell it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient

from streams.engine.markers import MarkersLost
from streams.engine.protocol import PRODUCED, PRODUCING, TransactionError, leader_of, versioned_request
from streams.engine.provision import TopicSpec, check_topics, create_topics
from streams.engine.transactions import TransactionalClient
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import Run
from tests.own_broker import own_broker

UNVERIFIED = "transaction.partition.verification.enable=false\n"
OutsideTransactions = versioned_request(0, 11, PRODUCING, PRODUCED)
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def gullible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of such a Kafka."""
    with own_broker(tmp_path_factory.mktemp("kafka"), UNVERIFIED) as broker:
        yield broker.start()


class Partitions:
    """Those of one topic, written by one transactional id."""

    def __init__(self, kafka: str, name: str) -> None:
        self.kafka, self.topic, self.id = kafka, name, f"{name}-0"
        self.marked, self.unmarked = (name, 0), (name, 1)
        self._clients: list[TransactionalClient] = []

    async def owner(self, before: TransactionalClient | None = None) -> TransactionalClient:
        """Whoever has the id now; knows what the one before knew."""
        outcomes = before._outcomes if before else None
        client = TransactionalClient(AIOKafkaClient(bootstrap_servers=self.kafka), self.id, outcomes=outcomes)
        self._clients.append(client)
        await client.start([self.topic])
        return client

    async def write(self, client: TransactionalClient) -> None:
        """A record to either partition; of one of them the coordinator knows nothing."""
        await client.produce({self.marked: [(b"k", b"marked", ())]})
        await append_unnoticed(client, self.unmarked, b"k", b"unmarked")

    async def committed(self) -> list[bytes]:
        """What a read_committed consumer sees of both, and that nothing is open behind it."""
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
    """A record of the client's open transaction that the coordinator will write no marker for."""
    ((batch, _),) = client._batches(tp, [(key, value, ())])
    leader = leader_of(client._client, tp)
    request = OutsideTransactions(client.transactional_id, -1, 5000, [(tp[0], [(tp[1], batch, {})], {})])
    code = 6
    while code == 6:  # it does not lead yet what was made just now
        await asyncio.sleep(0.02)
        code = (await client._client.send(leader, request)).topics[0][1][0][1]
    assert code == 0


@pytest.fixture
async def partitions(gullible: str, unique: str) -> AsyncIterator[Partitions]:
    made = Partitions(gullible, unique)
    specs = [TopicSpec(unique, 2)]
    await create_topics({"bootstrap_servers": made.kafka}, specs, 1)
    await check_topics({"bootstrap_servers": made.kafka}, specs, wait_s=10)
    yield made
    await made.close()


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "aborted"])
async def test_what_has_ended_is_ended_everywhere(partitions: Partitions, committed: bool) -> None:
    first = await partitions.owner()
    await partitions.write(first)
    await first.end(commit=committed)
    second = await partitions.owner()
    both = [partitions.marked, partitions.unmarked]
    assert await second.write_lost_markers(both) == [partitions.unmarked]
    assert await partitions.committed() == ([b"marked", b"unmarked"] if committed else [])
    assert await second.write_lost_markers(both) == []


async def test_what_was_not_ended_is_undone_everywhere(partitions: Partitions) -> None:
    await partitions.write(await partitions.owner())
    second = await partitions.owner()
    assert await second.write_lost_markers([partitions.unmarked]) == [partitions.unmarked]
    assert await partitions.committed() == []


async def test_who_failed_after_taking_over_passes_on_how_it_has_ended(partitions: Partitions) -> None:
    """The coordinator tells it once."""
    first = await partitions.owner()
    await partitions.write(first)
    await first.end()
    failed = await partitions.owner()
    third = await partitions.owner(before=failed)
    assert await third.write_lost_markers([partitions.unmarked]) == [partitions.unmarked]
    assert await partitions.committed() == [b"marked", b"unmarked"]


async def test_where_nobody_knows_any_more_how_it_has_ended_nobody_guesses(partitions: Partitions) -> None:
    first = await partitions.owner()
    await partitions.write(first)
    await first.end()
    await partitions.owner()
    third = await partitions.owner()
    with pytest.raises(MarkersLost, match=rf"{partitions.topic}/1, and does not know .*`kafka-transactions.sh abort`"):
        await third.write_lost_markers([partitions.marked, partitions.unmarked])


async def test_an_owner_that_has_lost_a_connection_does_not_write_behind_what_is_not_marked(
    partitions: Partitions,
) -> None:
    """It would be one transaction with that, and be undone with it or committed with it."""
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
    assert await successor.write_lost_markers([partitions.unmarked]) == [partitions.unmarked]
    assert await partitions.committed() == [b"marked", b"unmarked"]


async def test_an_owner_that_has_lost_a_connection_goes_on_where_all_is_marked(partitions: Partitions) -> None:
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


async def test_what_others_have_open_is_left_alone(partitions: Partitions) -> None:
    other = TransactionalClient(AIOKafkaClient(bootstrap_servers=partitions.kafka), f"{partitions.id}-other")
    await other.start([partitions.topic])
    await other.produce({partitions.unmarked: [(b"k", b"open", ())]})
    owner = await partitions.owner()
    assert await owner.write_lost_markers([partitions.marked, partitions.unmarked]) == []
    await other.end()
    await other.close()


async def test_a_task_sees_the_whole_of_its_last_transaction(gullible: str, unique: str, tmp_path: Path) -> None:
    """Or it would take over positions without the rows that they led to."""
    async with Run(gullible, unique, tmp_path) as toy:
        worker = await toy.at_work(toy.start())
        await toy.send(40)
        await toy.done()
        assert worker.terminate()[0] == 0
        last = TransactionalClient(AIOKafkaClient(bootstrap_servers=toy.kafka), f"{unique}-0")
        counts, journal = ((names.changelog(unique, table), 0) for table in ("counts", "journal"))
        await last.start([counts[0], journal[0]])
        await last.produce({journal: [(b"lost", b"1", ())]})
        await append_unnoticed(last, counts, b"lost", b"5")
        await last.end()
        await last.close()
        again = toy.start()
        await toy.wait(lambda: again.logged("it is marked now"), why="the marker is missed")
        await toy.wait(lambda: toy.judge.rows["counts"].get((0, b"lost")) == b"5", why="what was hidden is seen")
        await toy.wait(lambda: len(again.tasks) == names.PARTITIONS, why="open again")
        assert again.terminate()[0] == 0
        assert toy.stored()["counts", 0, b"lost"] == b"5"
