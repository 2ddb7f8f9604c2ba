"""An ordering provider repeats each order, unchanged, until it is answered."""

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.partitioner import DefaultPartitioner

from simulators.cli import Reporter, TimeScale
from simulators.provider import Provider
from tests.simulators.conftest import MakeSimulator
from tests.simulators.fake_worker import CUT, FakeWorker
from tests.simulators.process import Simulator
from tests.simulators.reading import PARTITIONS, keyed_records
from tests.simulators.waiting import until
from topics.families import ORDERS

PLACE = "/v1/orders"


def outcomes(provider: Simulator, event: str = "answer") -> dict[str, str]:
    """Return order -> outcome; fail if the ledger has two."""
    entries = [entry for entry in provider.entries() if entry["event"] == event]
    found = {entry["order"]: entry["outcome"] for entry in entries}
    assert len(found) == len(entries)
    return found


async def test_unanswered_orders_are_repeated_unchanged(simulator: MakeSimulator, worker: FakeWorker) -> None:
    worker.next_statuses[PLACE].extend([500, CUT, 503, 429, 409, CUT])
    provider = simulator("provider", "--worker", worker.url, "--orders", "5", "--speed", "0", "--run", "r")
    provider.start()
    assert await provider.ended() == 0, provider.output

    assert outcomes(provider) == {f"tiffin-express:r-{number:06d}": "accepted" for number in range(1, 6)}
    assert len(worker.calls(PLACE)) == 11
    bodies = {
        call.key: [other.body for other in worker.calls(PLACE) if other.key == call.key] for call in worker.requests
    }
    assert len(bodies) == 5
    assert all(copies == [copies[0]] * len(copies) for copies in bodies.values())
    assert "5 orders: 5 accepted" in provider.output


async def test_rejected_order_is_final_and_gives_status_1(simulator: MakeSimulator, worker: FakeWorker) -> None:
    worker.next_statuses[PLACE].append(422)
    provider = simulator("provider", "--worker", worker.url, "--orders", "3", "--speed", "0")
    provider.start()
    assert await provider.ended() == 1
    assert sorted(outcomes(provider).values()) == ["accepted", "accepted", "refused"]


async def test_killed_run_continues_with_the_same_orders(simulator: MakeSimulator, worker: FakeWorker) -> None:
    worker.next_statuses[PLACE].extend([201, 201, 201] + [CUT] * 10_000)
    provider = simulator(
        "provider", "--worker", worker.url, "--orders", "8", "--speed", "0", "--run", "r", "--later", "1"
    )
    provider.start()
    await until(lambda: len(worker.orders) == 8 and len(outcomes(provider)) == 3, "every order is under way")
    provider.kill()
    worker.next_statuses.clear()
    provider.start()
    assert await provider.ended() == 0, provider.output
    assert set(outcomes(provider)) == set(worker.orders)
    assert set(outcomes(provider).values()) == {"accepted"}


async def test_seed_gives_the_same_orders(simulator: MakeSimulator, worker: FakeWorker, tmp_path: Path) -> None:
    placed = []
    for directory in ("one", "two"):
        worker.orders.clear()
        provider = simulator("provider", "--worker", worker.url, "--orders", "4", "--speed", "0", "--run", directory)
        provider.start("--seed", "77")
        assert await provider.ended() == 0
        placed.append([{**body, "at": "", "external_id": ""} for _, body in sorted(worker.orders.items())])
    assert placed[0] == placed[1]


async def test_orders_over_kafka_are_in_the_partition_of_their_key(
    simulator: MakeSimulator, worker: FakeWorker, kafka: str, topics: str
) -> None:
    provider = simulator(
        "provider", "--worker", worker.url, "--orders", "20", "--speed", "0", "--kafka", "0.5", "--run", "r",
        "--bootstrap-servers", kafka, "--topic-prefix", topics,
    )  # fmt: skip
    provider.start()
    assert await provider.ended() == 0, provider.output
    found = await keyed_records(kafka, topics, ORDERS)

    by_topic = {placed.key for _, placed in found}
    assert by_topic.isdisjoint(worker.orders)
    assert by_topic | set(worker.orders) == set(outcomes(provider))
    assert by_topic
    assert worker.orders
    for record, placed in found:
        assert record.key == placed.key.encode()
        assert record.partition == DefaultPartitioner()(record.key, list(range(PARTITIONS)), list(range(PARTITIONS)))
        assert placed.id == placed.event_id


