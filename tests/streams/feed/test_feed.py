"""Events that a listener gets at any position (in the ring, before it, at its end) and during outages of Kafka."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from streams.feed import feed as feeds
from streams.feed import update_log
from streams.feed.feed import MAX_BATCH, Feed, Gap, Listener, Ring
from streams.feed.update_log import Update, UpdateLog
from tests.streams.fake_kafka import HOUR_MS, TOPIC, FakeKafka, an_update
from topics.order_updates import READER, OrderStatus, OrderUpdated
from topics.records import instant, write

PARTITIONS = 2
HELD = 40
"""Number of updates in the rings, 20 in each."""
SILENCE_S = 0.05


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_log, "POLL_MS", 20)
    monkeypatch.setattr(feeds, "RETRY_S", 0.01)


@pytest.fixture
def kafka() -> FakeKafka:
    """An empty topic."""
    return FakeKafka(PARTITIONS)


@pytest.fixture
async def feed(kafka: FakeKafka) -> AsyncIterator[Feed]:
    """Feed of the topic."""
    feed = Feed(UpdateLog(TOPIC, dict, kafka.consumer), PARTITIONS, HELD)
    yield feed
    await feed.stop()


def anything(_: OrderUpdated) -> bool:
    """Accept every update."""
    return True


async def receive(listener: Listener, count: int, within_s: float = 60.0) -> list[Update]:
    """Listen until `count` updates have arrived."""
    received: list[Update] = []
    async with asyncio.timeout(within_s):
        while len(received) < count:
            received += await listener.next(SILENCE_S) or []
    return received


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def at_the_head(listener: Listener) -> None:
    """Listen until no update is left and the head is followed."""
    async with asyncio.timeout(60):
        while not listener.positions or not listener._feed.is_waiting(listener):
            assert not await listener.next(0.01)


def offsets(updates: list[Update], partition: int) -> list[int]:
    """Return the offsets of the updates of a partition."""
    return [update.offset for update in updates if update.partition == partition]


def written(kafka: FakeKafka, partition: int, order: str = "") -> list[int]:
    """Return the offsets of a partition's records, or of those of one order."""
    records = kafka.records[partition]
    return [record.offset for record in records if not order or READER.read(record.value).order == order]


def test_a_ring_has_the_newest_updates_and_its_first_offset() -> None:
    ring = Ring(5, 3, 1000)
    assert (ring.first, ring.end, list(ring.since(5))) == (5, 5, [])
    updates = [Update(0, offset, b"", an_update(f"a:{offset % 2}", offset)) for offset in (6, 8, 10, 12, 14)]
    for update in updates[:3]:
        ring.append(update)
    assert (ring.first, ring.end) == (5, 11)
    for update in updates[3:]:
        ring.append(update)
    assert (ring.first, ring.end) == (9, 15)
    assert list(ring.since(ring.first)) == updates[2:]
    assert list(ring.since(11)) == updates[3:]
    assert list(ring.since(15)) == []
    assert ring.newest("a:0") == updates[-1]
    assert ring.newest("a:1") is None


def test_a_ring_is_limited_in_bytes_but_keeps_the_newest_update() -> None:
    ring = Ring(0, 100, 1000)
    for offset, size in enumerate([400, 400, 200, 100]):
        ring.append(Update(0, offset, b"x" * size, an_update("a:x", offset)))
    assert (ring.first, [update.offset for update in ring.since(0)]) == (1, [1, 2, 3])
    ring.append(Update(0, 4, b"x" * 5000, an_update("a:x", 4)))
    assert (ring.first, ring.end, [update.offset for update in ring.since(0)]) == (4, 5, [4])
    ring.append(Update(0, 5, b"x" * 900, an_update("a:x", 5)))
    ring.append(Update(0, 6, b"x" * 100, an_update("a:x", 6)))
    assert (ring.first, [update.offset for update in ring.since(0)]) == (5, [5, 6])


