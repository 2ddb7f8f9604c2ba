"""Settings of a worker, read from its environment: ``DABBAWALA_*`` and ``KAFKA_BOOTSTRAP_SERVERS``.

A wrong value stops the start with one sentence that names the variable and the values allowed.
"""

import os
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TypeVar

import msgspec

from topics.party_urls import party_url_problem

T = TypeVar("T")
CATALOGUE = Path("catalogue.json")
"""The restaurants of the simulated city."""
LOOPBACK = "127.0.0.1"
TRACED_SHARE = 0.01
"""Share of the orders that are traced if a collector is named and no sampler."""
SAMPLERS = ("traceidratio", "always_on", "always_off")
MAX_DAYS = 36_500
DAY_S = 24 * 3600
SERVER = re.compile(r"(?:[\w.-]+|\[[\w:.%]+\])(?::(\d{1,5}))?", re.ASCII)
"""A broker: its name or address, and its port; without one, Kafka's default port."""
ORIGIN = re.compile(r"https?://(?:[a-z0-9_.-]+|\[[a-f0-9:.]+\])(?::\d{1,5})?", re.ASCII)
"""An origin of web pages as browsers send it: scheme, host in lower case, and the port unless it is the scheme's."""
MAX_PORT = 65_535


class LogFormat(StrEnum):
    """Format of a worker's log."""

    AUTO = "auto"
    """Lines for people on a terminal, else JSON."""
    CONSOLE = "console"
    JSON = "json"


