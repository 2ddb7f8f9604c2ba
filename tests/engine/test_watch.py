"""Who waits hears, once, and nobody else is kept waiting for."""

import asyncio

import pytest

from streams.engine.watch import Watch


async def test_everybody_who_waits_for_an_event_gets_its_answer() -> None:
    watch = Watch()
    with watch.answer("e") as first, watch.answer("e") as second, watch.answer("f") as other:
        watch.committed([("e", 1), ("e", 2)], {})
        assert (await first.get(1), await second.get(1)) == (1, 1)
        with pytest.raises(TimeoutError):
            await other.get(0.01)
        watch.committed([("f", 3)], {})
        assert await other.get(1) == 3, "a wait that timed out may be taken up again"


async def test_an_answer_nobody_waits_for_is_forgotten() -> None:
    watch = Watch()
    watch.committed([("e", 1)], {"t": {b"k": b"v"}})
    with watch.answer("e") as late, pytest.raises(TimeoutError):
        await late.get(0.01)
    assert not watch._answers


async def test_a_changed_row_wakes_those_who_wait_for_it() -> None:
    watch = Watch()
    row, deleted, other = (
        asyncio.create_task(watch.changed("t", key, wait_s)) for key, wait_s in ((b"k", 5), (b"l", 5), (b"m", 0.02))
    )
    await asyncio.sleep(0)
    watch.committed([], {"t": {b"k": b"v", b"l": None}, "u": {b"m": b"v"}})
    assert [await row, await deleted, await other] == [True, True, False]
    assert not any(watch._rows.values())


async def test_a_view_that_goes_away_is_not_kept() -> None:
    watch = Watch()
    waiting = asyncio.create_task(watch.changed("t", b"k", 5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not any(watch._rows.values())
    watch.committed([], {"t": {b"k": b"v"}})


async def test_tasks_that_are_closed_wake_whoever_waits_for_their_rows() -> None:
    watch = Watch()
    waiting = asyncio.create_task(watch.changed("t", b"k", 5))
    await asyncio.sleep(0)
    watch.released()
    assert await asyncio.wait_for(waiting, 1)
    assert not any(watch._rows.values())


async def test_who_waits_for_a_row_is_let_go_when_tasks_are_closed() -> None:
    watch = Watch()
    waiting = asyncio.create_task(watch.changed("t", b"k", 60))
    await asyncio.sleep(0)
    watch.released()
    assert await asyncio.wait_for(waiting, 1)


async def test_who_waits_for_an_answer_is_let_go_when_the_worker_stops() -> None:
    watch = Watch()
    with watch.answer("e") as early, watch.answer("f") as late:
        waiting = asyncio.create_task(early.get(60))
        await asyncio.sleep(0)
        watch.stopped()
        for answer in (waiting, late.get(60)):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer, 1)
