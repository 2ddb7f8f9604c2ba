"""Bring one partition's store up to its changelogs' ends."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.engine.store import OLDEST_S, PartitionStore, Progress

log = logging.getLogger(__name__)

POLL_MS = 10
FETCH_BYTES = 4 << 20


class Restored(NamedTuple):
    """How many changelog records were read, and where the source topics begin and end."""

    records: int
    starts: dict[str, int]
    ends: dict[str, int]


async def restore(
    client_settings: Mapping[str, Any],
    store: PartitionStore,
    partition: int,
    changelogs: Mapping[str, str],
    sources: Sequence[str],
    passed: Callable[[], None],
) -> Restored:
    """``changelogs``: table -> topic. ``passed`` is called after each batch (a failpoint).

    To be called after the previous owner was fenced: then the last stable offset is the end for good. A read_committed
    consumer's position steps over aborted records and transaction markers, so it gets there.
    """
    tables = {TopicPartition(topic, partition): table for table, topic in changelogs.items()}
    origins = [TopicPartition(topic, partition) for topic in sources]
    consumer = AIOKafkaConsumer(
        **client_settings,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    try:
        await consumer.start()
        # the sources are assigned too: asking about a topic that is not costs two metadata back-offs, 200 ms
        consumer.assign([*tables, *origins])
        consumer.pause(*tables, *origins)
        starts = await consumer.beginning_offsets([*tables, *origins])
        ends = await consumer.end_offsets([*tables, *origins])
        progress = {tp: store.progress(table) for tp, table in tables.items()}
        doubts = [
            f"{tp.topic}: {doubt}"
            for tp, noted in progress.items()
            if noted and (doubt := _doubt(noted, starts[tp], ends[tp], store.topic_ids[tables[tp]]))
        ]
        if doubts:
            log.warning("task %d: the local state is not its changelogs', restored anew (%s)", partition, doubts[0])
            store.wipe()
            progress = dict.fromkeys(tables)
        behind = set()
        for tp, noted in progress.items():
            start = noted.next_offset if noted else starts[tp]
            if start < ends[tp]:
                consumer.seek(tp, start)
                consumer.resume(tp)
                behind.add(tp)
        count = 0
        while behind:
            for tp, records in (await consumer.getmany(*behind, timeout_ms=POLL_MS)).items():
                store.write({tables[tp]: {r.key: r.value for r in records}}, {tables[tp]: records[-1].offset + 1})
                count += len(records)
                passed()
            behind = {tp for tp in behind if await consumer.position(tp) < ends[tp]}
        store.write({}, {table: ends[tp] for tp, table in tables.items()})
        return Restored(count, {tp.topic: starts[tp] for tp in origins}, {tp.topic: ends[tp] for tp in origins})
    finally:
        await consumer.stop()


def _doubt(noted: Progress, start: int, end: int, topic_id: str) -> str:
    """Why a store with this progress cannot be brought up to date by reading on; empty where it can."""
    if noted.topic_id != topic_id:
        return "the topic has been created anew"
    if noted.next_offset > end:
        return f"followed to {noted.next_offset}, but the topic ends at {end}"
    if noted.next_offset < start:
        return f"followed to {noted.next_offset}, but the topic begins at {start}"
    if noted.written_at < time.time() - OLDEST_S:
        return f"not followed for {(time.time() - noted.written_at) / 3600:.0f} h, deletions may be missing"
    return ""
