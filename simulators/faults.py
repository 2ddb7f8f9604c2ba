"""The faults of the outside parties: their names, how to switch them on, and the requests that they strike.

    python -m simulators.payment --faults slow,500:0.2     # always slow, and a server error for one request in five
    python -m simulators.pos --faults silent@ballard-slice # one of the restaurants
    curl localhost:5050/faults --json '{"silent": 1}'  # at runtime (payment, pos); DELETE switches all off
    python -m simulators.faults                            # list the faults of each party
    python -m simulators.faults payment:slow,pos:500:0.2   # the value of `make demo FAULTS=` as JSON, by party

The seed, the key of a request and the number of its earlier attempts decide whether a fault applies to it. Each attempt
is drawn separately, so with a rate below 1 every request succeeds in the end.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from simulators.city import KITCHENS
from simulators.cli import TimeScale
from simulators.seeding import is_drawn
from topics.text import plain_lines

SLOW_S = 4.0
"""Real seconds at every speed: below the 8 s after which the worker gives a call up as unanswered."""
LATE_S, MIN_LATE_S = 1200.0, 3.0
"""Delay of a late callback, in simulated seconds, and its minimum in real ones: longer than the worker's longest wait
for a callback, so that the order asks for attention."""
AWAY_S, MIN_AWAY_S = 1800.0, 3.0
"""Pause of a silent driver, in simulated seconds, and its minimum in real ones."""


class Fault(NamedTuple):
    """A fault, the parties that have it, and its effect."""

    kind: str
    parties: tuple[str, ...]
    meaning: str


_CALLED = ("payment", "pos")
AT = "@"
"""Separator of a fault and the one restaurant that has it."""

FAULTS = (
    Fault("decline", ("payment",), "charges are declined"),
    Fault("refuse", ("pos",), "tickets are rejected"),
    Fault("500", _CALLED, "a request is answered 500 and has no effect"),
    Fault("500-after", _CALLED, "a request takes effect and is answered 500"),
    Fault("slow", _CALLED, f"a request takes effect and is answered {SLOW_S:g} s late"),
    Fault("silent", _CALLED, "a request is never answered and has no effect"),
    Fault("cut", _CALLED, "the connection is cut and the request has no effect"),
    Fault("cut-after", _CALLED, "the request takes effect and the connection is cut"),
    Fault("lost", _CALLED, "a callback is held back until the fault is off, or the party restarts without it"),
    Fault("late", _CALLED, f"a callback comes {LATE_S / 60:g} simulated minutes late"),
    Fault("doubled", _CALLED, "a callback is sent twice at the same time"),
    Fault("silent", ("drivers",), f"a driver stops and sends nothing for {AWAY_S / 60:g} simulated minutes"),
    Fault("gone", ("drivers",), "a driver with a delivery stops until the drivers restart without this fault"),
    Fault("doubled", ("drivers",), "a driver's request is sent twice at the same time"),
    Fault("doubled", ("provider",), "an order is placed twice at the same time"),
    Fault("malformed", ("provider",), "an invalid order is sent before the valid one"),
)
"""Every fault."""
PARTIES = ("payment", "pos", "drivers", "provider")
BEFORE = ("500", "silent", "cut")
"""Faults that strike before a request takes effect."""
AFTER = ("500-after", "cut-after", "slow")
"""Faults that strike between the effect of a request and its answer."""
HELD_BACK = ("lost", "late")
"""Faults that delay a callback."""
CALLBACKS = (*HELD_BACK, "doubled")


class WrongFault(argparse.ArgumentTypeError):
    """An unknown fault, or an invalid rate. The message lists the valid ones."""


def known_to(party: str) -> list[Fault]:
    """Return the faults of a party."""
    return [fault for fault in FAULTS if party in fault.parties]


def checked(party: str, kind: str, rate: object) -> float:
    """Return the rate of a fault. Raises `WrongFault` unless the party, or the one restaurant named, has it."""
    kinds = [fault.kind for fault in known_to(party)]
    fault, at, restaurant = kind.partition(AT)
    if fault not in kinds:
        raise WrongFault(f"{fault!r} is no fault of {party}; its faults are {', '.join(kinds)}")
    if at and party != "pos":
        raise WrongFault(f"{kind!r} is not possible: only faults of pos can be limited to one restaurant")
    if at and restaurant not in KITCHENS:
        raise WrongFault(f"{restaurant!r} is no restaurant of the city; its restaurants are {', '.join(KITCHENS)}")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
        raise WrongFault(f"the rate of {kind} is {rate}, and must be a number above 0 and up to 1")
    return float(rate)


def read(party: str, text: str) -> dict[str, float]:
    """Parse `KIND[@RESTAURANT][:RATE][,...]` into kind -> rate. Raises `WrongFault` for any other text."""
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        kind, colon, rate = part.partition(":")
        found[kind] = checked(party, kind, _number(rate) if colon else 1)
    return found


def read_all(text: str) -> dict[str, dict[str, float]]:
    """Parse `PARTY:KIND[@RESTAURANT][:RATE][,...]` into party -> kind -> rate, or raise `WrongFault`."""
    found: dict[str, dict[str, float]] = {}
    for part in filter(None, text.split(",")):
        party, _, fault = part.partition(":")
        if party not in PARTIES:
            raise WrongFault(f"{part!r} does not begin with a party; the parties are {', '.join(PARTIES)}")
        if not fault:
            kinds = ", ".join(known.kind for known in known_to(party))
            raise WrongFault(f"{part!r} does not name a fault of {party}; its faults are {kinds}")
        found.setdefault(party, {}).update(read(party, fault))
    return found


class Faults:
    """The faults of one party that are switched on."""

    def __init__(self, party: str, seed: str, rates: Mapping[str, float]) -> None:
        """Switch on the faults of ``rates``."""
        self._party = party
        self._seed = seed
        self.rates = dict(rates)
        self._asked: Counter[str] = Counter()
        self._off: dict[str, asyncio.Event] = {}

    def switch_on(self, rates: Mapping[str, float]) -> None:
        """Switch on more faults. Raises `WrongFault` if one is invalid, and then switches on none."""
        self.rates |= {kind: checked(self._party, kind, rate) for kind, rate in rates.items()}

    def switch_off(self) -> None:
        """Switch off all faults."""
        self.rates.clear()
        for event in self._off.values():
            event.set()
        self._off.clear()

    def applies(self, kind: str, key: str, restaurant: str = "") -> bool:
        """Return whether a fault applies to this attempt under a key, at a restaurant."""
        rate = self._rate(kind, restaurant)
        if rate is None:
            return False
        draw = f"{kind}/{key}"
        self._asked[draw] += 1
        return is_drawn(rate, self._seed, f"fault/{draw}/{self._asked[draw]}")

    def one_of(self, kinds: Iterable[str], key: str, restaurant: str = "") -> str | None:
        """Return the first of these faults that applies; None if none does."""
        return next((kind for kind in kinds if self.applies(kind, key, restaurant)), None)

    async def until_off(self, kind: str, restaurant: str = "") -> None:
        """Wait until a fault is switched off."""
        if self._rate(kind, restaurant) is not None:
            await self._off.setdefault(kind, asyncio.Event()).wait()

    async def hold_back(self, kind: str, time_scale: TimeScale, restaurant: str = "") -> None:
        """Wait for the delay of a callback that is `lost` or `late`."""
        if kind == "lost":
            await self.until_off(kind, restaurant)
        else:
            await asyncio.sleep(max(time_scale.real(LATE_S), MIN_LATE_S))

    def _rate(self, kind: str, restaurant: str) -> float | None:
        """Return the rate of a fault: the restaurant's, otherwise that of all restaurants."""
        return self.rates.get(f"{kind}{AT}{restaurant}", self.rates.get(kind))


