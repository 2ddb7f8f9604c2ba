"""A real Apache Kafka on this machine: one KRaft node, of Maven Central's jars and PyPI's Java, in `.dabbawala/kafka/`.

    lib/               the jars of kafka.lock            data/   its log directory      log      what it says (warnings)
    java-*.cache       Java's start-up cache             tmp/    Java's scratch space   pid      its process
    server.properties  how it was started the last time  lock    held while starting or stopping
    address            its bootstrap servers, one line, written when it is ready: all that other commands need

Who needs Kafka calls `ensure` (the demo, a worker); who only talks to it reads `address` (everything else). The broker
is a process of its own in a session of its own: it outlives a worker that started it, until `stop` or `make clean`. It
keeps its port when it is started again, so clients find it where it was.
"""

import asyncio
import base64
import logging
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from streams.embedded import download, java
from streams.embedded.errors import SetUpError
from streams.embedded.java import Java
from streams.embedded.lock import locked
from streams.embedded.ports import LOOPBACK, is_free

FIRST_PORT = 9092
"""Kafka's own; where it is taken the broker moves up by two: the second port is the controller's."""

READY_S = 60
"""From process start to an acknowledged record: 1 s with Java's cache, 3 s without, far more on a busy machine."""

STOP_S = 60
"""From SIGTERM to the end: 0.3 s, and 4 s more the one time that it writes Java's cache; longer on a busy machine."""

LAST_LINES = 4
"""Of the log, shown with an error."""

NOISE = ("\t", "Picked up JAVA_TOOL_OPTIONS", "Reading AOT", "AOTCache", "Removed temporary AOT")
"""How lines of the log begin that say nothing of why Kafka ended: of stacks, and of Java's own."""
GIVEN_UP = "Exiting Kafka due to fatal exception"
"""It says so at once; its process may take seconds more to end."""

LET_GO_S = 2
"""From the end of a process to its ports being free."""

POLL_S = 0.02

PROBE_TOPIC = "embedded-ready"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}

# Topics are created on purpose, by those who know how many partitions they need.
auto.create.topics.enable=false

# One node: nothing to copy to, and nobody to wait for.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0

# A broker killed is taken back after 2 s, not 9.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500

