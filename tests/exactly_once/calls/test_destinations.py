"""A hanging destination takes no capacity from the others: windows, circuit breakers and slots."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from exactly_once.calls.destinations import Destination, DestinationState, Waiting
from exactly_once.calls.interfaces import DestinationKey, Retry, Unsettled
from exactly_once.calls.rows import CALLS
from exactly_once.settings import EngineSettings
from tests.exactly_once.calls.test_runner import Calling
from tests.exactly_once.fakes import until

ROOM = 8
SETTINGS = EngineSettings(
    calls_at_once=ROOM, calls_per_host=ROOM, party_first=4, silent_after_s=2, retry_first_s=1, retry_max_s=1,
    close_calls_s=0.05,
)  # fmt: skip


@pytest.fixture
async def stage() -> AsyncIterator[Calling]:
    stage = Calling(SETTINGS)
    stage.task.start()
    yield stage
    for hung in stage.performer.hung.values():
        hung.set()
    await stage.manager.close_all(commit=False)


def hang(stage: Calling, *parties: str) -> None:
    stage.performer.hung |= {party: asyncio.Event() for party in parties}


async def ask(stage: Calling, whom: str, count: int = 1, name: str = "") -> None:
    """Make `count` calls to a destination; their ids are `<name>-<number>`, by default with the destination's name."""
    for number in range(count):
        stage.task.call(f"{name or whom.partition('@')[0]}-{number}".encode(), f"{whom}/x".encode())
    await stage.task.committed()
    await stage.settle()


def under_way(stage: Calling, party: str) -> int:
    return next((state.running for state in stage.manager.calls.destinations() if state.party == party), 0)


# -- hanging destinations --------------------------------------------------------------------------------------------


async def test_a_hanging_destination_delays_no_other_of_its_host(stage: Calling) -> None:
    hang(stage, "hung")
    await ask(stage, "hung@vendor", 100)
    await ask(stage, "well@vendor", 20)
    await until(lambda: len(stage.results) == 20)
    assert under_way(stage, "hung") == 4
    assert stage.performer.most <= ROOM


@pytest.mark.parametrize("hosts", ["one", "many"])
async def test_hanging_destinations_delay_others_only_until_detected(stage: Calling, hosts: str) -> None:
    hung = [f"hung-{number}" for number in range(ROOM)]
    hang(stage, *hung)
    for party in hung:
        await ask(stage, f"{party}@{'vendor' if hosts == 'one' else party}", 2)
    await ask(stage, f"well@{'vendor' if hosts == 'one' else 'well'}", 20)
    assert not stage.results, "none is unresponsive yet, and all slots are taken"
    for _ in range(
        2
    ):  # eight hang: two first took all slots, then six took the half that unresponsive ones may not use
        await stage.pass_time(2)
    await until(lambda: len(stage.results) == 20)
    await ask(stage, f"well@{'vendor' if hosts == 'one' else 'well'}", 20, "more")
    await until(lambda: len(stage.results) == 40)


async def test_the_runner_wakes_when_destinations_become_unresponsive(
    stage: Calling,
) -> None:
    hang(stage, *"abcdefgh")
    for party in "abcdefgh":
        await ask(stage, party, 2)
    await ask(stage, "well")
    assert stage.manager.calls._wake is not None
    assert stage.manager.calls._wake.when() - asyncio.get_running_loop().time() <= SETTINGS.silent_after_s


async def test_unresponsive_destinations_get_half_of_the_slots(stage: Calling) -> None:
    hung = [f"hung-{number}" for number in range(ROOM)]
    hang(stage, *hung)
    for party in hung[:4]:
        await ask(stage, party)
    await stage.pass_time(2)
    hang(stage, "new")
    await ask(stage, "hung-0", 3, "more")
    assert under_way(stage, "hung-0") == 1, "the unresponsive ones use their half already"
    await ask(stage, "new", 4)
    assert under_way(stage, "new") == 4, "this one is not known to hang"


