"""Outgoing calls: made after the commit, retried until answered, limited in number, and never made by a zombie."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactly_once.calls.interfaces import DestinationKey, Retry, Unsettled
from exactly_once.calls.rows import CALLS, GROWTH_BYTES, Call, decode_call, encode_call
from exactly_once.settings import EngineSettings
from exactly_once.task.failpoints import FailpointError
from exactly_once.task.task import MAX_RECORD_BYTES, Task
from tests.exactly_once.fakes import FakeClock, Stage, until

SETTINGS = EngineSettings(
    calls_at_once=4, calls_per_host=2, call_timeout_s=0.05, retry_first_s=10, breaker_failures=100, close_calls_s=0.05
)


class Calling(Stage):
    """Keeps the results of calls."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.results: list[tuple[bytes, bytes, bytes]] = []
        self.manager.result_handler = self.result

    def result(self, task: Task, call_id: bytes, request: bytes, result: bytes) -> None:
        self.results.append((call_id, request, result))
        task.put("counts", call_id, result)

    def row(self, call_id: bytes) -> Call | None:
        row = self.store.tables[CALLS].get(call_id)
        return decode_call(row) if row else None

    async def pass_time(self, seconds: float) -> None:
        """Advance the clock and wake every sleeper."""
        self.clock.ms += int(seconds * 1000)
        self.manager.calls._start_due()
        await self.settle()


@pytest.fixture
async def stage() -> AsyncIterator[Calling]:
    stage = Calling(SETTINGS)
    stage.task.start()
    yield stage
    stage.performer.gate.set()
    await stage.manager.close_all(commit=False)


async def test_a_call_is_made_after_commit_and_its_result_deletes_it(stage: Calling) -> None:
    stage.transactions.hold.clear()
    stage.task.call(b"id", b"host/charge")
    stage.task.request_commit()
    await stage.settle()
    assert stage.performer.calls == []
    stage.transactions.hold.set()
    await until(lambda: stage.results and not stage.store.tables[CALLS])
    assert stage.performer.calls == [(b"id", b"host/charge", 1)]
    assert stage.results == [(b"id", b"host/charge", b"ok")]
    assert stage.store.tables["counts"] == {b"id": b"ok"}
    assert stage.task.calls == {}
    assert stage.manager.counters["calls"] == 1


async def test_a_retry_uses_the_same_key_after_a_stored_back_off(stage: Calling) -> None:
    stage.performer.answers[b"id"] = [Retry("503"), ConnectionError("cut"), Retry("busy", after_s=3)]
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    second = stage.row(b"id")
    assert second is not None
    assert second.last_error == "503"
    assert 5_000 <= second.due_ms - stage.clock.ms <= 10_000, "the first back-off, less a jitter of up to half"
    await stage.pass_time(1)
    assert len(stage.performer.calls) == 1
    await stage.pass_time(9)
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 3)
    assert (row := stage.row(b"id")) is not None
    assert row.last_error == "ConnectionError: cut"
    await stage.pass_time(20)
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 4)
    assert (row := stage.row(b"id")) is not None
    assert row.due_ms - stage.clock.ms == 3_000, "the delay that the destination asked for"
    await stage.pass_time(3)
    await until(lambda: stage.results)
    assert [attempt for _, _, attempt in stage.performer.calls] == [1, 2, 3, 4]
    assert stage.manager.counters["calls_again"] == 3


async def test_an_unsettled_result_is_handed_over_and_the_call_goes_on(stage: Calling) -> None:
    stage.performer.answers[b"id"] = [Unsettled(b"hm", "unclear", after_s=3)]
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    assert stage.results == [(b"id", b"host/x", b"hm")]
    assert (row := stage.row(b"id")) is not None
    assert (row.last_error, row.due_ms - stage.clock.ms) == ("unclear", 3_000)
    await stage.pass_time(3)
    await until(lambda: len(stage.results) == 2 and not stage.store.tables[CALLS])
    assert stage.results[1] == (b"id", b"host/x", b"ok")


