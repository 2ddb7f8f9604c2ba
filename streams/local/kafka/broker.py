"""A real Apache Kafka on this machine: one KRaft node in `.dabbawala/kafka/`. Jars and Java come from Maven and PyPI.

    lib/               the jars of kafka.lock       data/   the log directory     log      output (warnings)
    java-*.cache       Java's start-up cache        tmp/    Java's scratch space  pid      process id
    server.properties  settings of the last start   lock    held while the broker starts or stops
    address            the bootstrap servers, one line, written when the broker is ready

The demo and the workers call `ensure`, which starts the broker if needed. All other commands read `address`. The broker
runs in a separate session: it outlives the worker that started it, until `stop` or `make clean`. After a restart it has
the same port, so clients find it again.
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

from streams.local.errors import SetUpError
from streams.local.file_lock import locked
from streams.local.kafka import download, java
from streams.local.kafka.java import Java
from streams.local.ports import LOOPBACK, is_free
from streams.local.private_directory import make_private

FIRST_PORT = 9092
"""Kafka's default. If it is taken, the broker tries two ports further: the second port is the controller's."""

START_TIMEOUT_S = 180
"""Limit from process start to an acknowledged record: 1 s with Java's cache, 3 s without, more on a busy machine."""

STOP_TIMEOUT_S = 180
"""Limit from SIGTERM to the end: 0.3 s, 4 s more when Java writes its cache, more on a busy machine."""

MAX_LOG_LINES = 4
"""Last lines of the log that an error shows."""

NOISE = ("\t", "Picked up JAVA_TOOL_OPTIONS", "Reading AOT", "AOTCache", "Removed temporary AOT")
"""Prefixes of log lines that do not explain why Kafka ended: stack traces and Java's messages."""
FATAL = "Exiting Kafka due to fatal exception"
"""Logged at once by a broker that ends; its process may need seconds more."""

PORT_RELEASE_S = 2
"""Limit from the end of a process until its ports are free."""

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

# Workers create the topics, with the right number of partitions.
auto.create.topics.enable=false

# One node: there are no replicas, and no other members to wait for.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0

