"""A party that hangs takes nothing from the others: windows, rests, and room for those that answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from streams.engine.calls import CALLS, Again
from streams.engine.parties import Party, PartyState, Waiting, Whom
from streams.engine.settings import EngineSettings
from tests.engine.fakes import until
from tests.engine.test_calls import Calling

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
    await stage.core.close_all(commit=False)


def hang(stage: Calling, *parties: str) -> None:
    stage.performer.hung |= {party: asyncio.Event() for party in parties}


async def ask(stage: Calling, whom: str, count: int = 1, name: str = "") -> None:
    """So many calls to a party, `<its name>-<number>` unless they are named otherwise."""
    for number in range(count):
        stage.task.call(f"{name or whom.partition('@')[0]}-{number}".encode(), f"{whom}/x".encode())
    await stage.task.committed()
    await stage.settle()


def under_way(stage: Calling, party: str) -> int:
    return next((state.running for state in stage.core.calls.parties() if state.party == party), 0)


# -- one party hangs, or all but one ---------------------------------------------------------------------------------


async def test_a_party_that_hangs_holds_up_no_other_of_its_host(stage: Calling) -> None:
    hang(stage, "hung")
    await ask(stage, "hung@vendor", 100)
    await ask(stage, "well@vendor", 20)
    await until(lambda: len(stage.results) == 20)
    assert under_way(stage, "hung") == 4
    assert stage.performer.most <= ROOM


@pytest.mark.parametrize("hosts", ["one", "many"])
async def test_however_many_hang_those_that_answer_are_held_up_only_until_that_is_seen(
    stage: Calling, hosts: str
) -> None:
    hung = [f"hung-{number}" for number in range(ROOM)]
    hang(stage, *hung)
    for party in hung:
        await ask(stage, f"{party}@{'vendor' if hosts == 'one' else party}", 2)
    await ask(stage, f"well@{'vendor' if hosts == 'one' else 'well'}", 20)
    assert not stage.results, "they look alike so far, and all places are taken"
    for _ in range(2):  # eight hang: two took the whole room, six the half of it that is not for the silent
        await stage.pass_time(2)
    await until(lambda: len(stage.results) == 20)
    await ask(stage, f"well@{'vendor' if hosts == 'one' else 'well'}", 20, "more")
    await until(lambda: len(stage.results) == 40)


async def test_who_waits_for_a_place_takes_it_when_others_are_seen_to_hang_though_nothing_else_happens(
    stage: Calling,
) -> None:
    hang(stage, *"abcdefgh")
    for party in "abcdefgh":
        await ask(stage, party, 2)
    await ask(stage, "well")
    assert stage.core.calls._wake is not None
    assert stage.core.calls._wake.when() - asyncio.get_running_loop().time() <= SETTINGS.silent_after_s


async def test_parties_that_are_silent_have_half_of_the_room(stage: Calling) -> None:
    hung = [f"hung-{number}" for number in range(ROOM)]
    hang(stage, *hung)
    for party in hung[:4]:
        await ask(stage, party)
    await stage.pass_time(2)
    hang(stage, "new")
    await ask(stage, "hung-0", 3, "more")
    assert under_way(stage, "hung-0") == 1, "the silent ones have their half already"
    await ask(stage, "new", 4)
    assert under_way(stage, "new") == 4, "of this one nobody knows anything bad"


async def test_waiting_parties_take_turns(stage: Calling) -> None:
    stage.performer.gate.clear()
    await ask(stage, "other-1@host-1", 4)
    await ask(stage, "other-2@host-2", 4)
    await ask(stage, "many", 50)
    await ask(stage, "few", 1)
    asked = len(stage.performer.calls)
    stage.performer.gate.set()
    await until(lambda: stage.row(b"few-0") is None)
    order = [request for _, request, _ in stage.performer.calls[asked:]]
    assert order.index(b"few/x") <= 1, "after at most one of those that came before"
    await until(lambda: len(stage.results) == 59)


@pytest.mark.parametrize("silent", [False, True])
async def test_a_call_more_costs_the_same_however_many_parties_wait(
    stage: Calling, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Party] = []
    may_start = Party.may_start

    def noted(party: Party, now: float) -> bool:
        looks.append(party)
        return may_start(party, now)

    monkeypatch.setattr(Party, "may_start", noted)
    hang(stage, *(f"hung-{number}" for number in range(120)))
    costs = []
    for first in (0, 60):
        for number in range(first, first + 60):
            await ask(stage, f"hung-{number}@vendor")
        await stage.pass_time(2 if silent else 0)
        looks.clear()
        await ask(stage, "hung-0@vendor", 1, f"more-{first}")
        costs.append(len(looks))
    assert costs[1] <= costs[0] + 2, "of 110 that wait, none but the one that is called is looked at"


@pytest.mark.parametrize("seed", range(30))
async def test_nobody_waits_where_there_is_room_and_everybody_is_called_once_all_answer(seed: int) -> None:
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
            stage.performer.answers[f"{call}-0".encode()] = [Again("down")] * chance.choice((0, 0, 1, 3))
            await ask(stage, each, 1, call)
        await stage.pass_time(chance.choice((0, 0.5, 2)))
        assert held_back_for_nothing(stage) == [], f"seed {seed}"
    for hung in stage.performer.hung.values():
        hung.set()
    async with asyncio.timeout(60):
        while stage.store.tables[CALLS]:
            await stage.pass_time(1)
    assert len({call_id for call_id, _, _ in stage.results}) == len(stage.results), f"seed {seed}"
    assert (stage.core.calls.running, stage.core.calls.parties()) == (0, [])
    await stage.core.close_all(commit=False)


def held_back_for_nothing(stage: Calling) -> list[str]:
    """The parties that could start a call, and for which there is room."""
    calls, now = stage.core.calls, stage.clock.monotonic()
    return [
        party.whom.party
        for party in calls._parties.values()
        if party.may_start(now) and all(room.has_room(party.silent(now), now) for room in calls._rooms(party))
    ]


# -- what is asked again ---------------------------------------------------------------------------------------------


async def test_calls_that_are_made_again_leave_half_of_their_party_to_the_others(stage: Calling) -> None:
    stage.performer.answers = {b"bank-%d" % number: [Again("hung")] for number in range(20)}
    await ask(stage, "bank@bank", 4)
    await until(lambda: all((row := stage.row(b"bank-%d" % n)) and row.attempt == 2 for n in range(4)))
    hang(stage, "bank")
    await stage.pass_time(1)
    assert under_way(stage, "bank") == 2, "of a window of 4"
    stage.performer.hung.clear()
    await ask(stage, "bank@bank", 10, "new")
    await until(lambda: {b"new-%d" % number for number in range(10)} <= {call_id for call_id, _, _ in stage.results})


def test_first_attempts_and_others_take_turns_so_neither_waits_for_ever() -> None:
    party = Party(Whom("a", "a"), EngineSettings(party_first=1))
    task: Any = object()
    for number in range(4):
        party.add(Waiting(task, b"first-%d" % number, 0, again=False))
        party.add(Waiting(task, b"again-%d" % number, 0, again=True))
    taken = [party.take().call_id for _ in range(8)]
    assert {call_id.split(b"-")[0] for call_id in taken[::2]} == {b"first"}
    assert {call_id.split(b"-")[0] for call_id in taken[1::2]} == {b"again"}


async def test_a_call_that_an_operator_hurried_while_it_waited_is_not_made_before_its_time_once_more() -> None:
    settings = EngineSettings(party_first=1, calls_per_party=1, breaker_failures=1, breaker_first_s=5, retry_first_s=60)
    stage = Calling(settings)
    stage.task.start()
    stage.performer.answers = {b"call-0": [Again("down")] * 2}
    hang(stage, "down")
    await ask(stage, "down", 1, "busy")
    await ask(stage, "down", 1, "call")
    stage.clock.ms += 1
    await ask(stage, "down", 1, "call")  # it waits in two places now
    stage.performer.hung.pop("down").set()
    await until(lambda: (row := stage.row(b"call-0")) and row.attempt == 2)
    await stage.pass_time(5)
    assert [call_id for call_id, _, _ in stage.performer.calls] == [b"busy-0", b"call-0"]
    await stage.core.close_all(commit=False)


# -- the breaker -----------------------------------------------------------------------------------------------------


def a_party(**settings: Any) -> Party:
    return Party(Whom("a", "a"), EngineSettings(**settings))


def waits(party: Party, count: int, again: bool = False) -> None:
    for number in range(count):
        party.add(Waiting(None, b"%d" % number, 0, again))  # type: ignore[arg-type]


def started(party: Party, now: float) -> list[Any]:
    attempts = []
    while party.may_start(now):
        attempts.append(party.begin(party.take(), now))
    return attempts


def test_a_party_that_fails_rests_then_one_tries_and_each_that_fails_doubles_the_rest() -> None:
    party = a_party(party_first=5, breaker_failures=5, breaker_first_s=2, breaker_max_s=7)
    waits(party, 100)
    now = 8.0
    for attempt in started(party, 0):
        party.failed(attempt, "down", now)
        party.end(attempt)
    for rest in (2, 4, 7, 7):
        assert not party.may_start(now + rest - 0.1)
        now += rest
        (attempt,) = started(party, now)
        party.failed(attempt, "still down", now)
        party.end(attempt)
    assert party.state(now).last_error == "still down"


def test_calls_that_hung_together_are_one_reason_to_rest_and_not_many() -> None:
    party = a_party(party_first=40, breaker_failures=5, breaker_first_s=1)
    waits(party, 100)
    for attempt in started(party, 0):
        party.failed(attempt, "hung", 8)
        party.end(attempt)
    assert party.failures == 40
    assert party.may_start(9)


def test_a_party_that_is_back_is_not_run_over_by_all_that_waited() -> None:
    party = a_party(party_first=5, breaker_failures=5, breaker_first_s=1, calls_per_party=16)
    waits(party, 200)
    for attempt in started(party, 0):
        party.failed(attempt, "hung", 8)
        party.end(attempt)
    at_once = []
    for now in range(9, 16):
        attempts = started(party, now)
        at_once.append(len(attempts))
        for attempt in attempts:
            party.answered()
            party.end(attempt)
    assert at_once == [1, 2, 3, 4, 5, 6, 7]


def test_a_window_grows_only_where_it_is_used_and_not_beyond_the_limit() -> None:
    party = a_party(party_first=2, calls_per_party=6)
    for now in range(20):
        waits(party, 1)
        for attempt in started(party, now):
            party.answered()
            party.end(attempt)
    assert party.window == 2
    waits(party, 200)
    for now in range(20):
        for attempt in started(party, now):
            party.answered()
            party.end(attempt)
    assert party.window == 6


# -- what is known of them -------------------------------------------------------------------------------------------


async def test_how_a_party_stands_is_told_until_all_is_well(stage: Calling) -> None:
    def standing() -> dict[str, PartyState]:
        return {state.party: state for state in stage.core.calls.parties()}

    stage.performer.answers[b"bad-0"] = [Again("503")] * 5
    await ask(stage, "bad@vendor")
    for failures in range(1, 6):
        await until(lambda: (row := stage.row(b"bad-0")) and row.attempt == failures + 1)  # noqa: B023
        assert (standing()["bad"].failures, standing()["bad"].last_error) == (failures, "503")
        assert standing()["bad"].state == ("fails" if failures < 5 else "rests")
        await stage.pass_time(0 if failures == 5 else 1)
    assert standing()["bad"].tried_in_s == 1
    hang(stage, "slow")
    await ask(stage, "slow@vendor", 6)
    slow = standing()["slow"]
    assert (slow.host, slow.state, slow.running, slow.waiting) == ("vendor", "answers", 4, 2)
    await stage.pass_time(2)
    assert (standing()["slow"].state, standing()["slow"].silent_s) == ("silent", 2)
    assert standing()["bad"].state == "tried", "its rest is over"
    stage.performer.hung["slow"].set()
    await until(lambda: len(stage.results) == 7)
    await stage.settle()
    assert not standing()
    assert stage.core.calls.party(b"slow@vendor/x") is None


async def test_nothing_is_kept_of_a_task_that_is_no_more(stage: Calling) -> None:
    hang(stage, "hung")
    await ask(stage, "hung", 20)
    await stage.task.close(commit=False)
    assert stage.core.calls.parties() == []
    assert stage.core.calls.running == 0