async def test_unsettled_result_that_fails_leaves_the_call(stage: Calling) -> None:
    def handler(task: Task, call_id: bytes, request: bytes, result: bytes) -> None:
        raise RuntimeError("poison")

    stage.manager.result_handler = handler
    stage.performer.answers[b"id"] = [Unsettled(b"hm", "unclear")]
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    assert stage.manager.counters["dead_letters"] == 1


async def test_a_woken_call_is_made_at_once_with_its_request(stage: Calling) -> None:
    stage.performer.answers[b"id"] = [Retry("503")]
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    stage.task.wake_call(b"id")
    stage.task.wake_call(b"no such call")
    await stage.task.committed()
    await until(lambda: stage.results)
    assert stage.performer.calls == [(b"id", b"host/x", 1), (b"id", b"host/x", 2)]


async def test_repeated_wakes_do_not_hold_up_an_answer(stage: Calling) -> None:
    stage.performer.gate.clear()
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: stage.performer.running == 1)
    for _ in range(3):
        stage.task.wake_call(b"id")
        stage.task.request_commit()
        await stage.settle()
    stage.performer.gate.set()
    await until(lambda: stage.results)
    assert len(stage.performer.calls) == 1


async def test_call_woken_during_an_attempt_is_made_again(stage: Calling) -> None:
    stage.performer.gate.clear()
    stage.performer.answers[b"id"] = [Retry("later", after_s=600), Retry("later", after_s=600)]
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: stage.performer.running == 1)
    stage.task.wake_call(b"id")
    stage.performer.gate.set()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    await stage.pass_time(0.001)
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 3)
    assert (row := stage.row(b"id")) is not None
    assert row.due_ms - stage.clock.ms == 600_000, "one wake, one attempt"


async def test_a_call_that_times_out_is_retried(stage: Calling) -> None:
    stage.performer.gate.clear()
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    assert (row := stage.row(b"id")) is not None
    assert row.last_error == "no answer within 0.05 s"


async def test_back_off_and_attempts_survive_a_reopening(stage: Calling) -> None:
    stage.performer.answers[b"id"] = [Retry("503")]
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    await stage.task.close()
    stage.opened().start()
    await stage.settle()
    assert len(stage.performer.calls) == 1, "the retry is not due"
    await stage.pass_time(10)
    await until(lambda: stage.results)
    assert stage.performer.calls[-1] == (b"id", b"host/x", 2)


async def test_unanswered_calls_are_repeated_when_the_task_opens(stage: Calling) -> None:
    await stage.task.close()
    stage.store.tables[CALLS] = {b"%d" % n: encode_call(Call(b"host/x")) for n in range(10)}
    stage.opened().start()
    await until(lambda: len(stage.results) == 10)


async def test_calls_stay_within_the_limits_in_total_and_per_host(stage: Calling) -> None:
    stage.performer.gate.clear()
    for n in range(12):
        stage.task.call(b"slow-%d" % n, b"slow/x")
        stage.task.call(b"a-%d" % n, b"a/x")
        stage.task.call(b"b-%d" % n, b"b/x")
    await stage.task.committed()
    await stage.settle()
    hosts = [request for _, request, _ in stage.performer.calls]
    assert len(hosts) == 4
    assert max(map(hosts.count, hosts)) == 2
    stage.performer.gate.set()
    await until(lambda: len(stage.results) == 36)
    assert stage.performer.most == 4
    assert len(stage.performer.calls) == 36


async def test_a_cancelled_call_is_not_made(stage: Calling) -> None:
    stage.task.call(b"id", b"host/x")
    assert stage.task.has_call(b"id")
    stage.task.cancel_call(b"id")
    assert not stage.task.has_call(b"id")
    await stage.task.committed()
    await stage.settle()
    assert stage.performer.calls == []


async def test_the_answer_to_a_cancelled_or_replaced_call_is_ignored(stage: Calling) -> None:
    stage.performer.gate.clear()
    stage.task.call(b"gone", b"host/gone")
    stage.task.call(b"new", b"host/old")
    await stage.task.committed()
    await until(lambda: stage.performer.running == 2)
    stage.clock.ms += 1
    stage.task.cancel_call(b"gone")
    stage.task.call(b"new", b"host/new")
    await stage.task.committed()
    stage.performer.gate.set()
    await until(lambda: not stage.store.tables[CALLS])
    assert stage.results == [(b"new", b"host/new", b"ok")]


