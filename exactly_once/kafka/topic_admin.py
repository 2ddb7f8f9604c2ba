"""Create, check and repair the topics that the engine needs, before anything is consumed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiokafka.errors as errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.types import Boolean, CompactArray, Int8, Int16, Int32

from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.producer import describe_topics, refuse_old_brokers
from exactly_once.kafka.protocol import TAGS, TEXT, versioned_request

log = logging.getLogger(__name__)

CHANGELOG_CONFIG = {
    "cleanup.policy": "compact",
    "delete.retention.ms": str(24 * 3600 * 1000),
    "max.compaction.lag.ms": str(7 * 24 * 3600 * 1000),
    "segment.bytes": str(64 << 20),
    "message.timestamp.type": "LogAppendTime",
}
"""Smaller segments than Kafka's 1 GiB: only closed segments are compacted, and a restore reads the rest in full.
Tombstones stay readable for a day: a local store older than half of that is discarded (``MAX_AGE_S`` in ``rocksdb``). A
record carries the broker's time, which the clock check needs (``clock_check``). What was replaced or deleted is gone
after a week, also where little is written."""
CREATED_WITHIN_S = 30.0
POLL_S = 0.05
RETRY_S = 0.5
TOPIC, BROKER = 2, 4
"""Resource types of the protocol's config requests."""
SET = 0
"""The operation SET of IncrementalAlterConfigs; settings that are not named stay."""

_RESOURCE = (("type", Int8), ("name", TEXT))
DescribeConfigs = versioned_request(
    32,
    4,
    (
        ("resources", CompactArray(*_RESOURCE, ("keys", CompactArray(TEXT)), TAGS)),
        ("synonyms", Boolean),
        ("documentation", Boolean),
    ),
    (
        ("throttle", Int32),
        (
            "results",
            CompactArray(
                ("error_code", Int16),
                ("error_message", TEXT),
                *_RESOURCE,
                (
                    "configs",
                    CompactArray(
                        ("name", TEXT),
                        ("value", TEXT),
                        ("read_only", Boolean),
                        ("source", Int8),
                        ("sensitive", Boolean),
                        ("synonyms", CompactArray(("name", TEXT), ("value", TEXT), ("source", Int8), TAGS)),
                        ("type", Int8),
                        ("documentation", TEXT),
                        TAGS,
                    ),
                ),
                TAGS,
            ),
        ),
    ),
)
IncrementalAlterConfigs = versioned_request(
    44,
    1,
    (
        (
            "resources",
            CompactArray(
                *_RESOURCE, ("configs", CompactArray(("name", TEXT), ("operation", Int8), ("value", TEXT), TAGS)), TAGS
            ),
        ),
        ("validate_only", Boolean),
    ),
    (
        ("throttle", Int32),
        ("results", CompactArray(("error_code", Int16), ("error_message", TEXT), *_RESOURCE, TAGS)),
    ),
)


class TopicMismatch(Exception):
    """A topic is missing or has the wrong number of partitions. The message is one sentence that says what to do."""


class BrokerUnreachable(Exception):
    """No broker answers at the configured address. The message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that has to exist. ``config`` has its topic-level settings."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigMismatch:
    """One difference between the cluster and the tasks' needs."""

    where: str
    """The topic, or ``broker 1``."""
    what: str
    """``topic`` if the topic is missing, ``partitions``, or the name of a setting."""
    found: str
    needed: str
    advice: str = ""
    """Advice to the operator, for a difference that ``repair_topics`` does not repair; otherwise empty."""


