"""An ordering provider: places the orders of the city's customers, over HTTP or Kafka, until each is answered.

An order is called after the run and its number, and the seed decides what it holds: the same run with the same seed
places the same orders. A run that was interrupted goes on where it stood when it is started again under its name. So
many orders a second on average, or, with `--day`, as many as the hour of a simulated day brings, until it is over.

It ends when all orders are answered (with `--follow`: have ended), with status 0 if all were accepted, else 1.
"""

import argparse
import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from itertools import count, islice
from random import Random
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from simulators.calling import Answer, Caller
from simulators.chance import falls_under
from simulators.city import PROVIDER, external_id, order
from simulators.command import (
    Failure,
    Pace,
    Teller,
    kafka_options,
    options,
    positive,
    run,
    share,
    topic,
    whole,
    worker_options,
)
from simulators.day import DAY_H, HOUR_S, ORDERS_PER_HOUR, arrivals, clock, read_curve, read_time
from simulators.faults import Faults, fault_options
from simulators.kafka import producing, send
from simulators.ledger import AnswerEntry, Ledger, now
from topics.families import ORDERS
from topics.identity import order_id
from topics.order_updates import OrderStatus
from topics.orders import Placed

AT_ONCE = 32
"""Requests under way."""
LATER_S, LATER_MOST_S = 3600.0, 4 * 3600.0
"""How far ahead an order for later is wished for."""
LONGEST_STEP_S = LATER_MOST_S + 7200.0
"""What an order that is followed may stay as it is, besides the patience with whoever does not answer."""
RETRY_S = 0.5
FOLLOW_S = 0.5
FOLLOW_INSTANT_S = 0.05
"""Between two looks at an order."""


Put = Callable[[], Awaitable[Awaitable[object]]]
"""Hands a record to the producer; what that gives is done when Kafka has it."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is followed of an order."""

    status: OrderStatus
    version: int = 0
    reason: str = ""