def fault_options(parser: argparse.ArgumentParser, party: str) -> None:
    """Add `--faults` to a party's command line, and the list of faults to its help."""
    parser.add_argument(
        "--faults",
        type=lambda text: read(party, text),
        default="",
        metavar="KIND[@RESTAURANT][:RATE][,KIND...]" if party == "pos" else "KIND[:RATE][,KIND...]",
        help="faults to switch on, each always or at a rate up to 1; listed below",
    )
    parser.epilog = "\n".join(["faults:", *_table(party)])


def _table(party: str) -> list[str]:
    faults = known_to(party)
    widest = max(len(fault.kind) for fault in faults)
    return [f"  {fault.kind:{widest}}  {fault.meaning}" for fault in faults]


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def main() -> int:
    """List the faults, or print the given ones as JSON by party; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m simulators.faults",
        description="List the faults of each party, or print the given ones as JSON by party.",
    )
    parser.add_argument("faults", nargs="?", metavar="PARTY:KIND[@RESTAURANT][:RATE][,...]")
    given = parser.parse_args().faults
    if given is None:
        print("\n".join(line for party in PARTIES for line in (party, *_table(party))))
        return 0
    try:
        print(json.dumps(read_all(given)))
    except WrongFault as wrong:
        print(plain_lines(str(wrong)), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