async def test_a_new_listener_gets_its_position_and_then_updates(kafka: FakeKafka, feed: Feed) -> None:
    kafka.append(0, an_update("a:old", 1))
    with feed.of_all(anything) as listener:
        assert listener.positions == {}
        assert await listener.next(5) == []
        assert listener.positions == {0: 1, 1: 0}
        kafka.append(0, an_update("a:new", 1))
        kafka.append(1, an_update("a:newer", 1))
        assert [update.record.order for update in await receive(listener, 2)] == ["a:new", "a:newer"]
        assert await listener.next(SILENCE_S) == []


async def test_a_selective_listener_still_gets_positions(kafka: FakeKafka, feed: Feed) -> None:
    with feed.of_all(lambda update: update.order == "a:wanted") as listener:
        await at_the_head(listener)
        for version in range(3):
            kafka.append(1, an_update("a:other", version + 1))
        async with asyncio.timeout(60):
            while listener.positions[1] != 5:
                assert await listener.next(0.01) == []
        kafka.append(1, an_update("a:wanted", 1))
        (update,) = await receive(listener, 1)
        assert (update.partition, update.offset) == (1, 6)


@pytest.mark.parametrize("seed", range(12))
async def test_all_listeners_get_every_update_once_and_in_order(kafka: FakeKafka, feed: Feed, seed: int) -> None:
    chance = random.Random(seed)
    total = 400
    orders = [f"a:{number}" for number in range(7)]

    def say(number: int) -> None:
        order = chance.choice(orders)
        partition = orders.index(order) % PARTITIONS
        kafka.append(partition, an_update(order, number + 1), marker=chance.random() < 0.7)

    for number in range(150):
        say(number)
    starts = [{p: chance.randrange(end + 1) for p, end in kafka.ends.items()} for _ in range(6)]
    finished = asyncio.Event()

    def due(partition: int, position: int, order: str = "") -> list[int]:
        return [offset for offset in written(kafka, partition, order) if offset >= position]

    async def listen(listener: Listener, pause_s: float, count: Callable[[], int]) -> list[Update]:
        """Listen until all updates are written and have arrived, and a little longer: none may arrive twice."""
        received: list[Update] = []
        with listener:
            async with asyncio.timeout(120):
                while not finished.is_set() or len(received) < count():
                    batch = await listener.next(SILENCE_S) or []
                    assert len(batch) <= MAX_BATCH
                    received += batch
                    await asyncio.sleep(pause_s * chance.random())
            return received + (await listener.next(SILENCE_S) or [])

    everybody = [
        asyncio.create_task(
            listen(
                feed.of_all(anything, start),
                0.05 * (number % 3),
                lambda start=start: sum(len(due(*place)) for place in start.items()),  # type: ignore[misc]
            )
        )
        for number, start in enumerate(starts)
    ]
    single = [
        asyncio.create_task(
            listen(
                feed.of_order(order, orders.index(order) % PARTITIONS, after=9),
                0.02,
                lambda order=order: len(due(orders.index(order) % PARTITIONS, 10, order)),  # type: ignore[misc]
            )
        )
        for order in orders
    ]
    for number in range(150, total):
        say(number)
        if chance.random() < 0.3:
            await asyncio.sleep(0.004 * chance.random())
    finished.set()
    for start, received in zip(starts, await asyncio.gather(*everybody), strict=True):
        for partition, position in start.items():
            assert offsets(received, partition) == due(partition, position)
    for order, received in zip(orders, await asyncio.gather(*single), strict=True):
        partition = orders.index(order) % PARTITIONS
        assert offsets(received, partition) == due(partition, 10, order)
    assert kafka.most_open <= feeds.MAX_READERS + 1


