"""Waiters are notified once, and nothing remains of waiters that are gone."""

import asyncio

import pytest

from exactly_once.task.commit_waiters import CommitWaiters


async def test_every_waiter_of_an_event_gets_its_answer() -> None:
    watch = CommitWaiters()
    with watch.answer("e") as first, watch.answer("e") as second, watch.answer("f") as other:
        watch.committed([("e", 1), ("e", 2)], {})
        assert (await first.get(1), await second.get(1)) == (1, 1)
        with pytest.raises(TimeoutError):
            await other.get(0.01)
        watch.committed([("f", 3)], {})
        assert await other.get(1) == 3, "a wait that timed out may be repeated"


async def test_an_answer_without_a_waiter_is_dropped() -> None:
    watch = CommitWaiters()
    watch.committed([("e", 1)], {"t": {b"k": b"v"}})
    with watch.answer("e") as late, pytest.raises(TimeoutError):
        await late.get(0.01)
    assert not watch._answers


async def test_a_changed_row_wakes_its_waiters() -> None:
    watch = CommitWaiters()
    row, deleted, other = (
        asyncio.create_task(watch.changed("t", key, wait_s)) for key, wait_s in ((b"k", 5), (b"l", 5), (b"m", 0.02))
    )
    await asyncio.sleep(0)
    watch.committed([], {"t": {b"k": b"v", b"l": None}, "u": {b"m": b"v"}})
    assert [await row, await deleted, await other] == [True, True, False]
    assert not any(watch._rows.values())


async def test_a_cancelled_view_is_removed() -> None:
    watch = CommitWaiters()
    waiting = asyncio.create_task(watch.changed("t", b"k", 5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not any(watch._rows.values())
    watch.committed([], {"t": {b"k": b"v"}})


async def test_closed_tasks_wake_the_waiters_of_their_rows() -> None:
    watch = CommitWaiters()
    waiting = asyncio.create_task(watch.changed("t", b"k", 5))
    await asyncio.sleep(0)
    watch.released()
    assert await asyncio.wait_for(waiting, 60)
    assert not any(watch._rows.values())


async def test_row_waiters_are_released_when_tasks_close() -> None:
    watch = CommitWaiters()
    waiting = asyncio.create_task(watch.changed("t", b"k", 60))
    await asyncio.sleep(0)
    watch.released()
    assert await asyncio.wait_for(waiting, 60)


async def test_answer_waiters_are_released_when_the_worker_stops() -> None:
    watch = CommitWaiters()
    with watch.answer("e") as early, watch.answer("f") as late:
        waiting = asyncio.create_task(early.get(60))
        await asyncio.sleep(0)
        watch.stopped()
        for answer in (waiting, late.get(60)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer, 1)
