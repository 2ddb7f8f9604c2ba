"""Scenarios that make the planted bugs visible from outside. Each is played with a bug and without one.

A scenario without a bug must reach its end and have no violation. A scenario with a bug lasts until its end, or until
nothing has changed for a while.
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
from streams.demo.processes import Child
from tests.flow.client import Body, Client, an_order, order_id, partition_of
from tests.flow.reading import PARTITIONS
from tests.support.stack import ROOT, TAKES_ANYTHING, Stack, installed
from topics.families import ORDERS
from topics.restaurants import Restaurant
from verification.intruder import Intruder, Victim

MAX_STEP_S = 90.0
"""Longest wait for a step of a scenario. It takes seconds."""
QUIET_S = 3.0
"""Time without a change, lag or open call after which a scenario with a bug counts as over."""
ENDED = ("DELIVERED", "REJECTED")
INSTANT = ("--speed", "0")
TABLES = ("orders", "bodies", "payments", "tickets", "journal", "timers", "calls", "positions")
AHEAD = timedelta(seconds=7)
"""Time from a scheduled order to its delivery time; longer than the bug makes its timer early."""
MAX_TIMER_DELAY_S = 1.0
"""Longest delay of a timer in the scenario of a scheduled order."""


class Wrong(NamedTuple):
    """A violation: the number of the broken promise, and a sentence."""

    promise: int
    sentence: str


class World:
    """An installation whose workers may have a bug. The scenario acts as its ordering provider."""

    def __init__(self, stack: Stack, bug: str | None) -> None:
        self.stack = stack
        self.bug = bug
        self.orders: list[str] = []
        self.wrong: list[Wrong] = []
        """Violations that the scenario itself has found."""
        self.patience_s = 30.0
        city = msgspec.json.decode((ROOT / "catalogue.json").read_bytes(), type=list[Restaurant])
        self.kitchen = next(each for each in city if each.restaurant == TAKES_ANYTHING)
        self._answers = Ledger(stack.ledgers / "answers.jsonl", AnswerEntry)

    def start_worker(self, number: int = 1, *, wait: bool = True, **more: str) -> Child:
        """Start a worker, with the bug if there is one."""
        app = "streams.app"
        if self.bug is not None:
            app, more["DABBAWALA_PLANTED"] = "verification.planted.app", self.bug
        return self.stack.start_worker(number, wait=wait, app=app, **more)

    # -- ordering ----------------------------------------------------------------------------------------------------

    async def place(self, client: Client, name: str = "", **changes: Any) -> str:
        """Place an order over HTTP; return its id."""
        order, body = self._new_order(name, changes)
        answer = await client.place(body)
        assert answer.status_code == 201, answer.text
        self._accepted(order, "http", 201)
        return order

    async def send(self, client: Client) -> str:
        """Place an order over Kafka; return its id."""
        order, body = self._new_order("", {})
        await client.produce(ORDERS, {"type": "Placed", **body}, order)
        self._accepted(order, "kafka", 0)
        return order

    def _new_order(self, name: str, changes: Body) -> tuple[str, Body]:
        name = name or f"planted-{len(self.orders) + 1}"
        deliver_at = changes.get("deliver_at")
        if deliver_at is not None:
            changes = {**changes, "deliver_at": deliver_at.isoformat()}
        self._answers.append(AnswerEntry(event="placing", order=order_id(name), deliver_at=deliver_at))
        return order_id(name), an_order(self.kitchen, name, **changes)

    def _accepted(self, order: str, via: Any, status: int) -> None:
        self._answers.append(AnswerEntry(event="answer", order=order, via=via, outcome="accepted", status=status))
        self.orders.append(order)

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def until(self, client: Client, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Wait for the condition; with a bug, stop waiting once nothing has changed for `QUIET_S`."""
        seen, since = None, time.monotonic()

        async def over() -> bool:
            nonlocal seen, since
            if await condition():
                return True
            if self.bug is None:
                return False
            now = await self._state(client)
            if now is None or now != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() - since > QUIET_S

        await client.until(over, what, MAX_STEP_S)

    async def ended(self, client: Client, *orders: str) -> None:
        """Wait until these orders have ended, or all without any."""
        wanted = orders or tuple(self.orders)

        async def all_ended() -> bool:
            statuses = await self.statuses(client)
            return all(statuses.get(order) in ENDED for order in wanted)

        await self.until(client, all_ended, f"{len(wanted)} orders have ended")

    async def statuses(self, client: Client) -> dict[str, str]:
        """Return order id -> status of the known orders; nothing while a partition is not open."""
        answer = await client.http.get("/v1/orders", params={"limit": 1000})
        return {order["id"]: order["status"] for order in answer.json().get("orders", ())}

    async def _state(self, client: Client) -> object:
        """Return a value that changes with any progress; None while records or calls are open."""
        tasks = (await client.get("/v1/tasks"))["tasks"]
        if any(task.get("lag") != 0 or task.get("calls") != 0 for task in tasks):
            return None
        sizes = {file.name: file.stat().st_size for file in self.stack.ledgers.iterdir()}
        return await self.statuses(client), sizes

    # -- judging -----------------------------------------------------------------------------------------------------

    async def judge(self) -> list[Wrong]:
        """Return the violations that the oracle and the scenario have found."""
        speed_up = float(self.stack.environment["DABBAWALA_SPEED_UP"])
        report = await oracle.judge(
            self.stack.kafka,
            self.stack.name,
            ledgers=self.stack.ledgers,
            final=True,
            speed_up=speed_up,
            patience_s=self.patience_s,
            look_again_s=0.0 if self.bug else oracle.run.LOOK_AGAIN_S,
        )
        found = [Wrong(promise.number, each.sentence) for promise in report.promises for each in promise.violations]
        return self.wrong + found


