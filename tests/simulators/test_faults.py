"""Faults have their effect, strike the requests that the seed draws, and leave the ledgers true."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from random import Random
from typing import Any

import httpx
import msgspec
import pytest

from processors.order_validation import validate
from processors.parameters import Parameters
from simulators.city import KITCHENS, order
from simulators.faults import FAULTS, PARTIES, SLOW_S, Faults, WrongFault, known_to, read, read_all
from simulators.provider import malformed
from tests.simulators.conftest import MakeSimulator
from tests.simulators.fake_worker import FakeWorker
from tests.simulators.process import ROOT, Simulator
from tests.simulators.test_drivers import DRIVER, PATH, events, offer
from tests.simulators.test_payment import charge, done, post
from tests.simulators.test_pos import FINISHED, prepare
from tests.simulators.test_pos import events as ticket_events
from tests.simulators.test_provider import PLACE, outcomes
from tests.simulators.waiting import until
from tests.support.plain_http import NO_CERTIFICATES
from topics.families import ORDERS
from topics.records import Undecodable

PAYMENTS = "/v1/payments/p/events"
ALWAYS_500, NEVER_ANSWERED = ("500", "500-after"), ("silent", "cut", "cut-after")
ACTED = ("500-after", "cut-after", "slow")


async def send_request(url: str, party: str, worker: str, timeout_s: float = 20) -> httpx.Response | None:
    """Send one request of the party; return the answer, or None without one."""
    path, body, key = {
        "payment": ("/v1/charges", charge(callback_url=worker + PAYMENTS), "shop:1/charge"),
        "pos": ("/restaurants/hindmata-chaat/prepare", _ticket(worker), "shop:1/prepare"),
    }[party]
    async with httpx.AsyncClient(verify=NO_CERTIFICATES, trust_env=False, timeout=timeout_s) as client:
        try:
            return await client.post(url + path, json=body, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None


def _ticket(worker: str) -> dict[str, Any]:
    return {
        "order": "shop:1",
        "restaurant": "hindmata-chaat",
        "items": [{"id": "1", "name": "Pav bhaji", "quantity": 2}],
        "callback_url": worker + FINISHED.removesuffix("/finished"),
    }


async def switch(url: str, method: str, body: Any = None) -> httpx.Response:
    async with httpx.AsyncClient(verify=NO_CERTIFICATES, trust_env=False) as client:
        return await client.request(method, f"{url}/faults", json=body)


# -- names and rates -------------------------------------------------------------------------------------------------


def test_faults_are_read_with_their_rates() -> None:
    assert read("payment", "slow,500:0.2") == {"slow": 1.0, "500": 0.2}
    assert read("pos", "") == {}
    assert read_all("pos:silent,payment:500:0.2,pos:cut") == {
        "pos": {"silent": 1.0, "cut": 1.0},
        "payment": {"500": 0.2},
    }
    assert read("pos", "silent@ballard-slice,cut@pali-salads:0.5") == {
        "silent@ballard-slice": 1.0,
        "cut@pali-salads": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("slwo", "'slwo' is no fault of payment; its faults are decline, 500,"),
        ("refuse", "'refuse' is no fault of payment"),
        ("500:2", "the rate of 500 is 2.0, and must be a number above 0 and up to 1"),
        ("500:often", "the rate of 500 is often, and must be"),
        ("slow:nan", "the rate of slow is nan"),
        ("slow:0", "the rate of slow is 0.0"),
        ("slow@ballard-slice", "only faults of pos can be limited to one restaurant"),
    ],
)
def test_unknown_fault_is_named_with_the_known_ones(text: str, why: str) -> None:
    with pytest.raises(WrongFault, match=why):
        read("payment", text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("slow", "the parties are payment, pos, drivers, provider"),
        ("pos", "does not name a fault of pos; its faults are"),
        ("pos:x", "'x' is"),
        ("pos:slow@x", "'x' is no restaurant of the city; its restaurants are lakshmi-tiffin,"),
    ],
)
def test_fault_without_a_party_names_the_parties(text: str, why: str) -> None:
    with pytest.raises(WrongFault, match=why):
        read_all(text)


@pytest.mark.parametrize("party", PARTIES)
def test_help_of_a_party_lists_its_faults(party: str) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", f"simulators.{party}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.rpartition("faults:")[2]
    assert [line.split(maxsplit=1) for line in listed.strip().splitlines()] == [
        [fault.kind, fault.meaning] for fault in known_to(party)
    ]


def test_seed_decides_for_each_attempt_which_faults_apply() -> None:
    def struck(seed: str) -> list[bool]:
        faults = Faults("pos", seed, {"500": 0.2})
        return [faults.applies("500", f"shop:{number}") for number in range(1000)]

    assert 140 < sum(struck("1")) < 260
    assert struck("1") == struck("1")
    assert struck("1") != struck("2")
    faults = Faults("pos", "1", {"500": 0.5})
    again = [faults.applies("500", "shop:1") for _ in range(100)]
    assert 25 < sum(again) < 75
    assert not faults.applies("slow", "shop:1")


def test_fault_of_one_restaurant_overrides_that_of_all() -> None:
    faults = Faults("pos", "1", {"cut@pali-salads": 1, "500": 1, "500@ballard-slice": 1e-9})
    assert faults.one_of(("cut", "500"), "k", "pali-salads") == "cut"
    assert faults.one_of(("cut", "500"), "k", "hindmata-chaat") == "500"
    assert faults.one_of(("cut", "500"), "k", "ballard-slice") is None


# -- payment and pos: requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("party", ["payment", "pos"])
@pytest.mark.parametrize("kind", ["500", "500-after", "cut", "cut-after", "silent", "slow"])
async def test_fault_has_its_effect_on_a_request_and_the_ledger(
    worker: FakeWorker, simulator: MakeSimulator, party: str, kind: str
) -> None:
    party_process = simulator(party, "--speed", "0", "--faults", kind)
    url, began = await party_process.serving(), time.monotonic()
    answer = await send_request(url, party, worker.url, timeout_s=1 if kind == "silent" else 120)

    assert (answer is None) == (kind in NEVER_ANSWERED)
    if answer is not None:
        assert answer.status_code == (500 if kind in ALWAYS_500 else 200)
    assert kind != "slow" or time.monotonic() - began >= SLOW_S
    assert bool(party_process.entries()) == (kind in ACTED)


@pytest.mark.parametrize("party", ["payment", "pos"])
async def test_effect_before_a_failed_answer_is_known_to_the_repeat(
    worker: FakeWorker, simulator: MakeSimulator, party: str
) -> None:
    party_process = simulator(party, "--speed", "0", "--faults", "500-after")
    url = await party_process.serving()
    await send_request(url, party, worker.url)
    party_process.kill()
    await party_process.serving("--faults", "")
    again = await send_request(url, party, worker.url)
    assert again is not None
    assert again.status_code == 200
    if party == "payment":
        assert done(party_process) == {"charged": 1}
    else:
        assert sorted(set(ticket_events(party_process)) - {"told finished"}) == ["accepted", "finished", "replay"]


async def test_repeated_request_succeeds_in_the_end(worker: FakeWorker, simulator: MakeSimulator) -> None:
    payment = simulator("payment", "--speed", "0", "--faults", "500:0.5,cut:0.5")
    url = await payment.serving()
    answers = [await send_request(url, "payment", worker.url) for _ in range(20)]
    assert {answer.status_code if answer else None for answer in answers} == {200, 500, None}
    assert done(payment) == {"charged": 1}


# -- payment and pos: switched on and off ----------------------------------------------------------------------------


@pytest.mark.parametrize("party", ["payment", "pos"])
async def test_faults_are_switched_on_and_off_at_runtime(
    worker: FakeWorker, simulator: MakeSimulator, party: str
) -> None:
    url = await simulator(party, "--speed", "0").serving()
    assert (await switch(url, "POST", {"500": 1})).json() == {"500": 1}
    assert (await switch(url, "GET")).json() == {"500": 1}
    failed = await send_request(url, party, worker.url)
    assert failed is not None
    assert failed.status_code == 500
    assert (await switch(url, "DELETE")).json() == {}
    answer = await send_request(url, party, worker.url)
    assert answer is not None
    assert answer.status_code == 200


@pytest.mark.parametrize("body", [{"slwo": 1}, {"slow": 2}, {"slow": "often"}, ["slow"]])
async def test_invalid_fault_is_explained_and_nothing_switched_on(simulator: MakeSimulator, body: Any) -> None:
    url = await simulator("pos").serving()
    answer = await switch(url, "POST", body)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["detail"]
    assert (await switch(url, "GET")).json() == {}


async def test_one_restaurant_is_silent_while_the_others_answer(worker: FakeWorker, simulator: MakeSimulator) -> None:
    url = await simulator("pos", "--speed", "0").serving()
    assert (await switch(url, "POST", {"silent@hindmata-chaat": 1})).json() == {"silent@hindmata-chaat": 1}
    waiting = asyncio.create_task(send_request(url, "pos", worker.url, timeout_s=60))
    for number in range(9):
        order = {"order": f"s:{number}", "restaurant": "pali-salads"}
        answer = await asyncio.to_thread(prepare, url, worker.url, f"s:{number}/prepare", **order)
        assert answer.status_code == 200
    assert not waiting.done()
    await switch(url, "DELETE")
    await waiting
    back = await send_request(url, "pos", worker.url)
    assert back is not None
    assert back.status_code == 200


async def test_waiting_request_is_cut_when_a_silent_party_returns(worker: FakeWorker, simulator: MakeSimulator) -> None:
    pos = simulator("pos", "--speed", "0", "--faults", "silent")
    url, began = await pos.serving(), time.monotonic()
    waiting = asyncio.create_task(send_request(url, "pos", worker.url, timeout_s=300))
    await asyncio.wait([waiting], timeout=0.5)
    assert not waiting.done()
    await switch(url, "DELETE")
    assert await waiting is None
    assert time.monotonic() - began < 150, "the connection is cut long before the time-out"
    answer = await send_request(url, "pos", worker.url)
    assert answer is not None
    assert answer.status_code == 200


# -- payment and pos: what they decide, and callbacks ----------------------------------------------------------------


async def test_declines_and_refusals_are_drawn_by_order(worker: FakeWorker, simulator: MakeSimulator) -> None:
    payment = await simulator("payment", "--speed", "0", "--faults", "decline:0.3").serving()
    pos = await simulator("pos", "--speed", "0", "--faults", "refuse:0.3").serving()
    numbers = range(40)
    charges = [post(payment, "charges", charge(order=f"s:{n}"), f"s:{n}/charge").status_code for n in numbers]
    again = [post(payment, "charges", charge(order=f"s:{n}"), f"s:{n}/charge").status_code for n in numbers]
    tickets = [prepare(pos, worker.url, f"s:{n}/prepare", order=f"s:{n}").status_code for n in numbers]
    assert set(charges) == {200, 402}
    assert charges == again
    assert set(tickets) == {200, 409}


@pytest.mark.parametrize("party", ["payment", "pos"])
async def test_lost_callback_is_made_once_the_fault_is_off(
    worker: FakeWorker, simulator: MakeSimulator, party: str
) -> None:
    path = PAYMENTS if party == "payment" else FINISHED
    party_process = simulator(party, "--speed", "0", "--faults", "lost")
    url = await party_process.serving()
    await send_request(url, party, worker.url)
    before = "charged" if party == "payment" else "finished"
    await until(lambda: before in _recorded(party_process), "it is done")
    party_process.kill()
    await party_process.serving()
    await send_request(url, party, worker.url)
    assert not worker.calls(path)
    await switch(url, "DELETE")
    await until(lambda: len(worker.calls(path)) == 1, "the callback is made")

    worker.requests.clear()
    other = simulator(party, "--speed", "0")
    other.ledger = party_process.ledger.with_name("other.jsonl")
    address = await other.serving("--faults", "lost")
    await send_request(address, party, worker.url)
    await until(lambda: before in _recorded(other), "it is done")
    other.kill()
    await other.serving("--faults", "")
    await until(lambda: len(worker.calls(path)) == 1, "the callback is made after the start")


def _recorded(party: Simulator) -> set[str]:
    return {entry.get("event") or entry["outcome"] for entry in party.entries()}


@pytest.mark.parametrize("party", ["payment", "pos"])
async def test_a_doubled_callback_is_made_twice_under_one_key(
    worker: FakeWorker, simulator: MakeSimulator, party: str
) -> None:
    path = PAYMENTS if party == "payment" else FINISHED
    url = await simulator(party, "--speed", "0", "--faults", "doubled").serving()
    await send_request(url, party, worker.url)
    await until(lambda: len(worker.calls(path)) == 2, "the callback is made twice")
    assert len({call.key for call in worker.calls(path)}) == 1


@pytest.mark.parametrize("party", ["payment", "pos"])
async def test_a_late_callback_is_made_later(worker: FakeWorker, simulator: MakeSimulator, party: str) -> None:
    path = PAYMENTS if party == "payment" else FINISHED
    late = simulator(party, "--speed", "0", "--faults", "late")
    url, began = await late.serving(), time.monotonic()
    await send_request(url, party, worker.url)
    await until(lambda: worker.calls(path), "the callback is made")
    assert time.monotonic() - began >= 3
    await until(lambda: {"answered", "told"} & _recorded(late), "and recorded")


async def test_ticket_is_finished_despite_a_lost_acceptance(worker: FakeWorker, simulator: MakeSimulator) -> None:
    pos = simulator("pos", "--speed", "0", "--receive")
    url = await pos.serving("--faults", "lost:0.5")
    for number in range(20):
        tickets = worker.url + f"/v1/pos/hindmata-chaat/tickets/s:{number}"
        prepare(url, worker.url, f"s:{number}/prepare", order=f"s:{number}", callback_url=tickets)
    await until(lambda: Counter(entry["event"] for entry in pos.entries())["finished"] == 20, "every ticket is cooked")
    await switch(url, "DELETE")
    await until(lambda: Counter(ticket_events(pos))["told accepted"] == 20, "every callback is answered")
    await until(lambda: Counter(ticket_events(pos))["told finished"] == 20, "every callback is answered")


# -- drivers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def drivers(worker: FakeWorker, simulator: MakeSimulator, kafka: str, topics: str) -> Simulator:
    """Return one driver without delays."""
    return simulator(
        "drivers", "--drivers", "1", "--worker", worker.url, "--bootstrap-servers", kafka, "--topic-prefix", topics,
        "--speed", "0",
    )  # fmt: skip


async def test_doubled_request_of_a_driver_has_one_key_and_one_entry(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.append(offer())
    drivers.start("--faults", "doubled")
    await until(lambda: len(events(drivers)) == 5, "the delivery is brought")
    assert events(drivers) == ["available", "assigned shop:1", "picked_up shop:1", "delivered shop:1", "available"]
    for event in ("pickup", "delivered"):
        keys = [call.key for call in worker.calls(f"{PATH}/{event}")]
        assert (len(keys), len(set(keys))) == (2, 1)


async def test_silent_driver_continues_after_a_while(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.append(offer())
    began = time.monotonic()
    drivers.start("--faults", "silent")
    await until(lambda: "falls silent" in drivers.output, "the driver falls silent")
    assert "picked_up shop:1" not in events(drivers)
    await until(lambda: events(drivers)[-1] == "available", "the delivery is brought")
    assert time.monotonic() - began >= 6, "silent before the restaurant and before the customer"


async def test_gone_driver_sends_nothing_until_restarted(drivers: Simulator, worker: FakeWorker) -> None:
    worker.offers.append(offer())
    drivers.start("--faults", "gone")
    await until(lambda: f"{DRIVER} is gone" in drivers.output, "the driver is gone")
    before = len(worker.requests)
    await asyncio.sleep(1)
    assert len(worker.requests) == before
    assert events(drivers) == ["available", "assigned shop:1"]
    assert await drivers.terminate() == 0
    drivers.start("--faults", "")
    await until(lambda: "delivered shop:1" in events(drivers), "the delivery is brought")


# -- provider --------------------------------------------------------------------------------------------------------


async def test_order_placed_twice_at_once_is_answered_once(worker: FakeWorker, simulator: MakeSimulator) -> None:
    provider = simulator("provider", "--worker", worker.url, "--orders", "5", "--speed", "0", "--faults", "doubled")
    provider.start()
    assert await provider.ended() == 0, provider.output
    assert len(worker.calls(PLACE)) == 10
    assert len(worker.orders) == 5
    assert set(outcomes(provider).values()) == {"accepted"}


def test_malformed_order_is_invalid() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    kitchens = {kitchen.id: kitchen.record("http://pos") for kitchen in KITCHENS.values()}
    for number in range(1, 200):
        body = malformed(order("1", "run", number, at), Random(number))
        assert ORDERS.reader is not None
        try:
            placed = ORDERS.reader.read(body)
        except Undecodable:
            continue
        assert validate(placed, kitchens.get(placed.restaurant), 0, Parameters()), msgspec.json.decode(body)


def test_every_fault_has_a_known_party() -> None:
    assert {party for fault in FAULTS for party in fault.parties} == set(PARTIES)
