"""What a listener is told, wherever it is: in the ring, before it, at its end; and whatever Kafka does meanwhile."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from streams import feed as feeds
from streams import update_log
from streams.feed import BATCH, Feed, Gap, Listener, Ring
from streams.update_log import Update, UpdateLog
from tests.streams.fake_kafka import HOUR_MS, TOPIC, FakeKafka, an_update
from topics.order_updates import READER, OrderStatus, OrderUpdated
from topics.records import instant, write

PARTITIONS = 2
HELD = 40
"""In the rings, 20 in each."""
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
    """Of that topic."""
    feed = Feed(UpdateLog(TOPIC, dict, kafka.consumer), PARTITIONS, HELD)
    yield feed
    await feed.stop()


def anything(_: OrderUpdated) -> bool:
    """A listener wants it."""
    return True


async def hear(listener: Listener, count: int, within_s: float = 5.0) -> list[Update]:
    """Listen until so many were told."""
    heard: list[Update] = []
    async with asyncio.timeout(within_s):
        while len(heard) < count:
            heard += await listener.next(SILENCE_S) or []
    return heard


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def at_the_head(listener: Listener) -> None:
    """Listen until there is nothing to tell, and the head is followed."""
    async with asyncio.timeout(5):
        while not listener.positions or not listener._feed.waits(listener):
            assert not await listener.next(0.01)


def offsets(updates: list[Update], partition: int) -> list[int]:
    """Of the updates of a partition."""
    return [update.offset for update in updates if update.partition == partition]


def written(kafka: FakeKafka, partition: int, order: str = "") -> list[int]:
    """The offsets of a partition's records, or of those of one order."""
    records = kafka.records[partition]
    return [record.offset for record in records if not order or READER.read(record.value).order == order]


def test_a_ring_holds_the_newest_updates_and_knows_from_where_on_it_has_all() -> None:
    ring = Ring(5, 3, 1000)
    assert (ring.first, ring.end, list(ring.since(5))) == (5, 5, [])
    told = [Update(0, offset, b"", an_update(f"a:{offset % 2}", offset)) for offset in (6, 8, 10, 12, 14)]
    for update in told[:3]:
        ring.append(update)
    assert (ring.first, ring.end) == (5, 11)
    for update in told[3:]:
        ring.append(update)
    assert (ring.first, ring.end) == (9, 15)
    assert list(ring.since(ring.first)) == told[2:]
    assert list(ring.since(11)) == told[3:]
    assert list(ring.since(15)) == []
    assert ring.newest("a:0") == told[-1]
    assert ring.newest("a:1") is None


def test_a_ring_holds_no_more_bytes_than_it_may_but_the_newest_update_always() -> None:
    ring = Ring(0, 100, 1000)
    for offset, size in enumerate([400, 400, 200, 100]):
        ring.append(Update(0, offset, b"x" * size, an_update("a:x", offset)))
    assert (ring.first, [update.offset for update in ring.since(0)]) == (1, [1, 2, 3])
    ring.append(Update(0, 4, b"x" * 5000, an_update("a:x", 4)))
    assert (ring.first, ring.end, [update.offset for update in ring.since(0)]) == (4, 5, [4])
    ring.append(Update(0, 5, b"x" * 900, an_update("a:x", 5)))
    ring.append(Update(0, 6, b"x" * 100, an_update("a:x", 6)))
    assert (ring.first, [update.offset for update in ring.since(0)]) == (5, [5, 6])


async def test_who_listens_from_now_on_is_told_its_place_and_then_what_comes(kafka: FakeKafka, feed: Feed) -> None:
    kafka.say(0, an_update("a:old", 1))
    with feed.of_all(anything) as listener:
        assert listener.positions == {}
        assert await listener.next(5) == []
        assert listener.positions == {0: 1, 1: 0}
        kafka.say(0, an_update("a:new", 1))
        kafka.say(1, an_update("a:newer", 1))
        assert [update.said.order for update in await hear(listener, 2)] == ["a:new", "a:newer"]
        assert await listener.next(SILENCE_S) == []


async def test_who_wants_little_knows_its_place_all_the_same(kafka: FakeKafka, feed: Feed) -> None:
    with feed.of_all(lambda said: said.order == "a:wanted") as listener:
        await at_the_head(listener)
        for version in range(3):
            kafka.say(1, an_update("a:other", version + 1))
        async with asyncio.timeout(5):
            while listener.positions[1] != 5:
                assert await listener.next(0.01) == []
        kafka.say(1, an_update("a:wanted", 1))
        (update,) = await hear(listener, 1)
        assert (update.partition, update.offset) == (1, 6)


