"""What can be wrong with a party outside: the one vocabulary of faults, how they are switched on, whom they strike.

    python -m simulators.payment --faults slow,500:0.2     # always slow, and a server error for one request in five
    python -m simulators.pos --faults silent@ballard-slice # one of the restaurants
    curl -X POST localhost:5050/faults -d '{"silent": 1}'  # while it runs: payment and pos; DELETE switches all off
    python -m simulators.faults                            # which party knows which fault
    python -m simulators.faults payment:slow,pos:500:0.2   # what `make demo FAULTS=` reads: JSON, by party

Whom a fault strikes is decided by the seed, the key of what is asked and how often that was asked before: a request
that is sent again is drawn anew, so that a fault with a rate below 1 lets everybody through in the end.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from simulators.chance import falls_under
from simulators.city import KITCHENS
from simulators.command import Pace

SLOW_S = 4.0
"""Real seconds, whatever the speed: below the 8 s after which the worker takes silence for silence."""
LATE_S, LATE_LEAST_S = 1200.0, 3.0
"""How late a late callback is, in simulated seconds, and at least in real ones: beyond the worker's longest wait for
one, so that a person is asked to look."""
AWAY_S, AWAY_LEAST_S = 1800.0, 3.0
"""How long a silent driver stands still, measured the same."""


class Fault(NamedTuple):
    """Something that can be wrong, and with whom."""

    kind: str
    parties: tuple[str, ...]
    meaning: str


_CALLED = ("payment", "pos")
AT = "@"
"""Between a fault and the restaurant that has it, where not all have."""

FAULTS = (
    Fault("decline", ("payment",), "charges are declined"),
    Fault("refuse", ("pos",), "tickets are rejected"),
    Fault("500", _CALLED, "a request is answered 500, nothing was done"),
    Fault("500-after", _CALLED, "a request is answered 500, though it was done"),
    Fault("slow", _CALLED, f"a request is answered after {SLOW_S:g} s"),
    Fault("silent", _CALLED, "a request is taken and never answered, nothing was done"),
    Fault("cut", _CALLED, "the connection is cut, nothing was done"),
    Fault("cut-after", _CALLED, "the connection is cut, though the request was done"),
    Fault("lost", _CALLED, "a callback is made when the fault is switched off, or the party started without it"),
    Fault("late", _CALLED, f"a callback is made {LATE_S / 60:g} simulated minutes late"),
    Fault("doubled", _CALLED, "a callback is made twice at once"),
    Fault("silent", ("drivers",), f"a driver stands still and says nothing for {AWAY_S / 60:g} simulated minutes"),
    Fault("gone", ("drivers",), "a driver with a delivery says nothing more; started again without this, they go on"),
    Fault("doubled", ("drivers",), "what a driver tells is told twice at once"),
    Fault("doubled", ("provider",), "an order is placed twice at once"),
    Fault("malformed", ("provider",), "an order that cannot be used is sent before the real one"),
)
"""Every fault there is."""
PARTIES = ("payment", "pos", "drivers", "provider")
BEFORE = ("500", "silent", "cut")
"""Instead of doing what a request asks for."""
AFTER = ("500-after", "cut-after", "slow")
"""Instead of answering at once that it was done."""
HELD_BACK = ("lost", "late")
"""Instead of calling back in time."""
CALLBACKS = (*HELD_BACK, "doubled")


class WrongFault(argparse.ArgumentTypeError):
    """A fault that there is not, or a rate that is none; the message says what there is."""


def known_to(party: str) -> list[Fault]:
    """The faults of a party."""
    return [fault for fault in FAULTS if party in fault.parties]


def checked(party: str, kind: str, rate: object) -> float:
    """The rate, if the party knows such a fault, of all its restaurants or of one; else `WrongFault`."""
    kinds = [fault.kind for fault in known_to(party)]
    fault, at, restaurant = kind.partition(AT)
    if fault not in kinds:
        raise WrongFault(f"{fault!r} is no fault of {party}; there are {', '.join(kinds)}")
    if at and party != "pos":
        raise WrongFault(f"{kind!r} cannot be: only faults of pos may be those of one restaurant")
    if at and restaurant not in KITCHENS:
        raise WrongFault(f"{restaurant!r} is no restaurant of the city; there are {', '.join(KITCHENS)}")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
        raise WrongFault(f"the rate of {kind} is {rate}, and must be a number above 0 and up to 1")
    return float(rate)


def read(party: str, text: str) -> dict[str, float]:
    """Kind -> rate of `KIND[@RESTAURANT][:RATE][,...]`, as the command line gives it; `WrongFault` where it is none."""
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        kind, colon, rate = part.partition(":")
        found[kind] = checked(party, kind, _number(rate) if colon else 1)
    return found


def read_all(text: str) -> dict[str, dict[str, float]]:
    """Party -> kind -> rate of `PARTY:KIND[@RESTAURANT][:RATE][,...]`; `WrongFault` where it cannot be read."""
    found: dict[str, dict[str, float]] = {}
    for part in filter(None, text.split(",")):
        party, _, fault = part.partition(":")
        if party not in PARTIES:
            raise WrongFault(f"{part!r} does not begin with who has the fault; there are {', '.join(PARTIES)}")
        if not fault:
            kinds = ", ".join(known.kind for known in known_to(party))
            raise WrongFault(f"{part!r} does not say which fault {party} has; there are {kinds}")
        found.setdefault(party, {}).update(read(party, fault))
    return found


class Faults:
    """The faults of one party that are switched on."""

    def __init__(self, party: str, seed: str, rates: Mapping[str, float]) -> None:
        """`rates`: of the kinds that are on from the start."""
        self._party, self._seed = party, seed
        self.rates = dict(rates)
        self._asked: Counter[str] = Counter()
        self._off: dict[str, asyncio.Event] = {}

    def switch_on(self, rates: Mapping[str, float]) -> None:
        """These too, from now on; `WrongFault` where one cannot be, and then none is."""
        self.rates |= {kind: checked(self._party, kind, rate) for kind, rate in rates.items()}

    def switch_off(self) -> None:
        """All of them."""
        self.rates.clear()
        for event in self._off.values():
            event.set()
        self._off.clear()

    def strikes(self, kind: str, key: str, restaurant: str = "") -> bool:
        """Whether this fault strikes what is done under this key, and by this restaurant, this time."""
        rate = self._rate(kind, restaurant)
        if rate is None:
            return False
        draw = f"{kind}/{key}"
        self._asked[draw] += 1
        return falls_under(rate, self._seed, f"fault/{draw}/{self._asked[draw]}")

    def one_of(self, kinds: Iterable[str], key: str, restaurant: str = "") -> str | None:
        """Which of these faults strikes, the first that does; None: none."""
        return next((kind for kind in kinds if self.strikes(kind, key, restaurant)), None)

    async def until_off(self, kind: str, restaurant: str = "") -> None:
        """Wait as long as this fault is switched on."""
        if self._rate(kind, restaurant) is not None:
            await self._off.setdefault(kind, asyncio.Event()).wait()

    async def hold_back(self, kind: str, pace: Pace, restaurant: str = "") -> None:
        """Wait as long as a callback is held back that is `lost` or `late`."""
        if kind == "lost":
            await self.until_off(kind, restaurant)
        else:
            await asyncio.sleep(max(pace.real(LATE_S), LATE_LEAST_S))

    def _rate(self, kind: str, restaurant: str) -> float | None:
        """A restaurant's own goes before that of all."""
        return self.rates.get(f"{kind}{AT}{restaurant}", self.rates.get(kind))


def fault_options(parser: argparse.ArgumentParser, party: str) -> None:
    """Add `--faults` to a party's command line, and to its help which there are."""
    parser.add_argument(
        "--faults",
        type=lambda text: read(party, text),
        default="",
        metavar="KIND[@RESTAURANT][:RATE][,KIND...]" if party == "pos" else "KIND[:RATE][,KIND...]",
        help="what is wrong with it, each always or at a rate up to 1; see below",
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
    """Say which faults there are, or what those given mean for each party; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m simulators.faults", description="Which faults there are, or, as JSON by party, which are given."
    )
    parser.add_argument("faults", nargs="?", metavar="PARTY:KIND[@RESTAURANT][:RATE][,...]")
    given = parser.parse_args().faults
    if given is None:
        print("\n".join(line for party in PARTIES for line in (party, *_table(party))))
        return 0
    try:
        print(json.dumps(read_all(given)))
    except WrongFault as wrong:
        print(wrong, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