class FailingProducer:
    """A producer whose first ``times`` records are not acknowledged."""

    def __init__(self, times: float, ledger: Path) -> None:
        self.left = times
        self.ledger = ledger
        self.acknowledged: list[bytes] = []

    async def send(self, topic: str, value: bytes, key: bytes, **more: Any) -> asyncio.Future[None]:
        """Fail while there are failures left."""
        sent = asyncio.get_running_loop().create_future()
        if self.left > 0:
            self.left -= 1
            sent.set_exception(KafkaConnectionError())
        else:
            self.acknowledged.append(key)
            sent.set_result(None)
        return sent


def over_kafka(producer: Any, patience_s: float) -> Provider:
    """Return a run of one order over Kafka, with a malformed one before it."""
    arguments = argparse.Namespace(
        seed="1", run="r", orders=1, rate=1.0, day=None, start=0.0, speed=TimeScale(0), patience=patience_s, worker="",
        topic_prefix="x", kafka=1.0, later=0.0, follow=False, faults={"malformed": 1.0}, ledger=producer.ledger,
    )  # fmt: skip
    caller: Any = None
    return Provider(arguments, caller, producer, Reporter("provider", True))


async def test_acknowledged_malformed_order_is_in_the_ledger(tmp_path: Path) -> None:
    producer = FailingProducer(1, tmp_path / "ledger")
    assert await over_kafka(producer, 5).place_all() == 0
    assert [b"malformed" in key for key in producer.acknowledged] == [True, False]
    entries = producer.ledger.read_text().splitlines()
    assert ["malformed" in entry for entry in entries] == [False, True, False]


async def test_unacknowledged_malformed_order_is_not_in_the_ledger(tmp_path: Path) -> None:
    producer = FailingProducer(float("inf"), tmp_path / "ledger")
    with pytest.raises(ExceptionGroup):
        await over_kafka(producer, 0).place_all()
    assert "malformed" not in producer.ledger.read_text()


async def test_orders_are_followed_to_their_end(simulator: MakeSimulator, worker: FakeWorker) -> None:
    provider = simulator("provider", "--worker", worker.url, "--orders", "3", "--speed", "0", "--follow")
    provider.start()
    await until(lambda: len(worker.calls(f"{PLACE}/{max(worker.statuses, default='')}")) > 1, "orders are looked at")
    assert not provider.dead
    worker.statuses.update(zip(worker.statuses, ("DELIVERED", "DELIVERED", "REJECTED"), strict=True))
    assert await provider.ended() == 0, provider.output
    assert outcomes(provider, "ended") == worker.statuses
    assert re.search(r"3 orders: 3 accepted, 2 DELIVERED, 1 REJECTED", provider.output)


async def test_order_without_progress_is_named(simulator: MakeSimulator, worker: FakeWorker) -> None:
    provider = simulator(
        "provider", "--worker", worker.url, "--orders", "1", "--speed", "0", "--follow", "--patience", "1"
    )
    provider.start()
    assert await provider.ended() == 1
    assert re.search(r"order tiffin-express:\S+ has been CREATED for 1 s: giving up", provider.output)


async def test_order_without_an_answer_ends_the_run(simulator: MakeSimulator, worker: FakeWorker) -> None:
    worker.next_statuses[PLACE].extend([500] * 1000)
    provider = simulator("provider", "--worker", worker.url, "--orders", "1", "--speed", "0", "--patience", "1")
    provider.start()
    assert await provider.ended() == 1
    assert re.search(r"had no final answer for 1 s \(the last one: HTTP 500\): giving up", provider.output)


@pytest.mark.parametrize("name", ["provider", "drivers"])
async def test_missing_worker_is_awaited_for_a_limited_time(simulator: MakeSimulator, name: str) -> None:
    waiting = simulator(name, "--worker", "http://127.0.0.1:9", "--patience", "0.5")
    waiting.start()
    assert await waiting.ended() == 1
    lines = waiting.output.splitlines()
    assert lines[0] == f"{name}: waiting for a worker at http://127.0.0.1:9"
    assert re.search(r"^no worker is ready at http://127.0.0.1:9 after 0.5 s: start one", lines[1])
    assert len(lines) == 2