@pytest.mark.parametrize("seed", range(12))
async def test_fast_and_slow_listeners_from_anywhere_are_told_everything_once_and_in_order(
    kafka: FakeKafka, feed: Feed, seed: int
) -> None:
    chance = random.Random(seed)
    total = 400
    orders = [f"a:{number}" for number in range(7)]

    def say(number: int) -> None:
        order = chance.choice(orders)
        partition = orders.index(order) % PARTITIONS
        kafka.say(partition, an_update(order, number + 1), marker=chance.random() < 0.7)

    for number in range(150):
        say(number)
    starts = [{p: chance.randrange(end + 1) for p, end in kafka.ends.items()} for _ in range(6)]
    finished = asyncio.Event()

    async def listen(listener: Listener, pause_s: float) -> list[Update]:
        heard: list[Update] = []
        with listener:
            while (batch := await listener.next(SILENCE_S)) or not finished.is_set():
                assert len(batch or ()) <= BATCH
                heard += batch or []
                await asyncio.sleep(pause_s * chance.random())
        return heard

    everybody = [
        asyncio.create_task(listen(feed.of_all(anything, start), 0.05 * (number % 3)))
        for number, start in enumerate(starts)
    ]
    single = [
        asyncio.create_task(listen(feed.of_order(order, orders.index(order) % PARTITIONS, after=9), 0.02))
        for order in orders
    ]
    for number in range(150, total):
        say(number)
        if chance.random() < 0.3:
            await asyncio.sleep(0.004 * chance.random())
    finished.set()
    for start, heard in zip(starts, await asyncio.gather(*everybody), strict=True):
        for partition, position in start.items():
            expected = [offset for offset in written(kafka, partition) if offset >= position]
            assert offsets(heard, partition) == expected
    for order, heard in zip(orders, await asyncio.gather(*single), strict=True):
        partition = orders.index(order) % PARTITIONS
        expected = [offset for offset in written(kafka, partition, order) if offset >= 10]
        assert offsets(heard, partition) == expected
    assert kafka.most_open <= feeds.TURNS + 1


async def test_a_listener_that_does_not_take_what_there_is_costs_nothing_and_misses_nothing(
    kafka: FakeKafka, feed: Feed
) -> None:
    with feed.of_all(anything) as idle, feed.of_all(anything) as busy:
        await at_the_head(idle)
        await at_the_head(busy)
        heard = []
        for version in range(1000):
            kafka.say(version % 2, an_update("a:x", version + 1))
            if version % 10 == 9:
                heard += await hear(busy, 10)
        assert [update.said.version for update in sorted(heard, key=lambda u: u.said.version)] == list(range(1, 1001))
        assert all(ring.end - ring.first <= 2 * HELD for ring in feed.rings.values())
        assert sum(len(list(ring.since(0))) for ring in feed.rings.values()) == HELD
        assert idle not in feed._waiting.get(None, {}), "it was woken once, and then left alone"
        late = await hear(idle, 1000)
        for partition in range(PARTITIONS):
            assert offsets(late, partition) == written(kafka, partition)


async def test_an_order_is_told_as_it_stands_from_the_ring_and_then_as_it_goes_on(kafka: FakeKafka, feed: Feed) -> None:
    first = an_update("a:x", 1)
    kafka.say(0, first)
    offset = kafka.say(0, an_update("a:x", 2))
    kafka.say(0, an_update("a:other", 9))
    with feed.of_order("a:x", 0, stands=first) as listener:
        (update,) = await hear(listener, 1)
        assert (update.offset, update.said.version) == (offset, 2)
        kafka.say(0, an_update("a:x", 3))
        assert [update.said.version for update in await hear(listener, 1)] == [3]
    assert kafka.opened == 1, "nobody but the one who follows the head"


async def test_an_order_that_has_left_the_ring_is_found_by_the_time_of_its_last_update(
    kafka: FakeKafka, feed: Feed
) -> None:
    for number in range(300):
        kafka.say(0, an_update(f"a:{number}", 1, at_ms=HOUR_MS + number * 1000))
    with feed.of_order("a:100", 0, stands=an_update("a:100", 1, at_ms=HOUR_MS + 100_000)) as listener:
        (update,) = await hear(listener, 1)
        assert (update.said.order, update.offset) == ("a:100", 200)
        kafka.say(0, an_update("a:100", 2))
        assert [update.said.version for update in await hear(listener, 1)] == [2]


