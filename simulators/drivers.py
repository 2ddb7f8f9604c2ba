"""The drivers' apps: a driver wants work, waits for a delivery, drives to the restaurant and on to the customer.

    available -> long poll until there is a delivery -> drive -> picked up -> drive -> delivered -> available ...

While driving, the app reports its position every second over Kafka; a waiting driver drifts a little now and then. A
driver who cannot move, in a world without delays, reports the same position: silent drivers are off duty.
A driver repeats each request under one `Idempotency-Key` until it is answered. After a crash of the worker or of this
program, each driver fetches its state from the worker and continues from there.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Any, NamedTuple

import msgspec

from simulators.city import driver_home
from simulators.cli import (
    Failure,
    Reporter,
    TimeScale,
    counted,
    kafka_options,
    key_of,
    options,
    run,
    topic,
    whole,
    worker_options,
)
from simulators.faults import AWAY_S, MIN_AWAY_S, Faults, fault_options
from simulators.http_client import Answer, Caller
from simulators.kafka import Reports, producing
from simulators.ledger import Ledger, TripEntry, now, record_run
from simulators.streets import after
from topics.families import LOCATIONS
from topics.identity import OrderId, PartyId
from topics.locations import Location
from topics.places import Position
from topics.records import epoch_ms

POLL_S = 25
"""Seconds of one long poll. Between two polls a driver refreshes its state."""
REPORT_S = 1.0
"""Real seconds between two positions, at every speed."""
DRIFT_S = 40.0
"""Simulated seconds between two moves of a waiting driver, on average."""
MIN_DRIFT_S = 5.0
"""Real seconds between two of these moves, at least: waiting drivers should not load the worker."""
MAX_DRIFT_S = 60.0
"""Real seconds between two of these moves, at most. The worker may run at another speed than this program."""
REFUSAL_PAUSE_S = 1.0
"""Seconds before a driver continues after the worker refused a request."""
SIGN_OFF_TIMEOUT_S = 2.0
"""Seconds that signing off at the worker may take."""


class DriverState(msgspec.Struct, frozen=True, kw_only=True):
    """A driver's state at the worker. UNKNOWN, a status of this program, is a driver that the worker does not have."""

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


class SharedContext(NamedTuple):
    """The clients and files that the drivers share."""

    caller: Caller
    reports: Reports
    ledger: Ledger[TripEntry]
    reporter: Reporter
    faults: Faults


