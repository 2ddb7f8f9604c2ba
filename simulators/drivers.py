"""The drivers' apps: a driver wants work, waits for a delivery, drives to the restaurant and on to the customer.

    available -> long poll until there is a delivery -> drive -> picked up -> drive -> delivered -> available ...

While driving, the app reports its position every second over Kafka; a waiting driver drifts a little now and then.
What a driver tells the worker is sent under the same `Idempotency-Key` until there is an answer. After a crash, of the
worker or of this program, each driver asks the worker how they stand and goes on from there.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

import msgspec

from simulators.calling import Answer, Caller
from simulators.city import driver_home
from simulators.command import Failure, Pace, Teller, kafka_options, options, run, topic, whole, worker_options
from simulators.faults import AWAY_LEAST_S, AWAY_S, Faults, fault_options
from simulators.kafka import Reports, producing
from simulators.ledger import Ledger, TripEntry, now
from simulators.streets import after
from topics.families import LOCATIONS
from topics.identity import OrderId, PartyId
from topics.locations import Location
from topics.places import Position
from topics.records import epoch_ms

POLL_S = 25
"""One long poll; in between a driver makes sure where they stand."""
REPORT_S = 1.0
"""Between two positions, whatever the speed."""
DRIFT_S = 40.0
"""Between two moves of a waiting driver, on average."""
DRIFT_LEAST_S = 5.0
"""The same, whatever the speed: who waits must not keep the worker busy."""
AFTER_REFUSAL_S = 1.0
"""Before a driver whom the worker contradicted goes on."""
FAREWELL_S = 2.0
"""What telling the worker that the drivers are gone may take."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a driver stands, as the worker sees it. UNKNOWN is ours: the worker has never heard of them."""

    status: str
    shift: int = 0
    delivery: OrderId | None = None
    picked_up: bool = False
    position: Position | None = None


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The delivery a driver has."""

    delivery: OrderId
    attempt: int
    restaurant: PartyId
    pickup: Position
    dropoff: Position
    picked_up: bool = False


class Surroundings(NamedTuple):
    """What the drivers share."""

    caller: Caller
    reports: Reports
    ledger: Ledger[TripEntry]
    teller: Teller
    faults: Faults


class Driver:
    """One driver: where they are, how they stand, and the newest line of their log."""

    def __init__(
        self, number: int, arguments: argparse.Namespace, shared: Surroundings, last: Mapping[str, TripEntry]
    ) -> None:
        """`number` counts from 0; `last` has the newest line of each driver's log."""
        name = driver_name(number)
        self.name = name
        self._url = f"{arguments.worker}/v1/drivers/{name}"
        self._pace: Pace = arguments.speed
        self._caller, self._reports, self._ledger, self._teller, self._faults = shared
        self._chance = Random(f"driver/{arguments.seed}/{name}")
        self._region, self._position = driver_home(arguments.seed, name, number)
        self._last = last.get(name)
        self._standing = Standing(status="UNKNOWN")

    async def work(self) -> None:
        """Do what a driver does, until cancelled."""
        await self._ask()
        self._position = self._standing.position or self._position
        while True:
            self._close_what_is_over()
            match self._standing.status:
                case "DELIVERING":
                    await self._go_on()
                case "WAITING_FOR_WORK":
                    await self._wait()
                case _:
                    await self._become_available()

    async def leave(self) -> None:
        """Tell the worker that there will be no more work, if there is none now."""
        if self._standing.status == "WAITING_FOR_WORK":
            key = f"{self.name}/unavailable/{self._standing.shift}"
            answer = await self._caller.once("POST", f"{self._url}/unavailable", {}, key, FAREWELL_S)
            if answer.status == 200:
                self._note("unavailable", shift=self._standing.shift)

    async def _become_available(self) -> None:
        shift = self._standing.shift + 1
        body = {"region": self._region.id, "position": self._position}
        if await self._tell("available", f"available/{shift}", body):
            self._note("available", shift=self._standing.shift)

    async def _wait(self) -> None:
        """Poll until there is a delivery; the worker keeps the answer back as long as there is none."""
        drifting = asyncio.create_task(self._drift())
        try:
            answer = await self._get("delivery", f"?wait={POLL_S}", POLL_S + 10)
        finally:
            drifting.cancel()
            await asyncio.wait([drifting])
        await self._take(answer)

    async def _go_on(self) -> None:
        """Fetch the delivery the driver has."""
        await self._take(await self._get("delivery", "?wait=0"))

    async def _take(self, answer: Answer) -> None:
        if answer.status != 200:
            await self._ask()
            return
        trip = answer.read(Assignment)
        self._standing = msgspec.structs.replace(self._standing, status="DELIVERING", delivery=trip.delivery)
        await self._deliver(trip)

    async def _deliver(self, trip: Assignment) -> None:
        self._learn(trip)
        body = {"delivery": trip.delivery}
        await self._fall_silent(f"{trip.delivery}/{trip.attempt}")
        if not trip.picked_up:
            await self._drive(trip.pickup)
            if not await self._tell("pickup", f"pickup/{trip.delivery}/{trip.attempt}", body):
                return
            self._note("picked_up", trip.delivery, trip.attempt)
            await self._fall_silent(f"{trip.delivery}/{trip.attempt}/carrying")
        await self._drive(trip.dropoff)
        if await self._tell("delivered", f"delivered/{trip.delivery}/{trip.attempt}", body):
            self._note("delivered", trip.delivery, trip.attempt)

    async def _fall_silent(self, key: str) -> None:
        """Stand still and say nothing, if such a fault strikes the driver with this delivery."""
        if self._faults.strikes("gone", key):
            self._teller.event(f"{self.name} is gone")
            await asyncio.Event().wait()
        if self._faults.strikes("silent", key):
            self._teller.event(f"{self.name} falls silent")
            await asyncio.sleep(max(self._pace.real(AWAY_S), AWAY_LEAST_S))

    async def _tell(self, what: str, cause: str, body: Any) -> bool:
        """Tell the worker until it has decided; whether it took it. How the driver stands then is known."""
        key = f"{self.name}/{cause}"
        copies = 2 if self._faults.strikes("doubled", key) else 1
        told = (
            self._caller.insist("POST", lambda: f"{self._url}/{what}", body, key, undecided=True) for _ in range(copies)
        )
        answer = (await asyncio.gather(*told))[0]
        if answer.status == 200:
            self._standing = answer.read(Standing)
            return True
        if answer.status not in (404, 409):
            raise Failure(f"{answer.why} was answered {answer.status}: {answer.detail or 'no reason given'}")
        self._teller.event(f"{self.name} {what} refused: {answer.detail}")
        await asyncio.sleep(AFTER_REFUSAL_S)
        await self._ask()
        return False

    async def _ask(self) -> None:
        """Ask the worker how the driver stands."""
        answer = await self._get("", "")
        self._standing = Standing(status="UNKNOWN") if answer.status == 404 else answer.read(Standing)

    async def _get(self, what: str, query: str, timeout_s: float = 15.0) -> Answer:
        url = f"{self._url}/{what}".rstrip("/") + query
        answer = await self._caller.insist("GET", lambda: url, timeout_s=timeout_s)
        if answer.status not in (200, 204, 404):
            raise Failure(f"{answer.why} was answered {answer.status}: {answer.detail or 'no reason given'}")
        return answer

    async def _drive(self, there: Position) -> None:
        """Be there after as long as it takes by the streets, reporting on the way."""
        way, began = self._region.way(self._position, there), time.monotonic()
        takes_s = self._pace.real(sum(leg.seconds for leg in way))
        while not self._pace.instant and self._position != there:
            left_s = takes_s - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, min(REPORT_S, left_s)))
            self._be(after(way, (time.monotonic() - began) * self._pace.factor))
        self._position = there

    async def _drift(self) -> None:
        """Change place by a block now and then, within the region."""
        while not self._pace.instant:
            await asyncio.sleep(max(self._pace.real(self._chance.uniform(0.5, 1.5) * DRIFT_S), DRIFT_LEAST_S))
            self._be(self._chance.choice(self._region.a_block_from(self._position)))

    def _be(self, position: Position) -> None:
        self._position = position
        at = now()
        self._reports.send(Location(id=f"{self.name}/at/{epoch_ms(at)}", at=at, driver=self.name, position=position))

    def _learn(self, trip: Assignment) -> None:
        """Note a delivery that is new to the driver, and a pickup that the worker knows of and the log does not."""
        mine = self._live()
        if mine is None or (mine.delivery, mine.attempt) != (trip.delivery, trip.attempt):
            self._close(mine)
            self._note("assigned", trip.delivery, trip.attempt)
        if trip.picked_up and self._last is not None and self._last.event == "assigned":
            self._note("picked_up", trip.delivery, trip.attempt)

    def _close_what_is_over(self) -> None:
        """Note the end of a delivery that the worker no longer sees with this driver."""
        mine = self._live()
        if mine is not None and (self._standing.status != "DELIVERING" or self._standing.delivery != mine.delivery):
            self._close(mine)

    def _close(self, mine: TripEntry | None) -> None:
        # Nothing is told before what was told before it is noted, so the log is at most one step behind the worker.
        if mine is not None:
            event = "delivered" if mine.event == "picked_up" and self._standing.status != "UNKNOWN" else "dropped"
            self._note(event, mine.delivery, mine.attempt)

    def _live(self) -> TripEntry | None:
        """The newest line of the delivery that the driver has, by their own log."""
        return self._last if self._last is not None and self._last.event in ("assigned", "picked_up") else None

    def _note(self, event: Any, delivery: str = "", attempt: int = 0, shift: int = 0) -> None:
        self._last = TripEntry(
            driver=self.name, event=event, delivery=delivery, attempt=attempt, shift=shift, position=self._position
        )
        self._ledger.append(self._last)
        self._teller.event(f"{self.name} {event}{' ' + delivery if delivery else ''}")