@pytest.mark.parametrize("before", ["a:other", "a:x"], ids=["of another order", "an earlier one of the order"])
async def test_an_update_that_the_head_has_not_come_to_yet_is_told_once(
    kafka: FakeKafka, feed: Feed, before: str
) -> None:
    kafka.say(0, an_update(before, 1))
    with feed.of_all(anything) as other:
        await at_the_head(other)
        kafka.say(0, an_update("a:x", 2))
        found = await feed.standing(0, an_update("a:x", 2))
        assert (found.said.version, found.offset) == (2, 2)
        with feed.of_order("a:x", 0, stands=an_update("a:x", 2)) as listener:
            (update,) = await hear(listener, 1)
            assert update.offset == 2
            kafka.say(0, an_update("a:x", 3))
            assert [update.said.version for update in await hear(listener, 1)] == [3]


async def test_an_order_that_moves_after_thousands_of_others_is_told_from_the_ring(
    kafka: FakeKafka, feed: Feed
) -> None:
    with feed.of_order("a:x", 0, stands=an_update("a:x", 1)) as listener:
        kafka.say(0, an_update("a:x", 1))
        await hear(listener, 1)
        coming = asyncio.create_task(listener.next(60))
        for number in range(10 * HELD):
            kafka.say(0, an_update(f"a:{number}", 1))
        await until(lambda: feed.rings[0].end == kafka.ends[0] - 1)
        opened = kafka.opened
        kafka.say(0, an_update("a:x", 2))
        assert [update.said.version for update in await coming or []] == [2]
    assert kafka.opened == opened, "nothing was read from Kafka for it"


async def test_an_order_is_told_once_though_the_clocks_hide_where_its_update_is(
    kafka: FakeKafka, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "SEARCHED", 10)
    row = an_update("a:x", 3, at_ms=HOUR_MS)
    for number in range(600):
        kafka.say(0, an_update(f"a:{number}", 1, at_ms=2 * HOUR_MS))
    kafka.say(0, msgspec.structs.replace(row, at=instant(2 * HOUR_MS)))
    for number in range(100):
        kafka.say(0, an_update(f"a:{number}", 2, at_ms=2 * HOUR_MS))
    with feed.of_order("a:x", 0, stands=row) as listener:
        assert [update.said for update in await hear(listener, 1)] == [row]
        await at_the_head(listener)
        kafka.say(0, an_update("a:x", 4, at_ms=3 * HOUR_MS))
        assert [update.said.version for update in await hear(listener, 1)] == [4]


@pytest.mark.parametrize("left", [0, 50], ids=["nothing is left", "other orders are left"])
async def test_an_order_whose_last_update_is_no_longer_kept_is_told_from_its_row_and_goes_on(
    kafka: FakeKafka, feed: Feed, left: int
) -> None:
    row = an_update("a:x", 7, at_ms=HOUR_MS)
    kafka.say(0, row)
    for number in range(left):
        kafka.say(0, an_update(f"a:{number}", 1, at_ms=2 * HOUR_MS))
    kafka.forget(0, 2)
    with feed.of_order("a:x", 0, stands=row) as listener:
        (update,) = await hear(listener, 1)
        assert (update.said, update.value) == (row, write(row))
        kafka.say(0, an_update("a:x", 8, at_ms=3 * HOUR_MS))
        assert [update.said.version for update in await hear(listener, 1)] == [8]
    with feed.of_order("a:x", 0, after=update.offset, stands=row) as again:
        assert [update.said.version for update in await hear(again, 1)] == [8]


async def test_what_is_no_longer_kept_is_a_gap_and_the_rest_follows(kafka: FakeKafka, feed: Feed) -> None:
    for version in range(100):
        kafka.say(0, an_update("a:x", version + 1))
    kafka.forget(0, 100)
    with feed.of_all(anything, {0: 10, 1: 0}) as listener:
        with pytest.raises(Gap) as gap:
            await hear(listener, 1)
        assert gap.value.lost == {0: (10, 100)}
        assert offsets(await hear(listener, 50), 0) == written(kafka, 0)
    with feed.of_order("a:x", 0, after=10, stands=an_update("a:x", 100)) as of_order:
        with pytest.raises(Gap):
            await hear(of_order, 1)
        assert [update.said.version for update in await hear(of_order, 1)] == [100]
    with feed.of_order("a:x", 0, after=10) as unknown:
        with pytest.raises(Gap):
            await hear(unknown, 1)
        assert len(await hear(unknown, 50)) == 50


async def test_positions_behind_the_end_are_a_gap_unless_the_head_only_has_not_come_so_far(
    kafka: FakeKafka, feed: Feed
) -> None:
    kafka.say(0, an_update("a:x", 1))
    with feed.of_all(anything, {0: 1000, 1: 0}) as listener:
        with pytest.raises(Gap) as gap:
            await hear(listener, 1)
        assert gap.value.lost == {0: (1000, 0)}
        assert len(await hear(listener, 1)) == 1
    with feed.of_all(anything, {0: 2, 1: 0}) as ahead:
        assert await ahead.next(SILENCE_S) == []
        assert feed.rings[0].end == 1, "the marker behind the last record is not in the ring"
        kafka.say(0, an_update("a:x", 2))
        assert [update.said.version for update in await hear(ahead, 1)] == [2]