class WrongSetting(ValueError):
    """A setting has a value that cannot be used. The message names the variable and the values allowed."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Typed settings of a worker. ``docs/configuration.md`` is made from their docstrings."""

    bootstrap_servers: str | None
    """Kafka's address, ``host:port[,host:port]``. None: the embedded Kafka."""
    directory: Path
    """Directory of this installation: embedded Kafka, RocksDB, ledgers, logs."""
    application: str
    """Consumer group, and prefix of transactional ids and of changelog topics."""
    topic_prefix: str
    """Prefix of topic names: ``<prefix>.orders`` and so on."""
    partitions: int
    """Partitions of every topic, and so the number of tasks. Choose once: it cannot change later."""
    replication_factor: int
    """Replication factor of topics that the worker creates."""
    commit_gap_ms: int
    """Pause after a commit, in milliseconds, for brokers with the default
    ``add.partitions.to.txn.retry.backoff.ms``. Use 0 if the brokers set it to 1."""
    leave_on_stop: bool
    """1: a worker that stops leaves the group, so that others take over at once. For an autoscaler."""
    clock_apart_s: float
    """Largest difference between this machine's clock and the brokers', in seconds. A worker beyond it is not ready."""
    decision_s: float
    """Longest time that an HTTP request waits for the decision on it, in seconds. Then the answer is 202, and the
    event is applied when its turn comes."""
    keys: Path
    """File with the hashes of the keys of the HTTP API (`dabbawala keys`). It is reread when it changes."""
    secret_file: Path
    """File with the secret that all workers of an installation share, 32 characters or more: a worker proves with it to
    another one that it has identified a sender, and callback addresses follow from it."""
    party_secrets: Path | None
    """File with the secrets that prove to restaurants and the payment provider that a call is ours; only its owner may
    read it. It is reread when it changes. None: calls have no proof."""
    payment_provider: str
    """Name of the payment provider in the address of its callbacks."""
    payment_url: str
    """Address of the payment provider."""
    allow_http_parties: bool
    """1: payment provider and restaurants may have http addresses outside this machine, on a network that you trust."""
    allowed_networks: tuple[str, ...]
    """Networks without public addresses in which calls may reach a party, such as ``10.0.0.0/8``, separated by commas.
    Link-local addresses, with the metadata of cloud providers, are never called."""
    public_url: str | None
    """Address at which payment provider and restaurants reach the HTTP API. None: the worker's own address."""
    bind: str
    """IP address that a worker listens on; ``0.0.0.0`` means all. ``faust worker --web-bind`` overrides it. An address
    that other machines reach needs an https ``DABBAWALA_PUBLIC_URL`` or ``DABBAWALA_PLAIN_HTTP``."""
    plain_http: bool
    """1: a worker may speak plain HTTP to other machines, because their network is private. Keys are readable on it."""
    allowed_origins: tuple[str, ...]
    """Origins of web pages that may call the HTTP API (CORS), such as ``https://shop.example``, separated by commas."""
    catalogue: Path | None
    """Catalogue file that a worker writes to the topic of restaurants at its start. Empty: none."""
    retention_days: float
    """Days that an order which has ended stays in the tables; may be a fraction."""
    history_days: float
    """Days that the history topic keeps an order after that; may be a fraction."""
    speed_up: float
    """Factor by which simulated time is faster than real time; divides waits and travel times. 0: no delays."""
    traced_share: float = 0.0
    """Share of the orders whose traces are exported, see docs/traces.md. 0: tracing is off."""
    log_format: LogFormat = LogFormat.AUTO
    """Format of the log: lines for people (``console``), one object a line (``json``), or lines on a terminal and else
    objects (``auto``)."""
    failpoints: str = ""
    """Faults on purpose, for tests: ``name:action:every[,name:action:every...]``. The names and actions are those of
    ``exactly_once/task/failpoints.py``. They need ``DABBAWALA_ALLOW_FAILPOINTS=1``."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from these variables, by default the process's. Raises `WrongSetting`."""
        variables = os.environ if environment is None else environment
        embedded = not variables.get("KAFKA_BOOTSTRAP_SERVERS")
        home = Path(variables.get("DABBAWALA_DIR", ".dabbawala"))
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
            decision_s=_number(variables, "DABBAWALA_DECISION_S", 5.0, 0.1, 30.0, float),
            keys=_path(variables, "DABBAWALA_KEYS", home / "keys.json"),
            secret_file=_path(variables, "DABBAWALA_SECRET_FILE", home / "secret"),
            party_secrets=_file(variables, "DABBAWALA_PARTY_SECRETS", None),
            payment_provider=_word(variables, "DABBAWALA_PAYMENT_PROVIDER", "payments"),
            payment_url=_party_url(variables, "DABBAWALA_PAYMENT_URL", "http://127.0.0.1:5060"),
            allow_http_parties=bool(_number(variables, "DABBAWALA_ALLOW_HTTP_PARTIES", 0, 0, 1, int)),
            allowed_networks=_networks(variables, "DABBAWALA_ALLOWED_NETWORKS", "127.0.0.0/8,::1/128"),
            public_url=_url(variables, "DABBAWALA_PUBLIC_URL", None),
            bind=_address(variables, "DABBAWALA_BIND", LOOPBACK),
            plain_http=bool(_number(variables, "DABBAWALA_PLAIN_HTTP", 0, 0, 1, int)),
            allowed_origins=_origins(variables, "DABBAWALA_ALLOWED_ORIGINS", ""),
            catalogue=_file(variables, "DABBAWALA_CATALOGUE", CATALOGUE),
            retention_days=_number(variables, "DABBAWALA_RETENTION_DAYS", 30.0, 0.0, MAX_DAYS, float),
            history_days=_number(variables, "DABBAWALA_HISTORY_DAYS", 365.0, 0.0, MAX_DAYS, float),
            traced_share=_traced_share(variables, "OTEL_TRACES_SAMPLER_ARG"),
            log_format=_log_format(variables, "DABBAWALA_LOG_FORMAT", "auto"),
            failpoints=_failpoints(variables, "DABBAWALA_FAILPOINTS", ""),
            speed_up=_number(variables, "DABBAWALA_SPEED_UP", 1.0, 0.0, 1e6, float),
        )

    @property
    def retention_s(self) -> float:
        """Time that an ended order stays in the tables, in seconds."""
        return self.retention_days * DAY_S

    @property
    def history_s(self) -> float:
        """Time that the history topic keeps a retired order, in seconds."""
        return self.history_days * DAY_S

    def embedded_address(self) -> str | None:
        """Return the bootstrap servers of the embedded Kafka, from the file that its starter wrote; None without it."""
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
    """Return the servers without blanks between them; None if the variable is unset or empty."""
    value = variables.get(name)
    if not value:
        return None
    servers = [server.strip() for server in value.split(",")]
    found = [SERVER.fullmatch(server) for server in servers]
    if not all(server and int(server[1] or 1) <= MAX_PORT for server in found):
        raise WrongSetting(f"{name}={value!r}: it must be host:port[,host:port]")
    return ",".join(servers)


def _file(variables: Mapping[str, str], name: str, default: Path | None) -> Path | None:
    """Return the path of a file; None if the variable is empty."""
    value = variables.get(name)
    if value is None:
        return default
    return Path(value) if value else None


