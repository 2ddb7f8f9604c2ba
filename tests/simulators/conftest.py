"""Fixtures: a fake worker, topics, and simulators as processes that end with the test."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.simulators.fake_worker import FakeWorker
from tests.simulators.process import Simulator
from topics.families import LOCATIONS, ORDERS, topic_name

MakeSimulator = Callable[..., Simulator]


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    fake = FakeWorker()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def topics(kafka: str, unique: str) -> AsyncIterator[str]:
    """Yield the prefix of topics that exist for this test alone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    names = [topic_name(family.name, unique) for family in (ORDERS, LOCATIONS)]
    await admin.create_topics([NewTopic(name, num_partitions=4, replication_factor=1) for name in names])
    yield unique
    await admin.delete_topics(names)
    await admin.close()


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[MakeSimulator]:
    """Yield a function that makes a simulator from its name and arguments."""
    made: list[Simulator] = []

    def make(name: str, *arguments: str) -> Simulator:
        made.append(Simulator(name, tmp_path, *arguments))
        return made[-1]

    yield make
    for each in made:
        each.kill()