async def test_waiting_destinations_take_turns(stage: Calling) -> None:
    stage.performer.gate.clear()
    await ask(stage, "other-1@host-1", 4)
    await ask(stage, "other-2@host-2", 4)
    await ask(stage, "many", 50)
    await ask(stage, "few", 1)
    asked = len(stage.performer.calls)
    stage.performer.gate.set()
    await until(lambda: stage.row(b"few-0") is None)
    order = [request for _, request, _ in stage.performer.calls[asked:]]
    assert order.index(b"few/x") <= 1, "after at most one earlier call"
    await until(lambda: len(stage.results) == 59)


@pytest.mark.parametrize("silent", [False, True])
async def test_cost_of_a_call_does_not_grow_with_waiting_destinations(
    stage: Calling, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Destination] = []
    may_start = Destination.may_start

    def noted(party: Destination, now: float) -> bool:
        looks.append(party)
        return may_start(party, now)

    monkeypatch.setattr(Destination, "may_start", noted)
    hang(stage, *(f"hung-{number}" for number in range(120)))
    costs = []
    for first in (0, 60):
        for number in range(first, first + 60):
            await ask(stage, f"hung-{number}@vendor")
        await stage.pass_time(2 if silent else 0)
        looks.clear()
        await ask(stage, "hung-0@vendor", 1, f"more-{first}")
        costs.append(len(looks))
    assert costs[1] <= costs[0] + 2, "of 110 waiting destinations only the called one is checked"


@pytest.mark.parametrize("seed", range(30))
async def test_no_call_waits_for_a_free_slot_and_every_call_is_made(seed: int) -> None:
    chance = Random(seed)
    stage = Calling(replace(SETTINGS, calls_at_once=12, breaker_failures=3, call_timeout_s=60))
    stage.task.start()
    parties = [f"party-{number}@host-{number % 3}" for number in range(12)]
    names = [party.partition("@")[0] for party in parties]
    for step in range(60):
        name = chance.choice(names)
        if chance.random() < 0.3:
            stage.performer.hung.setdefault(name, asyncio.Event())
        elif chance.random() < 0.3 and name in stage.performer.hung:
            stage.performer.hung.pop(name).set()
        for each in chance.sample(parties, k=2):
            call = f"{step}-{each}"
            stage.performer.answers[f"{call}-0".encode()] = [Retry("down")] * chance.choice((0, 0, 1, 3))
            await ask(stage, each, 1, call)
        await stage.pass_time(chance.choice((0, 0.5, 2)))
        assert held_back_for_nothing(stage) == [], f"seed {seed}"
    for hung in stage.performer.hung.values():
        hung.set()
    async with asyncio.timeout(60):
        while stage.store.tables[CALLS]:
            await stage.pass_time(1)
    assert len({call_id for call_id, _, _ in stage.results}) == len(stage.results), f"seed {seed}"
    assert (stage.manager.calls.running, stage.manager.calls.destinations()) == (0, [])
    await stage.manager.close_all(commit=False)


def held_back_for_nothing(stage: Calling) -> list[str]:
    """Return the destinations that could start a call and have a free slot."""
    calls, now = stage.manager.calls, stage.clock.monotonic()
    return [
        party.key.party
        for party in calls._destinations.values()
        if party.may_start(now)
        and all(limit.has_capacity(party.is_unresponsive(now), now) for limit in calls._limits(party))
    ]


# -- retries --------------------------------------------------------------------------------------------------------


async def test_retries_leave_half_of_the_window_to_first_attempts(stage: Calling) -> None:
    stage.performer.answers = {b"bank-%d" % number: [Retry("hung")] for number in range(20)}
    await ask(stage, "bank@bank", 4)
    await until(lambda: all((row := stage.row(b"bank-%d" % n)) and row.attempt == 2 for n in range(4)))
    hang(stage, "bank")
    await stage.pass_time(1)
    assert under_way(stage, "bank") == 2, "of a window of 4"
    stage.performer.hung.clear()
    await ask(stage, "bank@bank", 10, "new")
    await until(lambda: {b"new-%d" % number for number in range(10)} <= {call_id for call_id, _, _ in stage.results})


