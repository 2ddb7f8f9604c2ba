"""Cost of a match in a region with ten to a hundred thousand waiting drivers: decision and index.

A request takes the nearest driver, who is available again before the next request, so the number of drivers is
constant. The benchmark uses the CPU alone: no Kafka, no disk.
"""

import random
import time

import msgspec

from benchmarks.lab import Lab, Sample
from processors import dispatch
from processors.parameters import Parameters
from processors.spatial_index import DispatchIndex, Overlay
from simulators.streets import moved
from topics.dispatch import DriverAvailable, DriverRequested
from topics.drivers import Assign
from topics.places import Position

BENCH = "match"
REGION = "somewhere"
CENTRE = Position(lat=19.0, lon=72.85)
SPREAD_M = 10_000
"""Half the side of the city."""
WAITING = (10, 100, 1_000, 10_000, 100_000)
MATCHES = 2_000


def run(lab: Lab) -> None:
    """Measure each number of drivers, in turns."""
    parameters = Parameters()
    cities = {count: _city(count, parameters) for count in WAITING}
    for turn in range(lab.rounds):
        lab.say(f"{BENCH}, round {turn + 1} of {lab.rounds}")
        for count, (index, rows) in cities.items():
            lab.add(Sample(BENCH, f"{count:,} waiting", "us a match", _match(index, rows, parameters, turn)))


Rows = dict[bytes, bytes]


def _city(count: int, parameters: Parameters) -> tuple[DispatchIndex, Rows]:
    index, rows, chance = DispatchIndex(), Rows(), random.Random(count)
    for number in range(count):
        _decide(index, rows, _available(f"driver-{number}", 1, _somewhere(chance)), parameters)
    return index, rows


def _match(index: DispatchIndex, rows: Rows, parameters: Parameters, turn: int) -> float:
    """Return the mean CPU microseconds of a match."""
    chance, spent = random.Random(turn), 0.0
    for number in range(MATCHES):
        request = DriverRequested(
            region=REGION,
            delivery=f"bench:{turn}-{number}",
            attempt=1,
            restaurant="here",
            pickup=_somewhere(chance),
            dropoff=CENTRE,
        )
        began = time.process_time()
        decision = _decide(index, rows, request, parameters)
        spent += time.process_time() - began
        (assigned,) = decision.emit
        assert isinstance(assigned, Assign)
        _decide(index, rows, _available(assigned.driver, number + 2, _somewhere(chance)), parameters)
    return 1e6 * spent / MATCHES


def _decide(index: DispatchIndex, rows: Rows, event: object, parameters: Parameters) -> dispatch.DispatchDecision:
    """Decide an event and commit its rows at once."""
    decision = dispatch.decide(Overlay(index, rows.get), event, 1_000, parameters)
    index.write(decision.rows)
    for key, row in decision.rows.items():
        encoded = None if row is None else msgspec.json.encode(row)
        if encoded is None:
            rows.pop(key.encode(), None)
        else:
            rows[key.encode()] = encoded
        index.apply(key.encode(), encoded)
    return decision


def _available(driver: str, shift: int, position: Position) -> DriverAvailable:
    return DriverAvailable(region=REGION, driver=driver, shift=shift, position=position)


def _somewhere(chance: random.Random) -> Position:
    return moved(CENTRE, chance.uniform(-SPREAD_M, SPREAD_M), chance.uniform(-SPREAD_M, SPREAD_M))