class Provider:
    """The orders of a run."""

    def __init__(
        self, arguments: argparse.Namespace, caller: Caller, producer: AIOKafkaProducer | None, teller: Teller
    ) -> None:
        """`arguments` are the command's; what the ledger says of this run is known again."""
        self._seed: str = arguments.seed
        self._run: str = arguments.run
        self._count: int | None = arguments.orders
        self._rate: float = arguments.rate
        self._day: tuple[float, ...] | None = arguments.day
        self._from_s: float = arguments.start
        self._pace: Pace = arguments.speed
        self._patience_s: float = arguments.patience
        self._url = f"{arguments.worker}/v1/orders"
        self._topic = topic(arguments, ORDERS)
        self._over_kafka: float = arguments.kafka
        self._later: float = arguments.later
        self._follows: bool = arguments.follow
        self._faults = Faults("provider", arguments.seed, arguments.faults)
        self._caller, self._producer, self._teller = caller, producer, teller
        self._placing = asyncio.Semaphore(AT_ONCE)
        self._looking = asyncio.Semaphore(AT_ONCE)
        self._intents: dict[str, AnswerEntry] = {}
        self._answers: dict[str, AnswerEntry] = {}
        self._ends: dict[str, AnswerEntry] = {}
        self._ledger = Ledger(arguments.ledger, AnswerEntry)
        for entry in self._ledger.written_before():
            self._remember(entry)

    async def place_all(self) -> int:
        """Place the orders of the run, each when it is its time, and wait for what becomes of them; the exit status."""
        placed = 0
        async with asyncio.TaskGroup() as tasks:
            for number, pause_s in enumerate(islice(self._pauses(), self._count), 1):
                if self._name(number) not in self._answers:
                    await asyncio.sleep(pause_s)
                    await self._placing.acquire()
                    task = tasks.create_task(self._place(number))
                    task.add_done_callback(lambda _: self._placing.release())
                if self._follows:
                    tasks.create_task(self._follow(self._name(number)))
                placed = number
        return self._sum_up(placed)

    def _name(self, number: int) -> str:
        return order_id(PROVIDER, external_id(self._run, number))

    def _pauses(self) -> Iterator[float]:
        """Real seconds before each order: by the hour of the day, or random, so many orders a second on average."""
        if self._day is not None:
            yield from self._pauses_of_the_day(self._day)
            return
        yield 0.0
        for number in count(1):
            rest = Random(f"moment/{self._seed}/{number}").expovariate(self._rate)
            yield 0.0 if self._pace.instant else rest

    def _pauses_of_the_day(self, curve: tuple[float, ...]) -> Iterator[float]:
        before, told = self._from_s, ""
        for second in arrivals(curve, self._from_s, self._seed):
            yield self._pace.real(second - before)
            if (hour := clock(second // HOUR_S * HOUR_S)) != told:
                self._teller.event(f"it is past {hour}: {curve[int(second // HOUR_S)]:g} orders an hour")
                told = hour
            before = second

    async def _place(self, number: int) -> None:
        intent = self._intents.get(self._name(number)) or self._intend(number)
        assert intent.placed_at is not None
        if self._faults.strikes("malformed", self._name(number)):
            await self._place_malformed(number, intent)
        placed = order(self._seed, self._run, number, intent.placed_at, intent.deliver_at)
        if intent.via == "kafka":
            await self._place_on_topic(placed)
        else:
            await self._place_by_request(placed)

    def _intend(self, number: int) -> AnswerEntry:
        """Write down when, how and for when an order is placed: after a crash, the same is placed again."""
        at, later = now(), falls_under(self._later, self._seed, f"later/{number}")
        ahead_s = Random(f"ahead/{self._seed}/{number}").uniform(LATER_S, LATER_MOST_S)
        intent = AnswerEntry(
            at=at,
            event="placing",
            order=self._name(number),
            via="kafka" if falls_under(self._over_kafka, self._seed, f"via/{number}") else "http",
            placed_at=at,
            deliver_at=at + timedelta(seconds=self._pace.real(ahead_s)) if later else None,
        )
        self._write(intent)
        return intent

    async def _place_by_request(self, placed: Placed) -> None:
        copies = 2 if self._faults.strikes("doubled", placed.key) else 1
        answers = await asyncio.gather(*(self._ask(placed, f"{placed.key}/place") for _ in range(copies)))
        answer = max(answers, key=lambda answer: answer.status)  # a refusal of either is worth telling
        outcome = "accepted" if answer.status < 300 else "refused"
        self._write(
            AnswerEntry(event="answer", order=placed.key, outcome=outcome, status=answer.status, reason=answer.detail)
        )

    async def _ask(self, body: Any, key: str) -> Answer:
        return await self._caller.insist("POST", lambda: self._url, body, key, patience_s=self._patience_s)

    async def _place_malformed(self, number: int, intent: AnswerEntry) -> None:
        """Send something that is no order, under an id of its own."""
        assert intent.placed_at is not None
        placed = order(self._seed, f"{self._run}-malformed", number, intent.placed_at)
        body = malformed(placed, Random(f"malformed/{self._seed}/{number}"))
        entry = AnswerEntry(event="malformed", order=placed.key, via=intent.via)
        if intent.via == "kafka" and self._producer is not None:
            put = partial(self._producer.send, self._topic, body, placed.key.encode())
            await self._insist(f"the malformed order {placed.key}", put)
        else:
            answer = await self._ask(msgspec.Raw(body), f"{placed.key}/place")
            outcome = "accepted" if answer.status < 300 else "refused"
            entry = msgspec.structs.replace(entry, status=answer.status, reason=answer.detail, outcome=outcome)
        self._write(entry)

    async def _place_on_topic(self, placed: Placed) -> None:
        if self._producer is None:
            raise Failure(f"order {placed.key} was begun over Kafka in an earlier run: go on with --kafka")
        record = msgspec.structs.replace(placed, id=placed.event_id)
        put = partial(send, self._producer, self._topic, record)
        if self._faults.strikes("doubled", placed.key):
            await _unacknowledged(put)
        await self._insist(f"order {placed.key}", put)
        self._write(AnswerEntry(event="answer", order=placed.key, via="kafka", outcome="accepted"))

    async def _insist(self, what: str, put: Put) -> None:
        """Put something on its topic until Kafka has it."""
        deadline = time.monotonic() + self._patience_s
        while (error := await _unacknowledged(put)) is not None:
            if time.monotonic() > deadline:
                raise Failure(f"Kafka did not take {what} in {self._patience_s:g} s ({error}): giving up")
            await asyncio.sleep(RETRY_S)

    async def _follow(self, name: str) -> None:
        """Look at an order until it has ended."""
        seen, changed = Seen(status=OrderStatus.CREATED), time.monotonic()
        enough = self._patience_s + self._pace.real(LONGEST_STEP_S)
        while name not in self._ends and not self._refused(name):
            await asyncio.sleep(FOLLOW_INSTANT_S if self._pace.instant else FOLLOW_S)
            newer = await self._look(name)
            if newer is not None and newer != seen:
                seen, changed = newer, time.monotonic()
                self._teller.event(f"{name} is {seen.status.value}{': ' + seen.reason if seen.reason else ''}")
            if seen.status.ended:
                self._write(AnswerEntry(event="ended", order=name, outcome=seen.status.value, reason=seen.reason))
            elif time.monotonic() - changed > enough:
                raise Failure(
                    f"order {name} has been {seen.status.value} for {enough:g} s: giving up "
                    f"(look at {self._url}/{name}/journal, or wait longer with --patience)"
                )

    async def _look(self, name: str) -> Seen | None:
        """An order as it is now; None if it is not known yet, as one that waits on Kafka."""
        async with self._looking:
            answer = await self._caller.insist("GET", lambda: f"{self._url}/{name}", patience_s=self._patience_s)
        return answer.read(Seen) if answer.status == 200 else None

    def _refused(self, name: str) -> bool:
        return name in self._answers and self._answers[name].outcome == "refused"

    def _write(self, entry: AnswerEntry) -> None:
        self._ledger.append(entry)
        self._remember(entry)
        if entry.event == "answer":
            reason = f": {entry.reason}" if entry.reason else ""
            self._teller.event(f"{entry.order} {entry.outcome} over {entry.via}{reason}")

    def _remember(self, entry: AnswerEntry) -> None:
        known = {"placing": self._intents, "answer": self._answers, "ended": self._ends}
        if entry.event in known:
            known[entry.event][entry.order] = entry

    def _sum_up(self, placed: int) -> int:
        names = [self._name(number) for number in range(1, placed + 1)]
        outcomes = Counter(self._answers[name].outcome for name in names)
        ends = Counter(self._ends[name].outcome for name in names if name in self._ends)
        told = ", ".join(f"{number} {what}" for number, what in ((n, w) for w, n in (outcomes + ends).items()))
        self._teller.notice(f"{len(names)} orders: {told}")
        return 1 if outcomes["refused"] else 0


def malformed(placed: Placed, chance: Random) -> bytes:
    """What a careless sender makes of an order: nothing that can be used."""
    body: dict[str, Any] = msgspec.to_builtins(placed)
    spoilt: dict[str, Any] = chance.choice(
        (
            {"total": body["total"] + 1},
            {"items": []},
            {"items": [{**body["items"][0], "quantity": -1}]},
            {"currency": "rupees"},
            {"restaurant": "nowhere"},
            {"customer": None},
        )
    )
    text = msgspec.json.encode(body | spoilt)
    return chance.choice((text, text, text[: len(text) // 2]))


async def _unacknowledged(put: Put) -> str | None:
    """Put something on its topic; None once Kafka has it, else why it has not."""
    try:
        await (await put())
    except KafkaError as error:
        return type(error).__name__
    return None


async def provide(arguments: argparse.Namespace) -> int:
    """Place the orders of a run."""
    teller = Teller("provider", arguments.quiet)
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(Caller(teller, arguments.seed))
        if arguments.kafka < 1 or arguments.follow:
            await caller.wait_for_worker(arguments.worker, arguments.patience)
        producer = await stack.enter_async_context(producing(arguments, teller)) if arguments.kafka else None
        provider = Provider(arguments, caller, producer, teller)
        teller.notice(f"run {arguments.run}{' from ' + clock(arguments.start) if arguments.day else ''}")
        return await provider.place_all()


def run_name(text: str) -> str:
    """The name of a run: the beginning of its orders' external ids."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,55}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of 1 to 56 letters, digits, dots or dashes")
    return text


def main() -> None:
    """The command."""
    parser = options("provider", "An ordering provider.", "answers.jsonl")
    worker_options(parser)
    kafka_options(parser)
    parser.add_argument("--orders", type=whole(1, 10_000_000), metavar="N", help="how many; else until told to stop")
    parser.add_argument("--rate", type=positive, default=0.5, metavar="R", help="orders a second, on average")
    parser.add_argument(
        "--run", type=run_name, default=f"run-{int(time.time()):x}", metavar="NAME", help="begins the external ids"
    )
    parser.add_argument(
        "--kafka",
        type=share,
        nargs="?",
        const=1.0,
        default=0.0,
        metavar="SHARE",
        help="place all orders, or that share of them, over Kafka instead of HTTP",
    )
    parser.add_argument(
        "--later",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="that share is wished for in 1 to 4 hours, not at once",
    )
    parser.add_argument(
        "--day",
        type=read_curve,
        nargs="?",
        const=ORDERS_PER_HOUR,
        metavar="FILE",
        help=f"follow a day to its end instead of --rate; FILE: a JSON list of {DAY_H} numbers, the orders per hour",
    )
    parser.add_argument(
        "--from", dest="start", type=read_time, default="00:00", metavar="HH:MM", help="when a --day begins"
    )
    parser.add_argument("--follow", action="store_true", help="wait until each order has ended")
    fault_options(parser, "provider")
    run(provide(parser.parse_args()))


if __name__ == "__main__":
    main()
