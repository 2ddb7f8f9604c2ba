"""The payment provider performs each request once, despite repeated requests and kills."""

from collections import Counter
from typing import Any

import httpx
import msgspec
import pytest

from simulators.payment import ChargeRequest, DeclineRule
from tests.simulators.conftest import MakeSimulator
from tests.simulators.fake_worker import FakeWorker
from tests.simulators.process import Simulator
from tests.simulators.waiting import until
from tests.support.plain_http import NO_CERTIFICATES

ORDER = "shop:1"


def charge(**fields: Any) -> dict[str, Any]:
    return {"order": ORDER, "amount": 530_00, "currency": "INR", "callback_url": "http://127.0.0.1:9/none", **fields}


def post(url: str, path: str, body: Any, key: str = f"{ORDER}/charge", *, timeout_s: float = 30.0) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/{path}",
        json=body,
        headers={"Idempotency-Key": key} if key else {},
        verify=NO_CERTIFICATES,
        trust_env=False,
        timeout=timeout_s,
    )


def done(payment: Simulator) -> Counter[str]:
    """Count the outcomes that had an effect."""
    return Counter(entry["outcome"] for entry in payment.entries() if not entry["replay"])


async def test_repeated_charge_has_the_same_answer_and_is_made_once(simulator: MakeSimulator) -> None:
    payment = simulator("payment", "--speed", "0")
    url = await payment.serving()
    first = post(url, "charges", charge())
    again = post(url, "charges", charge(callback_url="http://127.0.0.1:9/moved"), key=f'"{ORDER}/charge"')
    payment.kill()
    with payment.ledger.open("ab") as torn:
        torn.write(b'{"at":"2026-')
    await payment.serving("--decline", "always")
    after = post(url, "charges", charge())

    assert first.status_code == 200
    assert first.json() == {"charge_id": first.json()["charge_id"], "amount": 530_00, "currency": "INR"}
    assert first.json() == again.json() == after.json()
    assert done(payment) == {"charged": 1}
    assert [entry["replay"] for entry in payment.entries()] == [False, True, True]


async def test_key_of_another_request_is_rejected(simulator: MakeSimulator) -> None:
    payment = simulator("payment", "--speed", "0")
    url = await payment.serving()
    post(url, "charges", charge())
    other = post(url, "charges", charge(amount=1))
    assert other.status_code == 422
    assert "used for another request" in other.json()["detail"]
    assert done(payment) == {"charged": 1, "refused": 1}


async def test_declined_charge_has_a_reason(simulator: MakeSimulator) -> None:
    url = await simulator("payment", "--speed", "0", "--decline", "ending:13").serving()
    answer = post(url, "charges", charge(amount=713))
    assert (answer.status_code, answer.json()) == (402, {"reason": "amounts that end in 13 are not charged"})


@pytest.mark.parametrize(
    ("rule", "amount", "declined"),
    [
        ("never", 13, False),
        ("always", 100, True),
        ("ending:13", 713, True),
        ("ending:13", 131, False),
        ("share:0", 5, False),
        ("share:1", 5, True),
    ],
)
def test_charges_are_declined_by_rule(rule: str, amount: int, declined: bool) -> None:
    asked = msgspec.convert(charge(amount=amount), ChargeRequest)
    assert bool(DeclineRule.read(rule).reason(asked, "1")) == declined


def test_seed_decides_which_share_of_orders_is_declined() -> None:
    orders = [msgspec.convert(charge(order=f"shop:{number}"), ChargeRequest) for number in range(1000)]
    rule = DeclineRule.read("share:0.1")
    declined = [bool(rule.reason(asked, "1")) for asked in orders]
    assert 60 < sum(declined) < 140
    assert declined == [bool(rule.reason(asked, "1")) for asked in orders]
    assert declined != [bool(rule.reason(asked, "2")) for asked in orders]


async def test_charge_is_refunded_once_and_in_full(simulator: MakeSimulator) -> None:
    payment = simulator("payment", "--speed", "0")
    url = await payment.serving()
    charge_id = post(url, "charges", charge()).json()["charge_id"]
    body, key = charge(charge_id=charge_id), f"{ORDER}/refund/{charge_id}"

    unknown = post(url, "refunds", charge(charge_id="ch-none"), key)
    part = post(url, "refunds", charge(charge_id=charge_id, amount=1), key)
    refund = post(url, "refunds", body, key)
    payment.kill()
    await payment.serving()
    again = post(url, "refunds", body, key)
    twice = post(url, "refunds", body, key + "/2")

    assert [unknown.status_code, part.status_code, twice.status_code] == [422, 422, 409]
    assert refund.status_code == 200
    assert refund.json() == again.json() == {"refund_id": refund.json()["refund_id"], "charge_id": charge_id}
    assert done(payment) == {"charged": 1, "refunded": 1, "refused": 3}


