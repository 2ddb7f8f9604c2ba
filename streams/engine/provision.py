"""The topics that the engine needs: created, and checked, before anything is consumed."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiokafka.errors as errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient

from streams.engine.transactions import describe_topics, refuse_old_brokers

CHANGELOG_CONFIG = {"cleanup.policy": "compact", "segment.bytes": str(64 << 20)}
"""Smaller segments than Kafka's 1 GiB: only closed ones are compacted, and a restore reads what is not."""
CREATED_WITHIN_S = 30.0


class TopicsDiffer(Exception):
    """A topic is missing or has the wrong number of partitions. The message is one sentence that says what to do."""


class NoBroker(Exception):
    """Nobody answers where Kafka should be. The message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that has to exist. ``config`` are its topic-level settings."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


async def create_topics(
    client_settings: Mapping[str, Any], specs: Sequence[TopicSpec], replication_factor: int
) -> list[str]:
    """Create those that do not exist; returns their names. Existing ones are left as they are."""
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
            raise TopicsDiffer(
                f"The topic {name} could not be created: {message[0] or errors.for_code(code).__name__}."
            )
    return created


async def check_topics(client_settings: Mapping[str, Any], specs: Sequence[TopicSpec], *, wait_s: float = 0.0) -> None:
    """Raise ``TopicsDiffer`` unless every topic exists with its number of partitions, ``OldBroker`` for an old cluster.

    ``wait_s``: how long freshly created topics may take to become known to the broker that is asked.
    """
    client = AIOKafkaClient(**client_settings)
    async with _reaching(client_settings):
        await client.bootstrap()
    try:
        await refuse_old_brokers(client)
        until = asyncio.get_running_loop().time() + wait_s
        found = await describe_topics(client, [spec.name for spec in specs])
        while len(found) < len(specs) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.05)
            found = await describe_topics(client, [spec.name for spec in specs])
    finally:
        await client.close()
    if missing := [spec.name for spec in specs if spec.name not in found]:
        raise TopicsDiffer(f"These topics do not exist, create them before the worker starts: {', '.join(missing)}.")
    for spec in specs:
        if found[spec.name].partitions != spec.partitions:
            raise TopicsDiffer(
                f"The topic {spec.name} has {found[spec.name].partitions} partitions where {spec.partitions} are "
                f"needed: all topics and tables of the tasks must have the same number, so create it anew or change "
                f"the number of partitions."
            )


@asynccontextmanager
async def _reaching(client_settings: Mapping[str, Any]) -> AsyncIterator[None]:
    try:
        yield
    except errors.KafkaConnectionError:
        servers = client_settings["bootstrap_servers"]
        where = servers if isinstance(servers, str) else ", ".join(servers)
        raise NoBroker(f"No Kafka broker answers at {where}: start it, or say where it is.") from None


def _config(spec: TopicSpec, replication_factor: int) -> dict[str, str]:
    """With three copies or more one may be lost and two must have a record before it counts."""
    return {"min.insync.replicas": str(max(1, replication_factor - 1)), **spec.config}
