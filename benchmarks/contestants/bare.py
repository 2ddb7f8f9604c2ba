"""Count and forward without Faust: one consumer, one transaction a poll. See `benchmarks.contestants`.

It uses the transaction client and the store of the engine and nothing else: no timers, calls, rebalances or recovery.
The difference to the engine is the cost of these features.
"""

import asyncio
import time
from collections import defaultdict

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient

from benchmarks.contestants.work import DATA, IN, KAFKA, OUT, PARTITIONS, RECORDS, RUN, Watch, decode, forwarded_key
from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.producer import TransactionalClient
from exactly_once.kafka.topic_admin import CHANGELOG_CONFIG, TopicSpec, create_topics
from exactly_once.state.rocksdb import PartitionStore
from exactly_once.task.transaction import ProducerRecord

CHANGELOG = f"{RUN}-counts-changelog"
POLL = 4000
"""Maximum of records a poll, as in the engine."""


def _store(partition: int) -> PartitionStore:
    path, topic_ids = DATA / f"bare-{partition}", {"counts": ""}
    return PartitionStore(path, partition, topic_ids, topic_ids, lambda: int(time.time() * 1000))


async def main() -> None:
    """Count and forward all records."""
    await create_topics({"bootstrap_servers": KAFKA}, [TopicSpec(CHANGELOG, PARTITIONS, CHANGELOG_CONFIG)], 1)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=KAFKA,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=4 << 20,
        auto_offset_reset="earliest",
    )
    client = TransactionalClient(AIOKafkaClient(bootstrap_servers=KAFKA), f"{RUN}-bare")
    await consumer.start()
    await client.start([OUT, CHANGELOG])
    consumer.assign([TopicPartition(IN, partition) for partition in range(PARTITIONS)])
    stores = [_store(partition) for partition in range(PARTITIONS)]
    watch, done, partitions = Watch(), 0, dict[bytes, int]()
    while done < RECORDS:
        fetched = await consumer.getmany(timeout_ms=100, max_records=POLL)
        if not fetched:
            continue
        watch.start()
        outputs: defaultdict[tuple[str, int], list[ProducerRecord]] = defaultdict(list)
        changed: defaultdict[int, dict[bytes, bytes | None]] = defaultdict(dict)
        for tp, records in fetched.items():
            store, rows = stores[tp.partition], changed[tp.partition]
            for record in records:
                key = forwarded_key(decode(record.value))
                before = rows.get(record.key) or store.get("counts", record.key) or b"0"
                rows[record.key] = b"%d" % (int(before) + 1)
                partition = partitions.get(key)
                if partition is None:
                    partition = partitions[key] = java_partition(key, PARTITIONS)
                outputs[OUT, partition].append((key, record.value, ()))
            done += len(records)
        for number, rows in changed.items():
            outputs[CHANGELOG, number] = [(key, value, ()) for key, value in rows.items()]
        appended = await client.produce(outputs)
        await client.end()
        for number, rows in changed.items():
            followed = appended[CHANGELOG, number]
            stores[number].write({"counts": rows}, {"counts": followed.next_offset}, {"counts": followed.broker_ms})
    watch.finish(done)


if __name__ == "__main__":
    asyncio.run(main())
