"""The simulated Kafka behaves as Kafka does for the real transaction client and the real restore."""

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.protocol import Fenced, TransactionError
from verification.simulation.broker import Broker
from verification.simulation.clients import Client, Reader, site
from verification.simulation.loop import Actor, VirtualLoop
from verification.simulation.network import Network
from verification.simulation.plan import Fault, Faults

LOG = ("log", 0)


class Owner:
    """An actor with clients."""

    def __init__(self, world: "Kafka", name: str) -> None:
        self.actor = Actor(name)
        self.network = world.network
        self.broker = world.broker
        self.disk = None
        self.actor.context.run(site.set, self)

    def client(self) -> TransactionalClient:
        """Return a client of the transactional id that all owners share."""
        return self.actor.context.run(lambda: TransactionalClient(Client(), "app-0"))

    def reader(self) -> Reader:
        """Return a read_committed consumer."""
        return self.actor.context.run(Reader)


class Kafka:
    """A simulated broker, and a network with these faults."""

    def __init__(self, *faults: str) -> None:
        self.loop = VirtualLoop(Random(1), most_steps=100_000)
        self.events: list[tuple[Any, ...]] = []
        struck = Faults(map(Fault.read, faults))
        self.network = Network(self.loop, "seed", struck.fault_at)
        self.broker = Broker(
            self.loop,
            Random(1),
            {"log": 2, "also": 2},
            lambda: 0,
            10.0,
            lambda *what: self.events.append(what),
            struck.fault_at,
        )

    def run(self, live: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a coroutine to its end."""
        try:
            self.loop.run_until_complete(live())
        finally:
            self.loop.dismantle()

    def values(self) -> list[bytes | None]:
        """Return the committed values."""
        return [record.value for record in self.broker.committed("log")]


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


async def write(client: TransactionalClient, *values: bytes) -> None:
    """Append records without a commit."""
    await client.produce({LOG: [(b"k", value, ()) for value in values]})


def test_an_open_transaction_hides_later_records(kafka: Kafka) -> None:
    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log"])
        await write(client, b"1", b"2")
        kafka.broker.append(LOG, b"k", b"plain")
        assert kafka.values() == []
        await client.end()
        await asyncio.sleep(1)
        assert kafka.values() == [b"1", b"2", b"plain"]
        await write(client, b"3")
        await client.end(commit=False)
        await asyncio.sleep(1)
        assert kafka.values() == [b"1", b"2", b"plain"]

    kafka.run(live)


def test_a_replaced_owner_is_fenced_and_aborted(kafka: Kafka) -> None:
    async def live() -> None:
        old, new = (Owner(kafka, name).client() for name in ("old", "new"))
        await old.start(["log"])
        await write(old, b"old")
        await new.start(["log"])
        with pytest.raises(Fenced):
            await old.end()
        with pytest.raises(Fenced):
            await write(old, b"late")
        await write(new, b"new")
        await new.end()
        await asyncio.sleep(1)
        assert kafka.values() == [b"new"]

    kafka.run(live)


def test_the_broker_aborts_a_transaction_that_times_out(kafka: Kafka) -> None:
    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log"])
        await write(client, b"1")
        await asyncio.sleep(11)
        with pytest.raises(TransactionError):
            await client.end()
        assert kafka.broker.logs[LOG].stable_end == kafka.broker.logs[LOG].end

    kafka.run(live)


@pytest.mark.parametrize(("fault", "committed"), [("end#1=lost", False), ("end#1=unanswered", True)])
def test_a_commit_without_an_answer_is_done_or_not(fault: str, committed: bool) -> None:
    kafka = Kafka(fault)

    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log"])
        await write(client, b"1")
        with pytest.raises(TransactionError):
            await client.end()
        successor = Owner(kafka, "successor").client()
        await successor.start(["log"])
        await asyncio.sleep(1)
        assert kafka.values() == ([b"1"] if committed else [])

    kafka.run(live)


def test_the_next_owner_completes_a_hanging_transaction() -> None:
    kafka = Kafka("marking#1=lost")
    tps = [("log", 0), ("log", 1), ("also", 0), ("also", 1)]

    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log", "also"])
        await client.produce({tp: [(b"k", b"1", ())] for tp in tps})
        with pytest.raises(TransactionError):
            await client.end()
        await asyncio.sleep(1)
        (unmarked,) = [what[2] for what in kafka.events if what[0] == "unmarked"]
        assert 0 < len(unmarked) < len(tps)
        assert [tp for tp in tps if not kafka.broker.logs[tp].read(0, 9)[0]] == sorted(unmarked, key=tps.index)
        successor = Owner(kafka, "successor").client()
        await successor.start(["log", "also"])
        assert await successor.complete_hanging(tps) == unmarked
        assert all(kafka.broker.logs[tp].read(0, 9)[0] for tp in tps)
        assert await successor.complete_hanging(tps) == []

    kafka.run(live)


def test_a_late_request_is_rejected_by_the_next_transaction() -> None:
    kafka = Kafka("produce#2=late:1.0")

    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log"])
        await write(client, b"1")
        await client.end()
        with pytest.raises(KafkaError):
            await write(client, b"late")
        successor = Owner(kafka, "successor").client()
        await successor.start(["log"])
        await write(successor, b"2")
        await asyncio.sleep(2)
        await successor.end()
        await asyncio.sleep(1)
        assert kafka.values() == [b"1", b"2"]

    kafka.run(live)


def test_a_new_producer_id_follows_the_last_epoch(kafka: Kafka) -> None:
    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log"])
        first = client.producer_id
        kafka.broker._producers["app-0"].epoch = client.epoch = 32_765
        for value in (b"1", b"2", b"3"):
            await write(client, value)
            await client.end()
        await asyncio.sleep(1)
        assert client.producer_id != first
        assert kafka.values() == [b"1", b"2", b"3"]

    kafka.run(live)


def test_a_compacted_log_keeps_the_newest_of_each_key(kafka: Kafka) -> None:
    async def live() -> None:
        client = Owner(kafka, "worker").client()
        await client.start(["log"])
        for value in (b"1", b"2", None):
            await client.produce({LOG: [(b"k", value, ()), (b"x", b"stays", ())]})
            await client.end()
        await asyncio.sleep(1)
        kafka.broker.logs[LOG].compact(gone_before=0)
        reader = Owner(kafka, "reader").reader()
        tp = TopicPartition(*LOG)
        reader.seek(tp, 0)
        found = await reader.getmany(tp, timeout_ms=0)
        assert [(record.key, record.value) for record in found[tp]] == [(b"k", None), (b"x", b"stays")]
        assert await reader.position(tp) == (await reader.end_offsets([tp]))[tp]
        kafka.broker.logs[LOG].compact(gone_before=float("inf"))
        assert [record.value for record in kafka.broker.committed("log")] == [b"stays"]

    kafka.run(live)


def test_the_group_expels_silent_and_keeps_restarted_members(kafka: Kafka) -> None:
    async def live() -> None:
        broker, told = kafka.broker, list[str]()
        first = await broker.join("a", 0, set(), lambda: told.append("a"))
        assert first == (1, {0, 1}, 1)
        joining = broker.join("b", 0, set(), lambda: told.append("b"))
        assert told == ["a"]
        assert not joining.done()
        again = broker.join("a", 1, {0, 1}, lambda: told.append("a"))
        assert (await again)[1] | (await joining)[1] == {0, 1}
        assert broker.generation == 2
        restarted = await broker.join("b", 0, set(), lambda: told.append("b"))
        assert restarted[:2] == (2, (await joining)[1])
        broker.silent("a")
        await asyncio.sleep(9)
        broker.heard("a")
        broker.silent("a")
        await asyncio.sleep(9)
        assert broker.is_member("a", 1)
        await asyncio.sleep(2)
        assert not broker.is_member("a", 1)
        assert (await broker.join("b", restarted[2], {0}, lambda: None))[:2] == (3, {0, 1})

    kafka.run(live)