async def test_a_result_of_a_failed_transaction_returns_on_reopening(stage: Calling) -> None:
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()

    def fault() -> None:
        raise ConnectionError

    stage.transactions.before["end"] = fault
    await until(lambda: not stage.task.alive)
    await stage.task.close()
    assert stage.row(b"id") is not None
    stage.opened().start()
    await until(lambda: not stage.store.tables[CALLS])
    assert len(stage.performer.calls) == 2


async def test_a_result_whose_handler_raises_becomes_a_dead_letter(stage: Calling) -> None:
    def handler(task: Task, call_id: bytes, request: bytes, result: bytes) -> None:
        task.put("counts", b"k", b"1")
        raise RuntimeError("poison")

    stage.manager.result_handler = handler
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: not stage.store.tables[CALLS])
    letters = [
        letter for (topic, _), found in stage.transactions.committed.items() if topic == "dead" for letter in found
    ]
    ((key, value, headers),) = letters
    assert (key, value, dict(headers)["origin.call"]) == (b"id", b"ok", b"id")
    assert dict(headers)["origin.request"] == b"host/x", "all arguments of the handler"
    assert stage.store.tables["counts"] == {}


async def test_a_worker_that_was_frozen_commits_before_it_calls(stage: Calling) -> None:
    stage.task.call(b"id", b"host/x")
    stage.transactions.hold.clear()
    stage.task.request_commit()
    await stage.settle()
    stage.clock.ms += 6_000  # more than half of the session of 10 s
    stage.transactions.hold.set()
    await until(lambda: stage.results)
    assert stage.log.count("end") >= 2, "one for the call, one to verify ownership"
    assert len(stage.performer.calls) == 1


async def test_a_zombie_makes_no_call(stage: Calling) -> None:
    """A worker resumes when another owns the partition: verification fails, so it makes no call."""

    def fenced() -> None:
        raise ConnectionError("fenced")

    def frozen() -> None:
        stage.clock.ms += 6_000
        stage.transactions.before["produce"] = fenced

    stage.transactions.before["ended"] = frozen
    stage.task.call(b"id", b"host/x")
    stage.task.request_commit()
    await until(lambda: not stage.task.alive)
    await stage.settle()
    assert stage.performer.calls == []


async def test_a_call_cancelled_during_the_ownership_check_is_not_made(
    stage: Calling, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, committed = iter(range(20)), stage.task.committed

    def slow() -> None:
        stage.clock.ms += 6_000  # each commit takes more than half of the session of 10 s

    async def counted() -> None:
        next(waits)  # waiting for a commit that never comes would return at once, and the event loop would spin
        await committed()

    monkeypatch.setattr(stage.task, "committed", counted)
    stage.transactions.before["ended"] = slow
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    stage.transactions.hold.clear()
    await until(lambda: stage.task.committing)
    stage.task.cancel_call(b"id")
    stage.task.request_commit()
    stage.transactions.hold.set()
    await until(lambda: not stage.store.tables[CALLS] and not stage.task.running_calls)
    assert stage.task.alive
    assert stage.performer.calls == []


async def test_closing_waits_for_running_calls_and_starts_none(stage: Calling) -> None:
    stage.performer.gate.clear()
    for n in range(6):
        stage.task.call(b"%d" % n, b"host/x")
    await stage.task.committed()
    await until(lambda: stage.performer.running == 2)
    closing = asyncio.create_task(stage.task.close())
    await stage.settle()
    stage.performer.gate.set()
    await closing
    assert len(stage.results) == 2
    assert len(stage.store.tables[CALLS]) == 4, "the other calls are left to the next owner"


async def test_a_call_verified_while_closing_is_for_the_next_owner(stage: Calling) -> None:
    stage.transactions.hold.clear()
    stage.task.call(b"id", b"host/x")
    stage.task.request_commit()
    await stage.settle()
    stage.clock.ms += 6_000
    stage.transactions.hold.set()
    await until(lambda: stage.task.running_calls)
    await stage.task.close()
    assert stage.performer.calls == []
    assert stage.row(b"id") is not None


async def test_closing_cuts_off_a_call_that_takes_too_long(stage: Calling) -> None:
    stage.performer.gate.clear()
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: stage.performer.running)
    await stage.task.close()
    assert stage.performer.running == 0
    assert stage.row(b"id") is not None