class Driver:
    """One driver: a position, a state, and the newest line of the ledger about it."""

    def __init__(
        self, number: int, arguments: argparse.Namespace, shared: SharedContext, last: Mapping[str, TripEntry]
    ) -> None:
        """Make driver ``number``, counted from 0; ``last`` has the newest ledger line of each driver."""
        name = driver_name(number)
        self.name = name
        self._url = f"{arguments.worker}/v1/drivers/{name}"
        self._time_scale: TimeScale = arguments.speed
        self._caller = shared.caller
        self._reports = shared.reports
        self._ledger = shared.ledger
        self._reporter = shared.reporter
        self._faults = shared.faults
        self._rng = Random(f"driver/{arguments.seed}/{name}")
        self._region, self._position = driver_home(arguments.seed, name, number)
        self._last = last.get(name)
        self._state = DriverState(status="UNKNOWN")
        self._drifts_at = self._next_drift()
        """Time of the next move of a waiting driver, by the monotonic clock."""

    async def work(self) -> None:
        """Work until cancelled."""
        await self._refresh()
        self._position = self._state.position or self._position
        while True:
            self._close_what_is_over()
            match self._state.status:
                case "DELIVERING":
                    await self._go_on()
                case "WAITING_FOR_WORK":
                    await self._wait()
                case _:
                    await self._become_available()

    async def leave(self) -> None:
        """Sign off at the worker, if the driver has no delivery."""
        if self._state.status == "WAITING_FOR_WORK":
            key = f"{self.name}/unavailable/{self._state.shift}"
            answer = await self._caller.once("POST", f"{self._url}/unavailable", {}, key, SIGN_OFF_TIMEOUT_S)
            if answer.status == 200:
                self._write("unavailable", shift=self._state.shift)

    async def _become_available(self) -> None:
        shift = self._state.shift + 1
        body = {"region": self._region.id, "position": self._position}
        if await self._send("available", f"available/{shift}", body):
            self._write("available", shift=self._state.shift)

    async def _wait(self) -> None:
        """Poll for a delivery; the worker delays its answer until there is one."""
        drifting = asyncio.create_task(self._drift())
        try:
            answer = await self._get("delivery", f"?wait={POLL_S}", POLL_S + 10)
        finally:
            drifting.cancel()
            await asyncio.wait([drifting])
        await self._take(answer)

    async def _go_on(self) -> None:
        """Fetch the driver's delivery."""
        await self._take(await self._get("delivery", "?wait=0"))

    async def _take(self, answer: Answer) -> None:
        if answer.status != 200:
            await self._refresh()
            return
        trip = answer.read(Assignment)
        self._state = msgspec.structs.replace(self._state, status="DELIVERING", delivery=trip.delivery)
        await self._deliver(trip)

    async def _deliver(self, trip: Assignment) -> None:
        self._write_news(trip)
        body = {"delivery": trip.delivery}
        await self._pause_if_struck(f"{trip.delivery}/{trip.attempt}")
        if not trip.picked_up:
            await self._drive(trip.pickup)
            if not await self._send("pickup", f"pickup/{trip.delivery}/{trip.attempt}", body):
                return
            self._write("picked_up", trip.delivery, trip.attempt)
            await self._pause_if_struck(f"{trip.delivery}/{trip.attempt}/carrying")
        await self._drive(trip.dropoff)
        if await self._send("delivered", f"delivered/{trip.delivery}/{trip.attempt}", body):
            self._write("delivered", trip.delivery, trip.attempt)

    async def _pause_if_struck(self, key: str) -> None:
        """Stop and send nothing, if a fault applies to the driver and this delivery."""
        if self._faults.applies("gone", key):
            self._reporter.event(f"{self.name} is gone")
            await asyncio.Event().wait()
        if self._faults.applies("silent", key):
            self._reporter.event(f"{self.name} falls silent")
            await asyncio.sleep(max(self._time_scale.real(AWAY_S), MIN_AWAY_S))

    async def _send(self, what: str, cause: str, body: Any) -> bool:
        """Send a request until the worker has decided, and refresh the state; return whether the worker accepted it."""
        key = f"{self.name}/{cause}"
        copies = 2 if self._faults.applies("doubled", key) else 1
        requests = (
            self._caller.request_until_final("POST", lambda: f"{self._url}/{what}", body, key, undecided=True)
            for _ in range(copies)
        )
        answer = (await asyncio.gather(*requests))[0]
        if answer.status == 200:
            self._state = answer.read(DriverState)
            return True
        if answer.status not in (404, 409):
            raise Failure(f"{answer.why} was answered {answer.status}: {answer.detail or 'no reason given'}")
        self._reporter.event(f"{self.name} {what} refused: {answer.detail}")
        await asyncio.sleep(REFUSAL_PAUSE_S)
        await self._refresh()
        return False

    async def _refresh(self) -> None:
        """Fetch the driver's state from the worker."""
        answer = await self._get("", "")
        self._state = DriverState(status="UNKNOWN") if answer.status == 404 else answer.read(DriverState)

    async def _get(self, what: str, query: str, timeout_s: float = 15.0) -> Answer:
        url = f"{self._url}/{what}".rstrip("/") + query
        answer = await self._caller.request_until_final("GET", lambda: url, timeout_s=timeout_s)
        if answer.status not in (200, 204, 404):
            raise Failure(f"{answer.why} was answered {answer.status}: {answer.detail or 'no reason given'}")
        return answer

    async def _drive(self, there: Position) -> None:
        """Drive to a place by the streets, and report positions on the way."""
        way, began = self._region.way(self._position, there), time.monotonic()
        takes_s = self._time_scale.real(sum(leg.seconds for leg in way))
        while not self._time_scale.instant and self._position != there:
            left_s = takes_s - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, min(REPORT_S, left_s)))
            self._move_to(after(way, (time.monotonic() - began) * self._time_scale.factor))
        self._position = there

    async def _drift(self) -> None:
        """Move by a block now and then, within the region; without delays, report the same position."""
        while True:
            await asyncio.sleep(self._drifts_at - time.monotonic())
            self._drifts_at = self._next_drift()
            places = [self._position] if self._time_scale.instant else self._region.a_block_from(self._position)
            self._move_to(self._rng.choice(places))

    def _next_drift(self) -> float:
        """Return the time of the next move. It outlasts a poll, which is often shorter than the time between moves."""
        drift_s = self._rng.uniform(0.5, 1.5) * DRIFT_S
        real_s = drift_s if self._time_scale.instant else self._time_scale.real(drift_s)
        return time.monotonic() + min(max(real_s, MIN_DRIFT_S), MAX_DRIFT_S)

    def _move_to(self, position: Position) -> None:
        self._position = position
        at = now()
        self._reports.send(Location(id=f"{self.name}/at/{epoch_ms(at)}", at=at, driver=self.name, position=position))

    def _write_news(self, trip: Assignment) -> None:
        """Write down a delivery that is new to the driver, and a pickup that the ledger lacks."""
        mine = self._open_trip()
        if mine is None or (mine.delivery, mine.attempt) != (trip.delivery, trip.attempt):
            self._close(mine)
            self._write("assigned", trip.delivery, trip.attempt)
        if trip.picked_up and self._last is not None and self._last.event == "assigned":
            self._write("picked_up", trip.delivery, trip.attempt)

    def _close_what_is_over(self) -> None:
        """Write down the end of a delivery that the worker no longer assigns to this driver."""
        mine = self._open_trip()
        if mine is not None and (self._state.status != "DELIVERING" or self._state.delivery != mine.delivery):
            self._close(mine)

    def _close(self, mine: TripEntry | None) -> None:
        # each request is sent after the previous one is in the ledger, so the ledger is at most one step behind
        if mine is not None:
            event = "delivered" if mine.event == "picked_up" and self._state.status != "UNKNOWN" else "dropped"
            self._write(event, mine.delivery, mine.attempt)

    def _open_trip(self) -> TripEntry | None:
        """Return the newest ledger line of the driver's delivery; None if the driver has none."""
        return self._last if self._last is not None and self._last.event in ("assigned", "picked_up") else None

    def _write(self, event: Any, delivery: str = "", attempt: int = 0, shift: int = 0) -> None:
        self._last = TripEntry(
            driver=self.name, event=event, delivery=delivery, attempt=attempt, shift=shift, position=self._position
        )
        self._ledger.append(self._last)
        self._reporter.event(f"{self.name} {event}{' ' + delivery if delivery else ''}")


