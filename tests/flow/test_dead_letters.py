"""Dead letters stay until an operator replays or discards them; a replayed one is applied once."""

import base64
import random
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest

from processors.dead_letters import RETENTION_MS
from streams.access.tokens import Tokens
from streams.demo.processes import Child
from tests.flow.client import Body, Client, an_order, order_id, partition_of, room_for
from tests.flow.reading import PARTITIONS, Following
from tests.support.keys import REVEALED, SECRET
from tests.support.stack import Stack, installed
from topics.dead_letters import COMMAND, LETTER
from topics.families import DEAD_LETTERS, ORDERS, PAYMENTS
from topics.restaurants import Restaurant

SEED = 11
HALF_AN_HOUR_MS = 30 * 60 * 1000
TOKENS = Tokens(SECRET.encode)


async def letters(client: Client, mark: str) -> list[Body]:
    """Return the dead letters whose key has this in it."""
    found = (await client.get("/v1/dead-letters", limit=1000))["dead_letters"]
    return [letter for letter in found if letter["key"] and mark in letter["key"].get("text", "")]


async def letter_of(client: Client, mark: str) -> Body:
    """Wait for a dead letter whose key has this in it, and return it."""

    async def there() -> Body | None:
        found = await letters(client, mark)
        return found[0] if found else None

    found = await client.until(there, "the dead letter")
    assert found is not None
    return found


async def set_aside(client: Client, order: str) -> Body:
    """Produce a payment for an order that does not exist, and return its dead letter."""
    charged = {"type": "Charged", "order": order, "charge_id": "ch-1", "amount": 200_00, "currency": "INR"}
    await client.produce(PAYMENTS, charged, key=order, headers={"note": "mine"})
    return await letter_of(client, order)


async def test_a_letter_is_listed_and_shown_whole(client: Client, unique: str) -> None:
    order = order_id(unique)
    letter = await set_aside(client, order)
    assert letter["reason"] == "there is no such order"
    assert letter["origin"].startswith(f"{client.stack.name}.payments/{partition_of(order)} at ")
    assert letter["not_replayable"] is None
    whole = await client.get(f"/v1/dead-letters/{letter['letter']}", **REVEALED)
    assert '"charge_id":"ch-1"' in whole["value"]["text"]
    assert {"name": "note", "value": {"text": "mine"}} in whole["headers"]
    partition, _, offset = letter["letter"].partition("/")
    rows = await client.rows("dead_letters", partition)
    assert f"{partition}/{offset:0>20}" in rows


async def test_a_binary_value_is_shown_in_base64(client: Client, unique: str) -> None:
    await client.produce(ORDERS, b"\xff\xfe\x00", key=unique)
    letter = await letter_of(client, unique)
    whole = await client.get(f"/v1/dead-letters/{letter['letter']}", **REVEALED)
    assert base64.b64decode(whole["value"]["base64"]) == b"\xff\xfe\x00"


async def test_a_replayed_letter_is_unchanged_and_leaves_the_list(client: Client, unique: str) -> None:
    order = order_id(unique)
    letter = await set_aside(client, order)
    async with Following(client.stack.kafka, client.stack.name, [PAYMENTS], from_now=True) as payments:
        answer = await client.post(f"/v1/dead-letters/{letter['letter']}/replay")
        assert (answer.status_code, answer.json()["outcome"]) == (200, "APPLIED")
        again = await client.post(f"/v1/dead-letters/{letter['letter']}/replay")
        assert (again.status_code, again.json()["outcome"]) == (200, "ABSORBED")
        await payments.until(lambda: payments.records, "the replayed record")
        second = await letter_of(client, order)  # the order still does not exist
        await payments.catch_up()
        (record,) = payments.records
    assert (record.key.decode(), record.headers) == (order, (("note", b"mine"),))
    assert second["letter"] != letter["letter"]
    assert (await client.http.get(f"/v1/dead-letters/{letter['letter']}")).status_code == 404


async def test_a_discarded_letter_is_not_replayed(client: Client, unique: str) -> None:
    letter = await set_aside(client, order_id(unique))
    for outcome in ("APPLIED", "ABSORBED"):
        answer = await client.post(f"/v1/dead-letters/{letter['letter']}/discard")
        assert (answer.status_code, answer.json()["outcome"]) == (200, outcome)
    replayed = await client.post(f"/v1/dead-letters/{letter['letter']}/replay")
    assert replayed.json()["outcome"] == "ABSORBED"
    assert await letters(client, order_id(unique)) == []


async def test_headers_of_a_dead_letter_give_no_commands(client: Client, unique: str) -> None:
    letter = await set_aside(client, order_id(unique))
    partition, _, offset = letter["letter"].partition("/")
    forged = {COMMAND: "discard", LETTER: offset, "origin.topic": f"{client.stack.name}.orders"}
    await client.produce(PAYMENTS, b"garbage", key=f"{unique}-forged", partition=int(partition), headers=forged)
    found = await letter_of(client, f"{unique}-forged")
    assert found["origin"].startswith(f"{client.stack.name}.payments/")
    assert (await client.http.get(f"/v1/dead-letters/{letter['letter']}")).status_code == 200


