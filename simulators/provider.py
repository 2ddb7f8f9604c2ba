"""An ordering provider: places the orders of the city's customers, over HTTP or Kafka, until each is answered.

The id of an order is the name of the run and a number, and the seed decides its content: a run that is repeated with
its seed places the same orders. An interrupted run continues when it is started again under its name. Orders come at an
average rate or, with `--day`, at the rates of a simulated day.

The program ends when all orders are answered (with `--follow`: have ended), with status 0 if all were accepted, else 1.
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

from simulators.city import PROVIDER, external_id, order
from simulators.cli import (
    Failure,
    Reporter,
    TimeScale,
    counted,
    kafka_options,
    key_of,
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
from simulators.http_client import Answer, Caller
from simulators.kafka import producing, send
from simulators.ledger import AnswerEntry, Ledger, now, record_run
from simulators.seeding import is_drawn
from topics.families import ORDERS
from topics.identity import order_id
from topics.order_updates import OrderStatus, in_words
from topics.orders import Placed

MAX_CONCURRENT = 32
"""Requests in flight."""
MIN_AHEAD_S, MAX_AHEAD_S = 3600.0, 4 * 3600.0
"""Simulated seconds from an order for later to its delivery."""
MAX_STEP_S = MAX_AHEAD_S + 7200.0
"""Simulated seconds that a followed order may go without an update, besides the patience with unanswered calls."""
RETRY_S = 0.5
FOLLOW_S = 0.5
FOLLOW_INSTANT_S = 0.05
"""Seconds between two looks at an order."""


Put = Callable[[], Awaitable[Awaitable[object]]]
"""A call that gives a record to the producer; its result is done when Kafka has the record."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an order that are followed."""

    status: OrderStatus
    version: int = 0
    reason: str = ""