def driver_name(number: int) -> str:
    """Return the id of a driver, counted from 0."""
    return f"driver-{number + 1:02d}"


async def drive(arguments: argparse.Namespace) -> int:
    """Run the drivers until the process is stopped."""
    reporter = Reporter("drivers", arguments.quiet)
    ledger = Ledger(arguments.ledger, TripEntry)
    record_run(arguments.ledger, "drivers", arguments.speed.factor)
    last = {entry.driver: entry for entry in ledger.written_before()}
    async with Caller(reporter, arguments.seed, arguments.worker, partial(key_of, arguments)) as caller:
        await caller.wait_for_worker(arguments.worker, arguments.patience)
        async with producing(arguments, reporter) as producer:
            reports = Reports(producer, topic(arguments, LOCATIONS), reporter)
            faults = Faults("drivers", arguments.seed, arguments.faults)
            shared = SharedContext(caller, reports, ledger, reporter, faults)
            drivers = [Driver(number, arguments, shared, last) for number in range(arguments.drivers)]
            reporter.notice(f"{counted(len(drivers), 'driver')} at work for {arguments.worker}")
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(shared.reports.keep_sending())
                    for driver in drivers:
                        tasks.create_task(driver.work())
            finally:
                await asyncio.gather(*(driver.leave() for driver in drivers))
    return 0


def main() -> None:
    """Run `python -m simulators.drivers`."""
    parser = options("drivers", "The drivers' apps.", "trips.jsonl")
    worker_options(parser, "driver")
    kafka_options(parser)
    parser.add_argument("--drivers", type=whole(1, 10_000), default=12, metavar="N", help="number of drivers")
    fault_options(parser, "drivers")
    run(drive(parser.parse_args()))


if __name__ == "__main__":
    main()