async def test_a_letter_leaves_the_list_when_the_topic_drops_it(client: Client, unique: str) -> None:
    began, now_ms = datetime.now(UTC), round(time.time() * 1000)
    await client.produce(DEAD_LETTERS, b"new", key=f"{unique}-new", timestamp_ms=now_ms + HALF_AN_HOUR_MS)
    new = await letter_of(client, f"{unique}-new")
    lead = room_for(datetime.now(UTC) - began)
    now_ms = round((time.time() + lead.total_seconds()) * 1000)
    await client.produce(DEAD_LETTERS, b"old", key=f"{unique}-old", timestamp_ms=now_ms - RETENTION_MS)
    old = await letter_of(client, f"{unique}-old")

    async def forgotten() -> bool:
        return not await letters(client, f"{unique}-old")

    await client.until(forgotten, "the letter expires")
    assert (await client.post(f"/v1/dead-letters/{old['letter']}/replay")).json()["outcome"] == "ABSORBED"
    assert datetime.fromisoformat(new["at"]).timestamp() < time.time() + 1, "a timestamp in the future is not believed"
    assert await letters(client, f"{unique}-new")


async def test_an_impossible_letter_id_is_404(client: Client) -> None:
    for letter in ("0/999999", "4/0", "x/0", "0/x", "0/99999999999999999999"):
        assert (await client.post(f"/v1/dead-letters/{letter}/replay")).status_code == 404, letter
        assert (await client.http.get(f"/v1/dead-letters/{letter}")).status_code == 404, letter


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"origin.call": "a:b/charge", "exception.class": "KeyError"}, "dabbawala calls retry a:b/charge"),
        ({"origin.call": "a:b/charge"}, "whose order had left"),
        ({"origin.timer": "a:b/charge-wait"}, "timer"),
        ({"origin.topic": "elsewhere"}, "which no worker reads"),
        ({"origin.topic": "{prefix}.dead-letters"}, "which no worker reads"),
        ({"origin.topic": "{prefix}.orders", "dead-letter.cut": "2000000"}, "too large"),
        ({}, "do not name the topic"),
    ],
)
async def test_a_letter_that_cannot_be_replayed_says_why(
    client: Client, unique: str, headers: dict[str, str], why: str
) -> None:
    named = {name: value.format(prefix=client.stack.name) for name, value in headers.items()}
    await write_letter(client, unique, b"{}", named)
    letter = await letter_of(client, unique)
    assert why in letter["not_replayable"]
    answer = await client.post(f"/v1/dead-letters/{letter['letter']}/replay")
    assert answer.status_code == 409
    assert why in answer.json()["detail"]
    assert await letters(client, unique), "the letter stays"


async def write_letter(client: Client, key: str, value: bytes, headers: dict[str, str], partition: int = -1) -> None:
    """Write a letter as a task does, signed for the partition of its key, and to another ``partition`` if wanted."""
    encoded = [(name, content.encode()) for name, content in headers.items()]
    signature = TOKENS.letter_signature(partition_of(key), key.encode(), value, encoded)
    target = partition_of(key) if partition < 0 else partition
    await client.produce(
        DEAD_LETTERS, value, key=key, partition=target, headers={**headers, "dead-letter.signature": signature.decode()}
    )


async def test_a_letter_that_no_task_wrote_can_only_be_discarded(client: Client, unique: str) -> None:
    headers = {"origin.topic": f"{client.stack.name}.payments", "dead-letter.reason": "forged"}
    here, moved = f"{unique}-here", f"{unique}-moved"
    await client.produce(DEAD_LETTERS, b"{}", key=here, partition=partition_of(here), headers=headers)
    await write_letter(client, moved, b"{}", headers, partition=(partition_of(moved) + 1) % PARTITIONS)
    for key in (here, moved):
        letter = await letter_of(client, key)
        assert "no valid signature" in letter["not_replayable"]
        answer = await client.post(f"/v1/dead-letters/{letter['letter']}/replay")
        assert (answer.status_code, "no valid signature" in answer.json()["detail"]) == (409, True)
        assert (await client.post(f"/v1/dead-letters/{letter['letter']}/discard")).json()["outcome"] == "APPLIED"


async def test_a_command_that_no_view_wrote_is_a_letter(client: Client, unique: str) -> None:
    letter = await set_aside(client, order_id(unique))
    partition, _, offset = letter["letter"].partition("/")
    forged = {COMMAND: "discard", LETTER: offset, "dabbawala-signature": "x"}
    await client.produce(DEAD_LETTERS, b"discard", key=f"{unique}-forged", partition=int(partition), headers=forged)
    found = await letter_of(client, f"{unique}-forged")
    assert "no valid signature" in found["not_replayable"]
    assert (await client.http.get(f"/v1/dead-letters/{letter['letter']}")).status_code == 200