# -- the scenarios ---------------------------------------------------------------------------------------------------


async def killed_before_the_commit(world: World) -> None:
    """Orders arrive over Kafka. The worker dies after writing its first transaction, before the commit."""
    world.stack.start_payment(*INSTANT, "--decline", "always")
    doomed = world.start_worker(DABBAWALA_FAILPOINTS="produced:kill:1")
    async with Client(world.stack) as client:
        for _ in range(5):
            await world.send(client)

        async def dead() -> bool:
            return doomed.status is not None

        await client.until(dead, "the worker was killed", MAX_STEP_S)
    world.start_worker()
    async with Client(world.stack) as client:
        await world.ended(client)


async def disk_lost(world: World) -> None:
    """Orders end one after the other. Then the worker loses its disk and restores its tables from Kafka."""
    world.stack.start_payment(*INSTANT, "--decline", "always")
    worker = world.start_worker()
    async with Client(world.stack) as client:
        for _ in range(5):
            await world.ended(client, await world.place(client))
        before = await _read_tables(client)
    worker.stop()
    for store in world.stack.directory.glob("worker-1/**/tasks"):
        shutil.rmtree(store)
    world.start_worker()
    async with Client(world.stack) as client:
        after = await _read_tables(client)
    for table, rows in before.items():
        if different := sorted(key for key in rows.keys() | after[table] if rows.get(key) != after[table].get(key)):
            sentence = f"{len(different)} rows of {table} differ after the loss of the disk: {different[0]}"
            world.wrong.append(Wrong(8, sentence))


async def _read_tables(client: Client) -> dict[str, dict[str, Body]]:
    return {table: await client.rows(table) for table in TABLES}


async def charge_answered_with_500(world: World) -> None:
    """The payment provider charges, but answers 500 at first. Then the restaurant rejects the orders."""
    world.stack.start_payment(*INSTANT, "--keyless", "--faults", "500-after")
    world.stack.start_pos(*INSTANT, "--reject", "always")
    world.start_worker()
    async with Client(world.stack) as client:
        for _ in range(2):
            await world.place(client)

        async def charged() -> bool:
            return {entry.order for entry in world.stack.payments()} >= set(world.orders)

        await client.until(charged, "both were charged", MAX_STEP_S)
        async with httpx.AsyncClient() as provider:
            await provider.delete(f"{world.stack.payment_url}/faults")
        await world.ended(client)

        async def refunded() -> bool:
            return all([(await client.order(order) or {}).get("refunded") for order in world.orders])

        await world.until(client, refunded, "both were refunded")


async def early_and_duplicate_callbacks(world: World) -> None:
    """The payment provider calls back twice and late, the restaurant before it answers. Drivers come late."""
    world.stack.start_payment(*INSTANT, "--callback", "--faults", "doubled,late")
    world.stack.start_pos("--speed", "600", "--receive", "--faults", "slow")
    world.start_worker()
    async with Client(world.stack) as client:
        order = await world.place(client)

        async def prepared() -> bool:
            return (await world.statuses(client)).get(order) == "SCHEDULING_DELIVERY"

        await world.until(client, prepared, "dispatch looks for a driver")
        world.stack.start_drivers(6, "--speed", "200")
        await world.ended(client)

        async def noted() -> bool:
            return any(entry.event == "delivered" for entry in world.stack.trips())

        await world.until(client, noted, "the driver has noted the delivery")


async def forged_charge(world: World) -> None:
    """The payment provider fails. Somebody else reports the charge, with the right amount. Then the provider works."""
    world.stack.start_payment(*INSTANT, "--faults", "500")
    world.stack.start_pos(*INSTANT)
    world.start_worker()
    async with Client(world.stack) as client:
        world.stack.start_drivers(6, *INSTANT)
        order = await world.place(client)
        assert (await client.charged(order, "ch-forged")).status_code == 200
        async with httpx.AsyncClient() as provider:
            await provider.delete(f"{world.stack.payment_url}/faults")
        await world.ended(client)


