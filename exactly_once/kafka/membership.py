"""The end of a worker's membership in the consumer group: until it returns, or for good.

A member with a ``group.instance.id`` keeps its partitions until its session ends, which is right for a restart, and
aiokafka never sends LeaveGroup for it. This module sends LeaveGroup for a worker that does not return, so that the
others take over at once.
"""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

import aiokafka
import aiokafka.errors as errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.types import CompactArray, Int16, Int32

from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.protocol import TAGS, TEXT, versioned_request

log = logging.getLogger(__name__)

JOINING_S = 0.3
"""Limit of an orderly end. Only a worker that has just requested to join, and waits for the others, takes longer."""
LEAVE_S = 1.0
"""Limit of the wait for the group's answer; without it the session ends as after a crash."""

NO_MEMBER = frozenset({25, 82})
"""Error codes: no member has the instance id, or another member has it."""
_MEMBER = (("member_id", TEXT), ("instance_id", TEXT))
LeaveGroup = versioned_request(
    13,
    4,
    (("group", TEXT), ("members", CompactArray(*_MEMBER, TAGS))),
    (("throttle", Int32), ("error_code", Int16), ("members", CompactArray(*_MEMBER, ("error_code", Int16), TAGS))),
)


async def end_membership(consumer: aiokafka.AIOKafkaConsumer, *, leave: bool) -> None:
    """Stop heartbeats and joins. With ``leave`` also leave the group, which reassigns the partitions at once."""
    coordinator = consumer._coordinator
    if coordinator is None:
        return  # the consumer has not begun to join
    member_id = coordinator.member_id
    closing = asyncio.ensure_future(coordinator.close())
    if not await _done(closing):
        _hang_up(consumer)  # the coordinator waits for an answer that comes once every member has joined
        if not await _done(closing):
            coordinator._coordination_task.cancel()
            closing.cancel()
    if leave:
        try:
            async with asyncio.timeout(LEAVE_S):
                await leave_group(consumer._client, consumer._group_id, consumer._group_instance_id, member_id)
        except (errors.KafkaError, TimeoutError) as exc:
            log.warning("this worker could not leave the group, its tasks move when its session ends: %r", exc)


async def leave_group(client: AIOKafkaClient, group: str, instance_id: str, member_id: str = "") -> bool:
    """End the membership of an instance id for good; return False if the group has no member of that id.

    With a ``member_id``, do so only if the instance id is still that member's and not its successor's. Raises
    ``KafkaError``.
    """
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    request = LeaveGroup(group, [(member_id, instance_id, {})])
    reply = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    code = reply.error_code or reply.members[0][2]
    log.info("leaving the group %s: %s", group, errors.for_code(code).__name__)
    if code not in (0, *NO_MEMBER):
        raise errors.for_code(code)(f"{instance_id} could not leave {group}")
    return not code


async def leave_with_other_sources(
    client_settings: ClientSettings, group: str, instance_id: str, file: Path, sources: Collection[str]
) -> None:
    """End the membership, before joining, of a worker whose last run read other topics. ``file`` keeps their names.

    Otherwise the worker would get its former assignment, without new topics or with topics it no longer reads.
    """
    if _noted(file) not in (None, sorted(sources)):
        client = AIOKafkaClient(**client_settings)
        try:
            await client.bootstrap()
            await leave_group(client, group, instance_id)
        finally:
            await client.close()
    _note(file, sorted(sources))


def _noted(file: Path) -> list[str] | None:
    return file.read_text().split() if file.exists() else None


def _note(file: Path, sources: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(sources) + "\n")


async def _done(closing: "asyncio.Future[None]") -> bool:
    return bool((await asyncio.wait([closing], timeout=JOINING_S))[0])


def _hang_up(consumer: aiokafka.AIOKafkaConsumer) -> None:
    for (_, purpose), connection in list(consumer._client._conns.items()):
        if purpose is ConnectionGroup.COORDINATION:
            connection.close()