async def test_a_stalled_listener_buffers_nothing_and_misses_nothing(kafka: FakeKafka, feed: Feed) -> None:
    with feed.of_all(anything) as idle, feed.of_all(anything) as busy:
        await at_the_head(idle)
        await at_the_head(busy)
        received = []
        for version in range(1000):
            kafka.append(version % 2, an_update("a:x", version + 1))
            if version % 10 == 9:
                received += await receive(busy, 10)
        assert [update.record.version for update in sorted(received, key=lambda u: u.record.version)] == list(
            range(1, 1001)
        )
        assert all(ring.end - ring.first <= 2 * HELD for ring in feed.rings.values())
        assert sum(len(list(ring.since(0))) for ring in feed.rings.values()) == HELD
        assert idle not in feed._waiting.get(None, {}), "the listener was woken only once"
        late = await receive(idle, 1000)
        for partition in range(PARTITIONS):
            assert offsets(late, partition) == written(kafka, partition)


async def test_an_order_feed_starts_with_its_update_in_the_ring(kafka: FakeKafka, feed: Feed) -> None:
    first = an_update("a:x", 1)
    kafka.append(0, first)
    offset = kafka.append(0, an_update("a:x", 2))
    kafka.append(0, an_update("a:other", 9))
    with feed.of_order("a:x", 0, snapshot=first) as listener:
        (update,) = await receive(listener, 1)
        assert (update.offset, update.record.version) == (offset, 2)
        kafka.append(0, an_update("a:x", 3))
        assert [update.record.version for update in await receive(listener, 1)] == [3]
    assert kafka.opened == 1, "only the consumer that follows the head"


async def test_an_order_outside_the_ring_is_found_by_time(kafka: FakeKafka, feed: Feed) -> None:
    for number in range(300):
        kafka.append(0, an_update(f"a:{number}", 1, at_ms=HOUR_MS + number * 1000))
    with feed.of_order("a:100", 0, snapshot=an_update("a:100", 1, at_ms=HOUR_MS + 100_000)) as listener:
        (update,) = await receive(listener, 1)
        assert (update.record.order, update.offset) == ("a:100", 200)
        kafka.append(0, an_update("a:100", 2))
        assert [update.record.version for update in await receive(listener, 1)] == [2]


@pytest.mark.parametrize("before", ["a:other", "a:x"], ids=["of another order", "an earlier one of the order"])
async def test_an_update_ahead_of_the_head_is_sent_once(kafka: FakeKafka, feed: Feed, before: str) -> None:
    kafka.append(0, an_update(before, 1))
    with feed.of_all(anything) as other:
        await at_the_head(other)
        kafka.append(0, an_update("a:x", 2))
        found = await feed.find_snapshot(0, an_update("a:x", 2), "ops")
        assert (found.record.version, found.offset) == (2, 2)
        with feed.of_order("a:x", 0, snapshot=an_update("a:x", 2)) as listener:
            (update,) = await receive(listener, 1)
            assert update.offset == 2
            kafka.append(0, an_update("a:x", 3))
            assert [update.record.version for update in await receive(listener, 1)] == [3]


async def test_a_late_update_after_thousands_comes_from_the_ring(kafka: FakeKafka, feed: Feed) -> None:
    with feed.of_order("a:x", 0, snapshot=an_update("a:x", 1)) as listener:
        kafka.append(0, an_update("a:x", 1))
        await receive(listener, 1)
        coming = asyncio.create_task(listener.next(60))
        for number in range(10 * HELD):
            kafka.append(0, an_update(f"a:{number}", 1))
        await until(lambda: feed.rings[0].end == kafka.ends[0] - 1)
        opened = kafka.opened
        kafka.append(0, an_update("a:x", 2))
        assert [update.record.version for update in await coming or []] == [2]
    assert kafka.opened == opened, "the listener read nothing from Kafka"


