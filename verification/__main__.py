"""`make verify`: every long hunt for broken promises, one after the other, until the first failure.

python -m verification [--kills 100] [--orders 2000] [--minutes 10] [--seed 1] [--only NAME ...]
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence


def hunts(kills: int, orders: int, minutes: float, seed: int) -> Mapping[str, Sequence[str]]:
    """Return the command line of each hunt, by name, in the order they run: the cheapest first."""
    return {
        "image": ("verification.image",),
        "fuzz": ("verification.fuzz", "100", f"{seed}"),
        "kills": ("verification.kills.engine", f"{kills}", f"{seed}"),
        "flow-kills": ("verification.kills.flow", f"{kills}", "100", f"{seed}", "1"),
        "planted": ("verification.planted",),
        "simulate": ("verification.simulation", "--minutes", f"{minutes:g}"),
        "chaos": ("verification.chaos", f"{seed}", f"{orders}"),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the hunts; return 0, or 1 after the first failure."""
    parser = argparse.ArgumentParser(prog="python -m verification", description="Run every long hunt, one by one.")
    parser.add_argument("--kills", type=int, default=100, help="kills of a worker (default: %(default)s)")
    parser.add_argument("--orders", type=int, default=2000, help="orders of the chaos run (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of simulation (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="seed of kills and chaos (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=hunts(1, 1, 1, 1), metavar="NAME", help="run only these")
    chosen = parser.parse_args(arguments)
    commands = hunts(chosen.kills, chosen.orders, chosen.minutes, chosen.seed)
    for name in chosen.only or commands:
        print(f"{name}: python -m {' '.join(commands[name])}", flush=True)
        began = time.monotonic()
        status = subprocess.run([sys.executable, "-m", *commands[name]], check=False).returncode
        minutes, seconds = divmod(round(time.monotonic() - began), 60)
        print(f"{name}: {'failed' if status else 'passed'} after {minutes} min {seconds} s", flush=True)
        if status:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