@pytest.mark.parametrize("name", ["before_call", "after_call"])
async def test_a_fault_around_a_call_breaks_the_task_and_repeats_it(stage: Calling, name: str) -> None:
    faults = [FailpointError(name)]

    def failpoint(passed: str, cut: object) -> None:
        if passed == name and faults:
            raise faults.pop()

    stage.manager.failpoint = failpoint
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: not stage.task.alive)
    await stage.task.close()
    stage.opened().start()
    await until(lambda: stage.results)
    assert len(stage.performer.calls) == (1 if name == "before_call" else 2)


async def test_a_request_without_a_known_host_does_not_stop_others(stage: Calling) -> None:
    def destination_of(request: bytes) -> DestinationKey:
        return {b"good/x": DestinationKey("good", "good")}[request]

    stage.performer.destination_of = destination_of  # type: ignore[method-assign]
    stage.performer.answers[b"bad"] = [ValueError("no host")]
    stage.task.call(b"bad", b"bad/x")
    stage.task.call(b"good", b"good/x")
    await stage.task.committed()
    await until(lambda: stage.results and (row := stage.row(b"bad")) and row.attempt == 2)
    assert stage.results == [(b"good", b"good/x", b"ok")]


async def test_without_a_performer_a_call_is_refused() -> None:
    stage = Calling(SETTINGS)
    stage.manager.performer = None
    with pytest.raises(ValueError, match=r"set engine\.performer"):
        stage.task.call(b"id", b"host/x")


async def test_a_failing_host_is_paused_then_tried_with_one_call() -> None:
    stage = Calling(
        EngineSettings(breaker_failures=2, breaker_first_s=5, retry_first_s=0.001, retry_max_s=0.001, calls_per_host=1)
    )
    stage.task.start()
    stage.performer.answers = {b"%d" % n: [Retry("down")] * 50 for n in range(4)}
    for n in range(4):
        stage.task.call(b"%d" % n, b"down/x")
    stage.task.call(b"fine", b"up/x")
    await stage.task.committed()
    await until(lambda: stage.results)
    await stage.pass_time(1)
    assert len(stage.performer.calls) == 2 + 1, "two failures, and the call of the other host"
    await stage.pass_time(5)
    assert len(stage.performer.calls) == 3 + 1, "one call tries"
    await stage.pass_time(6)
    assert len(stage.performer.calls) == 3 + 1, "the pause is twice as long"
    stage.performer.answers = {}
    await stage.pass_time(5)
    await until(lambda: len(stage.results) == 5)
    await stage.manager.close_all()


async def test_back_off_does_not_depend_on_the_wall_clock(stage: Calling) -> None:
    """A task reads the wall clock when it opens, the runner reads it when the worker starts."""
    await stage.task.close()
    stage.store.tables[CALLS] = {b"id": encode_call(Call(b"host/x", due_ms=stage.clock.ms - 3_600_000 + 10_000))}
    clock, stage.clock = stage.clock, BehindClock(stage.clock)
    stage.opened().start()
    stage.clock = clock
    await stage.pass_time(9)
    assert stage.performer.calls == [], "not due by the task's clock"
    await stage.pass_time(1)
    await until(lambda: stage.results)


