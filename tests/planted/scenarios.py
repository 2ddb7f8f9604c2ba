"""What is played with a bug that is planted, and without one: whatever the bug needs to show itself to the outside.

A scenario goes on until its end has come; with a bug, at most until nothing moves any more. Without one it must end,
and nothing may be found wrong with it.
"""

import shutil
import signal
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec

import oracle
from simulators.ledger import AnswerEntry, Ledger
from streams.embedded.processes import Child
from tests.flow.client import Body, Client, an_order, order_id, partition_of
from tests.flow.reading import PARTITIONS
from tests.stack import ROOT, TAKES_ANYTHING, Stack, installed
from topics.families import ORDERS
from topics.restaurants import Restaurant

WITHIN_S = 90.0
"""Until a scenario has ended. It takes seconds."""
STILL_S = 3.0
"""Nothing has moved for so long, and nobody is asked for anything: nothing will."""
ENDED = ("DELIVERED", "REJECTED")
INSTANT = ("--speed", "0")
TABLES = ("orders", "bodies", "payments", "tickets", "journal", "timers", "calls", "positions")
AHEAD = timedelta(seconds=7)
"""How far ahead an order is wished for: further than a timer that is early is early."""
LATE_S = 1.0
"""How late a timer may be here."""


class Wrong(NamedTuple):
    """What was found: a sentence, and the number of the promise that is broken."""

    promise: int
    sentence: str