async def test_clock_skew_does_not_repeat_an_orders_update(
    kafka: FakeKafka, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_RECORDS_SEARCHED", 10)
    row = an_update("a:x", 3, at_ms=HOUR_MS)
    for number in range(600):
        kafka.append(0, an_update(f"a:{number}", 1, at_ms=2 * HOUR_MS))
    kafka.append(0, msgspec.structs.replace(row, at=instant(2 * HOUR_MS)))
    for number in range(100):
        kafka.append(0, an_update(f"a:{number}", 2, at_ms=2 * HOUR_MS))
    with feed.of_order("a:x", 0, snapshot=row) as listener:
        assert [update.record for update in await receive(listener, 1)] == [row]
        await at_the_head(listener)
        kafka.append(0, an_update("a:x", 4, at_ms=3 * HOUR_MS))
        assert [update.record.version for update in await receive(listener, 1)] == [4]


@pytest.mark.parametrize("left", [0, 50], ids=["nothing is left", "other orders are left"])
async def test_an_expired_last_update_is_replaced_by_the_row(kafka: FakeKafka, feed: Feed, left: int) -> None:
    row = an_update("a:x", 7, at_ms=HOUR_MS)
    kafka.append(0, row)
    for number in range(left):
        kafka.append(0, an_update(f"a:{number}", 1, at_ms=2 * HOUR_MS))
    kafka.delete_records(0, 2)
    with feed.of_order("a:x", 0, snapshot=row) as listener:
        (update,) = await receive(listener, 1)
        assert (update.record, update.value) == (row, write(row))
        kafka.append(0, an_update("a:x", 8, at_ms=3 * HOUR_MS))
        assert [update.record.version for update in await receive(listener, 1)] == [8]
    with feed.of_order("a:x", 0, after=update.offset, snapshot=row) as again:
        assert [update.record.version for update in await receive(again, 1)] == [8]


async def test_expired_updates_are_a_gap_and_the_rest_follows(kafka: FakeKafka, feed: Feed) -> None:
    for version in range(100):
        kafka.append(0, an_update("a:x", version + 1))
    kafka.delete_records(0, 100)
    with feed.of_all(anything, {0: 10, 1: 0}) as listener:
        with pytest.raises(Gap) as gap:
            await receive(listener, 1)
        assert gap.value.lost == {0: (10, 100)}
        assert offsets(await receive(listener, 50), 0) == written(kafka, 0)
    with feed.of_order("a:x", 0, after=10, snapshot=an_update("a:x", 100)) as of_order:
        with pytest.raises(Gap):
            await receive(of_order, 1)
        assert [update.record.version for update in await receive(of_order, 1)] == [100]
    with feed.of_order("a:x", 0, after=10) as unknown:
        with pytest.raises(Gap):
            await receive(unknown, 1)
        assert len(await receive(unknown, 50)) == 50


async def test_a_position_past_the_end_is_a_gap(kafka: FakeKafka, feed: Feed) -> None:
    kafka.append(0, an_update("a:x", 1))
    with feed.of_all(anything, {0: 1000, 1: 0}) as listener:
        with pytest.raises(Gap) as gap:
            await receive(listener, 1)
        assert gap.value.lost == {0: (1000, 0)}
        assert len(await receive(listener, 1)) == 1
    with feed.of_all(anything, {0: 2, 1: 0}) as ahead:
        assert await ahead.next(SILENCE_S) == []
        assert feed.rings[0].end == 1, "the marker behind the last record is not in the ring"
        kafka.append(0, an_update("a:x", 2))
        assert [update.record.version for update in await receive(ahead, 1)] == [2]


async def test_listeners_survive_an_outage_of_kafka(kafka: FakeKafka, feed: Feed) -> None:
    for version in range(100):
        kafka.append(0, an_update("a:x", version + 1))
    kafka.down = True
    with feed.of_all(anything, {0: 0, 1: 0}) as old, feed.of_all(anything) as new:
        assert await old.next(SILENCE_S) == []
        assert await new.next(SILENCE_S) == []
        kafka.down = False
        received = await receive(old, 100)
        await at_the_head(new)
        kafka.down = True
        kafka.append(0, an_update("a:x", 101))
        assert await new.next(SILENCE_S) == []
        kafka.down = False
        kafka.notify()
        assert [update.record.version for update in await receive(new, 1)] == [101]
        received += await receive(old, 1)
        assert [update.record.version for update in received] == list(range(1, 102))


async def test_a_lost_head_disconnects_listeners_who_return_to_a_gap(kafka: FakeKafka, feed: Feed) -> None:
    for version in range(10):
        kafka.append(0, an_update("a:x", version + 1))
    with feed.of_all(anything) as listener:
        await at_the_head(listener)
        place = dict(listener.positions)
        kafka.records[0].clear()
        kafka.ends[0] = 0
        kafka.notify()
        async with asyncio.timeout(60):
            while await listener.next(SILENCE_S) is not None:
                pass
    with feed.of_all(anything, place) as again:
        with pytest.raises(Gap) as gap:
            await receive(again, 1)
        assert gap.value.lost == {0: (19, 0)}


async def test_1000_listeners_share_a_consumer_and_wake_selectively(kafka: FakeKafka) -> None:
    feed = Feed(UpdateLog(TOPIC, dict, kafka.consumer), PARTITIONS, 4000)
    count, stand, woken = 1000, list[str](), list[str]()

    async def listen(order: str) -> None:
        with feed.of_order(order, 0, snapshot=an_update(order, 1)) as listener:
            stand.extend(update.record.order for update in await listener.next(60) or [])
            woken.extend(update.record.order for update in await listener.next(60) or [])

    for number in range(count):
        kafka.append(0, an_update(f"a:{number}", 1))
    everybody = [asyncio.create_task(listen(f"a:{number}")) for number in range(count)]
    await until(lambda: len(stand) == count and sum(map(len, feed._waiting.values())) == count)
    assert len(asyncio.all_tasks()) <= count + 5, "one task per listener, and those that follow the head"
    assert kafka.open == 1
    kafka.append(0, an_update("a:7", 2))
    kafka.append(0, an_update("a:8", 2))
    await until(lambda: len(woken) == 2)
    assert sorted(woken) == ["a:7", "a:8"]
    assert sum(map(len, feed._waiting.values())) == count - 2
    for task in everybody:
        task.cancel()
    await asyncio.gather(*everybody, return_exceptions=True)
    assert not feed._waiting
    await feed.stop()


async def test_the_head_is_followed_only_with_listeners(
    kafka: FakeKafka, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LINGER_S", 0.1)
    await asyncio.sleep(0.05)
    assert kafka.opened == 0
    for opened in (1, 2):
        with feed.of_all(anything) as listener:
            await at_the_head(listener)
            kafka.append(0, an_update("a:x", opened))
            assert len(await receive(listener, 1)) == 1
        await until(lambda: not kafka.open)
        assert (kafka.opened, feed.rings) == (opened, {})


async def test_a_stopped_feed_ends_and_cuts_off_stalled_listeners(kafka: FakeKafka) -> None:
    feed = Feed(UpdateLog(TOPIC, dict, kafka.consumer), PARTITIONS, HELD)
    ended: list[str] = []

    async def listen(name: str, hangs: bool) -> None:
        with feed.of_all(anything) as listener:
            while await listener.next(60) is not None:
                if hangs:
                    await asyncio.Event().wait()
        ended.append(name)

    waits = asyncio.create_task(listen("waits", False))
    hangs = asyncio.create_task(listen("hangs", True))
    await until(lambda: feed._waiting)
    await feed.stop()
    await asyncio.wait([waits, hangs], timeout=60)
    assert ended == ["waits"]
    assert hangs.cancelled()
    assert kafka.open == 0
    with feed.of_all(anything) as late:
        assert await late.next(1) is None


async def test_foreign_records_are_skipped_and_events_stay_on_one_line(kafka: FakeKafka, feed: Feed) -> None:
    with feed.of_all(anything) as listener:
        await at_the_head(listener)
        for version in (1, 2, 3):
            kafka.append(0, an_update("a:x", version, OrderStatus.DELIVERED))
        kafka.records[0][0].value = b"no update"
        kafka.records[0][1].value = kafka.records[0][1].value.replace(b",", b",\r\n ")
        received = await receive(listener, 2)
    assert [update.record.version for update in received] == [2, 3]
    assert b"\n" not in received[0].value
    assert b"\r" not in received[0].value