def test_first_attempts_and_retries_take_turns() -> None:
    party = Destination(DestinationKey("a", "a"), EngineSettings(party_first=1))
    task: Any = object()
    for number in range(4):
        party.add(Waiting(task, b"first-%d" % number, 0, is_retry=False))
        party.add(Waiting(task, b"again-%d" % number, 0, is_retry=True))
    taken = [party.take().call_id for _ in range(8)]
    assert {call_id.split(b"-")[0] for call_id in taken[::2]} == {b"first"}
    assert {call_id.split(b"-")[0] for call_id in taken[1::2]} == {b"again"}


async def test_a_hurried_waiting_call_is_not_retried_before_its_time() -> None:
    settings = EngineSettings(party_first=1, calls_per_party=1, breaker_failures=1, breaker_first_s=5, retry_first_s=60)
    stage = Calling(settings)
    stage.task.start()
    stage.performer.answers = {b"call-0": [Retry("down")] * 2}
    hang(stage, "down")
    await ask(stage, "down", 1, "busy")
    await ask(stage, "down", 1, "call")
    stage.clock.ms += 1
    await ask(stage, "down", 1, "call")  # the call is queued twice now
    stage.performer.hung.pop("down").set()
    await until(lambda: (row := stage.row(b"call-0")) and row.attempt == 2)
    await stage.pass_time(5)
    assert [call_id for call_id, _, _ in stage.performer.calls] == [b"busy-0", b"call-0"]
    await stage.manager.close_all(commit=False)


# -- breaker ---------------------------------------------------------------------------------------------------------


def a_party(**settings: Any) -> Destination:
    return Destination(DestinationKey("a", "a"), EngineSettings(**settings))


def waits(party: Destination, count: int, again: bool = False) -> None:
    for number in range(count):
        party.add(Waiting(None, b"%d" % number, 0, again))  # type: ignore[arg-type]


def started(party: Destination, now: float) -> list[Any]:
    attempts = []
    while party.may_start(now):
        attempts.append(party.begin(party.take(), now))
    return attempts


def test_each_failed_trial_doubles_the_pause_of_the_breaker() -> None:
    party = a_party(party_first=5, breaker_failures=5, breaker_first_s=2, breaker_max_s=7)
    waits(party, 100)
    now = 8.0
    for attempt in started(party, 0):
        party.record_failure(attempt, "down", now)
        party.end(attempt)
    for rest in (2, 4, 7, 7):
        assert not party.may_start(now + rest - 0.1)
        now += rest
        (attempt,) = started(party, now)
        party.record_failure(attempt, "still down", now)
        party.end(attempt)
    assert party.state(now).last_error == "still down"


def test_calls_that_hung_together_trip_the_breaker_once() -> None:
    party = a_party(party_first=40, breaker_failures=5, breaker_first_s=1)
    waits(party, 100)
    for attempt in started(party, 0):
        party.record_failure(attempt, "hung", 8)
        party.end(attempt)
    assert party.failures == 40
    assert party.may_start(9)


def test_a_recovered_destination_gets_its_backlog_gradually() -> None:
    party = a_party(party_first=5, breaker_failures=5, breaker_first_s=1, calls_per_party=16)
    waits(party, 200)
    for attempt in started(party, 0):
        party.record_failure(attempt, "hung", 8)
        party.end(attempt)
    at_once = []
    for now in range(9, 16):
        attempts = started(party, now)
        at_once.append(len(attempts))
        for attempt in attempts:
            party.record_answer()
            party.end(attempt)
    assert at_once == [1, 2, 3, 4, 5, 6, 7]


def test_a_window_grows_only_when_used_and_up_to_the_limit() -> None:
    party = a_party(party_first=2, calls_per_party=6)
    for now in range(20):
        waits(party, 1)
        for attempt in started(party, now):
            party.record_answer()
            party.end(attempt)
    assert party.window == 2
    waits(party, 200)
    for now in range(20):
        for attempt in started(party, now):
            party.record_answer()
            party.end(attempt)
    assert party.window == 6


# -- destination states ----------------------------------------------------------------------------------------------