class BehindClock(FakeClock):
    """Clock whose wall time is set back by an hour before the second reading."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def now_ms(self) -> int:
        return self._clock.now_ms() - 3_600_000

    def monotonic(self) -> float:
        return self._clock.monotonic()


async def test_a_half_open_host_without_a_free_slot_causes_no_spinning() -> None:
    stage = Calling(EngineSettings(calls_at_once=1, breaker_failures=1, breaker_first_s=5, retry_first_s=6))
    stage.task.start()
    stage.performer.answers[b"down"] = [Retry("down", after_s=1)]
    stage.task.call(b"down", b"down/x")
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"down")) and row.attempt == 2)
    stage.performer.gate.clear()
    stage.task.call(b"slow", b"slow/x")
    await stage.task.committed()
    await until(lambda: stage.performer.running)
    await stage.pass_time(6)
    assert stage.manager.calls._wake is None, "nothing to do before the slow call ends"
    stage.performer.gate.set()
    await until(lambda: len(stage.results) == 2)
    await stage.manager.close_all()


@given(call_id=st.binary(min_size=1), attempt=st.integers(1, 100))
def test_back_off_doubles_to_its_maximum_and_is_deterministic(call_id: bytes, attempt: int) -> None:
    def next_due(stage: Stage) -> int:
        return stage.manager.calls.next_attempt(call_id, Call(b"", attempt), Retry(""), 0).due_ms

    async def both() -> tuple[int, int]:
        return next_due(Stage(SETTINGS)), next_due(Stage(SETTINGS))

    first, second = asyncio.run(both())
    longest = min(10_000 * 2 ** (attempt - 1), 60_000)
    assert first == second
    assert longest // 2 <= first <= longest


def test_a_row_is_json_that_contains_its_request() -> None:
    row = encode_call(Call(b'{"pay": "1.20"}', 2, 1_000, "503"))
    assert row == b'{"request":{"pay": "1.20"},"attempt":2,"due_ms":1000,"why":"503"}'
    assert encode_call(Call(b"request")) == b'{"base64":"cmVxdWVzdA=="}'


@pytest.mark.parametrize(
    "request_",
    [b"", b"{", b"{}", b' {"a":1}', b'{"a":1}\n', b'{ "a" : 1\n}', b'{"a":"\xff"}', b"{" * 9_000 + b"}", b"\x00\xff"],
    ids=lambda request: repr(request[:12]),
)
def test_a_request_is_read_from_its_row_byte_for_byte(request_: bytes) -> None:
    assert decode_call(encode_call(Call(request_, 3, 7, "why"))) == Call(request_, 3, 7, "why")


@pytest.mark.parametrize("why", ["x" * 2_000_000, "\x00" * 2_000_000, "\ud800"], ids=["long", "escaped", "no UTF-8"])
async def test_a_long_error_is_cut_so_that_the_largest_call_is_retried(stage: Calling, why: str) -> None:
    request = b'{"a":"' + bytes(MAX_RECORD_BYTES - GROWTH_BYTES - 100).replace(b"\0", b"x") + b'"}'
    stage.performer.destination_of = lambda request: DestinationKey("host", "host")  # type: ignore[method-assign]
    stage.performer.answers[b"id"] = [RuntimeError(why)]
    stage.task.call(b"id", request)
    await stage.task.committed()
    await until(lambda: (row := stage.row(b"id")) and row.attempt == 2)
    assert (row := stage.row(b"id")) is not None
    assert row.last_error.startswith("RuntimeError: ")
    assert len(row.last_error) <= 500
    assert stage.task.alive


async def test_a_call_without_room_for_its_error_is_refused(stage: Calling) -> None:
    with pytest.raises(ValueError, match="a call, with room for what its attempts come to"):
        stage.task.call(b"id", b'{"a":"' + b"x" * (MAX_RECORD_BYTES - 1_000) + b'"}')


async def test_a_result_with_too_large_effects_becomes_a_dead_letter(stage: Calling) -> None:
    stage.manager.result_handler = lambda task, *_: task.put("counts", b"k", bytes(MAX_RECORD_BYTES))
    stage.task.call(b"id", b"host/x")
    await stage.task.committed()
    await until(lambda: not stage.store.tables[CALLS])
    ((_, value, headers),) = stage.transactions.committed["dead", 0]
    assert (value, dict(headers)["origin.call"]) == (b"ok", b"id")
    assert stage.task.alive