# Wait less than 20 ms for the markers of the previous transaction.
add.partitions.to.txn.retry.backoff.ms=1
add.partitions.to.txn.retry.backoff.max.ms=200
"""

Progress = Callable[[str], None]


def ensure(directory: Path, progress: Progress) -> str:
    """Start the embedded Kafka under `directory` unless it runs; return its bootstrap servers (`host:port`).

    Blocks until the broker has acknowledged a record: in an event loop, call it in a thread. `progress` is called with
    lines for the user. Several processes may call it at the same time: one starts the broker, the others wait for it.
    Raises `SetUpError`.
    """
    make_private(directory)
    return EmbeddedKafka(directory, progress).start()


def address(directory: Path) -> str:
    """Return the bootstrap servers of the broker that runs under `directory`. Raises `SetUpError` if none runs."""
    found = known_address(directory)
    if found is None:
        raise SetUpError(
            f"No Kafka runs under {directory}: start one with `make kafka`, `make worker` or `make demo`, "
            "or set KAFKA_BOOTSTRAP_SERVERS to a cluster."
        )
    return found


def known_address(directory: Path) -> str | None:
    """Return the bootstrap servers of the broker that runs under `directory`; None if none runs."""
    broker = EmbeddedKafka(directory)
    return broker.address_file.read_text().strip() if broker.running() and broker.address_file.exists() else None


class EmbeddedKafka:
    """The broker under `directory`, also one that another process started.

    `start`, `stop` and `kill` block, and hold the directory's lock.
    """

    def __init__(
        self,
        directory: Path,
        progress: Progress = lambda line: None,
        lib: Path | None = None,
        first_port: int = FIRST_PORT,
        more_properties: str = "",
    ) -> None:
        """Describe the broker, without starting it.

        `lib` is the directory of the jars, which tests share between brokers; by default it belongs to the broker.
        `first_port` is the first port to try, if the broker never ran. `more_properties` are lines added to
        `PROPERTIES`, with the same placeholders; the last value of a property counts.
        """
        self.directory = directory.absolute() / "kafka"
        self.lib = lib.absolute() if lib else self.directory / "lib"
        self.address_file = self.directory / "address"
        self.started = False
        """True if this object started the process: its owner may then stop it."""
        self._progress = progress
        self._first_port = first_port
        self._template = PROPERTIES + more_properties
        self._properties = self.directory / "server.properties"
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._pid = self.directory / "pid"
        self._lock = self.directory / "lock"

    def start(self) -> str:
        """Start the broker unless it runs. See `ensure`."""
        make_private(self.directory)
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
        """Stop the broker with SIGTERM. Its data stays."""
        with locked(self._lock):
            self.address_file.unlink(missing_ok=True)
            if process := self.process():
                recorded = java.recorded_by(process.cmdline())
                self._progress("Stopping Kafka" + (", which writes a cache for faster starts" if recorded else ""))
                process.terminate()
                if _ended_within(STOP_TIMEOUT_S, process) and recorded:
                    java.keep(recorded)
            self._kill()

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        with locked(self._lock):
            self._kill()

    def restart(self) -> str:
        """Kill the broker and start it with the same data and port."""
        self.kill()
        return self.start()

    def running(self) -> bool:
        """Return whether the broker's process runs."""
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """Return the broker's process: the one with the recorded pid and these properties; None if it does not run."""
        try:
            process = psutil.Process(int(self._pid.read_text()))
            is_ours = str(self._properties) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if is_ours else None

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
        raise SetUpError(
            f"Kafka needs two adjacent free ports, and there are none from {self._first_port} on: stop other programs."
        )

    def _free_ports(self) -> Iterator[int]:
        """Yield the last port first. A process that was just killed may hold it a moment longer."""
        before = self._properties.read_text() if self._properties.exists() else ""
        if last := re.search(r"^listeners=PLAINTEXT://.+?:(\d+),", before, re.MULTILINE):
            port, deadline = int(last[1]), time.monotonic() + PORT_RELEASE_S
            while not _are_two_free(port) and time.monotonic() < deadline:
                time.sleep(POLL_S)
            yield from filter(_are_two_free, [port])
        yield from filter(_are_two_free, range(self._first_port, 65535, 2))

    def _write_properties(self, port: int) -> None:
        text = self._template.format(host=LOOPBACK, port=port, controller_port=port + 1, data=self._data)
        self._properties.write_text(text)

    def _cluster_id(self) -> str | None:
        """Return the cluster id of the data; None before the data is formatted."""
        meta = self._data / "meta.properties"
        found = re.search(r"^cluster\.id=(.+)$", meta.read_text(), re.MULTILINE) if meta.exists() else None
        return found[1] if found else None

    def _format(self, runtime: Java) -> None:
        """Format the data directory, unless that was done."""
        if self._cluster_id():
            return
        tool = ["kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", str(self._properties)]
        log_start = self._log_size()
        if self._spawn(runtime.command(*tool)).wait():
            raise self._failure("could not format its data", log_start)

    def _launch(self, runtime: Java, port: int) -> bool:
        """Start the process and wait until it accepts a record. Raises `SetUpError`.

        Returns False if the port was taken.
        """
        log_start = self._log_size()
        cache = runtime.cache_option(self.lib.parent)
        process = self._spawn(runtime.command("kafka.Kafka", str(self._properties), options=[cache]))
        self._pid.write_text(f"{process.pid}\n")
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _accepts_record(f"{LOOPBACK}:{port}", self._cluster_id()):
            if process.poll() is not None or FATAL in self._log_since(log_start):
                self._kill()
                if "Address already in use" in self._log_since(log_start):
                    return False
                raise self._failure("could not start", log_start)
            if time.monotonic() > deadline:
                self._kill()
                raise self._failure(f"was not ready within {START_TIMEOUT_S} s", log_start)
        return True

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process in a separate session, which Ctrl-C does not reach, and with an empty environment."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _kill(self) -> None:
        """Send SIGKILL if it runs, and wait until it has ended."""
        if process := self.process():
            recorded = java.recorded_by(process.cmdline())
            process.kill()
            _ended_within(STOP_TIMEOUT_S, process)
            if recorded:
                java.discard(recorded)
        self._pid.unlink(missing_ok=True)

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _log_since(self, position: int) -> str:
        with self._log.open(errors="replace") as log:
            log.seek(position)
            return log.read()

    def _failure(self, what: str, log_start: int) -> SetUpError:
        """Return the error that explains a failure by the log since `log_start`, a size in bytes."""
        log = self._log_since(log_start)
        if "No space left on device" in log:
            return SetUpError(f"Kafka {what}: the disk of {self.directory} is full; free some space and start again.")
        if "UnsupportedVersionException" in log:
            return SetUpError(
                f"Kafka {what}: a newer version of Kafka wrote {self._data}; remove the data with `make clean`."
            )
        lines = [line for line in log.splitlines() if line.strip() and not line.startswith(NOISE)]
        if not lines:
            return SetUpError(
                f"Kafka {what}, and its log {self._log} has no reason: try again when the machine is less busy."
            )
        last = "\n".join(f"  {line}" for line in lines[-MAX_LOG_LINES:])
        return SetUpError(f"Kafka {what}. Its log is {self._log}; the last lines are:\n{last}")


def _new_cluster_id() -> str:
    """Return a random Kafka UUID: 22 characters of base64url. A leading `-` would be parsed as an option."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return _new_cluster_id() if cluster_id.startswith("-") else cluster_id


def _ended_within(timeout_s: float, process: psutil.Process) -> bool:
    """Return whether the process ends in time. A zombie of another parent counts as ended."""
    deadline = time.monotonic() + timeout_s
    while (runs := _runs(process)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return not runs


def _runs(process: psutil.Process) -> bool:
    """Return whether the process runs. A child of ours holds its ports until all of its threads have ended."""
    try:
        return os.waitpid(process.pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        pass
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _are_two_free(port: int) -> bool:
    """Return whether the port and the next one are free."""
    return is_free(port) and is_free(port + 1)


def _answers(bootstrap: str, cluster_id: str | None) -> bool:
    """Return whether the broker of that cluster answers, and not another one."""
    try:
        return asyncio.run(_cluster_at(bootstrap)) == cluster_id
    except (KafkaError, OSError):
        return False


def _accepts_record(bootstrap: str, cluster_id: str | None) -> bool:
    """Return whether the broker of that cluster acknowledges a record. Pauses for a moment if it does not."""
    host, _, port = bootstrap.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        with _aiokafka_silent():  # the first attempts are expected to fail
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
