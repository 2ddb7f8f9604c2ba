"""The audit: each action of an operator leaves one record, and so does each reading of personal data."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams.access.keys import Role
from streams.access.rules import RULES
from streams.demo.processes import Child
from tests.flow.client import Client, Driver, an_order, order_id, place
from tests.flow.conftest import INSTANT
from tests.flow.hand_pos import HandPos
from tests.flow.reading import Following
from tests.flow.test_calls import BROKEN, prepare_of
from tests.flow.test_dead_letters import letter_of, set_aside
from tests.support.keys import KEYS, OPERATOR, REVEALED
from tests.support.stack import Stack, installed
from topics.audit import READER, OperatorActed
from topics.families import AUDIT, ORDERS
from topics.headers import OPERATOR_ACTED
from topics.records import write
from topics.restaurants import Restaurant


def acted(audit: Following, path: str) -> list[OperatorActed]:
    """Return the records of the audit about requests to a path."""
    found = [READER.read(record.value) for record in audit.records]
    return [each for each in found if each.action.partition(" ")[2] == path]


async def requests_of_an_operator(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> list[tuple[str, str, Any]]:
    """Return a request to each route with which an operator changes something: route, path and body."""
    order, driver = order_id(unique), f"{unique}-driver"
    hand_pos.answers[kitchen.restaurant] = BROKEN
    letters = [(await set_aside(client, order_id(f"{unique}-{number}")))["letter"] for number in range(2)]
    position = place(kitchen.position)
    charged = {"type": "Charged", "order": order, "charge_id": "ch-1", "amount": 200_00, "currency": "INR"}
    call = "/v1/calls/{order}/{purpose:.+}/{command:retry|abandon}"
    letter = "/v1/dead-letters/{partition}/{offset}/{command:replay|discard}"
    ticket = "/v1/pos/{restaurant}/tickets/{order}/{event:accepted|rejected|finished}"
    return [
        ("/v1/orders", "/v1/orders", an_order(kitchen, unique)),
        (call, f"/v1/calls/{order}/prepare/abandon", {"reason": "they closed"}),
        (call, f"/v1/calls/{order}/prepare/retry", {"reason": "they opened"}),
        ("/v1/payments/{provider}/events", "/v1/payments/payments/events", charged),
        (ticket, f"/v1/pos/{kitchen.restaurant}/tickets/{order}/accepted", {}),
        ("/v1/orders/{order}/settled", f"/v1/orders/{order}/settled", {"reason": "done"}),
        ("/v1/orders/{order}/erased", f"/v1/orders/{order}/erased", {"reason": "she asked for it"}),
        ("/v1/drivers/{driver}/available", f"/v1/drivers/{driver}/available", {"region": "r", "position": position}),
        ("/v1/drivers/{driver}/location", f"/v1/drivers/{driver}/location", {"position": position}),
        ("/v1/drivers/{driver}/pickup", f"/v1/drivers/{driver}/pickup", {"delivery": order}),
        ("/v1/drivers/{driver}/delivered", f"/v1/drivers/{driver}/delivered", {"delivery": order}),
        ("/v1/drivers/{driver}/unavailable", f"/v1/drivers/{driver}/unavailable", {}),
        (letter, f"/v1/dead-letters/{letters[0]}/replay", {"reason": "it is mended"}),
        (letter, f"/v1/dead-letters/{letters[1]}/discard", {"reason": "it is a test"}),
    ]


async def test_each_action_of_an_operator_leaves_one_record(
    client: Client, kitchen: Restaurant, hand_pos: HandPos, unique: str
) -> None:
    asked = await requests_of_an_operator(client, kitchen, hand_pos, unique)
    changing = {path for path, rules in RULES.items() if "POST" in rules and rules["POST"].callback is None}
    assert {route for route, _, _ in asked} == changing, "a route that changes something needs a request here"
    async with Following(client.stack.kafka, client.stack.name, [AUDIT], from_now=True) as audit:
        for _, path, body in asked:
            if path.endswith("/abandon"):
                await client.until(partial(prepare_of, client, order_id(unique)), "the call for the ticket")
            answer = await client.post(path, body)
            assert answer.status_code in (200, 201, 202, 409), (path, answer.text)
            [record] = await audit.until(partial(acted, audit, path), f"the record of {path}")
            outcome = answer.json().get("outcome", "REFUSED" if answer.status_code == 409 else "APPLIED")
            assert (record.by, record.role, record.action) == (OPERATOR, "operator", f"POST {path}")
            assert (record.outcome, record.reason, record.address) == (outcome, body.get("reason", ""), "127.0.0.1")
            assert record.thing in (order_id(unique), f"{unique}-driver") or "/dead-letters/" in path
        await audit.catch_up()
        assert [len(acted(audit, path)) for _, path, _ in asked] == [1] * len(asked)


async def test_a_party_leaves_no_record_in_the_audit(client: Client, kitchen: Restaurant, unique: str) -> None:
    provider = {"Authorization": f"Bearer {KEYS[Role.PROVIDER]}"}
    async with Following(client.stack.kafka, client.stack.name, [AUDIT], from_now=True) as audit:
        await client.place(an_order(kitchen, unique), **provider)
        await Driver(client, unique).available(kitchen.region, kitchen.position)
        await client.post(f"/v1/orders/{order_id(unique)}/settled")  # a later record, to wait for
        await audit.until(partial(acted, audit, f"/v1/orders/{order_id(unique)}/settled"), "the operator's record")
        assert not acted(audit, "/v1/orders")
        assert not acted(audit, f"/v1/drivers/{unique}/available")


async def test_a_forged_action_in_a_record_is_not_audited(client: Client, kitchen: Restaurant, unique: str) -> None:
    forged = OperatorActed(id=unique, by="the boss", role="operator", action="POST /forged")
    body = {"type": "AttentionSettled", "order": order_id(unique)}
    await client.place(an_order(kitchen, unique))
    async with Following(client.stack.kafka, client.stack.name, [AUDIT], from_now=True) as audit:
        await client.produce(ORDERS, body, key=order_id(unique), headers={OPERATOR_ACTED: b"x " + write(forged)})
        await client.post(f"/v1/orders/{order_id(unique)}/settled")  # a later record, to wait for
        await audit.until(partial(acted, audit, f"/v1/orders/{order_id(unique)}/settled"), "the operator's record")
        assert not acted(audit, "/forged")


async def test_a_reading_of_personal_data_leaves_one_record(client: Client, kitchen: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(kitchen, unique))
    path = f"/table/bodies/{order}"
    async with Following(client.stack.kafka, client.stack.name, [AUDIT], from_now=True) as audit:
        assert "Asha Rao" not in (await client.http.get(path)).text
        for wrong in ({"reveal": "true"}, {"reveal": "true", "reason": " "}, {"reveal": "yes", "reason": "x"}):
            assert (await client.http.get(path, params=wrong)).status_code == 422
        assert "Asha Rao" in (await client.http.get(path, params=REVEALED)).text
        [record] = await audit.until(partial(acted, audit, path), "the record of the reading")
        assert (record.by, record.thing, record.outcome) == (OPERATOR, f"bodies/{order}", "READ")
        assert record.reason == REVEALED["reason"]
    shown = await client.get("/v1/audit", order=f"bodies/{order}", by=OPERATOR)
    assert [each["id"] for each in shown["actions"]] == [record.id]
    assert (await client.get("/v1/audit", by="nobody"))["actions"] == []
    status, printed, error = client.stack.faust("audit", "--order", f"bodies/{order}")
    assert (status, "test-operator" in printed, "read" in printed) == (0, True, True), error


async def test_the_audit_lists_the_newest_first(client: Client, kitchen: Restaurant, unique: str) -> None:
    order = order_id(unique)
    await client.place(an_order(kitchen, unique))
    for number in range(3):
        await client.post(f"/v1/orders/{order}/settled", {"reason": f"number {number}"})

    async def listed(**query: Any) -> list[str]:
        return [each["reason"] for each in (await client.get("/v1/audit", order=order, **query))["actions"]]

    assert await listed() == ["number 2", "number 1", "number 0", ""]
    assert await listed(limit=2) == ["number 2", "number 1"]
    assert await listed(since="2999-01-01T00:00:00Z") == []
    assert (await client.http.get("/v1/audit", params={"since": "yesterday"})).status_code == 422


@pytest.mark.parametrize("failpoint", ["produced:kill:1", "committed:kill:1"])
async def test_a_killed_worker_leaves_one_record(kafka: str, unique: str, tmp_path: Path, failpoint: str) -> None:
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_worker().stop()
        doomed = stack.start_worker(DABBAWALA_FAILPOINTS=failpoint)
        async with Following(kafka, unique, [AUDIT]) as audit:
            await _make_available(stack, unique)
            await audit.until(partial(_has_ended, doomed), f"killed by {failpoint}")
            assert doomed.status == -signal.SIGKILL
            stack.start_worker()
            path = f"/v1/drivers/{unique}/available"
            [record] = await audit.until(partial(acted, audit, path), "the record of the action")
            async with Client(stack) as client:
                await client.until(partial(_shift, client, unique), "the action is applied")
                assert await _shift(client, unique) == 1
            await audit.catch_up()
            assert [each.id for each in acted(audit, path)] == [record.id]


async def test_an_action_that_breaks_a_handler_is_recorded(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant
) -> None:
    """The action becomes a dead letter. The replay of the letter is another action; the replayed record is none."""
    order = order_id(unique)
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_worker(app="tests.support.broken_app", BREAKS_ON="AttentionSettled", BREAKS_FOR=order)
        async with Client(stack) as client, Following(kafka, unique, [AUDIT]) as audit:
            await client.place(an_order(tiffin, unique))
            path = f"/v1/orders/{order}/settled"
            assert (await client.post(path, {"reason": "done"})).status_code == 500
            [record] = await audit.until(partial(acted, audit, path), "the record of the failure")
            assert (record.outcome, record.reason) == ("FAILED", "done")
            letter = (await letter_of(client, order))["letter"]
            replay = f"/v1/dead-letters/{letter}/replay"
            assert (await client.post(replay)).json()["outcome"] == "APPLIED"
            await audit.until(partial(acted, audit, replay), "the record of the replay")
            await letter_of(client, order)  # of the replayed record
            await audit.catch_up()
            assert len(acted(audit, path)) == 1, "the replayed record has no operator"


async def test_a_replay_that_fails_again_is_recorded(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant
) -> None:
    order = order_id(unique)
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        stack.start_payment(*INSTANT)
        stack.start_worker(app="tests.support.broken_app", BREAKS_ON="CallAnswered", BREAKS_FOR=order)
        async with Client(stack) as client, Following(kafka, unique, [AUDIT]) as audit:
            await client.place(an_order(tiffin, unique))
            replay = f"/v1/dead-letters/{(await letter_of(client, order))['letter']}/replay"
            assert (await client.post(replay, {"reason": "try"})).status_code == 500
            [record] = await audit.until(partial(acted, audit, replay), "the record of the failure")
            assert (record.outcome, record.reason) == ("FAILED", "try")


async def _make_available(stack: Stack, driver: str) -> None:
    """Make a driver available, as an operator, at a worker that is killed before it answers."""
    body = {"region": "r", "position": {"lat": 1.0, "lon": 1.0}}
    async with Client(stack) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(f"/v1/drivers/{driver}/available", body)


async def _shift(client: Client, driver: str) -> int:
    answer = await client.http.get(f"/v1/drivers/{driver}")
    return int(answer.json()["shift"]) if answer.status_code == 200 else 0


def _has_ended(worker: Child) -> bool:
    return worker.status is not None
