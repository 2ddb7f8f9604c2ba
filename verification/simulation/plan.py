"""Plan of a world: its size and a list of faults, drawn from a seed. A plan can be printed, replayed and shrunk.

A fault applies to the n-th passage of a place. ``end#7=unanswered`` loses the answer to the seventh EndTxn.
``worker-1#1204=kill:3`` kills that worker before its 1204th step and starts it again after 3 s. The number of a
``compaction`` or ``retirement`` is a time in seconds; that of an ``order`` or ``arrival`` is the order's or worker's.
"""

from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import NamedTuple

PASSAGES = {
    "produce": 45,
    "end": 30,
    "init": 6,
    "restore": 16,
    "fetch": 26,
    "join": 4,
    "send": 13,
    "metadata": 20,
    "leave": 1,
}
"""Place -> approximate number of its passages in a small world."""
PARTY_FAULTS = {
    "charge": (
        "500",
        "cut",
        "silent",
        "500-after",
        "cut-after",
        "silent-after",
        "slow",
        "callback",
        "doubled-callback",
        "both",
        "early",
        "forged",
        "decline",
    ),
    "refund": ("500", "cut-after", "silent-after", "callback", "early", "doubled-callback"),
    "prepare": (
        "500",
        "cut",
        "silent",
        "500-after",
        "cut-after",
        "silent-after",
        "early",
        "callback",
        "refuse",
        "callback-refuse",
    ),
    "callback": ("doubled", "late", "lost"),
    "delivery": ("silent",),
    "told": ("doubled",),
}
ORDER_FAULTS = ("doubled", "kafka", "misplaced", "later", "malformed")
LOSSES = ("lost", "lost-silent", "unanswered", "unanswered-silent")
STEPS = 700
"""Approximate number of steps of a worker in a small world."""


class Fault(NamedTuple):
    """Fault ``what``, which applies to the ``nth`` passage of ``place``."""

    place: str
    nth: int
    what: str

    def __str__(self) -> str:
        return f"{self.place}#{self.nth}={self.what}"

    @classmethod
    def read(cls, text: str) -> "Fault":
        """Parse a printed fault; raise ``ValueError`` if the text is not one."""
        place, _, rest = text.partition("#")
        nth, _, what = rest.partition("=")
        if not what or not nth.isdecimal():
            raise ValueError(f"{text!r} is no fault: write place#number=what, as the simulation prints them")
        return cls(place, int(nth), what)


class Plan(NamedTuple):
    """Size and faults of a world. Everything else follows from ``seed``."""

    seed: int
    orders: int
    workers: int
    partitions: int
    drivers: int
    faults: tuple[Fault, ...]

    @property
    def command(self) -> str:
        """Command line that replays the plan."""
        faults = ",".join(map(str, self.faults))
        size = f"--orders {self.orders} --workers {self.workers} --drivers {self.drivers}"
        return f"python -m verification.simulation --seed {self.seed} {size} --faults '{faults}'"


class Faults:
    """Faults of a running world, with a count of the passages of each place."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = {(fault.place, fault.nth): fault.what for fault in faults}
        self.passages: Counter[str] = Counter()

    def fault_at(self, place: str) -> str:
        """Count a passage of a place and return its fault, or an empty string."""
        self.passages[place] += 1
        return self._faults.get((place, self.passages[place]), "")

    def by_number(self, place: str) -> dict[int, str]:
        """Return number -> fault of a place."""
        return {nth: what for (each, nth), what in self._faults.items() if each == place}


def draw(seed: int) -> Plan:
    """Draw the plan of a seed."""
    chance = Random(f"plan/{seed}")
    orders, workers = chance.randint(1, 3), chance.randint(1, 3)
    faults: set[Fault] = set()
    for _ in range(chance.choice((0, 1, 2, 3, 5))):
        faults.add(_draw_worker_fault(chance, workers))
    for _ in range(chance.choice((0, 0, 1, 2, 4))):
        faults.add(_draw_network_fault(chance))
    for _ in range(chance.randint(0, 2 * orders)):
        place = chance.choice(list(PARTY_FAULTS))
        faults.add(Fault(place, chance.randint(1, orders + 1), chance.choice(PARTY_FAULTS[place])))
    for number in range(orders):
        if chance.random() < 0.4:
            faults.add(Fault("order", number, chance.choice(ORDER_FAULTS)))
    if chance.random() < 0.3:
        faults.add(Fault("arrival", workers + 1, f"start:{chance.randint(1, 100)}"))
    if chance.random() < 0.3:
        faults.add(Fault("compaction", chance.randint(1, 100), "compact"))
    if chance.random() < 0.2:
        faults.add(Fault("retirement", chance.randint(30, 300), "retire"))
    plan = Plan(seed, orders, workers, chance.randint(1, 4), chance.randint(1, 3), tuple(sorted(faults)))
    # A worker that dies between fencing and marking loses the outcome of the transaction: then the task is held.
    if chance.random() < 0.3 and not any(fault.place.startswith("worker") for fault in faults):
        lost = Fault("marking", chance.randint(1, PASSAGES["end"]), chance.choice(("lost", "answered")))
        again = [Fault("marker", 1, chance.choice(LOSSES))] if chance.random() < 0.3 else []
        plan = plan._replace(faults=tuple(sorted((*faults, lost, *again))))
    return plan


def _draw_worker_fault(chance: Random, workers: int) -> Fault:
    kind = chance.choice(("kill", "kill", "kill", "wipe", "behind", "freeze", "freeze", "cut", "stop", "leave"))
    seconds = chance.choice((chance.uniform(0, 3), chance.uniform(3, 9), chance.uniform(9, 40)))
    what = f"{kind}:{seconds:.1f}"
    if kind == "behind":
        what += f":{chance.randint(1, 8)}"
    step = chance.randint(1, STEPS) if chance.random() < 0.8 else chance.randint(1, 300)
    return Fault(f"worker-{chance.randint(1, workers)}", step, what)


def _draw_network_fault(chance: Random) -> Fault:
    place = chance.choice((*PASSAGES, "produce", "end", "end"))
    what = chance.choice(LOSSES)
    if place in ("produce", "end", "init", "send") and chance.random() < 0.4:
        what = f"{chance.choice(('late', 'late-silent'))}:{chance.choice((0.005, 0.1, 2.0, 15.0))}"
    return Fault(place, chance.randint(1, PASSAGES[place]), what)