async def test_listeners_outlast_a_kafka_that_is_away(kafka: FakeKafka, feed: Feed) -> None:
    for version in range(100):
        kafka.say(0, an_update("a:x", version + 1))
    kafka.down = True
    with feed.of_all(anything, {0: 0, 1: 0}) as old, feed.of_all(anything) as new:
        assert await old.next(SILENCE_S) == []
        assert await new.next(SILENCE_S) == []
        kafka.down = False
        heard = await hear(old, 100)
        await at_the_head(new)
        kafka.down = True
        kafka.say(0, an_update("a:x", 101))
        assert await new.next(SILENCE_S) == []
        kafka.down = False
        kafka.change()
        assert [update.said.version for update in await hear(new, 1)] == [101]
        heard += await hear(old, 1)
        assert [update.said.version for update in heard] == list(range(1, 102))


async def test_everybody_is_sent_away_when_the_head_is_lost_and_comes_back_to_a_gap(
    kafka: FakeKafka, feed: Feed
) -> None:
    for version in range(10):
        kafka.say(0, an_update("a:x", version + 1))
    with feed.of_all(anything) as listener:
        await at_the_head(listener)
        place = dict(listener.positions)
        kafka.records[0].clear()
        kafka.ends[0] = 0
        kafka.change()
        async with asyncio.timeout(5):
            while await listener.next(SILENCE_S) is not None:
                pass
    with feed.of_all(anything, place) as again:
        with pytest.raises(Gap) as gap:
            await hear(again, 1)
        assert gap.value.lost == {0: (19, 0)}


async def test_a_thousand_listeners_share_one_consumer_and_only_those_meant_are_woken(kafka: FakeKafka) -> None:
    feed = Feed(UpdateLog(TOPIC, dict, kafka.consumer), PARTITIONS, 4000)
    count, stand, woken = 1000, list[str](), list[str]()

    async def listen(order: str) -> None:
        with feed.of_order(order, 0, stands=an_update(order, 1)) as listener:
            stand.extend(update.said.order for update in await listener.next(60) or [])
            woken.extend(update.said.order for update in await listener.next(60) or [])

    for number in range(count):
        kafka.say(0, an_update(f"a:{number}", 1))
    everybody = [asyncio.create_task(listen(f"a:{number}")) for number in range(count)]
    await until(lambda: len(stand) == count and sum(map(len, feed._waiting.values())) == count)
    assert len(asyncio.all_tasks()) <= count + 5, "one each, and the one that follows the head"
    assert kafka.open == 1
    kafka.say(0, an_update("a:7", 2))
    kafka.say(0, an_update("a:8", 2))
    await until(lambda: len(woken) == 2)
    assert sorted(woken) == ["a:7", "a:8"]
    assert sum(map(len, feed._waiting.values())) == count - 2
    for task in everybody:
        task.cancel()
    await asyncio.gather(*everybody, return_exceptions=True)
    assert not feed._waiting
    await feed.stop()


async def test_the_head_is_followed_only_while_somebody_listens(
    kafka: FakeKafka, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LINGER_S", 0.1)
    await asyncio.sleep(0.05)
    assert kafka.opened == 0
    for opened in (1, 2):
        with feed.of_all(anything) as listener:
            await at_the_head(listener)
            kafka.say(0, an_update("a:x", opened))
            assert len(await hear(listener, 1)) == 1
        await until(lambda: not kafka.open)
        assert (kafka.opened, feed.rings) == (opened, {})


async def test_a_feed_that_stops_ends_for_all_at_once_and_cuts_off_who_hangs(kafka: FakeKafka) -> None:
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
    await asyncio.wait([waits, hangs], timeout=1)
    assert ended == ["waits"]
    assert hangs.cancelled()
    assert kafka.open == 0
    with feed.of_all(anything) as late:
        assert await late.next(1) is None


async def test_what_is_no_update_is_passed_over_and_what_has_line_breaks_is_told_on_one_line(
    kafka: FakeKafka, feed: Feed
) -> None:
    with feed.of_all(anything) as listener:
        await at_the_head(listener)
        for version in (1, 2, 3):
            kafka.say(0, an_update("a:x", version, OrderStatus.DELIVERED))
        kafka.records[0][0].value = b"no update"
        kafka.records[0][1].value = kafka.records[0][1].value.replace(b",", b",\r\n ")
        heard = await hear(listener, 2)
    assert [update.said.version for update in heard] == [2, 3]
    assert b"\n" not in heard[0].value
    assert b"\r" not in heard[0].value
