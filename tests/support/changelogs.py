"""The tables of an installation, read from its changelogs and from a worker's disk without the engine.

A consumer folds the topics into rows; RocksDB itself opens the files.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from rocksdict import Options, Rdict

POLL_MS = 200
NO_ROW = b"\xff\xff"
"""Prefix of the store's keys that are not rows."""

Tables = dict[str, dict[bytes, bytes]]
Upto = Mapping[str, int]
"""Table -> offset in its changelog at which to stop."""


async def folded(kafka: str, application: str, partitions: int, upto: Mapping[int, Upto] | None = None) -> list[Tables]:
    """Return each partition's tables, folded from the committed records; `upto` stops before some offsets."""
    prefix, suffix = f"{application}-", "-changelog"
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    try:
        topics = [t for t in await consumer.topics() if t.startswith(prefix) and t.endswith(suffix)]
        table_of = {topic: topic.removeprefix(prefix).removesuffix(suffix) for topic in topics}
        places = [TopicPartition(topic, partition) for topic in topics for partition in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: list[Tables] = [{table: {} for table in table_of.values()} for _ in range(partitions)]
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                table = table_of[tp.topic]
                before = ends[tp] if upto is None else upto[tp.partition].get(table, 0)
                fold(found[tp.partition][table], [r for r in records if r.offset < before])
        return [with_rows(tables) for tables in found]
    finally:
        await consumer.stop()


def fold(rows: dict[bytes, bytes], records: list[Any]) -> None:
    """Apply records to rows; a record without a value deletes its row."""
    for record in records:
        if record.value is None:
            rows.pop(record.key, None)
        else:
            rows[record.key] = record.value


def with_rows(tables: Tables) -> Tables:
    """Return the tables that have rows."""
    return {table: rows for table, rows in tables.items() if rows}


def on_disk(worker: Path, partitions: int) -> tuple[list[Tables], list[dict[str, int]]]:
    """Return each partition's tables with rows, and each table's checkpoint.

    The files are copied first, because opening them changes the files of a worker that was killed.
    """
    (stores,) = worker.glob("**/tasks")
    found, checkpoints = list[Tables](), list[dict[str, int]]()
    for partition in range(partitions):
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(stores / str(partition), Path(copy) / "store")
            tables = _opened(str(Path(copy) / "store"))
        notes = {name: note for name, rows in tables.items() for key, note in rows.items() if key.startswith(NO_ROW)}
        checkpoints.append({name: json.loads(note)["next_offset"] for name, note in notes.items()})
        rows = {name: {k: v for k, v in rows.items() if not k.startswith(NO_ROW)} for name, rows in tables.items()}
        found.append(with_rows(rows))
    return found, checkpoints


def _opened(path: str) -> Tables:
    options = Options(raw_mode=True)
    families = [family for family in Rdict.list_cf(path, options) if family != "default"]
    db = Rdict(path, options=options, column_families=dict.fromkeys(families, options))
    try:
        return {family: _rows(db.get_column_family(family)) for family in families}
    finally:
        db.close()


def _rows(family: Any) -> dict[bytes, bytes]:
    return dict(family.items())


def hash_of(tables: Tables) -> str:
    """Return the hash that `dabbawala tasks --hash` shows for a partition with these tables."""
    parts = [
        part
        for table in sorted(tables)
        for key, value in sorted(tables[table].items())
        for part in (table.encode(), key, value)
    ]
    return blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), digest_size=16).hexdigest()