def driver_name(number: int) -> str:
    """The id of a driver, counted from 0."""
    return f"driver-{number + 1:02d}"


async def drive(arguments: argparse.Namespace) -> int:
    """Have the drivers work until told to stop."""
    teller = Teller("drivers", arguments.quiet)
    ledger = Ledger(arguments.ledger, TripEntry)
    last = {entry.driver: entry for entry in ledger.written_before()}
    async with Caller(teller, arguments.seed) as caller:
        await caller.wait_for_worker(arguments.worker, arguments.patience)
        async with producing(arguments, teller) as producer:
            reports = Reports(producer, topic(arguments, LOCATIONS), teller)
            faults = Faults("drivers", arguments.seed, arguments.faults)
            shared = Surroundings(caller, reports, ledger, teller, faults)
            drivers = [Driver(number, arguments, shared, last) for number in range(arguments.drivers)]
            teller.notice(f"{len(drivers)} drivers work for {arguments.worker}")
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(shared.reports.keep_sending())
                    for driver in drivers:
                        tasks.create_task(driver.work())
            finally:
                await asyncio.gather(*(driver.leave() for driver in drivers))
    return 0


def main() -> None:
    """The command."""
    parser = options("drivers", "The drivers' apps.", "trips.jsonl")
    worker_options(parser)
    kafka_options(parser)
    parser.add_argument("--drivers", type=whole(1, 10_000), default=12, metavar="N", help="how many there are")
    fault_options(parser, "drivers")
    run(drive(parser.parse_args()))


if __name__ == "__main__":
    main()