async def test_callback_is_repeated_until_answered_also_after_a_kill(
    simulator: MakeSimulator, worker: FakeWorker
) -> None:
    payment, path = simulator("payment", "--speed", "0", "--callback"), "/v1/payments/cards/events"
    url = await payment.serving()
    worker.next_statuses[path].extend([500] * 1000)
    asked = post(url, "charges", charge(callback_url=worker.url + path))
    await until(lambda: len(worker.calls(path)) >= 2, "the callback is tried again")
    payment.kill()
    worker.next_statuses[path].clear()
    await payment.serving()
    await until(lambda: payment.entries()[-1]["kind"] == "callback", "the callback has its answer")

    assert (asked.status_code, asked.json()) == (202, {})
    callback = worker.calls(path)[-1]
    assert (callback.status, callback.body["type"], callback.body["order"], callback.body["amount"]) == (
        200,
        "Charged",
        ORDER,
        530_00,
    )
    assert done(payment) == {"charged": 1, "answered": 1}


async def test_repeat_after_a_callback_gets_the_result(simulator: MakeSimulator, worker: FakeWorker) -> None:
    payment, path = simulator("payment", "--speed", "0", "--callback", "--decline", "always"), "/v1/payments/p/events"
    url = await payment.serving()
    first = post(url, "charges", charge(callback_url=worker.url + path))
    await until(lambda: done(payment)["answered"] == 1, "the callback is answered")
    again = post(url, "charges", charge(callback_url=worker.url + path))
    assert (first.status_code, again.status_code) == (202, 402)
    assert [call.body["type"] for call in worker.calls(path)] == ["Declined"]
    assert done(payment)["declined"] == 1


async def test_request_repeated_while_the_bank_works_is_answered_202(simulator: MakeSimulator) -> None:
    url = await simulator("payment", "--speed", "0.01", "--callback").serving()
    assert [post(url, "charges", charge()).status_code for _ in range(2)] == [202, 202]


@pytest.mark.parametrize(("mode", "status"), [("ietf", 422), ("stripe", 400)])
async def test_strict_provider_compares_the_whole_body(simulator: MakeSimulator, mode: str, status: int) -> None:
    payment = simulator("payment", "--speed", "0", "--strict", mode)
    url = await payment.serving()
    moved = charge(callback_url="http://127.0.0.1:9/moved")
    assert [post(url, "charges", body).status_code for body in (charge(), moved, charge())] == [200, status, 200]
    assert done(payment) == {"charged": 1, "refused": 1}


@pytest.mark.parametrize("mode", ["ietf", "stripe"])
async def test_strict_provider_answers_409_meanwhile(simulator: MakeSimulator, mode: str) -> None:
    payment = simulator("payment", "--speed", "0", "--strict", mode, "--faults", "slow")
    url = await payment.serving()
    with pytest.raises(httpx.TimeoutException):
        post(url, "charges", charge(), timeout_s=0.5)
    assert post(url, "charges", charge()).status_code == 409
    await until(lambda: post(url, "charges", charge()).status_code == 200, "the first request is over")
    assert done(payment) == {"charged": 1}


async def test_stripe_like_provider_refuses_small_amounts(simulator: MakeSimulator) -> None:
    url = await simulator("payment", "--strict", "stripe").serving()
    assert post(url, "charges", charge(amount=49)).status_code == 400


async def test_keyless_provider_performs_each_request(simulator: MakeSimulator) -> None:
    payment = simulator("payment", "--speed", "0", "--keyless")
    url = await payment.serving()
    made = [post(url, "charges", charge(), key=key) for key in ("", "", f"{ORDER}/charge", f"{ORDER}/charge")]
    assert [answer.status_code for answer in made] == [200] * 4
    assert len({answer.json()["charge_id"] for answer in made}) == 3
    assert done(payment) == {"charged": 3}


async def test_invalid_request_names_the_field(simulator: MakeSimulator) -> None:
    url = await simulator("payment").serving()
    for field, value in {"amount": -1, "currency": "rupees", "callback_url": "nowhere"}.items():
        wrong = post(url, "charges", charge(**{field: value}))
        assert wrong.status_code == 400
        assert wrong.headers["content-type"].startswith("application/problem+json")
        assert wrong.json()["errors"][0]["pointer"] == f"/{field}"
    keyless = post(url, "charges", charge(), key="")
    assert keyless.status_code == 400
    assert "Idempotency-Key" in keyless.json()["detail"]