async def test_a_destination_is_listed_until_it_is_healthy_and_idle(stage: Calling) -> None:
    def states() -> dict[str, DestinationState]:
        return {state.party: state for state in stage.manager.calls.destinations()}

    stage.performer.answers[b"bad-0"] = [Retry("503")] * 5
    await ask(stage, "bad@vendor")
    for failures in range(1, 6):
        await until(lambda: (row := stage.row(b"bad-0")) and row.attempt == failures + 1)  # noqa: B023
        assert (states()["bad"].failures, states()["bad"].last_error) == (failures, "503")
        assert states()["bad"].state == ("failing" if failures < 5 else "open")
        await stage.pass_time(0 if failures == 5 else 1)
    assert states()["bad"].tried_in_s == 1
    hang(stage, "slow")
    await ask(stage, "slow@vendor", 6)
    slow = states()["slow"]
    assert (slow.host, slow.state, slow.running, slow.waiting) == ("vendor", "closed", 4, 2)
    await stage.pass_time(2)
    assert (states()["slow"].state, states()["slow"].silent_s) == ("unresponsive", 2)
    assert states()["bad"].state == "half-open", "its pause is over"
    stage.performer.hung["slow"].set()
    await until(lambda: len(stage.results) == 7)
    await stage.settle()
    assert not states()
    assert stage.manager.calls.destination(b"slow@vendor/x") is None


async def test_a_closed_task_leaves_no_destinations(stage: Calling) -> None:
    hang(stage, "hung")
    await ask(stage, "hung", 20)
    await stage.task.close(commit=False)
    assert stage.manager.calls.destinations() == []
    assert stage.manager.calls.running == 0


# -- failures that are not the destination's ---------------------------------------------------------------------------


async def test_failures_of_the_performer_open_no_breaker(stage: Calling) -> None:
    stage.performer.answers = {b"poison-%d" % n: [ValueError("no header can hold it")] * 50 for n in range(20)}
    await ask(stage, "bank", 20, "poison")
    await ask(stage, "bank", 20)
    await until(lambda: len(stage.results) == 20)
    assert all((row := stage.row(b"poison-%d" % n)) and "no header" in row.last_error for n in range(20))
    assert [(state.failures, state.state) for state in stage.manager.calls.destinations()] in ([], [(0, "closed")])


async def test_a_failure_of_the_performer_does_not_close_a_breaker(stage: Calling) -> None:
    stage.performer.answers = {b"bank-%d" % n: [Retry("down", after_s=600)] for n in range(5)}
    await ask(stage, "bank", 5)
    await until(lambda: all((row := stage.row(b"bank-%d" % n)) and row.attempt == 2 for n in range(5)))
    stage.performer.answers[b"poison-0"] = [ValueError("no header can hold it")]
    await ask(stage, "bank", 1, "poison")
    await stage.pass_time(1)
    await until(lambda: (row := stage.row(b"poison-0")) and row.attempt == 2)
    (state,) = stage.manager.calls.destinations()
    assert (state.failures, state.state) == (5, "half-open")


async def test_an_unsettled_result_closes_the_breaker(stage: Calling) -> None:
    stage.performer.answers[b"bank-0"] = [Retry("down"), Unsettled(b"hm", "unclear", after_s=600)]
    await ask(stage, "bank")
    await stage.pass_time(1)
    await until(lambda: stage.results)
    assert not [state for state in stage.manager.calls.destinations() if state.failures]


def test_half_open_breaker_lets_first_attempts_go_first() -> None:
    task: Any = None
    destination = Destination(DestinationKey("bank", "bank"), SETTINGS)
    first = [Waiting(task, b"first-%d" % n, 0, is_retry=False) for n in range(3)]
    again = [Waiting(task, b"again-%d" % n, 0, is_retry=True) for n in range(3)]
    for each in (*again, *first):
        destination.add(each)
    destination.failures = SETTINGS.breaker_failures
    assert [destination.take() for _ in range(4)] == [*first, again[0]]
    destination.failures = 0
    destination.add(first[0])
    assert {destination.take(), destination.take()} == {again[1], first[0]}, "in turn while the breaker is closed"
