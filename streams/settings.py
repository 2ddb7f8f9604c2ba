"""What a worker can be told from its environment: ``DABBAWALA_*`` and ``KAFKA_BOOTSTRAP_SERVERS``.

A value that cannot be stops the start with a sentence that names it.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")
CATALOGUE = Path("catalogue.json")
"""The restaurants of the simulated city."""
SPEED_UP_FILE = "speed-up"
"""In the directory: how much faster than the real world the last demo ran."""
LONGEST_DAYS = 36_500
DAY_S = 24 * 3600
SERVER = re.compile(r"(?:[\w.-]+|\[[\w:.%]+\])(?::(\d{1,5}))?", re.ASCII)
"""A broker: its name or address, and its port unless that is Kafka's own."""
HIGHEST_PORT = 65_535


class WrongSetting(ValueError):
    """A setting has a value that cannot be used; the message says which, and what would do."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The typed settings. See the README for what each is good for."""

    bootstrap_servers: str | None
    """Kafka as ``host:port[,host:port]``; None: the embedded one."""
    directory: Path
    """Where everything of this installation lives: embedded Kafka, RocksDB, ledgers, logs."""
    application: str
    """Consumer group, prefix of transactional ids and of changelog topics."""
    topic_prefix: str
    partitions: int
    """Of every topic. More partitions, more tasks that work beside each other; never changed afterwards."""
    replication_factor: int
    commit_gap_ms: int
    """Pause after a commit, for clusters with the default ``add.partitions.to.txn.retry.backoff.ms``."""
    leave_on_stop: bool
    """A worker that stops leaves the group, so that others take over at once: for one that is not to come back."""
    clock_apart_s: float
    """How far this machine's clock and the brokers' may be apart."""
    payment_provider: str
    payment_url: str
    public_url: str | None
    """Where payment providers and restaurants reach the web views; None: the worker's own address."""
    catalogue: Path | None
    """The restaurants that a worker writes to their topic at its start; None: none, they come from elsewhere."""
    retention_days: float
    """How long an order that has ended stays in the tables."""
    history_days: float
    """How long the history topic keeps it after that."""
    speed_up: float
    """How much faster than the real world the simulated one is; divides waits and travel times. 0: no time at all."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings; :class:`WrongSetting` for one that cannot be."""
        variables = os.environ if environment is None else environment
        embedded = not variables.get("KAFKA_BOOTSTRAP_SERVERS")
        prefix = _word(variables, "DABBAWALA_TOPIC_PREFIX", "dabbawala")
        return cls(
            bootstrap_servers=_servers(variables, "KAFKA_BOOTSTRAP_SERVERS"),
            directory=Path(variables.get("DABBAWALA_DIR", ".dabbawala")),
            application=_word(variables, "DABBAWALA_APPLICATION", prefix),
            topic_prefix=prefix,
            partitions=_number(variables, "DABBAWALA_PARTITIONS", 4, 1, 1000, int),
            replication_factor=_number(variables, "DABBAWALA_REPLICATION_FACTOR", 1 if embedded else 3, 1, 16, int),
            commit_gap_ms=_number(variables, "DABBAWALA_COMMIT_GAP_MS", 0 if embedded else 4, 0, 1000, int),
            leave_on_stop=bool(_number(variables, "DABBAWALA_LEAVE_ON_STOP", 0, 0, 1, int)),
            clock_apart_s=_number(variables, "DABBAWALA_CLOCK_APART_S", 2.0, 0.1, DAY_S, float),
            payment_provider=_word(variables, "DABBAWALA_PAYMENT_PROVIDER", "payments"),
            payment_url=_url(variables, "DABBAWALA_PAYMENT_URL", "http://127.0.0.1:5060"),
            public_url=_url(variables, "DABBAWALA_PUBLIC_URL", None),
            catalogue=_file(variables, "DABBAWALA_CATALOGUE", CATALOGUE),
            retention_days=_number(variables, "DABBAWALA_RETENTION_DAYS", 30.0, 0.0, LONGEST_DAYS, float),
            history_days=_number(variables, "DABBAWALA_HISTORY_DAYS", 365.0, 0.0, LONGEST_DAYS, float),
            speed_up=_number(variables, "DABBAWALA_SPEED_UP", 1.0, 0.0, 1e6, float),
        )

    @property
    def retention_s(self) -> float:
        """How long an order that has ended stays in the tables, in seconds."""
        return self.retention_days * DAY_S

    @property
    def history_s(self) -> float:
        """How long the history topic keeps it after that, in seconds."""
        return self.history_days * DAY_S

    def embedded_address(self) -> str | None:
        """The bootstrap servers of the embedded Kafka, as written down by whoever started it."""
        file = self.directory / "kafka" / "address"
        return file.read_text().strip() if file.exists() else None


Number = TypeVar("Number", int, float)
U = TypeVar("U", str, None)


def _number(
    variables: Mapping[str, str], name: str, default: Number, low: float, high: float, read: Callable[[str], Number]
) -> Number:
    text = variables.get(name)
    if text is None:
        return default
    try:
        value = read(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        kind = "a whole number" if read is int else "a number"
        raise WrongSetting(f"{name}={text!r}: it must be {kind} from {low:g} to {high:g}")
    return value


def _word(variables: Mapping[str, str], name: str, default: str) -> str:
    value = variables.get(name, default)
    if not value or not all(letter.isalnum() or letter in "._-" for letter in value):
        raise WrongSetting(f"{name}={value!r}: it must be letters, digits, dots, dashes and underscores")
    return value


def _servers(variables: Mapping[str, str], name: str) -> str | None:
    """Without blanks between them."""
    value = variables.get(name)
    if not value:
        return None
    servers = [server.strip() for server in value.split(",")]
    found = [SERVER.fullmatch(server) for server in servers]
    if not all(server and int(server[1] or 1) <= HIGHEST_PORT for server in found):
        raise WrongSetting(f"{name}={value!r}: it must be host:port[,host:port]")
    return ",".join(servers)


def _file(variables: Mapping[str, str], name: str, default: Path) -> Path | None:
    """An empty name stands for no file."""
    value = variables.get(name)
    if value is None:
        return default
    return Path(value) if value else None


def _url(variables: Mapping[str, str], name: str, default: U) -> str | U:
    value = variables.get(name)
    if value is None:
        return default
    if not value.startswith(("http://", "https://")):
        raise WrongSetting(f"{name}={value!r}: it must be a URL that starts with http:// or https://")
    return value.rstrip("/")
