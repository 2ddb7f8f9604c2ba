"""Plan of the faults of a chaos run: kind, target and moment of each follow from the seed.

A moment is counted in updates of orders, not in seconds: on a busy machine, a fault at a fixed time would hit workers
that have not begun. Durations are in seconds.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from verification.chaos.proxy import Mode

UPDATES = 9
"""Lower bound of the updates per order, on average over delivered and rejected orders."""
FIRST, LAST = 0.03, 0.95
"""Part of the run that has faults. The beginning and the end have none and show that the system works."""
ORDERS_PER_FAULT = 40
"""Number of orders per fault. Each kind of fault occurs at least once."""
MIN_WORKERS, MAX_WORKERS = 2, 5
SESSION_S = 10.0
"""Session timeout: the group expels a worker without heartbeats after it."""
PAST_SESSION_S = (SESSION_S + 1.5, SESSION_S + 4)
BROKER, PAYMENT, POS, DRIVERS, PROVIDER = "broker", "payment", "pos", "drivers", "provider"
INSIDE = ("before_call", "after_call", "produced", "end_sent", "committed", "stored")
"""Places in the code path of a commit or a call, see `exactly_once/task/failpoints.py`."""


class Fault(NamedTuple):
    """One fault of a run."""

    moment: int
    """Number of updates after which the fault begins."""
    kind: str
    targets: tuple[str, ...]
    """Targets. A target has one fault at a time; the later fault waits."""
    lasts_s: float = 0.0
    detail: str = ""

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind} {', '.join(self.targets)}{detail}{lasts}"


def worker(number: int) -> str:
    """Return the name of the worker with this number."""
    return f"worker-{number}"


def number_of(name: str) -> int:
    """Return the number of a worker."""
    return int(name.removeprefix("worker-"))


def line(one: str, other: str) -> str:
    """Return the name of the line between two parties."""
    return f"{one}>{other}"


FRONT = line("parties", "workers")
"""Line from the parties outside to the workers."""
CITY = line("parties", BROKER)


class Scene(NamedTuple):
    """State that the choice of a fault depends on."""

    chance: Random
    workers: list[int]
    """Numbers of the workers present at this moment of the plan."""
    seconds: float
    """Factor of the durations that no protocol prescribes."""

    def one(self) -> str:
        """Choose a worker."""
        return worker(self.chance.choice(self.workers))

    def short(self, most_s: float = 6.0) -> float:
        """Choose a short duration, in seconds."""
        return round(self.chance.uniform(0.0, most_s) * self.seconds, 1)

    def past_session(self) -> float:
        """Choose a duration in seconds after which the group has expelled a worker."""
        return round(self.chance.uniform(*PAST_SESSION_S), 1)


Choice = Callable[[Scene, int], Fault]


def _kill(scene: Scene, moment: int) -> Fault:
    return Fault(moment, "kill", (scene.one(),), scene.short())


def _kill_several(scene: Scene, moment: int) -> Fault:
    count = scene.chance.randint(2, len(scene.workers))
    targets = sorted(scene.chance.sample(scene.workers, count))
    return Fault(moment, "kill", tuple(map(worker, targets)), scene.short())


def _kill_all(scene: Scene, moment: int) -> Fault:
    return Fault(moment, "kill", tuple(map(worker, sorted(scene.workers))), 2 + scene.short(8))


def _kill_party(party: str) -> Choice:
    return lambda scene, moment: Fault(moment, "kill", (party,), scene.short())


def _freeze(scene: Scene, moment: int) -> Fault:
    return Fault(moment, "freeze", (scene.one(),), scene.past_session())


def _freeze_inside(place: str) -> Choice:
    return lambda scene, moment: Fault(
        moment, "freeze inside", (scene.one(),), scene.past_session(), f"{place}:stop:{scene.chance.randint(5, 25)}"
    )


def _kill_inside(scene: Scene, moment: int) -> Fault:
    place = scene.chance.choice(INSIDE)
    return Fault(moment, "kill inside", (scene.one(),), 0.0, f"{place}:kill:{scene.chance.randint(5, 25)}")


def _kill_between(scene: Scene, moment: int) -> Fault:
    # the broker is a target too, so that it stays up: the Assign is read from it
    return Fault(moment, "kill between Assign and DriverAssigned", (scene.one(), BROKER), SESSION_S - 3)


def _restart_broker(scene: Scene, moment: int) -> Fault:
    return Fault(moment, "kill", (BROKER,), scene.short(4))


def _unreachable(scene: Scene, moment: int) -> Fault:
    lines = tuple(line(worker(number), BROKER) for number in range(1, MAX_WORKERS + 1))
    return Fault(moment, "line", (*lines, CITY), round(60 * scene.seconds, 1), Mode.CUT.name)


def _line_to_broker(mode: Mode) -> Choice:
    def choose(scene: Scene, moment: int) -> Fault:
        lasts_s = {Mode.DELAY: 4 + scene.short(8), Mode.CUT: 0.2 + scene.short(4)}.get(mode, scene.past_session())
        return Fault(moment, "line", (line(scene.one(), BROKER),), lasts_s, mode.name)

    return choose


def _line_to_party(scene: Scene, moment: int) -> Fault:
    who = scene.chance.choice((line("workers", PAYMENT), line("workers", POS), FRONT))
    return Fault(moment, "line", (who,), 2 + scene.short(10), scene.chance.choice(list(Mode)[1:]).name)


def _blips(scene: Scene, moment: int) -> Fault:
    who = scene.chance.choice((line(scene.one(), BROKER), line("workers", PAYMENT), line("workers", POS), FRONT))
    return Fault(moment, "cut some connections", (who,), 0.0, f"{scene.chance.uniform(0.2, 1):.1f}")


def _wipe(what: str) -> Choice:
    return lambda scene, moment: Fault(moment, "wipe", (scene.one(),), scene.short(), what)


def _add(scene: Scene, moment: int) -> Fault:
    number = next(number for number in range(1, MAX_WORKERS + 2) if number not in scene.workers)
    if number > MAX_WORKERS:
        return _remove(scene, moment)
    scene.workers.append(number)
    return Fault(moment, "add", (worker(number),))


def _remove(scene: Scene, moment: int) -> Fault:
    if len(scene.workers) <= MIN_WORKERS:
        return _add(scene, moment)
    number = scene.chance.choice(scene.workers)
    scene.workers.remove(number)
    return Fault(moment, "remove", (worker(number),))


def _clock(scene: Scene, moment: int) -> Fault:
    offset_s = scene.chance.choice((-1, 1)) * scene.chance.uniform(60, 7200)
    return Fault(moment, "clock", (scene.one(),), 2 + scene.short(8), f"{offset_s:+.0f}")


def _start_with_clock(scene: Scene, moment: int) -> Fault:
    offset_s = scene.chance.choice((-1, 1)) * scene.chance.uniform(60, 7200)
    return Fault(moment, "start with a wrong clock", (scene.one(),), 8 + scene.short(), f"{offset_s:+.0f}")


def _poison(scene: Scene, moment: int) -> Fault:
    return Fault(moment, "poison", ("topics",), 0.0, str(scene.chance.randrange(10**6)))


KINDS: dict[str, Choice] = {
    "kill a worker": _kill,
    "kill several workers": _kill_several,
    "kill all workers": _kill_all,
    "kill the payment provider": _kill_party(PAYMENT),
    "kill the points of sale": _kill_party(POS),
    "kill the drivers' apps": _kill_party(DRIVERS),
    "kill the ordering provider": _kill_party(PROVIDER),
    "freeze a worker": _freeze,
    **{f"freeze a worker at {place}": _freeze_inside(place) for place in INSIDE},
    "kill a worker inside": _kill_inside,
    "kill a worker between Assign and DriverAssigned": _kill_between,
    "kill the broker": _restart_broker,
    "broker unreachable": _unreachable,
    **{f"line to the broker {mode.value}": _line_to_broker(mode) for mode in list(Mode)[1:]},
    "line to a party": _line_to_party,
    "cut connections": _blips,
    "wipe the tables": _wipe("tables"),
    "wipe everything": _wipe("everything"),
    "add a worker": _add,
    "remove a worker": _remove,
    "clock jumps": _clock,
    "start with a wrong clock": _start_with_clock,
    "poison": _poison,
}
"""Kinds of faults, each with the function that chooses one."""
RARE = ("broker unreachable", "kill all workers")
"""Kinds that occur once only, because they stop everything."""


def plan(
    seed: int, orders: int, workers: int, kinds: Sequence[str] = tuple(KINDS), seconds: float = 1.0
) -> list[Fault]:
    """Return the faults of a run that begins with ``workers`` workers, in order.

    ``seconds``: factor of the durations that no protocol prescribes, below 1 for a short run.
    """
    chance = Random(f"chaos/{seed}")
    chosen = list(kinds)
    often = [kind for kind in kinds if kind not in RARE]
    chosen += [chance.choice(often) for _ in range(orders // ORDERS_PER_FAULT - len(chosen))]
    chance.shuffle(chosen)
    updates = UPDATES * orders
    moments = sorted(chance.sample(range(int(FIRST * updates), int(LAST * updates)), len(chosen)))
    scene = Scene(chance, list(range(1, workers + 1)), seconds)
    return [KINDS[kind](scene, moment) for kind, moment in zip(chosen, moments, strict=True)]