class Provider:
    """The orders of a run."""

    def __init__(
        self, arguments: argparse.Namespace, caller: Caller, producer: AIOKafkaProducer | None, reporter: Reporter
    ) -> None:
        """Restore the run from the ledger; ``arguments`` are those of the command."""
        self._seed: str = arguments.seed
        self._run: str = arguments.run
        self._count: int | None = arguments.orders
        self._rate: float = arguments.rate
        self._day: tuple[float, ...] | None = arguments.day
        self._from_s: float = arguments.start
        self._time_scale: TimeScale = arguments.speed
        self._patience_s: float = arguments.patience
        self._url = f"{arguments.worker}/v1/orders"
        self._topic = topic(arguments, ORDERS)
        self._over_kafka: float = arguments.kafka
        self._later: float = arguments.later
        self._follows: bool = arguments.follow
        self._faults = Faults("provider", arguments.seed, arguments.faults)
        self._caller = caller
        self._producer = producer
        self._reporter = reporter
        self._placing = asyncio.Semaphore(MAX_CONCURRENT)
        self._looking = asyncio.Semaphore(MAX_CONCURRENT)
        self._intents: dict[str, AnswerEntry] = {}
        self._answers: dict[str, AnswerEntry] = {}
        self._ends: dict[str, AnswerEntry] = {}
        self._ledger = Ledger(arguments.ledger, AnswerEntry)
        for entry in self._ledger.written_before():
            self._remember(entry)

    async def place_all(self) -> int:
        """Place the orders of the run, each in its time, and wait for their outcomes; return the exit status."""
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
        """Yield the real seconds before each order: by the hour of the day, or at an average rate."""
        if self._day is not None:
            yield from self._pauses_of_the_day(self._day)
            return
        yield 0.0
        for number in count(1):
            rest = Random(f"moment/{self._seed}/{number}").expovariate(self._rate)
            yield 0.0 if self._time_scale.instant else rest

    def _pauses_of_the_day(self, curve: tuple[float, ...]) -> Iterator[float]:
        before, reported = self._from_s, ""
        for second in arrivals(curve, self._from_s, self._seed):
            yield self._time_scale.real(second - before)
            if (hour := clock(second // HOUR_S * HOUR_S)) != reported:
                self._reporter.event(f"it is past {hour}; orders per hour: {curve[int(second // HOUR_S)]:g}")
                reported = hour
            before = second

    async def _place(self, number: int) -> None:
        intent = self._intents.get(self._name(number)) or self._intend(number)
        assert intent.placed_at is not None
        if self._faults.applies("malformed", self._name(number)):
            await self._place_malformed(number, intent)
        placed = order(self._seed, self._run, number, intent.placed_at, intent.deliver_at)
        if intent.via == "kafka":
            await self._place_on_topic(placed)
        else:
            await self._place_by_request(placed)

    def _intend(self, number: int) -> AnswerEntry:
        """Write down how an order will be placed, so that after a crash the same order is placed again."""
        at, later = now(), is_drawn(self._later, self._seed, f"later/{number}")
        ahead_s = Random(f"ahead/{self._seed}/{number}").uniform(MIN_AHEAD_S, MAX_AHEAD_S)
        intent = AnswerEntry(
            at=at,
            event="placing",
            order=self._name(number),
            via="kafka" if is_drawn(self._over_kafka, self._seed, f"via/{number}") else "http",
            placed_at=at,
            deliver_at=at + timedelta(seconds=self._time_scale.real(ahead_s)) if later else None,
        )
        self._write(intent)
        return intent

    async def _place_by_request(self, placed: Placed) -> None:
        copies = 2 if self._faults.applies("doubled", placed.key) else 1
        answers = await asyncio.gather(*(self._post(placed, f"{placed.key}/place") for _ in range(copies)))
        answer = max(answers, key=lambda answer: answer.status)  # if one is refused, that answer counts
        outcome = "accepted" if answer.status < 300 else "refused"
        self._write(
            AnswerEntry(event="answer", order=placed.key, outcome=outcome, status=answer.status, reason=answer.detail)
        )

    async def _post(self, body: Any, key: str) -> Answer:
        return await self._caller.request_until_final("POST", lambda: self._url, body, key, patience_s=self._patience_s)

    async def _place_malformed(self, number: int, intent: AnswerEntry) -> None:
        """Send an invalid order under a separate id."""
        assert intent.placed_at is not None
        placed = order(self._seed, f"{self._run}-malformed", number, intent.placed_at)
        body = malformed(placed, Random(f"malformed/{self._seed}/{number}"))
        entry = AnswerEntry(event="malformed", order=placed.key, via=intent.via)
        if intent.via == "kafka" and self._producer is not None:
            put = partial(self._producer.send, self._topic, body, placed.key.encode())
            await self._produce_until_acknowledged(f"the malformed order {placed.key}", put)
        else:
            answer = await self._post(msgspec.Raw(body), f"{placed.key}/place")
            outcome = "accepted" if answer.status < 300 else "refused"
            entry = msgspec.structs.replace(entry, status=answer.status, reason=answer.detail, outcome=outcome)
        self._write(entry)

    async def _place_on_topic(self, placed: Placed) -> None:
        if self._producer is None:
            raise Failure(f"order {placed.key} was begun over Kafka in an earlier run: continue with --kafka")
        record = msgspec.structs.replace(placed, id=placed.event_id)
        put = partial(send, self._producer, self._topic, record)
        if self._faults.applies("doubled", placed.key):
            await _unacknowledged(put)
        await self._produce_until_acknowledged(f"order {placed.key}", put)
        self._write(AnswerEntry(event="answer", order=placed.key, via="kafka", outcome="accepted"))

    async def _produce_until_acknowledged(self, what: str, put: Put) -> None:
        """Produce a record until Kafka has it. Raises `Failure` after the patience."""
        deadline = time.monotonic() + self._patience_s
        while (error := await _unacknowledged(put)) is not None:
            if time.monotonic() > deadline:
                raise Failure(f"Kafka did not acknowledge {what} within {self._patience_s:g} s ({error}): giving up")
            await asyncio.sleep(RETRY_S)

    async def _follow(self, name: str) -> None:
        """Look at an order until it has ended. Raises `Failure` if it has no update for too long."""
        seen, changed = Seen(status=OrderStatus.CREATED), time.monotonic()
        limit_s = self._patience_s + self._time_scale.real(MAX_STEP_S)
        while name not in self._ends and not self._refused(name):
            await asyncio.sleep(FOLLOW_INSTANT_S if self._time_scale.instant else FOLLOW_S)
            newer = await self._look(name)
            if newer is not None and newer != seen:
                seen, changed = newer, time.monotonic()
                reason = f": {in_words(seen.reason)}" if seen.reason else ""
                self._reporter.event(f"{name} is {seen.status.value}{reason}")
            if seen.status.ended:
                self._write(AnswerEntry(event="ended", order=name, outcome=seen.status.value, reason=seen.reason))
            elif time.monotonic() - changed > limit_s:
                raise Failure(
                    f"order {name} has been {seen.status.value} for {limit_s:g} s: giving up "
                    f"(look at {self._url}/{name}/journal, or wait longer with --patience)"
                )

    async def _look(self, name: str) -> Seen | None:
        """Return an order's state; None if the worker does not have it yet, as with one that waits on Kafka."""
        async with self._looking:
            answer = await self._caller.request_until_final(
                "GET", lambda: f"{self._url}/{name}", patience_s=self._patience_s
            )
        return answer.read(Seen) if answer.status == 200 else None

    def _refused(self, name: str) -> bool:
        return name in self._answers and self._answers[name].outcome == "refused"

    def _write(self, entry: AnswerEntry) -> None:
        self._ledger.append(entry)
        self._remember(entry)
        if entry.event == "answer":
            reason = f": {entry.reason}" if entry.reason else ""
            self._reporter.event(f"{entry.order} {entry.outcome} over {entry.via}{reason}")

    def _remember(self, entry: AnswerEntry) -> None:
        known = {"placing": self._intents, "answer": self._answers, "ended": self._ends}
        if entry.event in known:
            known[entry.event][entry.order] = entry

    def _sum_up(self, placed: int) -> int:
        names = [self._name(number) for number in range(1, placed + 1)]
        outcomes = Counter(self._answers[name].outcome for name in names)
        ends = Counter(self._ends[name].outcome for name in names if name in self._ends)
        summary = ", ".join(f"{number} {what}" for number, what in ((n, w) for w, n in (outcomes + ends).items()))
        self._reporter.notice(f"{counted(len(names), 'order')}: {summary}")
        return 1 if outcomes["refused"] else 0


def malformed(placed: Placed, rng: Random) -> bytes:
    """Return an invalid copy of an order."""
    body: dict[str, Any] = msgspec.to_builtins(placed)
    spoilt: dict[str, Any] = rng.choice(
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
    return rng.choice((text, text, text[: len(text) // 2]))


async def _unacknowledged(put: Put) -> str | None:
    """Produce a record; return None once Kafka has it, otherwise the name of the error."""
    try:
        await (await put())
    except KafkaError as error:
        return type(error).__name__
    return None


async def provide(arguments: argparse.Namespace) -> int:
    """Place the orders of a run; return the exit status."""
    reporter = Reporter("provider", arguments.quiet)
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(
            Caller(reporter, arguments.seed, arguments.worker, partial(key_of, arguments))
        )
        if arguments.kafka < 1 or arguments.follow:
            await caller.wait_for_worker(arguments.worker, arguments.patience)
        producer = await stack.enter_async_context(producing(arguments, reporter)) if arguments.kafka else None
        provider = Provider(arguments, caller, producer, reporter)
        record_run(arguments.ledger, "provider", arguments.speed.factor)
        reporter.notice(f"run {arguments.run}{' from ' + clock(arguments.start) if arguments.day else ''}")
        return await provider.place_all()


def run_name(text: str) -> str:
    """Parse the name of a run, which its orders' external ids begin with."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,55}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of 1 to 56 letters, digits, dots or dashes")
    return text


def main() -> None:
    """Run `python -m simulators.provider`."""
    parser = options("provider", "An ordering provider.", "answers.jsonl")
    worker_options(parser, "provider")
    kafka_options(parser)
    parser.add_argument(
        "--orders",
        type=whole(1, 10_000_000),
        metavar="N",
        help="number of orders; without it the run goes on until it is stopped",
    )
    parser.add_argument("--rate", type=positive, default=0.5, metavar="R", help="orders a second, on average")
    parser.add_argument(
        "--run",
        type=run_name,
        default=f"run-{int(time.time()):x}",
        metavar="NAME",
        help="name of the run, which the external ids begin with",
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
        help="share of the orders that are for delivery in 1 to 4 hours",
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