async def retry_while_unavailable(step: Callable[[], Awaitable[None]], patience_s: float) -> None:
    """Run ``step`` again after each error that Kafka calls retriable, for ``patience_s`` at most.

    A cluster that has just started, or whose only broker was slow to answer its controller, has no leaders for a while.
    The first of these errors is logged.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + patience_s
    waiting = False
    while True:
        try:
            return await step()
        except errors.KafkaError as error:
            if not error.retriable or clock() > until:
                raise
            if not waiting:
                log.warning("Kafka is not ready (%s); the start tries again for %.0f s", error, patience_s)
            waiting = True
        await asyncio.sleep(RETRY_S)


async def create_topics(
    client_settings: ClientSettings, specs: Sequence[TopicSpec], replication_factor: int
) -> list[str]:
    """Create the topics that do not exist, and return their names. Existing topics are not altered."""
    admin = AIOKafkaAdminClient(**client_settings)
    async with _reaching(client_settings):
        await admin.start()
    try:
        wanted = [
            NewTopic(spec.name, spec.partitions, replication_factor, topic_configs=_config(spec, replication_factor))
            for spec in specs
        ]
        reply = await admin.create_topics(wanted)
    finally:
        await admin.close()
    created = []
    for name, code, *message in reply.topic_errors:
        if code == 0:
            created.append(name)
        elif code != errors.TopicAlreadyExistsError.errno:
            raise TopicMismatch(
                f"The topic {name} could not be created: {message[0] or errors.for_code(code).__name__}."
            )
    return created


async def check_topics(client_settings: ClientSettings, specs: Sequence[TopicSpec], *, wait_s: float = 0.0) -> None:
    """Raise ``TopicMismatch`` unless every topic exists as specified, ``BrokerTooOld`` for an old cluster.

    ``wait_s``: how long freshly created topics may take to become known to the broker that is asked.
    """
    async with _connected(client_settings) as client:
        await refuse_old_brokers(client)
        until = asyncio.get_running_loop().time() + wait_s
        found = await describe_topics(client, [spec.name for spec in specs])
        while len(found) < len(specs) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(POLL_S)
            found = await describe_topics(client, [spec.name for spec in specs])
    if missing := [spec.name for spec in specs if spec.name not in found]:
        raise TopicMismatch(f"These topics do not exist; create them before the worker starts: {', '.join(missing)}.")
    for spec in specs:
        if found[spec.name].partitions != spec.partitions:
            raise TopicMismatch(
                f"The topic {spec.name} has {found[spec.name].partitions} partitions where {spec.partitions} are "
                f"needed: all topics and tables of the tasks must have the same number, so recreate the topic or "
                f"change the configured number of partitions."
            )


async def compare_topics(
    client_settings: ClientSettings, specs: Sequence[TopicSpec], brokers: Mapping[str, tuple[int, int]]
) -> list[ConfigMismatch]:
    """Return differences of the topics from ``specs``, and of the brokers' settings from ``brokers`` (name -> range).

    Apart from ``cleanup.policy``, a setting that the spec does not name is the operator's choice. Raises
    ``BrokerTooOld`` and ``BrokerUnreachable``.
    """
    async with _connected(client_settings) as client:
        await refuse_old_brokers(client)
        known = await describe_topics(client, [spec.name for spec in specs])
        needed = {spec.name: {"cleanup.policy": "delete", **spec.config} for spec in specs if spec.name in known}
        asked: list[Any] = [(TOPIC, name, list(config), {}) for name, config in needed.items()]
        found = await _describe(client, client.get_random_node(), asked)
        differences = [
            *(ConfigMismatch(spec.name, "topic", "none", "one") for spec in specs if spec.name not in known),
            *(
                ConfigMismatch(
                    spec.name, "partitions", str(known[spec.name].partitions), str(spec.partitions), _PARTITIONS
                )
                for spec in specs
                if spec.name in known and known[spec.name].partitions != spec.partitions
            ),
            *(
                ConfigMismatch(name, key, found[name].get(key, ""), value)
                for name, config in needed.items()
                for key, value in config.items()
                if found[name].get(key) != value
            ),
        ]
        for broker in sorted(broker.nodeId for broker in client.cluster.brokers()):
            settings = await _describe(client, broker, [(BROKER, str(broker), list(brokers), {})])
            differences += _out_of_range(f"broker {broker}", settings[str(broker)], brokers)
        return differences


async def repair_topics(
    client_settings: ClientSettings,
    specs: Sequence[TopicSpec],
    replication_factor: int,
    differences: Sequence[ConfigMismatch],
) -> None:
    """Create the missing topics and correct the settings; differences with advice stay."""
    missing = {difference.where for difference in differences if difference.what == "topic"}
    if missing:
        created = [spec for spec in specs if spec.name in missing]
        await create_topics(client_settings, created, replication_factor)
        await check_topics(client_settings, created, wait_s=CREATED_WITHIN_S)
    settings: dict[str, dict[str, str]] = {}
    for each in differences:
        if each.what != "topic" and not each.advice:
            settings.setdefault(each.where, {})[each.what] = each.needed
    if settings:
        async with _connected(client_settings) as client:
            await _set(client, settings)


async def _set(client: AIOKafkaClient, settings: Mapping[str, Mapping[str, str]]) -> None:
    """Alter the settings, and wait until the broker reports them."""
    node = client.get_random_node()
    changes: list[Any] = [
        (TOPIC, name, [(key, SET, value, {}) for key, value in config.items()], {}) for name, config in settings.items()
    ]
    reply = await client.send(node, IncrementalAlterConfigs(changes, False))
    for code, message, _, name, _ in reply.results:
        if code:
            why = message or errors.for_code(code).__name__
            raise TopicMismatch(f"The settings of the topic {name} cannot be changed: {why}.")
    asked: list[Any] = [(TOPIC, name, list(config), {}) for name, config in settings.items()]
    for _ in range(int(CREATED_WITHIN_S / POLL_S)):
        if await _describe(client, node, asked) == settings:
            return
        await asyncio.sleep(POLL_S)


_PARTITIONS = "all must have the same number: drain and recreate the topic, or configure this number of partitions"


async def _describe(client: AIOKafkaClient, node: int, resources: Sequence[Any]) -> dict[str, dict[str, str]]:
    """Return resource -> setting -> effective value."""
    if not resources:
        return {}
    reply = await client.send(node, DescribeConfigs(list(resources), False, False))
    for code, message, _, name, *_ in reply.results:
        if code:
            why = message or errors.for_code(code).__name__
            raise TopicMismatch(f"The settings of {name} cannot be read: {why}.")
    return {name: {config[0]: config[1] for config in configs} for _, _, _, name, configs, _ in reply.results}


def _out_of_range(
    where: str, settings: Mapping[str, str], ranges: Mapping[str, tuple[int, int]]
) -> Iterator[ConfigMismatch]:
    for name, (low, high) in ranges.items():
        value = settings.get(name)
        if value is not None and not low <= int(value) <= high:
            needed = f"at least {low}" if int(value) < low else f"at most {high}"
            yield ConfigMismatch(where, name, value, needed, "set it in the broker's configuration")


@asynccontextmanager
async def _connected(client_settings: ClientSettings) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(**client_settings)
    async with _reaching(client_settings):
        await client.bootstrap()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _reaching(client_settings: ClientSettings) -> AsyncIterator[None]:
    try:
        yield
    except errors.KafkaConnectionError:
        servers = client_settings["bootstrap_servers"]
        where = servers if isinstance(servers, str) else ", ".join(servers)
        raise BrokerUnreachable(f"No Kafka broker answers at {where}: start it, or configure its address.") from None


def _config(spec: TopicSpec, replication_factor: int) -> dict[str, str]:
    """Return the settings of a new topic. All replicas but one must have a record before it is acknowledged."""
    return {"min.insync.replicas": str(max(1, replication_factor - 1)), **spec.config}