def _path(variables: Mapping[str, str], name: str, default: Path) -> Path:
    """Return the path of a file; the default if the variable is unset or empty."""
    return Path(variables.get(name) or default)


def _url(variables: Mapping[str, str], name: str, default: U) -> str | U:
    value = variables.get(name)
    if value is None:
        return default
    if not value.startswith(("http://", "https://")):
        raise WrongSetting(f"{name}={value!r}: it must be a URL that starts with http:// or https://")
    return value.rstrip("/")


def _address(variables: Mapping[str, str], name: str, default: str) -> str:
    return checked_address(variables.get(name) or default, name)


def checked_address(value: str, name: str) -> str:
    """Return an IP address to listen on. ``name`` is the setting or option that has it. Raises `WrongSetting`."""
    try:
        return str(ip_address("127.0.0.1" if value == "localhost" else value.strip("[]")))
    except ValueError:
        raise WrongSetting(f"{name}={value!r}: it must be an IP address, such as 127.0.0.1 or 0.0.0.0") from None


def _origins(variables: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    value = variables.get(name, default)
    origins = tuple(part.strip().lower().rstrip("/") for part in value.split(",")) if value.strip() else ()
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise WrongSetting(f"{name}={value!r}: it must be origins such as https://shop.example, separated by commas")
    return origins


def _party_url(variables: Mapping[str, str], name: str, default: str) -> str:
    value = variables.get(name, default)
    if problem := party_url_problem(value, allow_http=variables.get("DABBAWALA_ALLOW_HTTP_PARTIES") == "1"):
        raise WrongSetting(f"{name}={value!r}: {problem}")
    return value.rstrip("/")


def _networks(variables: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    value = variables.get(name, default)
    try:
        return tuple(str(ip_network(part.strip())) for part in value.split(",")) if value.strip() else ()
    except ValueError:
        raise WrongSetting(f"{name}={value!r}: it must be networks such as 10.0.0.0/8, separated by commas") from None


def _traced_share(variables: Mapping[str, str], name: str) -> float:
    """Return the share of orders that OpenTelemetry's variables ask for; 0 without a collector. ``name``: the share."""
    endpoint = _otlp(variables, "ENDPOINT")
    is_disabled = variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = variables.get("OTEL_TRACES_EXPORTER") or "otlp"
    if not endpoint or is_disabled or exporter == "none":
        return 0.0
    if exporter != "otlp":
        raise WrongSetting(f"OTEL_TRACES_EXPORTER={exporter!r}: it must be otlp or none")
    if (protocol := _otlp(variables, "PROTOCOL") or "http/protobuf") != "http/protobuf":
        raise WrongSetting(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}: it must be http/protobuf, often on port 4318")
    sampler = variables.get("OTEL_TRACES_SAMPLER") or "traceidratio"
    if sampler.removeprefix("parentbased_") not in SAMPLERS:
        raise WrongSetting(f"OTEL_TRACES_SAMPLER={sampler!r}: it must be {', '.join(SAMPLERS[:-1])} or {SAMPLERS[-1]}")
    match sampler.removeprefix("parentbased_"):  # an order's trace has no parent
        case "always_on":
            return 1.0
        case "always_off":
            return 0.0
    return _number(variables, name, TRACED_SHARE, 0.0, 1.0, float)


def _otlp(variables: Mapping[str, str], what: str) -> str:
    """Return a variable of the OTLP exporter: the one for traces, else the one for all signals; empty without both."""
    return variables.get(f"OTEL_EXPORTER_OTLP_TRACES_{what}") or variables.get(f"OTEL_EXPORTER_OTLP_{what}") or ""


def _log_format(variables: Mapping[str, str], name: str, default: str) -> LogFormat:
    value = variables.get(name, default)
    if value not in [known.value for known in LogFormat]:
        raise WrongSetting(f"{name}={value!r}: it must be {', '.join(LogFormat)}")
    return LogFormat(value)


def _failpoints(variables: Mapping[str, str], name: str, default: str) -> str:
    """Return the failpoints as text, if they are allowed. The worker parses them, see `streams.build`."""
    value = variables.get(name, default)
    if value and variables.get("DABBAWALA_ALLOW_FAILPOINTS") != "1":
        raise WrongSetting(f"{name}={value!r}: it causes faults; unset it, or set DABBAWALA_ALLOW_FAILPOINTS=1")
    return value