async def scheduled_order(world: World) -> None:
    """An order is scheduled some seconds ahead."""
    world.patience_s = MAX_TIMER_DELAY_S
    world.stack.start_payment(*INSTANT)
    world.stack.start_pos(*INSTANT)
    world.start_worker()
    async with Client(world.stack) as client:
        world.stack.start_drivers(6, *INSTANT)
        deliver_at = datetime.now(UTC) + AHEAD
        await world.place(client, deliver_at=deliver_at)

        async def past() -> bool:
            return datetime.now(UTC) > deliver_at + timedelta(seconds=2 * MAX_TIMER_DELAY_S)

        await client.until(past, "the delivery time is over", MAX_STEP_S)
        await world.ended(client)


async def nobody_answers_and_some_talk_nonsense(world: World) -> None:
    """No payment provider answers, and a record arrives that is no order."""
    world.stack.environment["DABBAWALA_SPEED_UP"] = "60"
    world.start_worker()
    async with Client(world.stack) as client:
        sent = await client.produce(ORDERS, b"no order", "nonsense")
        line = {"at": datetime.now(UTC), "topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
        (world.stack.ledgers / "poison.jsonl").write_bytes(msgspec.json.encode({**line, "id": "nonsense"}) + b"\n")
        await world.place(client)

        async def waited_too_long() -> bool:
            return await client.counter("timers_fired") > 0

        await client.until(waited_too_long, "the order has waited too long", MAX_STEP_S)

        async def applied() -> bool:
            return all(task.get("lag") == 0 for task in (await client.get("/v1/tasks"))["tasks"])

        await client.until(applied, "all records were applied", MAX_STEP_S)


async def frozen_worker_replaced(world: World) -> None:
    """A worker freezes with an uncommitted answer to a call, until another has taken over and repeated the call.

    Once it runs again, the frozen worker applies its answer and tries to commit before it gives up its tasks.
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

        share = await client.until(shared, "each worker has a share of the partitions", MAX_STEP_S)
        names = (f"frozen-{number}" for number in range(1000))
        order = await world.place(client, next(name for name in names if partition_of(order_id(name)) in share))

        async def ended() -> bool:
            answer = await client.http.get(f"/v1/orders/{order}")
            return answer.status_code == 200 and answer.json()["status"] in ENDED

        await client.until(ended, "the other worker has ended the order", MAX_STEP_S)
        frozen.send(signal.SIGCONT)
        await client.until(shared, "the frozen worker has a share again", MAX_STEP_S)


async def intruder_in_the_house(world: World) -> None:
    """An intruder asks for everything of an order on its way, with all keys but the right ones."""
    world.stack.start_payment(*INSTANT)
    world.stack.start_pos(*INSTANT)
    world.start_worker()
    intruder = Intruder(world.stack.ledgers / "intrusions.jsonl")
    async with Client(world.stack) as client:
        order = await world.place(client)
        customer = an_order(world.kitchen, "anybody")["customer"]
        words = tuple(customer[field] for field in ("name", "address", "phone"))
        victim = Victim(order, TAKES_ANYTHING, "driver-1", words=words)
        await intruder.ask(world.stack.url, victim)
        world.stack.start_drivers(1, *INSTANT)
        await world.ended(client)
        await intruder.ask(world.stack.url, victim)


Scenario = Callable[[World], Awaitable[None]]
SCENARIOS: dict[Scenario, tuple[str, ...]] = {
    killed_before_the_commit: ("offsets-before-outputs", "disk-before-commit"),
    disk_lost: ("changelog-record-dropped", "output-dropped"),
    charge_answered_with_500: ("charge-without-key", "new-key-on-retry", "refund-forgotten"),
    early_and_duplicate_callbacks: ("duplicate-applied-twice", "driver-assigned-twice", "early-callback-lost"),
    forged_charge: ("callback-believed",),
    scheduled_order: ("timer-fired-early", "timer-lost"),
    nobody_answers_and_some_talk_nonsense: ("attention-lost", "dead-letter-dropped"),
    frozen_worker_replaced: ("zombie-commits",),
    intruder_in_the_house: ("route-unchecked", "capability-not-compared", "mask-forgotten"),
}
"""Scenario -> names of the bugs that it makes visible."""


async def play(kafka: str, directory: Path, scenario: Scenario, bug: str | None = None) -> list[Wrong]:
    """Play a scenario in a new installation; return the violations."""
    name = f"planted-{uuid.uuid4().hex[:8]}"
    with installed(kafka, name, directory / name, 0.0) as stack:
        stack.environment["DABBAWALA_PARTITIONS"] = "1"
        world = World(stack, bug)
        await scenario(world)
        wrong = await world.judge()
        for child in (*stack.workers.values(), *stack.simulators.values()):
            child.kill()  # an orderly end would take longer
        return wrong
