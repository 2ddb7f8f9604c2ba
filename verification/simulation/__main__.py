"""Simulated worlds from the command line: explore for a while, or replay one.

python -m verification.simulation --minutes 10
python -m verification.simulation --seed 17 --log
"""

import argparse
import contextlib
import multiprocessing
import secrets
import sys
from collections.abc import Sequence

from verification.planted.catalogue import plant
from verification.simulation.explore import Explored, explain, explore_and_explain
from verification.simulation.plan import Fault, Plan, draw
from verification.simulation.world import run

PROCESSES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if a world was not sound."""
    options = _parser().parse_args(arguments)
    planted = plant(options.planted) if options.planted else contextlib.nullcontext()
    with planted:
        return _explore(options) if options.seed is None else _replay(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m verification.simulation", description="Run simulated worlds.")
    parser.add_argument("--minutes", type=float, default=1.0, help="duration of the exploration (default: %(default)g)")
    parser.add_argument("--base", type=int, help="first seed of the exploration (default: random)")
    parser.add_argument("--seed", type=int, help="replay the world of this seed")
    parser.add_argument("--orders", type=int, help="number of orders of the replay (default: the seed's)")
    parser.add_argument("--workers", type=int, help="number of workers of the replay (default: the seed's)")
    parser.add_argument("--drivers", type=int, help="number of drivers of the replay (default: the seed's)")
    parser.add_argument("--faults", help="faults of the replay, as they are printed; '' for none (default: the seed's)")
    parser.add_argument("--log", action="store_true", help="print the events of the replay")
    parser.add_argument("--planted", help="plant this bug of verification/planted")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    plan = draw(options.seed)
    sizes = {name: getattr(options, name) for name in ("orders", "workers", "drivers") if getattr(options, name)}
    if options.faults is not None:
        try:
            faults = tuple(Fault.read(text.strip()) for text in options.faults.split(",") if text.strip())
        except ValueError as wrong:
            raise SystemExit(str(wrong)) from None
        plan = plan._replace(faults=faults)
    return plan._replace(**sizes)


def _replay(options: argparse.Namespace) -> int:
    plan = _plan(options)
    result = run(plan, keep_log=options.log)
    for line in result.log:
        print(line)
    print(f"{result.steps} steps, {result.seconds:.0f} s of the world, trace {result.trace}")
    if not result.wrong:
        print("sound")
        return 0
    print(explain(result) if options.faults is None else "\n".join(result.wrong))
    return 1


def _explore(options: argparse.Namespace) -> int:
    base = secrets.randbelow(10**9) if options.base is None else options.base
    print(f"{options.minutes:g} minutes, seeds from {base}", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        jobs = [(base + number, options.minutes * 60, PROCESSES, options.planted) for number in range(PROCESSES)]
        found = pool.starmap(explore_and_explain, jobs)
    worlds, seconds = sum(each.worlds for each, _ in found), max(each.seconds for each, _ in found)
    print(Explored(worlds, seconds, None))
    explained = [text for _, text in found if text]
    print("\n".join(explained) if explained else "all sound")
    return 1 if explained else 0


if __name__ == "__main__":
    sys.exit(main())
