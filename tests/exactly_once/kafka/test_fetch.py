"""An undecodable batch blocks only its own partition, and no earlier record is lost."""

import asyncio
import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchError, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from exactly_once.kafka import fetch
from exactly_once.kafka.fetch import FetchedRecords

BAD, GOOD = TopicPartition("in", 0), TopicPartition("in", 1)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def batch(*values: bytes, offset: int = 0, codec: str = "none", header: str = "trace") -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS[codec],
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for number, value in enumerate(values):
        builder.append(number, 1_000, b"k", value, [(header, b"1")])
    return offset.to_bytes(8, "big") + bytes(builder.build())[8:]


def unreadable(*values: bytes, offset: int) -> bytes:
    """Return a batch whose records have a header name that is not UTF-8."""
    return batch(*values, offset=offset, header="trac\x7f").replace(b"trac\x7f", b"trac\xff")


class FakeFetcher:
    """The used part of aiokafka's fetcher; positions are the offsets of the next fetch."""

    def __init__(self, **_: Any) -> None:
        self._records: dict[TopicPartition, Any] = {}
        self._closed = False
        self._wait_consume_future = None
        self.states = {tp: SimpleNamespace(position=0, paused=False) for tp in (BAD, GOOD)}
        for state in self.states.values():
            state.consumed_to = lambda position, state=state: setattr(state, "position", position)
        assignment = SimpleNamespace(active=True, state_value=self.states.__getitem__)
        subscription = SimpleNamespace(assignment=assignment)
        self._subscriptions = SimpleNamespace(
            reassignment_in_progress=False, is_assigned=lambda tp: True, subscription=subscription
        )
        self.waiters: list[asyncio.Future[None]] = []

    def _notify(self, future: object) -> None: ...

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        self.waiters.append(asyncio.get_running_loop().create_future())
        return self.waiters[-1]

    def arrived(self, tp: TopicPartition, *batches: bytes) -> None:
        position = self.states[tp].position
        records = PartitionRecords(
            tp, MemoryRecords(b"".join(batches)), [], position, None, None, False, READ_COMMITTED
        )
        assignment = self._subscriptions.subscription.assignment
        self._records[tp] = FetchResult(tp, assignment=assignment, partition_records=records, backoff=0)


async def take(
    fetched: FetchedRecords, fetcher: FakeFetcher, limit: int = 100
) -> dict[TopicPartition, Sequence[bytes]]:
    taken = await fetched.take(fetcher, {BAD, GOOD}, 0.0, limit)
    return {tp: [record.value for record in records] for tp, records in taken.items()}


@pytest.mark.parametrize("codec", CODECS)
async def test_batches_of_every_codec_are_read(codec: str) -> None:
    fetcher = FakeFetcher()
    fetcher.arrived(GOOD, batch(b"a", b"b" * 5_000, codec=codec))
    assert await take(FetchedRecords(), fetcher) == {GOOD: [b"a", b"b" * 5_000]}
    assert fetcher.states[GOOD].position == 2
    assert fetcher._records == {}


async def test_an_undecodable_batch_blocks_only_its_own_partition(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher, fetched = FakeFetcher(), FetchedRecords()
    fetcher.arrived(GOOD, batch(b"x", b"y"))
    fetcher.arrived(BAD, batch(b"a", b"b"), unreadable(b"c", offset=2), batch(b"d", offset=3))
    assert await take(fetched, fetcher) == {GOOD: [b"x", b"y"], BAD: [b"a", b"b"]}
    assert (fetcher.states[BAD].position, fetcher.states[GOOD].position) == (2, 2)
    fetcher.arrived(GOOD, batch(b"z", offset=2))
    assert await take(fetched, fetcher) == {GOOD: [b"z"]}
    assert await take(fetched, fetcher) == {}
    logged = (each for each in caplog.records if each.name == fetch.__name__)  # garbage of other tests may log too
    (message,) = [each.getMessage() for each in logged if each.levelno == logging.ERROR]
    assert "in/0 cannot be read at offset 2: UnicodeDecodeError" in message
    assert (
        'kafka-delete-records.sh with {"version": 1, "partitions": [{"topic": "in", "partition": 0, "offset": 3}]}'
        in message
    )
    monkeypatch.setattr(fetch, "RETRY_AFTER_S", -1.0)
    assert await take(fetched, fetcher) == {}
    assert BAD not in fetcher._records, "to be fetched again"
    fetcher.arrived(BAD, batch(b"c", b"d", offset=2))
    assert await take(fetched, fetcher) == {BAD: [b"c", b"d"]}


async def test_a_seek_retries_a_partition_at_once(caplog: pytest.LogCaptureFixture) -> None:
    fetcher, fetched = FakeFetcher(), FetchedRecords()
    fetcher.arrived(BAD, unreadable(b"a", offset=0))
    assert await take(fetched, fetcher) == {}
    fetcher.states[BAD].position = 1
    fetcher.arrived(BAD, batch(b"b", offset=1))
    assert await take(fetched, fetcher) == {BAD: [b"b"]}


async def test_a_broker_error_for_a_partition_does_not_end_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fetcher, fetched = FakeFetcher(), FetchedRecords()
    fetcher._records[BAD] = FetchError(error=PermissionError("not authorized"), backoff=0)
    fetcher.arrived(GOOD, batch(b"x"))
    assert await take(fetched, fetcher) == {GOOD: [b"x"]}
    assert "not authorized" in caplog.text


async def test_a_fetch_respects_the_limit_and_returns_the_rest_later() -> None:
    fetcher, fetched = FakeFetcher(), FetchedRecords()
    fetcher.arrived(BAD, batch(b"a", b"b", b"c"))
    fetcher.arrived(GOOD, batch(b"x"))
    assert await take(fetched, fetcher, limit=2) == {BAD: [b"a", b"b"]}
    assert await take(fetched, fetcher, limit=2) == {BAD: [b"c"], GOOD: [b"x"]}


async def test_an_early_fetch_returns_the_records_that_arrive() -> None:
    fetcher, fetched = FakeFetcher(), FetchedRecords()
    taking = asyncio.create_task(fetched.take(fetcher, {GOOD}, 5.0, 100))
    await asyncio.sleep(0)
    fetcher.arrived(GOOD, batch(b"x"))
    fetcher.waiters[0].set_result(None)
    assert [record.value for record in (await taking)[GOOD]] == [b"x"]
    assert await fetched.take(fetcher, {GOOD}, 0.001, 100) == {}
    assert fetcher.waiters[1].cancelled()