# A transaction right after another need not wait 20 ms for the first one's markers.
add.partitions.to.txn.retry.backoff.ms=1
add.partitions.to.txn.retry.backoff.max.ms=200
"""

Progress = Callable[[str], None]


def ensure(directory: Path, progress: Progress) -> str:
    """The bootstrap servers (`host:port`) of the embedded Kafka under `directory`, which is started unless it runs.

    Blocks until a record was acknowledged: call it in a thread where an event loop runs. `progress` gets a line for a
    person every now and then. Any number of processes may call it at once: one starts the broker, the others wait and
    use it. Raises `SetUpError`.
    """
    return EmbeddedKafka(directory, progress).start()


def address(directory: Path) -> str:
    """The bootstrap servers of the broker that runs under `directory`. Raises `SetUpError` where none does."""
    found = known_address(directory)
    if found is None:
        raise SetUpError(
            f"No Kafka runs under {directory}: start one with `make kafka`, `make worker` or `make demo`, "
            "or name a cluster in KAFKA_BOOTSTRAP_SERVERS."
        )
    return found


def known_address(directory: Path) -> str | None:
    """The bootstrap servers of the broker that runs under `directory`; None where none does."""
    broker = EmbeddedKafka(directory)
    return broker.address_file.read_text().strip() if broker.running() and broker.address_file.exists() else None


def stop(directory: Path) -> None:
    """Stop the broker under `directory`, if one runs."""
    EmbeddedKafka(directory).stop()


class EmbeddedKafka:
    """The broker under `directory`, whoever started it. Methods block; each holds the directory's lock."""

    def __init__(
        self,
        directory: Path,
        progress: Progress = lambda line: None,
        lib: Path | None = None,
        first_port: int = FIRST_PORT,
        more_properties: str = "",
    ) -> None:
        """`lib`: where the jars are, or go; tests share one between brokers. Default: with the broker.

        `first_port`: where to look first for a free one, if the broker has not had any yet. `more_properties`: lines
        after `PROPERTIES`, with the same places to fill in; what is there twice counts as it is there last.
        """
        self.directory = directory.absolute() / "kafka"
        self.lib = lib.absolute() if lib else self.directory / "lib"
        self.address_file = self.directory / "address"
        self.started = False
        """Whether it was this object that started the process: then its owner may want to stop it at the end."""
        self._progress = progress
        self._first_port = first_port
        self._template = PROPERTIES + more_properties
        self._properties = self.directory / "server.properties"
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._pid = self.directory / "pid"
        self._lock = self.directory / "lock"

    def start(self) -> str:
        """See `ensure`."""
        with locked(self._lock):
            known = self.address_file.read_text().strip() if self.address_file.exists() else None
            if known and self.running() and _answers(known, self._cluster_id()):
                return known
            self._kill()
            self.address_file.unlink(missing_ok=True)
            found = self._start()
            self.address_file.write_text(f"{found}\n")
            self.started = True
            return found

    def stop(self) -> None:
        """End the process as it likes to be ended; what it wrote stays."""
        with locked(self._lock):
            self.address_file.unlink(missing_ok=True)
            if process := self.process():
                recorded = java.recorded_by(process.cmdline())
                self._progress("Stopping Kafka" + (", which notes how to start faster next time" if recorded else ""))
                process.terminate()
                if _gone_within(STOP_S, process) and recorded:
                    java.keep(recorded)
            self._kill()

    def kill(self) -> None:
        """End the process as a crash would."""
        with locked(self._lock):
            self._kill()

    def restart(self) -> str:
        """Kill it and start it again: same data, same port."""
        self.kill()
        return self.start()

    def running(self) -> bool:
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """The broker's process, if it runs: one of the pid written down that was started with these properties."""
        try:
            process = psutil.Process(int(self._pid.read_text()))
            ours = str(self._properties) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if ours else None

    def _start(self) -> str:
        runtime = Java(download.fetch(download.locked_jars(), self.lib, self._progress), self.directory / "tmp")
        self._progress("Starting Kafka")
        for directory in (self._data, runtime.scratch):
            directory.mkdir(parents=True, exist_ok=True)
        for port in self._free_ports():
            self._write_properties(port)
            self._format(runtime)
            if self._launch(runtime, port):
                self._progress("Kafka is ready")
                return f"{LOOPBACK}:{port}"
        raise SetUpError(f"No two free ports in a row from {self._first_port} on: Kafka needs two.")

    def _free_ports(self) -> Iterator[int]:
        """The port of the last time first, which a process just killed may hold a moment longer."""
        before = self._properties.read_text() if self._properties.exists() else ""
        if last := re.search(r"^listeners=PLAINTEXT://.+?:(\d+),", before, re.MULTILINE):
            port, deadline = int(last[1]), time.monotonic() + LET_GO_S
            while not _is_free_with_the_next(port) and time.monotonic() < deadline:
                time.sleep(POLL_S)
            yield from filter(_is_free_with_the_next, [port])
        yield from filter(_is_free_with_the_next, range(self._first_port, 65535, 2))

    def _write_properties(self, port: int) -> None:
        text = self._template.format(host=LOOPBACK, port=port, controller_port=port + 1, data=self._data)
        self._properties.write_text(text)

    def _cluster_id(self) -> str | None:
        """Of the data, once it is laid out."""
        meta = self._data / "meta.properties"
        found = re.search(r"^cluster\.id=(.+)$", meta.read_text(), re.MULTILINE) if meta.exists() else None
        return found[1] if found else None

    def _format(self, runtime: Java) -> None:
        """Lay out the data, once."""
        if self._cluster_id():
            return
        tool = ["kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", str(self._properties)]
        said = self._log_size()
        if self._spawn(runtime.command(*tool)).wait():
            raise self._failure("could not lay out its data", said)

    def _launch(self, runtime: Java, port: int) -> bool:
        """Start the process and wait until it takes a record; False if the port was taken. Raises `SetUpError`."""
        said = self._log_size()
        cache = runtime.cache_option(self.lib.parent)
        process = self._spawn(runtime.command("kafka.Kafka", str(self._properties), options=[cache]))
        self._pid.write_text(f"{process.pid}\n")
        deadline = time.monotonic() + READY_S
        while not _takes_a_record(f"{LOOPBACK}:{port}", self._cluster_id()):
            if process.poll() is not None or GIVEN_UP in self._said_since(said):
                self._kill()
                if "Address already in use" in self._said_since(said):
                    return False
                raise self._failure("could not start", said)
            if time.monotonic() > deadline:
                self._kill()
                raise self._failure(f"was not ready within {READY_S} s", said)
        return True

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """In a session of its own, so that Ctrl-C in a terminal is not for it; our environment does not concern it."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _kill(self) -> None:
        """SIGKILL, if it runs, and wait until it is gone."""
        if process := self.process():
            recorded = java.recorded_by(process.cmdline())
            process.kill()
            _gone_within(STOP_S, process)
            if recorded:
                java.discard(recorded)
        self._pid.unlink(missing_ok=True)

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _said_since(self, position: int) -> str:
        with self._log.open(errors="replace") as log:
            log.seek(position)
            return log.read()

    def _failure(self, what: str, said_from: int) -> SetUpError:
        """Why Kafka is not there, told by what it said last."""
        said = self._said_since(said_from)
        if "No space left on device" in said:
            return SetUpError(f"Kafka {what}: the disk of {self.directory} is full; free some space and start again.")
        if "UnsupportedVersionException" in said:
            return SetUpError(
                f"Kafka {what}: a newer Kafka than this one has written {self._data}; give it up with `make clean`."
            )
        told = [line for line in said.splitlines() if line.strip() and not line.startswith(NOISE)]
        last = "\n".join(f"  {line}" for line in told[-LAST_LINES:])
        return SetUpError(f"Kafka {what}; {self._log} has it all, and the end of it is:\n{last}")


def _new_cluster_id() -> str:
    """A random Kafka UUID: 22 characters of base64url; a first `-` would look like an option."""
    found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return found if not found.startswith("-") else _new_cluster_id()


def _gone_within(timeout_s: float, process: psutil.Process) -> bool:
    """Gone, or waiting only for somebody else, who started it, to take notice."""
    deadline = time.monotonic() + timeout_s
    while (lives := _lives(process)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return not lives


def _lives(process: psutil.Process) -> bool:
    """A child of ours does until each of its threads has ended: the first one gone does not free the ports yet."""
    try:
        return os.waitpid(process.pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        pass
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_free_with_the_next(port: int) -> bool:
    return is_free(port) and is_free(port + 1)


def _answers(bootstrap: str, cluster_id: str | None) -> bool:
    """Whether the broker of that cluster, and not somebody else's, is there."""
    try:
        return asyncio.run(_cluster_at(bootstrap)) == cluster_id
    except (KafkaError, OSError):
        return False


def _takes_a_record(bootstrap: str, cluster_id: str | None) -> bool:
    """Whether a record, sent to the broker of that cluster, is acknowledged; gives it a moment."""
    host, _, port = bootstrap.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        with _aiokafka_silent():  # it is expected to fail at first, and to say so
            return _answers(bootstrap, cluster_id) and asyncio.run(asyncio.wait_for(_produce(bootstrap), timeout=5))
    except (OSError, KafkaError, TimeoutError):
        time.sleep(POLL_S)
        return False


@contextmanager
def _aiokafka_silent() -> Iterator[None]:
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


async def _produce(bootstrap: str) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    topic = NewTopic(PROBE_TOPIC, num_partitions=1, replication_factor=1, topic_configs={"retention.ms": "3600000"})
    try:
        await admin.start()
        created = await admin.create_topics([topic])
        if (error := for_code(created.topic_errors[0][1])) not in (NoError, TopicAlreadyExistsError):
            raise error
        await producer.start()
        await producer.send_and_wait(PROBE_TOPIC, b"ready")
    finally:
        await producer.stop()
        await admin.close()
    return True


async def _cluster_at(bootstrap: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()