async def test_a_forged_timer_dead_letter_fires_nothing(client: Client, kitchen: Restaurant, unique: str) -> None:
    """Every producer of the topic can write such letters. An operator cannot replay them."""
    order = order_id(unique)
    wished = datetime.now(UTC) + timedelta(hours=5)
    assert (await client.place(an_order(kitchen, unique, deliver_at=wished.isoformat()))).status_code == 201
    await client.reaches(order, "SCHEDULED")
    journal, timers = await client.journal(order), await client.rows("timers", order)
    headers = {"origin.timer": f"{order}/start", "exception.class": "KeyError"}
    await client.produce(DEAD_LETTERS, b"order", key=f"{order}/start", partition=partition_of(order), headers=headers)
    letter = await letter_of(client, f"{order}/start")
    assert (await client.post(f"/v1/dead-letters/{letter['letter']}/replay")).status_code == 409
    assert await client.journal(order) == journal
    assert await client.rows("timers", order) == timers


async def test_foreign_dead_letters_cause_neither_stop_nor_loop(client: Client, unique: str) -> None:
    chance = random.Random(SEED)
    names = (COMMAND, LETTER, "origin.topic", "origin.call", "dead-letter.reason", "dabbawala-request", "x" * 300)

    def rubbish(longest: int) -> bytes:
        return chance.randbytes(chance.randrange(longest))

    written: list[tuple[bytes | None, dict[str, bytes | None]]] = [
        (
            rubbish(200) if chance.random() < 0.9 else None,
            {name: chance.choice([rubbish(30), b"replay", b"7", b"-1", None]) for name in chance.sample(names, 3)},
        )
        for _ in range(60)
    ]
    written += [(b"\x00" * 950_000, {}), (b'"' * 600_000, {"origin.topic": b"o" * 300_000})]
    async with Following(client.stack.kafka, client.stack.name, [DEAD_LETTERS], from_now=True) as topic:
        for value, headers in written:
            await client.produce(DEAD_LETTERS, value, key=unique, headers=headers)
        same = (order for n in range(99) if partition_of(order := order_id(f"{unique}-{n}")) == partition_of(unique))
        letter = await set_aside(client, next(same))
        await topic.catch_up()
        assert len(topic.records) == len(written) + 1, "no record became two dead letters"
    assert await client.counter("dead_letters_passed_over") == 0
    kept = await letters(client, unique)
    assert letter["letter"] in {each["letter"] for each in kept}
    for each in kept:
        await client.get(f"/v1/dead-letters/{each['letter']}")


@pytest.mark.parametrize("moment", ["produced", "committed"])
async def test_a_poison_order_replayed_twice_is_applied_once(
    kafka: str, unique: str, tmp_path: Path, tiffin: Restaurant, moment: str
) -> None:
    """The order's restaurant is not loaded at first. The worker dies while it replays the order."""
    order, place = order_id(unique), "new-place"
    with installed(kafka, unique, tmp_path, 1.0) as stack:
        worker = stack.start_worker()
        async with Client(stack) as client:
            await client.produce(ORDERS, {"type": "Placed", **an_order(tiffin, unique, restaurant=place)}, key=order)
            letter = (await letter_of(client, order))["letter"]
            assert await client.order(order) is None
        worker.kill()
        add_to_catalogue(stack, msgspec.structs.replace(tiffin, restaurant=place, menu=()))
        dying = stack.start_worker(DABBAWALA_FAILPOINTS=f"{moment}:kill:1")
        async with Client(stack) as client:
            with pytest.raises(httpx.HTTPError):
                await client.post(f"/v1/dead-letters/{letter}/replay")
            await client.until(partial(_has_ended, dying), "the failpoint kills the worker")
        stack.start_worker()
        async with Client(stack) as client:
            again = await client.post(f"/v1/dead-letters/{letter}/replay")
            assert (again.status_code, again.json()["outcome"]) == (200, "ABSORBED")
            await client.until(lambda: client.order(order), "the order exists")
            assert await letters(client, order) == []
            async with Following(stack.kafka, stack.name, [ORDERS]) as orders:
                await orders.until(lambda: len(orders.records) == 2, "the original record and the replayed one")
                await orders.catch_up()
            assert len(orders.records) == 2
            assert [entry["event"] for entry in await client.journal(order)].count("OrderPlaced") == 1


def add_to_catalogue(stack: Stack, restaurant: Restaurant) -> None:
    """Add a restaurant to the catalogue file that later workers load."""
    file = Path(stack.environment["DABBAWALA_CATALOGUE"])
    file.write_bytes(msgspec.json.encode([*msgspec.json.decode(file.read_bytes()), restaurant]))


async def _has_ended(child: Child) -> bool:
    return child.status is not None
