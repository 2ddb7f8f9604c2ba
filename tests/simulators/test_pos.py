"""Points of sale cook each ticket once and repeat callbacks until answered, also after a kill."""

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest

from simulators.pos import PrepareRequest, RejectRule
from tests.simulators.conftest import MakeSimulator
from tests.simulators.fake_worker import FakeWorker
from tests.simulators.process import Simulator
from tests.simulators.waiting import until
from tests.support.plain_http import NO_CERTIFICATES

ORDER, RESTAURANT, KEY = "shop:1", "hindmata-chaat", "shop:1/prepare"
TICKETS = f"/v1/pos/{RESTAURANT}/tickets/{ORDER}"
FINISHED = f"{TICKETS}/finished"
PREPARATION_S = 300


def ticket(worker: str, **fields: Any) -> dict[str, Any]:
    return {
        "order": ORDER,
        "restaurant": RESTAURANT,
        "display_number": "001",
        "items": [{"id": "1", "pos_code": "HC-02", "name": "Pav bhaji", "quantity": 2, "modifiers": [], "note": ""}],
        "note": "",
        "callback_url": worker + TICKETS,
        **fields,
    }


def prepare(url: str, worker: str, key: str = KEY, **fields: Any) -> httpx.Response:
    body = ticket(worker, **fields)
    address = f"{url}/restaurants/{body['restaurant']}/prepare"
    return httpx.post(address, json=body, headers={"Idempotency-Key": key}, verify=NO_CERTIFICATES, trust_env=False)


def events(pos: Simulator) -> list[str]:
    """Return the events of the ticket, in order."""
    return [(entry["told"] and f"told {entry['told']}") or entry["event"] for entry in pos.entries()]


async def test_killed_preparation_ends_at_its_moment(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos", "--speed", "100")
    url = await pos.serving()
    asked = datetime.now(UTC)
    assert prepare(url, worker.url).json() == {"status": "accepted"}
    pos.kill()
    assert events(pos) == ["accepted"]
    await pos.serving()
    await until(lambda: worker.calls(FINISHED), "the food stands ready")
    took = (datetime.now(UTC) - asked).total_seconds()

    assert took >= PREPARATION_S / 100
    await until(lambda: len(events(pos)) == 3, "the answer is written down")
    assert events(pos) == ["accepted", "finished", "told finished"]
    finished = datetime.fromisoformat(pos.entries()[1]["at"])
    assert finished >= datetime.fromisoformat(pos.entries()[0]["ready_at"])


async def test_finished_callback_is_repeated_until_answered(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos", "--speed", "0")
    url = await pos.serving()
    worker.next_statuses[FINISHED].extend([500] * 1000)
    prepare(url, worker.url)
    await until(lambda: len(worker.calls(FINISHED)) >= 3, "the callback is tried again")
    pos.kill()
    worker.next_statuses[FINISHED].clear()
    await pos.serving()
    await until(lambda: "told finished" in events(pos), "the callback has its answer")
    pos.kill()
    await pos.serving()
    assert prepare(url, worker.url).json() == {"status": "accepted"}
    other = "/v1/pos/hindmata-chaat/tickets/shop:2"
    prepare(url, worker.url, key="shop:2/prepare", order="shop:2", callback_url=worker.url + other)
    await until(lambda: worker.calls(f"{other}/finished"), "a later ticket is finished")

    assert events(pos)[:4] == ["accepted", "finished", "told finished", "replay"]
    assert [call.status for call in worker.calls(FINISHED)].count(200) == 1
    assert {call.key for call in worker.calls(FINISHED)} == {f"{ORDER}/finished"}


async def test_repeated_ticket_calls_back_to_the_newest_address(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos", "--speed", "0")
    url = await pos.serving()
    prepare(url, "http://127.0.0.1:9")
    again = prepare(url, worker.url)
    await until(lambda: "told finished" in events(pos), "the callback has its answer")
    assert (again.status_code, again.json()) == (200, {"status": "accepted"})
    assert sorted(events(pos)) == ["accepted", "finished", "replay", "told finished"]


async def test_key_of_another_ticket_is_rejected(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos")
    url = await pos.serving()
    prepare(url, worker.url)
    other = prepare(url, worker.url, note="without onions")
    assert other.status_code == 400
    assert events(pos) == ["accepted", "refused"]


@pytest.mark.parametrize(("mode", "status"), [("ietf", 422), ("stripe", 400)])
async def test_strict_pos_compares_the_whole_body(
    simulator: MakeSimulator, worker: FakeWorker, mode: str, status: int
) -> None:
    pos = simulator("pos", "--strict", mode)
    url = await pos.serving()
    answers = [prepare(url, worker.url, callback_url=worker.url + path) for path in (TICKETS, "/moved", TICKETS)]
    assert [answer.status_code for answer in answers] == [200, status, 200]
    assert events(pos) == ["accepted", "refused", "replay"]


@pytest.mark.parametrize(
    ("rule", "rejected"),
    [
        ("never", False),
        ("always", True),
        (f"restaurant:{RESTAURANT}", True),
        ("restaurant:matunga-dosa", False),
        ("product:HC-02", True),
        ("product:HC-01", False),
        ("share:0", False),
        ("share:1", True),
    ],
)
def test_tickets_are_rejected_by_rule(rule: str, rejected: bool) -> None:
    asked = msgspec.convert(ticket("http://127.0.0.1:9"), PrepareRequest)
    assert bool(RejectRule.read(rule).reason(asked, "1")) == rejected


async def test_rejected_ticket_has_a_reason_and_stays_rejected(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos", "--reject", "product:HC-02")
    url = await pos.serving()
    rejected = prepare(url, worker.url)
    pos.kill()
    await pos.serving()
    again = prepare(url, worker.url)
    assert rejected.status_code == again.status_code == 409
    assert rejected.json() == again.json() == {"status": "rejected", "reason": "HC-02 is sold out"}
    assert events(pos) == ["rejected", "replay"]


async def test_received_ticket_is_decided_later_by_callbacks(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos", "--speed", "0", "--receive")
    url = await pos.serving()
    worker.next_statuses[f"{TICKETS}/accepted"].extend([500, 202])
    received = prepare(url, worker.url)
    await until(lambda: "told finished" in events(pos), "the ticket is finished")
    assert (received.status_code, received.json()) == (202, {"status": "received"})
    assert events(pos) == ["received", "accepted", "told accepted", "finished", "told finished"]
    assert [call.path.rpartition("/")[2] for call in worker.requests] == ["accepted", "accepted", "finished"]


async def test_rejection_of_a_received_ticket_survives_a_kill(simulator: MakeSimulator, worker: FakeWorker) -> None:
    pos = simulator("pos", "--speed", "10", "--receive", "--reject", "always")
    url = await pos.serving()
    prepare(url, worker.url)
    pos.kill()
    assert events(pos) == ["received"]
    await pos.serving("--speed", "0")
    await until(lambda: "told rejected" in events(pos), "the rejection is reported")
    assert events(pos) == ["received", "rejected", "told rejected"]
    assert worker.calls(f"{TICKETS}/rejected")[0].body == {"reason": "the kitchen is too busy"}


async def test_unknown_restaurant_is_not_found(simulator: MakeSimulator, worker: FakeWorker) -> None:
    url = await simulator("pos").serving()
    answer = prepare(url, worker.url, restaurant="nowhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/problem+json")