class World:
    """One installation, with a bug in its workers or without one, and the test as the party that orders there."""

    def __init__(self, stack: Stack, bug: str | None) -> None:
        self.stack, self.bug = stack, bug
        self.orders: list[str] = []
        self.wrong: list[Wrong] = []
        """What a scenario itself has found."""
        self.patience_s = 30.0
        city = msgspec.json.decode((ROOT / "catalogue.json").read_bytes(), type=list[Restaurant])
        self._kitchen = next(each for each in city if each.restaurant == TAKES_ANYTHING)
        self._answers = Ledger(stack.ledgers / "answers.jsonl", AnswerEntry)

    def start_worker(self, number: int = 1, *, wait: bool = True, **more: str) -> Child:
        """A worker, with the bug."""
        app = "streams.app"
        if self.bug is not None:
            app, more["DABBAWALA_PLANTED"] = "tests.planted.app", self.bug
        return self.stack.start_worker(number, wait=wait, app=app, **more)

    # -- ordering ----------------------------------------------------------------------------------------------------

    async def place(self, client: Client, name: str = "", **changes: Any) -> str:
        """Over HTTP; the order's id."""
        order, body = self._new(name, changes)
        answer = await client.place(body)
        assert answer.status_code == 201, answer.text
        self._accepted(order, "http", 201)
        return order

    async def put(self, client: Client) -> str:
        """Over Kafka; the order's id."""
        order, body = self._new("", {})
        await client.produce(ORDERS, {"type": "Placed", **body}, order)
        self._accepted(order, "kafka", 0)
        return order

    def _new(self, name: str, changes: Body) -> tuple[str, Body]:
        name = name or f"planted-{len(self.orders) + 1}"
        wished = changes.get("deliver_at")
        if wished is not None:
            changes = {**changes, "deliver_at": wished.isoformat()}
        self._answers.append(AnswerEntry(event="placing", order=order_id(name), deliver_at=wished))
        return order_id(name), an_order(self._kitchen, name, **changes)

    def _accepted(self, order: str, via: Any, status: int) -> None:
        self._answers.append(AnswerEntry(event="answer", order=order, via=via, outcome="accepted", status=status))
        self.orders.append(order)

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def until(self, client: Client, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Wait for the condition; where there is a bug, at most until nothing moves any more."""
        seen, since = None, time.monotonic()

        async def over() -> bool:
            nonlocal seen, since
            if await condition():
                return True
            if self.bug is None:
                return False
            now = await self._standing(client)
            if now is None or now != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() - since > STILL_S

        await client.until(over, what, WITHIN_S)

    async def ended(self, client: Client, *orders: str) -> None:
        """Wait until these orders, or all, have ended."""
        wanted = orders or tuple(self.orders)

        async def all_ended() -> bool:
            statuses = await self.statuses(client)
            return all(statuses.get(order) in ENDED for order in wanted)

        await self.until(client, all_ended, f"{len(wanted)} orders have ended")

    async def statuses(self, client: Client) -> dict[str, str]:
        """Order id -> status, of those that are known; of none where a partition is not open."""
        answer = await client.http.get("/v1/orders", params={"limit": 1000})
        return {order["id"]: order["status"] for order in answer.json().get("orders", ())}

    async def _standing(self, client: Client) -> object:
        """Everything that would be another if something moved; None while something is to be done."""
        tasks = (await client.get("/v1/tasks"))["tasks"]
        if any(task.get("lag") != 0 or task.get("calls") != 0 for task in tasks):
            return None
        sizes = {file.name: file.stat().st_size for file in self.stack.ledgers.iterdir()}
        return await self.statuses(client), sizes

    # -- judging -----------------------------------------------------------------------------------------------------

    async def judged(self) -> list[Wrong]:
        """What is wrong, by the oracle and by the scenario."""
        speed_up = float(self.stack.environment["DABBAWALA_SPEED_UP"])
        report = await oracle.judge(
            self.stack.kafka,
            self.stack.name,
            ledgers=self.stack.ledgers,
            final=True,
            speed_up=speed_up,
            patience_s=self.patience_s,
            look_again_s=0.0 if self.bug else oracle.judging.LOOK_AGAIN_S,
        )
        found = [Wrong(promise.number, each.sentence) for promise in report.promises for each in promise.violations]
        return self.wrong + found


# -- the scenarios ---------------------------------------------------------------------------------------------------


async def killed_before_the_commit(world: World) -> None:
    """Orders come over Kafka; the worker dies with its first transaction written and not committed."""
    world.stack.start_payment(*INSTANT, "--decline", "always")
    doomed = world.start_worker(DABBAWALA_FAILPOINTS="produced:kill:1")
    async with Client(world.stack) as client:
        for _ in range(5):
            await world.put(client)

        async def dead() -> bool:
            return doomed.status is not None

        await client.until(dead, "the worker was killed", WITHIN_S)
    world.start_worker()
    async with Client(world.stack) as client:
        await world.ended(client)


async def its_disk_is_lost(world: World) -> None:
    """Orders end, one after the other; then the worker loses its disk, and has its tables again from Kafka."""
    world.stack.start_payment(*INSTANT, "--decline", "always")
    worker = world.start_worker()
    async with Client(world.stack) as client:
        for _ in range(5):
            await world.ended(client, await world.place(client))
        before = await _rows(client)
    worker.stop()
    for store in world.stack.directory.glob("worker-1/**/tasks"):
        shutil.rmtree(store)
    world.start_worker()
    async with Client(world.stack) as client:
        after = await _rows(client)
    for table, rows in before.items():
        if different := sorted(key for key in rows.keys() | after[table] if rows.get(key) != after[table].get(key)):
            sentence = f"after the loss of its disk {len(different)} rows of {table} are others: {different[0]}"
            world.wrong.append(Wrong(8, sentence))


async def _rows(client: Client) -> dict[str, dict[str, Body]]:
    return {table: await client.rows(table) for table in TABLES}


async def charged_and_answered_500(world: World) -> None:
    """The payment provider charges and says 500, until it is asked again; then the restaurant rejects the order."""
    world.stack.start_payment(*INSTANT, "--keyless", "--faults", "500-after")
    world.stack.start_pos(*INSTANT, "--reject", "always")
    world.start_worker()
    async with Client(world.stack) as client:
        for _ in range(2):
            await world.place(client)

        async def charged() -> bool:
            return {entry.order for entry in world.stack.payments()} >= set(world.orders)

        await client.until(charged, "both were charged", WITHIN_S)
        async with httpx.AsyncClient() as provider:
            await provider.delete(f"{world.stack.payment_url}/faults")
        await world.ended(client)

        async def refunded() -> bool:
            return all([(await client.order(order) or {}).get("refunded") for order in world.orders])

        await world.until(client, refunded, "both were given back")


async def called_back_early_and_twice(world: World) -> None:
    """The payment provider calls back twice at once, the restaurant before it has answered; drivers come late."""
    world.stack.start_payment(*INSTANT, "--callback", "--faults", "doubled")
    world.stack.start_pos("--speed", "600", "--receive", "--faults", "slow")
    world.start_worker()
    async with Client(world.stack) as client:
        order = await world.place(client)

        async def cooked() -> bool:
            return (await world.statuses(client)).get(order) == "SCHEDULING_DELIVERY"

        await world.until(client, cooked, "a driver is looked for")
        world.stack.start_drivers(6, "--speed", "200")
        await world.ended(client)

        async def noted() -> bool:
            return any(entry.event == "delivered" for entry in world.stack.trips())

        await world.until(client, noted, "the driver has heard")


async def wished_for_later(world: World) -> None:
    """An order is wished for in some seconds."""
    world.patience_s = LATE_S
    world.stack.start_payment(*INSTANT)
    world.stack.start_pos(*INSTANT)
    world.start_worker()
    async with Client(world.stack) as client:
        world.stack.start_drivers(6, *INSTANT)
        wished = datetime.now(UTC) + AHEAD
        await world.place(client, deliver_at=wished)

        async def past() -> bool:
            return datetime.now(UTC) > wished + timedelta(seconds=2 * LATE_S)

        await client.until(past, "its time has come", WITHIN_S)
        await world.ended(client)


async def nobody_answers_and_some_talk_nonsense(world: World) -> None:
    """There is no payment provider, and something is sent that is no order."""
    world.stack.environment["DABBAWALA_SPEED_UP"] = "60"
    world.start_worker()
    async with Client(world.stack) as client:
        sent = await client.produce(ORDERS, b"no order", "nonsense")
        line = {"at": datetime.now(UTC), "topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
        (world.stack.ledgers / "poison.jsonl").write_bytes(msgspec.json.encode({**line, "id": "nonsense"}) + b"\n")
        await world.place(client)

        async def waited_too_long() -> bool:
            return await client.counter("timers_fired") > 0

        await client.until(waited_too_long, "its wait is over", WITHIN_S)

        async def applied() -> bool:
            return all(task.get("lag") == 0 for task in (await client.get("/v1/tasks"))["tasks"])

        await client.until(applied, "all was applied", WITHIN_S)


async def frozen_and_replaced(world: World) -> None:
    """A worker is frozen with an answer in its hand, until another has taken over and has asked again; it goes on then.

    What it does first is to apply the answer, and what it does before it gives its tasks up is to commit that.
    """
    world.stack.environment["DABBAWALA_PARTITIONS"] = str(PARTITIONS)
    world.stack.start_payment(*INSTANT, "--decline", "always")
    world.start_worker()
    frozen = world.start_worker(2, DABBAWALA_FAILPOINTS="after_call:stop:1")
    async with Client(world.stack) as client, Client(world.stack, 2) as other:

        async def shared() -> list[int]:
            answers = [await each.http.get("/readyz") for each in (client, other)]
            if any(answer.status_code != 200 for answer in answers):
                return []
            first, second = (answer.json()["partitions"] for answer in answers)
            return list(second) if first and sorted(first + second) == list(range(PARTITIONS)) else []

        share = await client.until(shared, "each has a share of the partitions", WITHIN_S)
        names = (f"frozen-{number}" for number in range(1000))
        order = await world.place(client, next(name for name in names if partition_of(order_id(name)) in share))

        async def ended() -> bool:
            answer = await client.http.get(f"/v1/orders/{order}")
            return answer.status_code == 200 and answer.json()["status"] in ENDED

        await client.until(ended, "the other one has ended the order", WITHIN_S)
        frozen.send(signal.SIGCONT)
        await client.until(shared, "it has a share again", WITHIN_S)


Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[Scenario, tuple[str, ...]] = {
    killed_before_the_commit: ("offsets-before-outputs", "disk-before-commit"),
    its_disk_is_lost: ("changelog-record-dropped", "output-dropped"),
    charged_and_answered_500: ("charge-without-key", "new-key-on-retry", "refund-forgotten"),
    called_back_early_and_twice: ("duplicate-applied-twice", "driver-assigned-twice", "early-callback-lost"),
    wished_for_later: ("timer-fired-early", "timer-lost"),
    nobody_answers_and_some_talk_nonsense: ("attention-lost", "dead-letter-dropped"),
    frozen_and_replaced: ("zombie-commits",),
}
"""Which bugs show themselves in which."""


async def play(kafka: str, directory: Path, scenario: Scenario, bug: str | None = None) -> list[Wrong]:
    """Play it, and judge: what is wrong."""
    name = f"planted-{uuid.uuid4().hex[:8]}"
    with installed(kafka, name, directory / name, 0.0) as stack:
        stack.environment["DABBAWALA_PARTITIONS"] = "1"
        world = World(stack, bug)
        await scenario(world)
        wrong = await world.judged()
        for child in (*stack.workers.values(), *stack.simulators.values()):
            child.kill()  # nobody has to end in an orderly way any more
        return wrong
