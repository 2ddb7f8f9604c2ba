"""Simulated worlds from the command line: explore for a while, or replay one.

python -m tests.simulation --minutes 10
python -m tests.simulation --seed 17 --log
"""

import argparse
import contextlib
import multiprocessing
import secrets
import sys
from collections.abc import Sequence

from tests.planted.catalogue import plant
from tests.simulation.explore import Explored, explain, explore_and_explain
from tests.simulation.plan import Fault, Plan, draw
from tests.simulation.world import run

PROCESSES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a world was not sound."""
    asked = _parser().parse_args(arguments)
    planted = plant(asked.planted) if asked.planted else contextlib.nullcontext()
    with planted:
        return _explore(asked) if asked.seed is None else _replay(asked)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.simulation", description="Simulated worlds.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to explore")
    parser.add_argument("--base", type=int, help="the first seed; drawn unless given")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--orders", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--drivers", type=int)
    parser.add_argument("--faults", help="instead of those of the seed, as they are printed; '' for none")
    parser.add_argument("--log", action="store_true", help="print what happens")
    parser.add_argument("--planted", help="with this bug of tests/planted")
    return parser


def _plan(asked: argparse.Namespace) -> Plan:
    plan = draw(asked.seed)
    sizes = {name: getattr(asked, name) for name in ("orders", "workers", "drivers") if getattr(asked, name)}
    if asked.faults is not None:
        try:
            faults = tuple(Fault.read(text.strip()) for text in asked.faults.split(",") if text.strip())
        except ValueError as wrong:
            raise SystemExit(str(wrong)) from None
        plan = plan._replace(faults=faults)
    return plan._replace(**sizes)


def _replay(asked: argparse.Namespace) -> int:
    plan = _plan(asked)
    result = run(plan, keep_log=asked.log)
    for line in result.log:
        print(line)
    print(f"{result.steps} steps, {result.seconds:.0f} s of the world, trace {result.trace}")
    if not result.wrong:
        print("sound")
        return 0
    print(explain(result) if asked.faults is None else "\n".join(result.wrong))
    return 1


def _explore(asked: argparse.Namespace) -> int:
    base = secrets.randbelow(10**9) if asked.base is None else asked.base
    print(f"from seed {base} on, {asked.minutes:g} minutes", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        jobs = [(base + number, asked.minutes * 60, PROCESSES, asked.planted) for number in range(PROCESSES)]
        found = pool.starmap(explore_and_explain, jobs)
    worlds, seconds = sum(each.worlds for each, _ in found), max(each.seconds for each, _ in found)
    print(Explored(worlds, seconds, None))
    explained = [text for _, text in found if text]
    print("\n".join(explained) if explained else "all sound")
    return 1 if explained else 0


if __name__ == "__main__":
    sys.exit(main())
